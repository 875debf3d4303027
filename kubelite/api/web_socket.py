"""WebSockets whose clients cannot fill the node's memory. It is imported with the first of them.

A message is complete before the application gets it, and clients may send a whole archive as one message: uvicorn keeps
up to 16 MiB for each connection. What all connections keep together is counted here. The connection that exceeds
`MOST_HELD` is closed with the code 1013, "Try Again Later". A message counts until the application asks for the next
one: it has passed the data on by then.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

log = logging.getLogger(__name__)

MOST_HELD = 64 << 20  # bytes of all connections
TRY_AGAIN_LATER = 1013  # https://www.iana.org/assignments/websocket


class Held:
    """Counts the bytes of all connections."""

    total = 0


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's protocol of a WebSocket, which counts the bytes that it keeps."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._partial = 0  # bytes of the message that arrives
        self._queued: deque[int] = deque()  # bytes of each message that waits for the application
        self._taken = 0  # bytes of the message that the application has
        self._counted = 0  # what `Held` has of this connection
        self._lost = False

    def data_received(self, data: bytes) -> None:
        self._partial += len(data)
        super().data_received(data)
        self._count()
        if Held.total > MOST_HELD and self.handshake_complete and not self.close_sent:
            log.warning("a WebSocket is closed, because all of them keep %d bytes", Held.total)
            self.conn.fail(TRY_AGAIN_LATER, "too many bytes wait on this node")
            self.handle_parser_exception()

    def handle_cont(self, event: Any) -> None:
        """Join the fragments as they come: each of a million would be an object of its own."""
        if not isinstance(self.frames[0], bytearray):
            self.frames: list[Any] = [bytearray(self.frames[0])]
        self.frames[0] += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        super().handle_ping()
        self._between_messages()

    def handle_pong(self, event: Any) -> None:
        super().handle_pong(event)
        self._between_messages()

    def send_receive_event_to_app(self) -> None:
        self.frames = [bytes(self.frames[0])]
        self._partial = 0
        if not self.close_sent:
            self._queued.append(len(self.frames[0]))
        super().send_receive_event_to_app()

    async def receive(self) -> Any:
        self._taken = 0
        self._count()
        message: Any = await super().receive()
        if message["type"] == "websocket.receive" and self._queued:
            self._taken = self._queued.popleft()
        return message

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._count()
        super().connection_lost(exc)

    def _between_messages(self) -> None:
        if not self.frames:
            self._partial = 0

    def _count(self) -> None:
        kept = 0 if self._lost else self._partial + sum(self._queued) + self._taken
        Held.total += kept - self._counted
        self._counted = kept
