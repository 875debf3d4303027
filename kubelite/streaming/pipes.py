"""A connection after its HTTP upgrade: bytes in both directions, raw or inside the messages of a WebSocket.

Kubernetes' clients send SPDY either way: after an upgrade to SPDY/3.1, or as the binary messages of a WebSocket whose
subprotocol is SPDY/3.1+NAME (client-go tools/portforward/tunneling_connection.go).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from kubelite.streaming.departure import Departure

if TYPE_CHECKING:
    from websockets.protocol import Protocol as WebSocketProtocol

MOST_UNREAD = 256 << 10  # bytes that wait for the reader; then the peer is not read
MOST_MESSAGE = 1 << 20  # bytes of a WebSocket message; clients send what they have read, some 32 KiB
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class Pipe(Protocol):
    """Both directions of a connection."""

    async def read(self) -> bytes:
        """Return the next bytes; b"" at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Return when the peer has room for more. Raises ConnectionError if it is gone."""
        ...

    def close(self) -> None: ...

    def when_lost(self, call: Callable[[], object]) -> None:
        """Call this as soon as the peer is gone, even if bytes wait for a reader."""
        ...


class RawPipe(asyncio.Protocol):
    """The bytes of a transport, after it has changed hands: `transport.set_protocol()`, then `connection_made()`."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._unread: list[bytes] = []
        self._size = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ended = self._lost = False
        self._on_loss: Callable[[], object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.resume_reading()  # the HTTP parser has paused at the end of the request
        Departure(transport)

    def data_received(self, data: bytes) -> None:
        self._unread.append(data)
        self._size += len(data)
        self._news.set()
        if self._size > MOST_UNREAD:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        self._news.set()
        return False  # the transport closes itself: TLS has no half-closed connections

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = self._lost = True
        self._news.set()
        self._room.set()
        if self._on_loss is not None:
            self._on_loss()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    async def read(self) -> bytes:
        while not self._unread:
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._unread)
        self._unread.clear()
        self._size = 0
        if not self._ended:
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        await self._room.wait()
        if self._lost or self._transport.is_closing():
            raise ConnectionResetError("the client has disconnected")
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()

    def when_lost(self, call: Callable[[], object]) -> None:
        self._on_loss = call
        if self._lost:
            call()


class WebSocketPipe:
    """The payload of the binary messages of a WebSocket, as one sequence of bytes: the ends of messages mean nothing.
    Pings are answered."""

    def __init__(self, below: Pipe) -> None:
        from websockets.protocol import SERVER, Protocol

        self._below = below
        # The handshake is ours: the library refuses the subprotocol's name, because "/" is in no token of RFC 9110.
        self._frames: WebSocketProtocol = Protocol(SERVER, max_size=MOST_MESSAGE)

    async def read(self) -> bytes:
        while not (taken := self._taken()):
            data = await self._below.read()
            if not data or self._frames.close_expected():
                return b""
            self._frames.receive_data(data)
            await self._flush()
        return taken

    def _taken(self) -> bytes:
        from websockets.frames import Frame, Opcode

        events = [one for one in self._frames.events_received() if isinstance(one, Frame)]
        return b"".join(bytes(one.data) for one in events if one.opcode in (Opcode.BINARY, Opcode.CONT))

    async def write(self, data: bytes) -> None:
        from websockets.exceptions import InvalidState

        try:
            self._frames.send_binary(data)
        except InvalidState as error:
            raise ConnectionResetError("the client has closed the WebSocket") from error
        await self._flush()

    def close(self) -> None:
        self._below.close()

    def when_lost(self, call: Callable[[], object]) -> None:
        self._below.when_lost(call)

    async def _flush(self) -> None:
        for data in self._frames.data_to_send():
            if data:
                await self._below.write(data)


def accept_key(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept for a Sec-WebSocket-Key. Source: RFC 6455, section 4.2.2."""
    return base64.b64encode(hashlib.sha1(key + _ACCEPT, usedforsecurity=False).digest())
