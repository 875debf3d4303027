"""The API over TLS: real certificates, connections and refusals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from kubelite.api import audit
from kubelite.api.app import create_app
from kubelite.api.secure import access
from kubelite.api.secure.connection import Secured
from kubelite.api.secure.port import ApiPort
from kubelite.api.secure.users import MASTERS, READERS
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json
from kubelite.settings import Settings
from runtime.errors import RuntimeFault
from tests.unit.api.fake_node import FakeNode, pod_doc

DAY = 86400.0


class Site:
    """A port, and the logins of its clients."""

    def __init__(self, directory: Path, *, address: str = "127.0.0.1:0") -> None:
        self.node = FakeNode(directory)
        networks = "10.88.0.0/16,fd00:88::/64"
        self.settings = Settings(
            root=str(directory), api_address=address, node_name="here", pod_cidr=networks
        )
        self.log = audit.AuditLog(str(directory / "audit.log"), max_bytes=0, files=1)
        self.said: list[str] = []

        def audited(app: ASGIApp) -> ASGIApp:
            return audit.Audit(app, self.log)

        self.port = ApiPort(self.settings, create_app(self.node), self.node, audited, self.said.append)

    async def login(self, user: str, *groups: str) -> tuple[int, ssl.SSLContext]:
        made = await self.port.kubeconfig(user, list(groups), DAY)
        return int(made["server"].rpartition(":")[2]), context(made)

    def audits(self) -> list[Json]:
        return [json.loads(line) for line in Path(self.settings.root, "audit.log").read_text().splitlines()]


def context(made: Json, *, login: bool = True) -> ssl.SSLContext:
    found = ssl.create_default_context(cadata=made["authority"])
    if login:
        number = os.memfd_create("login")
        os.write(number, (made["certificate"] + made["key"]).encode())
        found.load_cert_chain(f"/proc/self/fd/{number}")
        os.close(number)
    return found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    found = Site(tmp_path)
    await found.node.store.create("Pod", pod_doc("web"))
    yield found
    await found.port.close()
    await found.node.store.close()


async def ask(
    port: int, client: ssl.SSLContext, path: str, *, method: str = "GET", head: str = "", body: str = ""
) -> tuple[int, Any]:
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        text = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\n{body}"
        writer.write(text.encode())
        answer = await reader.read()
        writer.close()
    first, _, rest = answer.partition(b"\r\n\r\n")
    with contextlib.suppress(ValueError):
        return int(first.split()[1]), json.loads(rest)
    return int(first.split()[1]), rest


async def test_an_administrator_reads_and_is_named_in_the_audit_log(site: Site) -> None:
    port, client = await site.login("jane", MASTERS)
    code, found = await ask(port, client, "/api/v1/pods")
    assert (code, [pod["metadata"]["name"] for pod in found["items"]]) == (200, ["web"])
    head = "Content-Type: application/json\r\nContent-Length: 2\r\n"
    await ask(port, client, "/api/v1/namespaces/default/pods", method="POST", head=head, body="{}")
    assert site.audits()[-1]["user"] == {"username": "jane", "groups": [MASTERS, "system:authenticated"]}


async def test_a_body_without_a_type_is_json_for_who_has_a_login(site: Site) -> None:
    """`kubectl create --raw` and the Python client send such. A page's request has an origin."""
    port, client = await site.login("jane", MASTERS)
    path, body = "/api/v1/namespaces/default/configmaps", '{"metadata": {"name": "a"}}'
    head = f"Content-Length: {len(body)}\r\n"
    page = f"{head}Origin: https://evil.example\r\n"
    assert (await ask(port, client, path, method="POST", head=page, body=body))[0] == 403
    assert (await ask(port, client, path, method="POST", head=head, body="x" * len(body)))[0] == 400
    code, found = await ask(port, client, path, method="POST", head=head, body=body)
    assert (code, found["kind"]) == (201, "ConfigMap")
    assert (await ask(port, client, f"{path}/a", method="PATCH", head=head, body=body))[0] == 415
    nobody = context(await site.port.kubeconfig("jane", [MASTERS], DAY), login=False)
    assert (await ask(port, nobody, path, method="POST", head=head, body=body))[0] == 401


async def test_a_reader_reads_all_but_secrets(site: Site) -> None:
    port, client = await site.login("otto", READERS)
    codes = {
        path: (await ask(port, client, path))[0]
        for path in ("/api/v1/pods", "/apis", "/api/v1/secrets", "/api/v1/namespaces/default/secrets/a")
    }
    assert list(codes.values()) == [200, 200, 403, 403]
    code, found = await ask(port, client, "/api/v1/namespaces/default/pods/web", method="DELETE")
    words = 'User "otto" cannot delete resource "pods" in API group "" in the namespace "default"'
    assert (code, found["message"]) == (403, f'pods "web" is forbidden: {words}')
    assert (await ask(port, client, "/api/v1/namespaces/default/pods/web/exec?command=id"))[0] == 403


async def test_a_user_without_a_group_may_do_nothing_but_what_is_public(site: Site) -> None:
    port, client = await site.login("eve")
    assert (await ask(port, client, "/version"))[0] == 200
    code, found = await ask(port, client, "/metrics")
    assert (code, found["message"]) == (403, 'forbidden: User "eve" cannot get path "/metrics"')
    assert (await ask(port, client, "/api/v1/pods"))[0] == 403


