"""The node's server: whom it admits, and what it answers."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from kubelite.api.secure.certificates import ask
from kubelite.cluster.authorization import Asked, Authorization, asked
from kubelite.cluster.client import ClusterClient, context
from kubelite.cluster.membership import files
from kubelite.cluster.membership.discovery import Access
from kubelite.cluster.server import node_server
from tests.cluster.fake_api import FakeApi
from tests.unit.api.fake_node import FakeNode, pod_doc


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "/containerLogs/ns/pod/c", [Asked("get", "proxy")]),
        ("POST", "/exec/ns/pod/c", [Asked("create", "proxy")]),
        ("GET", "/pods", [Asked("get", "pods"), Asked("get", "proxy")]),
        ("GET", "/runningpods/", [Asked("get", "pods"), Asked("get", "proxy")]),
        ("GET", "/metrics/cadvisor", [Asked("get", "metrics")]),
        ("GET", "/stats/summary", [Asked("get", "stats")]),
        ("GET", "/logs/", [Asked("get", "log")]),
        ("GET", "/healthz", [Asked("get", "healthz"), Asked("get", "proxy")]),
        ("GET", "/configz", [Asked("get", "configz"), Asked("get", "proxy")]),
        ("BREW", "/", [Asked("", "proxy")]),
    ],
)
def test_what_a_request_asks_for(method: str, path: str, wanted: list[Asked]) -> None:
    assert list(asked(method, path)) == wanted


@dataclass
class Site:
    api: FakeApi
    node: FakeNode
    port: int

    def client(self, login: Path | None = None) -> httpx.AsyncClient:
        verify = ssl.create_default_context()
        verify.check_hostname, verify.verify_mode = False, ssl.CERT_NONE
        if login is not None:
            verify.load_cert_chain(login)
        return httpx.AsyncClient(base_url=f"https://127.0.0.1:{self.port}", verify=verify)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    (tmp_path / "api").mkdir()
    node = FakeNode(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    async with FakeApi(tmp_path / "api").serving() as api:
        client = ClusterClient(api.url, context(Access(api.url, api.authority.pem)))
        made = await ask(
            "kubelite.cluster.membership.keys", {"serving": {"node": "here", "addresses": ["127.0.0.1"]}}
        )
        files.write(str(tmp_path), "serving.pem", made["certificate"])
        files.write(str(tmp_path), "ca.crt", api.authority.pem)
        async with node_server(node, Authorization(client, "here"), str(tmp_path), port):
            yield Site(api, node, port)
        await client.close()


async def test_nobody_is_admitted_without_a_login(site: Site) -> None:
    async with site.client() as client:
        for path in ("/pods", "/healthz", "/exec/default/web/main", "/nothing"):
            assert (await client.get(path)).status_code == 401
        assert (await client.get("/pods", headers={"Authorization": "Bearer bad"})).status_code == 401
        assert (await client.get("/pods", headers={"Authorization": "Basic Z29vZA=="})).status_code == 401


async def test_the_cluster_decides_about_those_who_have_one(site: Site) -> None:
    login = site.api.authority.login("client.pem", "kube-apiserver-kubelet-client", "system:masters")
    async with site.client(login) as client:
        assert (await client.get("/healthz")).text == "ok"
        asked_before = len(site.api.requests)
        assert (await client.get("/healthz")).status_code == 200
        assert len(site.api.requests) == asked_before  # remembered
        site.api.allows = False
        answer = await client.get("/pods")
        assert answer.status_code == 403
        assert "user=kube-apiserver-kubelet-client, verb=get, resource=nodes, subresource=pods" in answer.text
    async with site.client() as client:
        site.api.allows = True
        assert (await client.get("/pods", headers={"Authorization": "Bearer good"})).status_code == 200


async def test_who_may_use_the_proxy_may_list_pods(site: Site) -> None:
    site.api.allowed = {"proxy"}
    async with site.client(site.api.authority.login("client.pem", "somebody")) as client:
        assert (await client.get("/pods")).status_code == 200
        site.api.allowed = {"pods"}
        assert (await client.get("/runningpods/")).status_code == 200
    async with site.client(site.api.authority.login("other.pem", "else")) as client:
        assert (await client.get("/healthz")).status_code == 403


async def test_nobody_is_admitted_while_the_cluster_does_not_answer(site: Site) -> None:
    login = site.api.authority.login("client.pem", "somebody")
    site.api.down = True
    async with site.client(login) as client:
        assert (await client.get("/pods")).status_code == 503


async def test_a_certificate_of_another_authority_is_no_login(site: Site, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    login = FakeApi(tmp_path / "other").authority.login("client.pem", "admin", "system:masters")
    async with site.client(login) as client:
        with pytest.raises((httpx.HTTPError, ssl.SSLError)):
            await client.get("/pods")


async def test_logs_of_a_container(site: Site) -> None:
    await site.node.store.create("Pod", pod_doc("web"))
    directory = Path(site.node.container_log_dir(pod_doc("web"), "app"))
    directory.mkdir(parents=True)
    (directory / "0.log").write_text("2026-01-01T00:00:00.000000000Z stdout F hello\n")
    login = site.api.authority.login("client.pem", "somebody")
    async with site.client(login) as client:
        answer = await client.get("/containerLogs/default/web/app?tailLines=1")
        assert (answer.status_code, answer.text) == (200, "hello\n")
        assert (await client.get("/containerLogs/default/web/other")).status_code == 400
        assert (await client.get("/containerLogs/default/no/app")).status_code == 404


async def test_a_command_in_a_container(site: Site) -> None:
    await site.node.store.create("Pod", pod_doc("web"))
    verify = ssl.create_default_context()
    verify.check_hostname, verify.verify_mode = False, ssl.CERT_NONE
    verify.load_cert_chain(site.api.authority.login("client.pem", "kube-apiserver-kubelet-client"))
    query = "command=sh&command=-c&command=cat%3B+exit+3&input=1&output=1&error=1"
    url = f"wss://127.0.0.1:{site.port}/exec/default/web/app?{query}"
    async with connect(url, ssl=verify, subprotocols=[Subprotocol("v5.channel.k8s.io")]) as ws:
        await ws.send(b"\x00hello")
        await ws.send(bytes([255, 0]))
        messages = [bytes(one) async for one in ws if isinstance(one, bytes)]
    assert b"".join(one[1:] for one in messages if one[0] == 1) == b"hello"
    assert json.loads(messages[-1][1:])["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
