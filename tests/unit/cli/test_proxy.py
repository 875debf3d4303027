"""`kubelite proxy`: access, the forwarded requests, and cleanup."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kubelite.cli.transport.proxy import Refused, admitted
from tests.unit.api.server import Served, served

__all__ = ["served"]

SECRET = "s" * 43
HOST = "Host: 127.0.0.1:8001\r\n"


class Running(NamedTuple):
    port: int
    secret: str
    kubeconfig: Path
    process: subprocess.Popen[str]

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(
            method, path, body, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.fixture
def proxy(served: Served, tmp_path: Path) -> Iterator[Running]:
    file = tmp_path / "kubeconfig"
    command = (sys.executable, "-m", "kubelite", "--socket", served.socket, "proxy", "-p", "0")
    with subprocess.Popen([*command, "--kubeconfig", file], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(r"Starting to serve on 127\.0\.0\.1:(\d+)\n", process.stdout.readline())
            assert found is not None
            assert process.stdout.readline() == f"kubectl --kubeconfig={file} get pods\n"
            server = json.loads(file.read_text())["clusters"][0]["cluster"]["server"]
            secret = server.removeprefix(f"http://127.0.0.1:{found[1]}/")
            yield Running(int(found[1]), secret, file, process)
        finally:
            process.kill()


def test_the_kubeconfig_has_access_and_is_removed_at_the_end(proxy: Running) -> None:
    assert stat.S_IMODE(proxy.kubeconfig.stat().st_mode) == 0o600
    status, pods = proxy.ask("GET", f"/{proxy.secret}/api/v1/pods")
    assert (status, [pod["metadata"]["name"] for pod in pods["items"]]) == (200, ["web"])
    assert proxy.ask("GET", "/version", Authorization=f"Bearer {proxy.secret}")[0] == 200
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(10) == 0
    assert not proxy.kubeconfig.exists()


@pytest.mark.parametrize("path", ["/api/v1/pods", "/", "/x/api/v1/pods", "//api/v1/pods"])
def test_other_clients_have_no_access(proxy: Running, path: str) -> None:
    status, answer = proxy.ask("GET", path)
    assert (status, answer["kind"], answer["reason"]) == (401, "Status", "Unauthorized")
    assert proxy.ask("GET", path, Authorization=f"Bearer {proxy.secret[:-1]}")[0] == 401


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Host": "evil.example:8001"}],
)
def test_web_pages_have_no_access_even_with_the_secret(proxy: Running, headers: dict[str, str]) -> None:
    assert proxy.ask("GET", f"/{proxy.secret}/api/v1/pods", **headers)[0] == 403


def test_a_form_has_no_access(proxy: Running) -> None:
    path = f"/{proxy.secret}/kubelite/v1/apply?dryRun=true"
    assert proxy.ask("POST", path, "kind: Pod", Content_Type="text/plain")[0] == 415
    assert proxy.ask("POST", path, "kind: Pod", Content_Type="application/yaml")[0] == 422


def test_a_second_request_on_a_connection_is_not_forwarded(proxy: Running) -> None:
    """A browser behind a shared connection, or a smuggled request: the daemon gets one request per connection."""
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.settimeout(10)
        first = f"GET /{proxy.secret}/version HTTP/1.1\r\n{HOST}\r\n"
        connection.sendall((first + f"GET /api/v1/pods HTTP/1.1\r\n{HOST}\r\n").encode())
        data = b""
        while piece := connection.recv(65536):
            data += piece
    assert data.count(b"HTTP/1.1 ") == 1
    assert b"PodList" not in data


def test_an_existing_file_is_not_overwritten(served: Served, tmp_path: Path) -> None:
    for target in (tmp_path / "file", tmp_path / "link"):
        if target.name == "file":
            target.write_text("mine")
        else:
            target.symlink_to(tmp_path / "elsewhere")
        command = (sys.executable, "-m", "kubelite", "--socket", served.socket, "proxy", "-p", "0")
        done = subprocess.run(
            [*command, "--kubeconfig", target], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (1, f"error: cannot create {target}: File exists\n")
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "elsewhere").exists()


def head(text: str) -> bytes:
    found = admitted(text.encode(), SECRET)
    assert found is not None
    return found.head


def test_forwarded_requests() -> None:
    assert admitted(b"GET / HTTP/1.1\r\n", SECRET) is None
    text = f"POST /{SECRET}/a%2Fb?x=/y HTTP/1.1\r\n{HOST}Connection: keep-alive\r\nContent-Type: application/json\r\n"
    found = admitted(f"{text}Content-Length: 4\r\n\r\n{{}}".encode(), SECRET)
    assert found is not None and found.rest == b"{}"
    assert found.head == (
        b"POST /a%2Fb?x=/y HTTP/1.1\r\nConnection: close\r\nHost: 127.0.0.1:8001\r\n"
        b"Content-Type: application/json\r\nContent-Length: 4\r\n\r\n"
    )
    upgrade = f"GET /{SECRET}/x HTTP/1.1\r\n{HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert b"Connection: Upgrade\r\n" in head(upgrade)
    assert head(f"GET /{SECRET} HTTP/1.1\r\n{HOST}\r\n").startswith(b"GET / HTTP/1.1")
    bearer = head(f"GET /v HTTP/1.1\r\n{HOST}Authorization: Bearer {SECRET}\r\n\r\n")
    assert SECRET.encode() not in bearer


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("\x16\x03\x01\x02\r\n\r\n", 400),
        ("A" * 70000, 400),
        (f"GET /{SECRET}/ HTTP/1.1\r\n\r\n", 400),  # RFC 9112, 3.2: without Host
        (f"POST /{SECRET}/ HTTP/1.1\r\n{HOST}Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (f"GET /{SECRET}x/ HTTP/1.1\r\n{HOST}\r\n", 401),
        (f"GET http://127.0.0.1/{SECRET}/ HTTP/1.1\r\n{HOST}\r\n", 401),
        (f"CONNECT 10.0.0.1:22 HTTP/1.1\r\n{HOST}\r\n", 401),
    ],
)
def test_rejected_requests(text: str, code: int) -> None:
    with pytest.raises(Refused) as caught:
        admitted(text.encode("latin-1"), SECRET)
    assert caught.value.code == code


def test_without_a_daemon_nothing_is_written(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "kubelite", "--socket", str(tmp_path / "none"), "proxy", "-p", "0")
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environ)
    assert done.returncode == 1 and "kubelite is not running" in done.stderr
    assert list(tmp_path.iterdir()) == []