async def test_nobody_is_unauthorized_except_for_health_and_version(site: Site) -> None:
    made = await site.port.kubeconfig("jane", [MASTERS], DAY)
    port, client = int(made["server"].rpartition(":")[2]), context(made, login=False)
    paths = ("/healthz", "/livez", "/readyz", "/version", "/api", "/api/v1/pods", "/kubelite/v1/manifests")
    assert [(await ask(port, client, path))[0] for path in paths] == [200, 200, 200, 200, 401, 401, 401]
    said = (
        "Unauthorized: the request has neither a client certificate of this node nor a token; on the node, "
    )
    assert (await ask(port, client, "/api"))[1] == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": f"{said}`kubelite kubeconfig` prints a login", "reason": "Unauthorized", "details": {}, "code": 401,
    }  # fmt: skip
    _, found = await ask(port, client, "/api", head="Authorization: Bearer a.b.c\r\n")
    assert found["message"].startswith(
        "Unauthorized: the token is unknown or has expired; on the node, `kubelite create"
    )
    assert site.audits()[-1]["user"] == {"username": "system:anonymous", "groups": ["system:unauthenticated"]}


async def test_own_paths_web_pages_and_foreign_names_are_refused(site: Site) -> None:
    port, client = await site.login("jane", MASTERS)
    assert (await ask(port, client, "/kubelite/v1/manifests"))[0] == 404
    assert (await ask(port, client, "/api/v1/pods", head="Origin: https://evil.example\r\n"))[0] == 403
    assert (await ask(port, client, "/api/v1/pods", head="Host: evil.example\r\n"))[0] in (400, 403)


async def test_a_body_is_bounded_in_size_and_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    port, client = await site.login("jane", MASTERS)
    path, kind = "/api/v1/namespaces/default/pods/web", "Content-Type: application/merge-patch+json\r\n"
    long = f"{kind}Content-Length: {access.MOST + 1}\r\n"
    assert (await ask(port, client, path, method="PATCH", head=long))[0] == 413
    piece = "x" * access.MOST
    chunked = f"{kind}Transfer-Encoding: chunked\r\n"
    body = "".join(f"{len(part):x}\r\n{part}\r\n" for part in (piece, "yy")) + "0\r\n\r\n"
    assert (await ask(port, client, f"{path}/status", method="PATCH", head=chunked, body=body))[0] == 413
    monkeypatch.setattr(access, "PATIENCE", 0.2)
    late = f"{kind}Content-Length: 10\r\n"
    assert (await ask(port, client, f"{path}/status", method="PATCH", head=late, body="{"))[0] == 408


async def test_a_certificate_of_the_server_is_no_login(site: Site) -> None:
    made = await site.port.kubeconfig("jane", [MASTERS], DAY)
    port = int(made["server"].rpartition(":")[2])
    client = context(made, login=False)
    client.load_cert_chain(f"{site.settings.root}/pki/server.pem")
    with pytest.raises((OSError, IndexError)):
        await ask(port, client, "/version")


async def test_a_connection_ends_with_the_certificate_that_began_it(site: Site) -> None:
    made = await site.port.kubeconfig("jane", [MASTERS], 3)
    port, client = int(made["server"].rpartition(":")[2]), context(made)
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        codes: list[int] = []
        while not codes or codes[-1] == 200:
            writer.write(b"GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split()[1]))
            codes.append(int(head.split()[1]))
            await asyncio.sleep(0.2)
        writer.close()
    assert codes[0] == 200 and codes[-1] == 401


async def test_a_websocket_stays_when_other_connections_make_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, client = await site.login("jane", MASTERS)
    path = "/api/v1/namespaces/default/pods/web/exec?command=cat&stdin=true&stdout=true"
    handshake = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n"
    )
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{handshake}\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        monkeypatch.setattr(Secured, "most", 1)
        for _ in range(3):
            assert (await ask(port, client, "/version"))[0] == 200
        writer.write(b"\x82\x83\0\0\0\0\0hi")  # a masked binary message: channel 0, "hi"
        assert await reader.readexactly(5) == b"\x82\x03\x01hi"
        writer.close()


async def test_a_port_in_use_is_said_and_tried_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        site = Site(tmp_path, address=f"127.0.0.1:{other.getsockname()[1]}")
        await site.port.run()
        assert "Address already in use: free the port, or set api_address to another one" in site.said[0]
        with pytest.raises(RuntimeFault, match="Address already in use"):
            await site.login("jane", MASTERS)
    port, client = await site.login("jane", MASTERS)
    assert (await ask(port, client, "/version"))[0] == 200
    await site.port.close()
    await site.node.store.close()


async def test_without_an_address_there_is_no_port(tmp_path: Path) -> None:
    site = Site(tmp_path, address="none")
    with pytest.raises(ApiError, match="api_address is none"):
        await site.login("jane", MASTERS)
    assert not (tmp_path / "pki").exists()
    await site.node.store.close()


async def test_only_root_reads_the_keys_and_the_login_expires(site: Site) -> None:
    await site.login("jane", MASTERS)
    directory = Path(site.settings.root) / "pki"
    assert [directory.stat().st_mode & 0o777] == [0o700]
    assert {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()} == {
        "ca.crt": 0o600, "ca.key": 0o600, "server.pem": 0o600,
    }  # fmt: skip
    made = await site.port.kubeconfig("jane", [MASTERS], 2 * DAY)
    pem = directory / "client.pem"
    pem.write_text(made["certificate"])
    left = ssl.cert_time_to_seconds(decoded(pem)["notAfter"]) - time.time()
    assert DAY < left <= 2 * DAY


def decoded(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = ssl._ssl._test_decode_cert(str(path))  # type: ignore[attr-defined]
    return found
