"""Limits of connections that leave HTTP, and what keeps connections of clients that are gone from staying."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from kubelite.api import accepting, web_socket
from kubelite.api.kube.streams import websocket
from tests.unit.api.server import Served, served
from tests.unit.streaming.client import upgrade
from tests.waiting import until

__all__ = ["served"]

POD = "/api/v1/namespaces/default/pods/web"
SPDY = (
    f"POST {POD}/portforward HTTP/1.1\r\nHost: kubelite\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
    "X-Stream-Protocol-Version: portforward.k8s.io\r\nContent-Length: 0\r\n\r\n"
)
WEBSOCKET = (
    f"GET {POD}/exec?command=cat&stdin=1&stdout=1 HTTP/1.1\r\nHost: kubelite\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
)


@contextlib.contextmanager
def forwarding(served: Served) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(served.socket)
        upgrade(connection, f"{POD}/portforward", "portforward.k8s.io")
        yield


def answer_of(served: Served, request: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(served.socket)
        connection.sendall(request.encode())
        answer = b""
        while b"}" not in answer[-3:] and not answer.startswith(b"HTTP/1.1 101"):
            data = connection.recv(4096)
            assert data, answer
            answer += data
        return answer.decode()


@pytest.mark.parametrize("request_", [SPDY, WEBSOCKET])
def test_more_streams_than_the_limit_are_refused(
    served: Served, request_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "MOST_UPGRADED", 2)
    with forwarding(served), forwarding(served):
        answer = answer_of(served, request_)
        assert answer.startswith("HTTP/1.1 429 ") and "too many streams: 2 are open" in answer
        assert f"\r\nretry-after: {accepting.AGAIN}\r\n" in answer.lower()
        assert served.node.sessions == []
    until(lambda: answer_of(served, request_).startswith("HTTP/1.1 101 "))


@pytest.mark.parametrize("request_", [SPDY, WEBSOCKET])
def test_streams_are_refused_while_descriptors_are_scarce(
    served: Served, request_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting, "left_descriptors", lambda: 2 * accepting.spare_descriptors() - 1)
    answer = answer_of(served, request_)
    assert answer.startswith("HTTP/1.1 429 ") and "limit of file descriptors" in answer


@pytest.mark.parametrize("target", ["exec?command=cat&stdin=1&stdout=1", "portforward"])
@pytest.mark.parametrize("websocket", [False, True])
def test_a_shortage_before_the_answer_is_a_refusal(
    served: Served, target: str, websocket: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def exhausted(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def no_import(*_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(served.node, "exec", exhausted)
    monkeypatch.setattr("kubelite.api.kube.streams.commands.Upgraded", no_import)
    request = SPDY if target == "portforward" else SPDY.replace("portforward.k8s.io", "v4.channel.k8s.io")
    request = WEBSOCKET if websocket else request.replace(f"{POD}/portforward", f"{POD}/{target}")
    answer = answer_of(served, request)
    assert answer.startswith("HTTP/1.1 429 ") and "Too many open files" in answer
    assert '"reason":"TooManyRequests"' in answer


def test_the_kernel_sends_at_once_and_looks_for_peers_that_are_gone() -> None:
    found: dict[int, int] = {}

    async def look(_make: Any, connection: socket.socket) -> None:
        options = (*accepting.KEEPALIVE, socket.TCP_USER_TIMEOUT, socket.TCP_NODELAY)
        found.update({one: connection.getsockopt(socket.IPPROTO_TCP, one) for one in options})
        found[-1] = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        connection.close()

    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        acceptor = accepting.Acceptor([listener], asyncio.Protocol, set(), look)
        with socket.create_connection(listener.getsockname()) as client:
            client.setblocking(False)
            async with asyncio.timeout(10):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        acceptor.close()

    asyncio.run(run())
    assert found == {**accepting.KEEPALIVE, socket.TCP_USER_TIMEOUT: 0, socket.TCP_NODELAY: 1, -1: 1}


def frame(size: int, sent: int) -> bytes:
    """A binary message of `size` bytes, of which `sent` are there; masked with zeros."""
    return b"\x82\xff" + size.to_bytes(8, "big") + bytes(4) + bytes(sent)


def ended(connection: socket.socket) -> bytes:
    """What a server sends until it closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_all_websockets_keep_is_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_socket, "MOST_HELD", 300 << 10)
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        for connection in (one, other):
            connection.settimeout(10)
            connection.connect(served.socket)
            connection.sendall(WEBSOCKET.encode())
            assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        one.sendall(frame(1 << 20, 200 << 10))
        until(lambda: web_socket.Held.total >= 200 << 10)
        other.sendall(frame(1 << 20, 200 << 10))
        assert (1013).to_bytes(2, "big") + b"too many bytes wait on this node" in ended(other)
        until(lambda: 0 < web_socket.Held.total < 300 << 10)
    until(lambda: web_socket.Held.total == 0)


def test_messages_in_fragments_arrive_whole(served: Served) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(served.socket)
        connection.sendall(WEBSOCKET.encode())
        head = connection.recv(4096)
        assert head.startswith(b"HTTP/1.1 101 ")
        mask = bytes(4)
        connection.sendall(
            b"\x02\x82" + mask + b"\0h" + b"\x00\x81" + mask + b"e" + b"\x80\x81" + mask + b"y"
        )
        said = head.partition(b"\r\n\r\n")[2]
        while b"\1hey" not in said:
            data = connection.recv(4096)
            assert data, said
            said += data


async def test_input_of_one_large_message_waits_in_pieces() -> None:
    waiting = websocket._Input()
    putting = asyncio.ensure_future(waiting.put(bytes(1 << 20)))
    await asyncio.sleep(0)
    got = 0
    while got < 1 << 20:
        got += len(await waiting.get() or b"")
        assert waiting._size <= websocket.MOST_INPUT + websocket._PIECE
    await putting


async def test_ends_of_input_that_nobody_reads_do_not_pile_up() -> None:
    """A client may close its stdin as often as it likes, and each message counts for no bytes."""
    waiting = websocket._Input()
    for data in (b"a", None, None, b"b", None):
        await waiting.put(data)
    assert [await waiting.get(), await waiting.get()] == [b"a", None]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await waiting.get()
