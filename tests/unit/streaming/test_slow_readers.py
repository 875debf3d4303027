"""Programs and pods that do not read what a client sends: how much waits, and that a client may leave."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.protocol import CLIENT, Protocol

from kubelite.streaming import departure
from kubelite.streaming.spdy.frames import Data, Encoder, SynReply, SynStream
from kubelite.streaming.spdy.streams import MOST_UNREAD, Connection, Stream
from tests.unit.api.fake_node import pod_doc
from tests.unit.api.server import Served
from tests.unit.streaming.client import upgrade
from tests.waiting import until

SLEEP = "/api/v1/namespaces/default/pods/web/exec?command=sleep&command=60&stdin=1&stdout=1"
MANY = b"x" * (8 << 20)  # more than all buffers on the way hold, if that is a unix socket


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(departure, "LOOK", 0.1)
    with Served.at(tmp_path) as found:
        found.run(found.node.store.create("Pod", pod_doc("web")))
        yield found


def fill(connection: socket.socket, data: bytes) -> None:
    """Send until nothing more is taken."""
    connection.settimeout(0.5)
    with pytest.raises(TimeoutError):
        connection.sendall(data)


def is_killed(served: Served) -> None:
    (session,) = served.node.sessions
    assert asyncio.run(asyncio.wait_for(session.wait(), 10)) == 128 + 9
    until(lambda: session.stdin is None)


@pytest.mark.parametrize("tunnel", [False, True])
@pytest.mark.parametrize("tcp", [False, True])
def test_a_client_that_leaves_a_program_that_does_not_read(served: Served, tunnel: bool, tcp: bool) -> None:
    with socket.socket(socket.AF_INET if tcp else socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(("127.0.0.1", served.port) if tcp else served.socket)
        client = upgrade(connection, SLEEP, "v4.channel.k8s.io", tunnel=tunnel)
        kinds = ((1, "error"), (3, "stdin"), (5, "stdout"))
        client.send(*(SynStream(n, {"streamtype": kind}) for n, kind in kinds))
        assert [client.next() for _ in range(3)] == [SynReply(n, {}) for n in (1, 3, 5)]
        many = MANY[: 2 << 20] if tcp else MANY  # TCP: what the kernel holds, so that the end is behind it
        data = b"".join(client.packed(Data(3, many[at : at + 65536])) for at in range(0, len(many), 65536))
        if tcp:
            connection.sendall(data)
        else:
            fill(connection, data)
    is_killed(served)


def test_a_client_of_a_websocket_that_leaves(served: Served) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = (
        f"GET {SLEEP} HTTP/1.1", "Host: kubelite", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Protocol: v5.channel.k8s.io", "", "",
    )  # fmt: skip
    messages = Protocol(CLIENT)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(served.socket)
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        for at in range(0, len(MANY), 65536):
            messages.send_binary(b"\x00" + MANY[at : at + 65536])
        fill(connection, b"".join(messages.data_to_send()))
    is_killed(served)


class Flow:
    """A pipe from which each read returns the next piece."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return self.pieces.pop(0) if self.pieces else b""

    async def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def when_lost(self, call: object) -> None: ...


async def test_what_waits_for_all_streams_of_a_connection_is_bounded() -> None:
    encoder, number, piece = Encoder(), 64, b"x" * (32 << 10)
    opening = b"".join(encoder.encode(SynStream(2 * n + 1, {})) for n in range(number))
    pipe = Flow([opening, *(encoder.encode(Data(2 * n + 1, piece)) for n in range(number))])
    connection = Connection(pipe)
    streams: list[Stream] = []

    async def receive() -> None:
        async for stream in connection.opened():
            streams.append(stream)

    receiving = asyncio.ensure_future(receive())
    await asyncio.sleep(0.1)
    assert len(streams) == number
    waiting = sum(one.unread for one in streams)
    assert MOST_UNREAD <= waiting <= MOST_UNREAD + len(piece)
    left = len(pipe.pieces)
    assert left > 0 and await streams[0].read() == piece
    await streams[1].reset()  # what nobody reads makes room, too
    await asyncio.sleep(0.1)
    assert len(pipe.pieces) == left - 2
    connection._leave()  # the client is gone
    await asyncio.wait_for(receiving, 5)
