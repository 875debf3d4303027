"""Connections while file descriptors run out, and a socket whose file is removed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from kubelite.api import accepting, server
from kubelite.api.app import create_app
from tests.unit.api.fake_node import FakeNode
from tests.waiting import PATIENCE

WATCH = b"GET /api/v1/pods?watch=true HTTP/1.1\r\nHost: kubelite\r\n\r\n"
GET = b"GET /api/v1/pods HTTP/1.1\r\nHost: kubelite\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def descriptors(left: int) -> Iterator[None]:
    """This process can open `left` more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    filler = [os.dup(0) for _ in range(highest - len(os.listdir("/proc/self/fd")) + 1)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + left, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filler:
            os.close(descriptor)


@contextlib.asynccontextmanager
async def served(root: Path) -> AsyncIterator[str]:
    node, path = FakeNode(root), str(root / "k.sock")
    serving = asyncio.create_task(server.serve_unix(create_app(node), path, group=None))
    try:
        await until(lambda: os.path.exists(path))
        yield path
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await node.store.close()


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds * PATIENCE
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def first_line(client: socket.socket) -> bytes:
    """The status line of the answer; empty if the connection ends without one."""
    async with asyncio.timeout(10 * PATIENCE):
        return (await asyncio.get_running_loop().sock_recv(client, 4096)).partition(b"\r\n")[0]


def connected(path: str, request: bytes) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(path)
    client.setblocking(False)
    client.sendall(request)
    return client


def test_connections_wait_while_no_descriptor_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with served(tmp_path) as path:
            clients = [connected(path, GET) for _ in range(20)]
            with descriptors(0):
                await asyncio.sleep(0.5)
            assert [await first_line(client) for client in clients] == [b"HTTP/1.1 200 OK"] * 20
            for client in clients:
                client.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert [r.exc_info for r in caplog.records] == [None], "one line, no traceback"
    assert caplog.messages[0].startswith("cannot accept connections: Too many open files; they wait")


def test_new_watches_are_refused_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with served(tmp_path) as path:
            watching = connected(path, WATCH)
            assert await first_line(watching) == b"HTTP/1.1 200 OK"
            monkeypatch.setattr(accepting, "left_descriptors", lambda: 2 * accepting.spare_descriptors() - 1)
            refused, served_still = connected(path, WATCH), connected(path, GET)
            assert await first_line(refused) == b"HTTP/1.1 429 Too Many Requests"
            assert await first_line(served_still) == b"HTTP/1.1 200 OK"
            monkeypatch.setattr(accepting, "left_descriptors", lambda: accepting.spare_descriptors() - 1)
            once_more = connected(path, GET)
            assert await first_line(once_more) == b"HTTP/1.1 200 OK"
            await until(lambda: ended(watching))
            for client in (watching, refused, served_still, once_more):
                client.close()

    asyncio.run(run())


def ended(client: socket.socket) -> bool:
    try:
        while client.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("error", [ConnectionResetError, asyncio.CancelledError, ValueError])
def test_a_connection_that_cannot_begin_is_closed(error: type[BaseException]) -> None:
    taken: list[socket.socket] = []  # so that no collection of garbage closes them

    async def refuse(_make: Callable[[], asyncio.Protocol], connection: socket.socket) -> None:
        taken.append(connection)
        raise error

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        listener = socket.create_server(("127.0.0.1", 0))
        acceptor = accepting.Acceptor([listener], asyncio.Protocol, set(), refuse)
        with socket.create_connection(listener.getsockname()) as client:
            client.setblocking(False)
            assert await first_line(client) == b""
        acceptor.close()

    asyncio.run(run())


@pytest.mark.parametrize("left", ["nothing", "another file", "no directory"])
def test_a_removed_socket_is_created_again(tmp_path: Path, left: str) -> None:
    async def run() -> None:
        (tmp_path / "run").mkdir()
        async with served(tmp_path / "run") as path:
            watching = connected(path, WATCH)
            assert await first_line(watching) == b"HTTP/1.1 200 OK"
            before = os.stat(path).st_ino
            os.rename(path, tmp_path / "old.sock")
            if left == "another file":
                Path(path).write_text("")
            elif left == "no directory":
                os.rename(tmp_path / "run", tmp_path / "elsewhere")
            await until(
                lambda: (
                    os.path.exists(path) and os.path.isfile(path) is False and os.stat(path).st_ino != before
                )
            )
            again = connected(path, GET)
            assert await first_line(again) == b"HTTP/1.1 200 OK"
            assert not ended(watching), "connections stay"
            again.close()
            watching.close()

    asyncio.run(run())
