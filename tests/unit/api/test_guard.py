"""Requests that a web page can make a browser send, on both transports: they are refused and change nothing."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from starlette.routing import Route

from kubelite.api.app import create_app
from kubelite.api.guard import own_name, refusal
from tests.unit.api.fake_node import FakeNode
from tests.unit.api.server import Served, served

__all__ = ["served"]

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: evil}\nspec: {containers: [{name: c, image: i}]}\n"
EXEC = "/api/v1/namespaces/default/pods/web/exec?command=id&stdout=true"
HANDSHAKE = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: v5.channel.k8s.io",
)  # fmt: skip
SAFELISTED = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "")


@pytest.fixture(params=["unix", "tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(served: Served, transport: str, line: str, *headers: str, body: str = "") -> tuple[int, str]:
    """Send the request as it is written; return the status and what follows the head."""
    if transport == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(served.socket)
    else:
        connection = socket.create_connection(("127.0.0.1", served.port))
    with connection:
        connection.settimeout(10)
        length = [f"Content-Length: {len(body)}"] if body else []
        head = [f"{line} HTTP/1.1", *headers, *length, "", ""]
        connection.sendall(("\r\n".join(head) + body).encode())
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            assert piece, "closed before the end of the head"
            data += piece
        first, _, rest = data.partition(b"\r\n\r\n")
        return int(first.split()[1]), rest.decode(errors="replace")


@pytest.mark.parametrize("content_type", SAFELISTED)
def test_a_form_cannot_apply_a_manifest(served: Served, transport: str, content_type: str) -> None:
    headers = ["Host: 127.0.0.1:8001", *([f"Content-Type: {content_type}"] if content_type else [])]
    status, answer = ask(served, transport, "POST /kubelite/v1/apply?file=evil.yaml", *headers, body=POD)
    assert status == 415, answer
    assert not any("evil" in name for _, _, names in os.walk(served.node.manifests_dir) for name in names)


def test_a_client_applies_yaml_and_json(served: Served, transport: str) -> None:
    for kind in ("application/yaml", "application/json; charset=utf-8"):
        headers = ("Host: 127.0.0.1:8001", f"Content-Type: {kind}")
        status, answer = ask(served, transport, "POST /kubelite/v1/apply?dryRun=true", *headers, body=POD)
        assert status == 200, answer


def test_an_archive_is_only_loaded(served: Served, transport: str) -> None:
    headers = ("Host: kubelite", "Content-Type: application/x-tar")
    assert ask(served, transport, "POST /kubelite/v1/apply", *headers, body=POD)[0] == 415
    assert ask(served, transport, "POST /kubelite/v1/images/load", *headers, body="1234567")[0] == 200


@pytest.mark.parametrize(
    "page",
    [
        "Origin: https://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ],
)
def test_a_page_of_another_origin_is_refused(served: Served, transport: str, page: str) -> None:
    host = "Host: 127.0.0.1:8001"
    assert ask(served, transport, "GET /api/v1/pods", host, page)[0] == 403
    json_body = ("Content-Type: application/json",)
    assert ask(served, transport, "POST /kubelite/v1/apply", host, page, *json_body, body=POD)[0] == 403
    status, answer = ask(served, transport, f"GET {EXEC}", host, page, *HANDSHAKE)
    assert status == 403
    if answer:
        assert json.loads(answer)["reason"] == "Forbidden"


def test_a_rebound_name_is_refused(served: Served, transport: str) -> None:
    """A page at a rebound name has the same origin and may send any content type."""
    page = ("Host: evil.example:8001", "Origin: http://evil.example:8001", "Sec-Fetch-Site: same-origin")
    assert ask(served, transport, "GET /api/v1/secrets", *page)[0] == 403
    assert ask(served, transport, f"GET {EXEC}", *page, *HANDSHAKE)[0] == 403


def test_a_program_opens_a_websocket(served: Served, transport: str) -> None:
    assert ask(served, transport, f"GET {EXEC}", "Host: 127.0.0.1:8001", *HANDSHAKE)[0] == 101


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True), ("127.0.0.1:8001", True), ("[::1]:8001", True), ("localhost:1", True),
        ("LOCALHOST.", True), ("node-1", True), ("node-1:80", True), ("kubelite", True),
        ("evil.example", False), ("node-1.evil.example", False), ("127.0.0.1.evil.example", False), ("", False),
        ("[::1", True), ("localhost@evil.example", False),
    ],
)  # fmt: skip
def test_own_names(host: str, own: bool) -> None:
    assert own_name(host, {"node-1", "kubelite"}) is own


def test_no_write_changes_anything_without_a_body(tmp_path: Path) -> None:
    """A write without a body needs no content type, so each route must reject a missing body itself."""
    from tests.unit.api.test_api import Http

    node = FakeNode(tmp_path)
    http = Http(node)
    for route in create_app(node).routes:
        if not isinstance(route, Route) or "POST" not in (route.methods or ()):
            continue
        path = route.path
        for name in route.param_convertors:
            path = path.replace(f"{{{name}:path}}", "x").replace(f"{{{name}}}", "x")
        assert http.request("POST", path).status_code >= 400, path
    http.runner.run(node.store.close())
    http.runner.close()


def test_refusal_does_not_ask_for_the_type_of_nothing() -> None:
    scope = {"type": "http", "method": "DELETE", "path": "/", "headers": [(b"host", b"kubelite")]}
    assert refusal(scope, frozenset({"kubelite"})) is None
    scope["headers"] = [(b"host", b"kubelite"), (b"transfer-encoding", b"chunked")]
    error = refusal(scope, frozenset({"kubelite"}))
    assert error is not None and error.code == 415
