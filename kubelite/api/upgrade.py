"""HTTP upgrades to SPDY/3.1, and to a WebSocket that tunnels it: the connection leaves the HTTP server.

uvicorn knows neither. `Upgradable` puts a function into the ASGI scope of such a request. The answer `Upgraded` calls
it, after all checks that other requests pass, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import h11
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from kubelite.kube.errors import bad_request
from kubelite.streaming.departure import Departure

if TYPE_CHECKING:
    from kubelite.streaming.spdy.streams import Connection

TUNNEL = "SPDY/3.1+"  # begins the subprotocol of a WebSocket that tunnels SPDY
UPGRADED = (
    "kubelite.upgraded"  # type of the message that an application sends when it has taken the connection
)
DEPARTURE = "kubelite.departure"  # key in the ASGI scope of a WebSocket: notices that the client has left
_KEY = "kubelite.upgrade"
_HANG_UP = "kubelite.hang_up"
_SPDY = b"spdy/3.1"
_PROTOCOLS, _SUBPROTOCOLS = "x-stream-protocol-version", "sec-websocket-protocol"

HandOver = Callable[[list[tuple[bytes, bytes]], asyncio.Protocol], None]
Serve = Callable[["Connection"], Awaitable[None]]
Close = Callable[[], Awaitable[None]]


class Upgradable(H11Protocol):
    """A connection that an application can take over."""

    def _should_upgrade(self) -> bool:
        kind = self._get_upgrade()
        scope: Any = self.scope
        scope["extensions"] = {_HANG_UP: self.hang_up}
        if kind == _SPDY or (kind == b"websocket" and self._tunnels()):
            scope["extensions"][_KEY] = self.hand_over
            return False
        return kind == b"websocket" and self._should_upgrade_to_ws()

    def _tunnels(self) -> bool:
        offered = [value for name, value in self.headers if name == _SUBPROTOCOLS.encode()]
        return any(TUNNEL.encode() in value for value in offered)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Give the connection to the server's WebSocket protocol, with what this class's heirs add to the scope."""
        kind = self.ws_protocol_class
        assert kind is not None
        departure = Departure(self.transport)

        def made(**options: Any) -> asyncio.Protocol:
            protocol: Any = kind(**options)
            protocol.app = _OnProtocol(self.app, protocol, departure)
            return protocol  # type: ignore[no-any-return]

        self.ws_protocol_class = made  # type: ignore[assignment]
        super().handle_websocket_upgrade(event)

    def hang_up(self) -> None:
        """Close the connection in the middle of an answer: the client sees that the answer is not complete."""
        self.transport.abort()
        self.cycle.disconnected = True  # the server expects no more of the answer, and logs nothing

    def hand_over(self, headers: list[tuple[bytes, bytes]], protocol: asyncio.Protocol) -> None:
        """Answer 101 and give the connection to another protocol. Raises ApiError if the request has a body."""
        if self.conn.their_state is not h11.MIGHT_SWITCH_PROTOCOL:  # type: ignore[attr-defined]
            raise bad_request("a request to upgrade the connection has no body")
        said = h11.InformationalResponse(status_code=101, headers=headers, reason=b"Switching Protocols")
        self.transport.write(self.conn.send(said) or b"")
        early, _ = self.conn.trailing_data
        self.connections.discard(self)
        self.cycle.disconnected = True  # the server expects no answer from the application any more
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if early:
            protocol.data_received(early)


class _OnProtocol:
    """The application of a WebSocket. It learns when the client leaves, and the server's protocol when a refusal is
    complete: uvicorn does not note that, and would log an application that has answered nothing."""

    def __init__(self, app: Any, protocol: Any, departure: Departure) -> None:
        self._app = app
        self._protocol = protocol
        self._departure = departure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noted(message: Message) -> None:
            await send(message)
            if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
                self._protocol.handshake_complete = True

        await self._app({**scope, DEPARTURE: self._departure}, receive, noted)


def upgrades(scope: Scope) -> bool:
    """Whether a request wants to leave HTTP: for SPDY, or as a WebSocket of any kind."""
    return scope["type"] == "websocket" or _KEY in scope.get("extensions", {})


def hang_up(scope: Scope) -> None:
    """Close the connection of a request whose answer has begun and cannot be completed."""
    close: Callable[[], None] | None = scope.get("extensions", {}).get(_HANG_UP)
    if close is not None:
        close()


def has_body(scope: Scope) -> bool:
    """Whether the headers of a request announce a body (RFC 9112, section 6)."""
    headers = scope["headers"]
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0") != b"")
        for name, value in headers
    )


def chosen_protocol(connection: HTTPConnection, *known: str) -> str | None:
    """Return the first protocol that a request offers and that is known; None if it offers others.

    A request for SPDY that offers none gets the first one. Source: apimachinery pkg/util/httpstream/httpstream.go,
    Handshake."""
    tunneled = _tunneled(connection.scope)
    lines = connection.headers.getlist(_SUBPROTOCOLS if tunneled else _PROTOCOLS)
    offered = [word.strip() for line in lines for word in line.split(",") if word.strip()]
    if tunneled:
        offered = [word.removeprefix(TUNNEL) for word in offered if word.startswith(TUNNEL)]
    elif not offered:
        return known[0]
    return next((word for word in offered if word in known), None)


def _tunneled(scope: Scope) -> bool:
    return any(name == b"upgrade" and value.lower() == b"websocket" for name, value in scope["headers"])


class Upgraded(Response):
    """Takes the connection over and serves its streams with `serve`. At the end, and if the connection cannot be taken,
    `close` is called."""

    def __init__(self, protocol: str, serve: Serve, close: Close | None = None) -> None:
        super().__init__(status_code=101)
        self._protocol = protocol
        self._serve = serve
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from kubelite.streaming.pipes import RawPipe, WebSocketPipe, accept_key
        from kubelite.streaming.spdy.streams import Connection

        hand_over: HandOver = scope["extensions"][_KEY]
        raw = RawPipe()
        headers = [(b"connection", b"Upgrade")]
        if _tunneled(scope):
            key = next((value for name, value in scope["headers"] if name == b"sec-websocket-key"), b"")
            headers += [(b"upgrade", b"websocket"), (b"sec-websocket-accept", accept_key(key))]
            headers += [(_SUBPROTOCOLS.encode(), (TUNNEL + self._protocol).encode())]
        else:
            headers += [(b"upgrade", b"SPDY/3.1"), (_PROTOCOLS.encode(), self._protocol.encode())]
        async with contextlib.AsyncExitStack() as undo:
            if self._close is not None:
                undo.push_async_callback(self._close)
            hand_over(headers, raw)
            undo.callback(raw.close)
            await send({"type": UPGRADED})  # for the audit log: the server ignores it
            await self._serve(Connection(WebSocketPipe(raw) if _tunneled(scope) else raw))
