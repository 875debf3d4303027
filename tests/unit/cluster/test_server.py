"""The node's server: whom it admits, and what it answers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError
from websockets.typing import Subprotocol

from kubelite.api.secure.certificates import ask
from kubelite.cluster.authorization import Asked, Authorization, asked
from kubelite.cluster.client import ClusterClient, context
from kubelite.cluster.decide.configuration import configz
from kubelite.cluster.membership import files
from kubelite.cluster.membership.discovery import Access
from kubelite.cluster.server import Reports, node_server
from kubelite.kube.json import Json
from kubelite.settings import Settings
from kubelite.streaming.spdy.frames import Data, SynReply, SynStream
from tests.cluster.fake_api import FakeApi
from tests.unit.api.fake_node import FakeNode, pod_doc
from tests.unit.streaming.client import Client, upgrade


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


class Usage:
    """Answers as the node's pages do."""

    names = ("", "agent", "cadvisor", "resource", "probes")

    async def render(self, name: str, *, openmetrics: bool, compressed: bool) -> bytes:
        page = f"# page {name}, {openmetrics=}\n".encode()
        return gzip.compress(page) if compressed else page

    async def summary(self) -> Json:
        usage = {"cpu": {"usageNanoCores": 7}, "memory": {"workingSetBytes": 9}, "startTime": "now"}
        more = {"network": {"name": "eth0"}, "volume": [{"name": "data"}]}
        container = {"name": "app", "rootfs": {"usedBytes": 1}, **usage}
        pod = {"podRef": {"name": "web"}, "containers": [container], **usage, **more}
        return {"node": {"nodeName": "here", "fs": {}, **usage}, "pods": [pod]}


@dataclass
class Site:
    api: FakeApi
    node: FakeNode
    port: int

    def context(self, login: Path | None = None) -> ssl.SSLContext:
        verify = ssl.create_default_context()
        verify.check_hostname, verify.verify_mode = False, ssl.CERT_NONE
        if login is not None:
            verify.load_cert_chain(login)
        return verify

    def client(self, login: Path | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"https://127.0.0.1:{self.port}", verify=self.context(login))

    @contextlib.contextmanager
    def upgraded(self, target: str, protocol: str, *, tunnel: bool = False) -> Iterator[Client]:
        login = self.api.authority.login("client.pem", "kube-apiserver-kubelet-client")
        with (
            socket.create_connection(("127.0.0.1", self.port), 10) as raw,
            self.context(login).wrap_socket(raw) as connection,
        ):
            yield upgrade(connection, target, protocol, tunnel=tunnel)


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
        reports = Reports(Usage, lambda: {"kubeletconfig": {"kind": "KubeletConfiguration"}})
        async with node_server(node, reports, Authorization(client, "here"), str(tmp_path), port):
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


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/metrics", "# page agent, openmetrics=False\n"),
        ("/metrics/cadvisor", "# page cadvisor, openmetrics=False\n"),
        ("/metrics/resource", "# page resource, openmetrics=False\n"),
        ("/metrics/probes", "# page probes, openmetrics=False\n"),
        ("/configz", '{"kubeletconfig":{"kind":"KubeletConfiguration"}}'),
        ("/healthz/syncloop", "ok"),
    ],
)
async def test_reports(site: Site, path: str, said: str) -> None:
    async with site.client(site.api.authority.login("client.pem", "prometheus")) as client:
        answer = await client.get(path)  # compressed, as httpx accepts it
        assert (answer.status_code, answer.text) == (200, said)


async def test_the_summary(site: Site) -> None:
    async with site.client(site.api.authority.login("client.pem", "metrics-server")) as client:
        assert (await client.get("/stats/summary")).json() == await Usage().summary()
        usage = {"cpu": {"usageNanoCores": 7}, "memory": {"workingSetBytes": 9}, "startTime": "now"}
        assert (await client.get("/stats/summary?only_cpu_and_memory=true")).json() == {
            "node": {"nodeName": "here", **usage},
            "pods": [{"podRef": {"name": "web"}, "containers": [{"name": "app", **usage}], **usage}],
        }


@pytest.mark.parametrize(
    ("subresource", "admitted"),
    [
        ("metrics", {"/metrics", "/metrics/resource"}),
        ("stats", {"/stats/summary"}),
        ("configz", {"/configz"}),
        ("healthz", {"/healthz", "/healthz/ping"}),
        ("proxy", {"/configz", "/healthz", "/healthz/ping", "/pods"}),
    ],
)
async def test_reports_are_for_those_who_may_read_them(
    site: Site, subresource: str, admitted: set[str]
) -> None:
    site.api.allowed = {subresource}
    paths = {"/metrics", "/metrics/resource", "/stats/summary", "/configz", "/healthz", "/healthz/ping"}
    async with site.client(site.api.authority.login("client.pem", "somebody")) as client:
        found = {path for path in paths | {"/pods"} if (await client.get(path)).status_code == 200}
    assert found == admitted


def test_the_configuration_in_kubelets_words() -> None:
    settings = Settings(node_name="here", max_pods=110, system_reserved="cpu=100m,memory=1Gi")
    found = configz(settings, port=10250, dns=("10.96.0.10",), domain="cluster.local")["kubeletconfig"]
    assert found["kind"] == "KubeletConfiguration"
    assert (found["maxPods"], found["port"], found["clusterDNS"]) == (110, 10250, ["10.96.0.10"])
    assert found["evictionHard"]["memory.available"] == "100Mi"
    assert found["systemReserved"] == {"cpu": "100m", "memory": "1Gi"}
    assert found["imageMinimumGCAge"] == "2m0s" and found["shutdownGracePeriod"] == "0s"
    assert "resolvConf" not in found and "kubeReserved" not in found
    nothing = Settings(node_name="here", eviction_hard="none")
    found = configz(nothing, port=10250, dns=(), domain="cluster.local")["kubeletconfig"]
    assert found["evictionHard"] == {} and "clusterDNS" not in found


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


