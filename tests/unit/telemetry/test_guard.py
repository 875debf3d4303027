"""The guard of the TCP port: accepted host names, and silent, slow or too many connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kubelite.api.server import serving
from kubelite.settings import Settings
from kubelite.telemetry.web import guard
from kubelite.telemetry.web.guard import Guarded, OwnNames, is_loopback

ASKED = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n"
BIG = 32 << 20


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[int]:
    async def small(_: Request) -> Response:
        return PlainTextResponse("hello\n")

    async def big(_: Request) -> Response:
        return PlainTextResponse(b"x" * BIG)

    app = Starlette(routes=[Route("/", small), Route("/healthz", small), Route("/big", big)])
    listener = socket.create_server(("127.0.0.1", 0))
    async with serving(OwnNames(app, {"node-1", "proxy.example", ""}), [listener], http=Guarded):
        yield int(listener.getsockname()[1])


async def ask(port: int, host: bytes, path: bytes = b"/") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ASKED.replace(b"/ ", path + b" ", 1) % host)
    line = await asyncio.wait_for(reader.readline(), 30)
    writer.close()
    return line.split()[1]


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the peer closes the connection in time."""
    try:
        async with asyncio.timeout(30):
            while await reader.read(1 << 20):
                pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "code"),
    [
        (b"127.0.0.1:10255", b"200"),
        (b"[::1]:10255", b"200"),
        (b"localhost", b"200"),
        (b"LocalHost.:80", b"200"),
        (b"kubelite.localhost:1", b"200"),
        (b"node-1:10255", b"200"),
        (b"Proxy.Example", b"200"),
        (b"evil.example:10255", b"421"),
        (b"127.0.0.1.evil.example", b"421"),
        (b"localhost.evil.example", b"421"),
        (b"", b"421"),
        (b"[evil]", b"421"),
        (b"\xe9", b"421"),
    ],
)
async def test_only_its_own_names_are_accepted(host: bytes, code: bytes) -> None:
    async with served() as port:
        assert await ask(port, host) == code
        assert await ask(port, host, b"/healthz") == b"200", "which says nothing of the node"


def test_loopback_addresses() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "node-1")))


def test_web_hosts_are_names() -> None:
    assert Settings(web_hosts=" A.example, b ").web_hosts == "a.example,b"
    for wrong in ("a:80", "http://a", "*"):
        with pytest.raises(ValueError, match="is not a DNS name"):
            Settings(web_hosts=wrong)


async def test_silent_clients_are_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 0.2)
    async with served() as port:
        silent, _ = await asyncio.open_connection("127.0.0.1", port)
        half, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA")
        assert await closed(silent)
        assert await closed(half)


async def test_clients_that_do_not_read_are_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 0.2)
    async with served() as port:
        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(ASKED.replace(b"/ ", b"/big ", 1) % b"127.0.0.1")
        await asyncio.sleep(2)
        slow.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=slow)
        got = 0
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(30):
                while chunk := await reader.read(1 << 20):
                    got += len(chunk)
        assert got < BIG, "it was cut"
        writer.close()


async def test_slow_readers_get_a_large_response_completely() -> None:
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ASKED.replace(b"/ ", b"/big ", 1) % b"127.0.0.1")
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"content-length: {BIG}".encode() in head
        assert len(await reader.readexactly(BIG)) == BIG
        writer.close()


async def test_the_longest_silent_connection_is_closed_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST", 3)
    async with served() as port:
        first = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        others = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        assert await ask(port, b"127.0.0.1") == b"200"
        assert await closed(first[0])
        for reader, writer in others:
            writer.write(ASKED % b"127.0.0.1")
            assert (await asyncio.wait_for(reader.readline(), 30)).split()[1] == b"200"
            writer.close()
        first[1].close()


async def test_many_connections_do_not_block_the_port() -> None:
    async with served() as port:
        many = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
        assert await ask(port, b"127.0.0.1") == b"200"
        for one in many:
            one.close()


def test_busy_clients_are_not_taken_for_stuck_ones() -> None:
    ended: list[bool] = []
    one: Any = Guarded.__new__(Guarded)
    one.transport = SimpleNamespace(get_write_buffer_size=lambda: 0, abort=lambda: ended.append(True))
    one.cycle = SimpleNamespace(
        response_complete=False
    )  # at each check the newest response is being computed
    one.loop = SimpleNamespace(time=lambda: 0.0, call_later=lambda *_: None)
    for _ in range(3 * guard.LOOKS):
        one._requests = 1
        one._look()
    assert not ended
    for _ in range(guard.LOOKS):
        one._look()
    assert not ended
    one._look()
    assert ended


async def test_connections_that_request_an_upgrade_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgraded connection would not be counted by the guard. The port supports no WebSockets and keeps answering."""
    monkeypatch.setattr(guard, "MOST", 8)
    request = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with served() as port:
        opened = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            opened.append(writer)
            writer.write(request)
            line = await asyncio.wait_for(reader.readline(), 30)
            assert line.split()[1] == b"200", line
        held = [name for name in os.listdir("/proc/self/fd") if _is_peer_of(int(name), port)]
        assert len(held) <= 8
        assert await ask(port, b"127.0.0.1", b"/healthz") == b"200"
        for writer in opened:
            writer.close()


def _is_peer_of(descriptor: int, port: int) -> bool:
    """Whether it is the other end of a connection that the server on this port has accepted."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as found:
        return found.family == socket.AF_INET and found.getsockname()[1] == port and bool(found.getpeername())
    return False
