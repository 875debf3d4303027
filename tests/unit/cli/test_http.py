"""The command line's HTTP client: requests, bodies, broken responses. And: frequent commands import nothing heavy."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import IO
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelite.cli.transport.http import Answer, Broken, ask, target

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def answer(data: bytes) -> Answer:
    """The response of a server that sends these bytes and closes."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
    return Answer(ours)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\na\nb\ncXXX", b"a\nb\nc"),
        (HEAD + b"\r\na\nb\n", b"a\nb\n"),
        (CHUNKED + b"2\r\na\n\r\n3;x=y\r\nb\nc\r\n0\r\nTrailer: 1\r\n\r\n", b"a\nb\nc"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"content-length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_bodies(data: bytes, body: bytes) -> None:
    assert answer(data).read() == body
    found = answer(data)
    assert b"".join(iter(found.read1, b"")) == body
    assert found.fileno() == -1, "closed with its last byte"
    assert list(iter(answer(data).readline, b"")) == body.splitlines(keepends=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        HEAD,
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 9\r\n\r\nshort",
        CHUNKED + b"5\r\nab",
        CHUNKED + b"5\r\nabcde\r\n",
        CHUNKED + b"zz\r\n",
    ],
)
def test_a_truncated_response_is_an_error(data: bytes) -> None:
    with pytest.raises(Broken):
        answer(data).read()
    with pytest.raises(Broken):
        list(iter(answer(data).readline, b""))


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(path=TEXT, query=st.dictionaries(TEXT, TEXT | st.lists(TEXT, min_size=1) | st.integers()))
def test_request_targets_are_encoded(path: str, query: dict[str, object]) -> None:
    from urllib.parse import unquote

    found = urlsplit(f"http://x/{target(path, query)}")
    assert unquote(found.path.removeprefix("/"), errors="strict") == path
    pairs = [(k, str(v)) for k, vs in query.items() for v in (vs if isinstance(vs, list) else [vs])]
    assert parse_qsl(found.query, keep_blank_values=True) == pairs


def said(body: bytes | IO[bytes] | None, headers: Mapping[str, str], method: str = "POST") -> bytes:
    """The bytes that the server receives."""
    ours, theirs = socket.socketpair()
    heard: list[bytes] = []

    def serve() -> None:
        with theirs, theirs.makefile("rb") as stream:
            theirs.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
            heard.append(stream.read())

    server = threading.Thread(target=serve)
    server.start()
    ask(ours, method, "/x", body=body, headers=headers)
    server.join(30)
    return heard[0]


def test_requests() -> None:
    start = b"POST /x HTTP/1.1\r\nHost: kubelite\r\nConnection: close\r\n"
    assert said(b"ab", {"A": "b"}) == start + b"A: b\r\nContent-Length: 2\r\n\r\nab"
    assert said(None, {}) == start + b"Content-Length: 0\r\n\r\n"
    assert said(None, {}, "GET") == start.replace(b"POST", b"GET") + b"\r\n"
    assert said(io.BytesIO(b"ab"), {}) == start + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    assert said(io.BytesIO(b"ab"), {"Content-Length": "2"}) == start + b"Content-Length: 2\r\n\r\nab"


def test_a_response_before_the_end_of_the_body_is_used() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    theirs.close()
    found = ask(ours, "POST", "/x", body=io.BytesIO(b"x" * 10_000_000), headers={})
    assert (found.status, found.reason, found.read()) == (413, "Too Large", b"no")


HEAVY = {
    *(
        "pydantic",
        "sqlalchemy",
        "pyroute2",
        "prometheus_client",
        "uvicorn",
        "starlette",
        "watchfiles",
        "textual",
    ),
    *("yaml", "asyncio", "http", "email", "ssl", "subprocess", "logging", "tempfile", "urllib"),
    *(
        "kubelite.daemon.lifecycle",
        "kubelite.daemon.assembly",
        "kubelite.daemon.node_api",
        "kubelite.api",
        "kubelite.node",
        "manifests",
        "state",
    ),
    *("runtime",),
}


@pytest.mark.parametrize("command", [("get", "pods"), ("get", "pods", "-o", "json"), ("logs", "web")])
def test_a_command_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    """Importing one of these takes longer than the daemon's response; a command imports them only when it needs
    them."""
    code = (
        "import sys\nfrom kubelite.cli.main import run\n"
        "print(run(sys.argv[1:]), *sorted(name for name in sys.modules))"
    )
    words = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"]
    done = subprocess.run(
        [*words, "--socket", "/nowhere", *command], capture_output=True, text=True, check=False
    )
    ended, *names = done.stdout.split()
    assert ended == "1", done.stderr
    assert "no daemon at /nowhere" in done.stderr
    assert HEAVY.isdisjoint(names), sorted(HEAVY.intersection(names))