COMMAND = "command=sh&command=-c&command=cat%3B+exit+3&input=1&output=1&error=1"


@pytest.mark.parametrize("path", ["/exec/default/web/app", "/exec/default/web/uid-default-web/app"])
async def test_a_command_in_a_container(site: Site, path: str) -> None:
    await site.node.store.create("Pod", pod_doc("web"))
    verify = site.context(site.api.authority.login("client.pem", "kube-apiserver-kubelet-client"))
    url = f"wss://127.0.0.1:{site.port}{path}?{COMMAND}"
    async with connect(url, ssl=verify, subprotocols=[Subprotocol("v5.channel.k8s.io")]) as ws:
        await ws.send(b"\x00hello")
        await ws.send(bytes([255, 0]))
        messages = [bytes(one) async for one in ws if isinstance(one, bytes)]
    assert b"".join(one[1:] for one in messages if one[0] == 1) == b"hello"
    assert json.loads(messages[-1][1:])["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        (
            "channel.k8s.io",
            [b"\x01hello\n", b"\x03command terminated with non-zero exit code: exit status 3"],
        ),
        (
            "base64.channel.k8s.io",
            ["1aGVsbG8K", "3Y29tbWFuZCB0ZXJtaW5hdGVkIHdpdGggbm9uLXplcm8gZXhpdCBjb2RlOiBleGl0IHN0YXR1cyAz"],
        ),
        (None, [b"\x01hello\n", b"\x03command terminated with non-zero exit code: exit status 3"]),
    ],
)
async def test_older_subprotocols(site: Site, protocol: str | None, said: list[bytes | str]) -> None:
    await site.node.store.create("Pod", pod_doc("web"))
    verify = site.context(site.api.authority.login("client.pem", "kube-apiserver-kubelet-client"))
    command = "command=sh&command=-c&command=read+line%3B+echo+%24line%3B+exit+3"
    url = f"wss://127.0.0.1:{site.port}/exec/default/web/app?{command}&input=1&output=1&error=1"
    async with connect(url, ssl=verify, subprotocols=[Subprotocol(protocol)] if protocol else None) as ws:
        await ws.send("0aGVsbG8K" if protocol == "base64.channel.k8s.io" else b"\x00hello\n")
        assert [one async for one in ws] == said


async def test_input_that_is_not_in_base64_ends_the_program(site: Site) -> None:
    await site.node.store.create("Pod", pod_doc("web"))
    verify = site.context(site.api.authority.login("client.pem", "kube-apiserver-kubelet-client"))
    url = f"wss://127.0.0.1:{site.port}/exec/default/web/app?command=sleep&command=60&input=1&output=1"
    async with connect(url, ssl=verify, subprotocols=[Subprotocol("base64.channel.k8s.io")]) as ws:
        await ws.send("0no base64!")
        with pytest.raises(ConnectionClosedError):
            await ws.recv()
    assert ws.close_code == 1007
    (session,) = site.node.sessions
    assert await asyncio.wait_for(session.wait(), 10) != 0


async def test_a_command_over_spdy(site: Site) -> None:
    await site.node.store.create("Pod", pod_doc("web"))

    def run() -> tuple[bytes, bytes]:
        with site.upgraded(f"/exec/default/web/app?{COMMAND}", "v4.channel.k8s.io") as client:
            numbers = {"error": 1, "stdin": 3, "stdout": 5, "stderr": 7}
            client.send(*(SynStream(number, {"streamtype": kind}) for kind, number in numbers.items()))
            assert [client.next() for _ in numbers] == [SynReply(one, {}) for one in numbers.values()]
            client.send(Data(3, b"through"), Data(3, b"", True))
            return client.data_of(5), client.data_of(1)

    said, outcome = await asyncio.to_thread(run)
    assert said == b"through"
    assert json.loads(outcome)["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


@pytest.mark.parametrize("tunnel", [False, True])
async def test_a_port_of_a_pod(site: Site, tunnel: bool) -> None:
    await site.node.store.create("Pod", pod_doc("web"))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    def forward(port: int) -> bytes:
        with site.upgraded("/portForward/default/web", "portforward.k8s.io", tunnel=tunnel) as client:
            headers = {"port": str(port), "requestid": "0"}
            client.send(SynStream(1, {"streamtype": "error", **headers}), Data(1, b"", True))
            client.send(SynStream(3, {"streamtype": "data", **headers}), Data(3, b"hello", True))
            assert [client.next(), client.next()] == [SynReply(1, {}), SynReply(3, {})]
            return client.data_of(3)

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await asyncio.to_thread(forward, port) == b"HELLO"


async def test_refusals_of_upgrades(site: Site) -> None:
    await site.node.store.create("Pod", pod_doc("web"))
    login = site.api.authority.login("client.pem", "somebody")
    async with site.client(login) as client:
        assert "needs an upgrade" in (await client.post("/portForward/default/web")).json()["message"]
        assert (await client.post("/portForward/default/no")).status_code == 404
        assert (await client.post("/portForward/default/web/another-uid")).status_code == 404
        assert "needs an upgrade" in (await client.post(f"/exec/default/web/app?{COMMAND}")).json()["message"]
