"""The protocol portforward.k8s.io: each connection of the client is a pair of streams, for data and for an error.

Source: Kubernetes pkg/kubelet/../cri/streaming/portforward/httpstream.go (the server), client-go
tools/portforward/portforward.go (the client). The headers of a stream name its `streamtype`, `port` and `requestid`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Awaitable, Callable

from kubelite.streaming.spdy.frames import Reset
from kubelite.streaming.spdy.streams import Connection, Stream
from runtime.errors import RuntimeFault

PROTOCOL = "portforward.k8s.io"
PAIRING = 30.0  # seconds between the two streams of a connection (httpstream.go, streamCreationTimeout)
CHUNK = 32 << 10

#: Returns a socket that is connected to a TCP port of the pod. Raises OSError or RuntimeFault.
Dial = Callable[[int], Awaitable[socket.socket]]


async def serve(connection: Connection, dial: Dial) -> None:
    """Forward until the client closes the connection."""
    tasks: set[asyncio.Task[None]] = set()

    def begin(work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    halves = _Halves(lambda late: begin(late.reset()))
    try:
        async for stream in connection.opened():
            kind, key = stream.headers.get("streamtype"), _request(stream)
            if kind not in ("data", "error") or port_of(stream) is None:
                begin(stream.reset(Reset.PROTOCOL_ERROR))
            elif (other := halves.get(key)) is None:
                halves.add(key, stream)
            elif other.headers.get("streamtype") == kind:
                begin(stream.reset(Reset.PROTOCOL_ERROR))
            else:
                halves.take(key)
                data, error = (stream, other) if kind == "data" else (other, stream)
                begin(_forward(data, error, dial))
    finally:
        halves.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        connection.close()


class _Halves:
    """Streams whose other half has not come. `give_up` resets one for which none comes in time. A stream that is reset
    leaves, so there are at most as many as the connection's open streams."""

    def __init__(self, give_up: Callable[[Stream], None]) -> None:
        self._give_up = give_up
        self._waiting: dict[str, tuple[Stream, asyncio.TimerHandle]] = {}

    def get(self, key: str) -> Stream | None:
        return self._waiting[key][0] if key in self._waiting else None

    def add(self, key: str, stream: Stream) -> None:
        timer = asyncio.get_running_loop().call_later(PAIRING, self._late, key)
        self._waiting[key] = stream, timer
        stream.when_broken(functools.partial(self.take, key))

    def take(self, key: str) -> Stream:
        stream, timer = self._waiting.pop(key)
        timer.cancel()
        stream.when_broken(None)
        return stream

    def close(self) -> None:
        for key in list(self._waiting):
            self.take(key)

    def _late(self, key: str) -> None:
        self._give_up(self.take(key))


def port_of(stream: Stream) -> int | None:
    text = stream.headers.get("port", "")
    known = text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536
    return int(text) if known else None


def _request(stream: Stream) -> str:
    """Return the key that pairs the data stream and the error stream of a connection: the header requestid. Clients
    before Kubernetes 1.4 send none; they open the data stream right after the error stream."""
    if named := stream.headers.get("requestid"):
        return named
    number = stream.number if stream.headers.get("streamtype") == "error" else stream.number - 2
    return f"stream {number}"


async def _forward(data: Stream, error: Stream, dial: Dial) -> None:
    """Forward one connection. An error goes to the client as a sentence."""
    port = port_of(data)
    assert port is not None
    try:
        pod = await dial(port)
    except (OSError, RuntimeFault) as failure:
        with contextlib.suppress(ConnectionError):
            await error.write(f"cannot connect to port {port} of the pod: {reason(failure)}".encode())
        await error.finish()
        await data.reset()
        return
    with pod:
        data.when_broken(functools.partial(hang_up, pod))
        up = asyncio.ensure_future(_to_pod(data, pod))
        try:
            await _from_pod(data, pod)
            await data.finish()
            await up
        finally:
            up.cancel()
            data.when_broken(None)
            await error.finish()
            await data.reset()  # unless both sides have finished


def hang_up(pod: socket.socket) -> None:
    """End both directions, so that who reads from the pod or writes to it goes on."""
    with contextlib.suppress(OSError):
        pod.shutdown(socket.SHUT_RDWR)


def reason(failure: OSError | RuntimeFault) -> str:
    """Return why a connection failed: asyncio puts its own words, and the address, into an OSError."""
    if isinstance(failure, OSError) and failure.errno:
        return os.strerror(failure.errno)
    return str(failure) or type(failure).__name__


async def _from_pod(data: Stream, pod: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while chunk := await loop.sock_recv(pod, CHUNK):
            await data.write(chunk)


async def _to_pod(data: Stream, pod: socket.socket) -> None:
    """Copy until the client finishes; the pod then sees the end of its input, and may still answer."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while chunk := await data.read():
            await loop.sock_sendall(pod, chunk)
        pod.shutdown(socket.SHUT_WR)
