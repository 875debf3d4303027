"""Protects the node's TCP port against too many, slow or silent connections, and against other host names.

The daemon needs file descriptors for its pods, so clients that open connections and send nothing must not exhaust them.
At most `MOST` connections are open; a new one replaces the one that has been silent for longest. Each must make
progress within `PATIENCE`. h11 limits the headers to 64 KiB.

A web page can make a browser on this machine request the loopback address under the page's own host name, and then read
the answer (DNS rebinding). A port on loopback therefore answers only to IP addresses, `localhost`, the node's name and
`web_hosts`.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from kubelite.api.guard import own_name

MOST = 64  # connections
PATIENCE = 10.0  # seconds for a request to arrive, or for the peer to read some of the answer
LOOKS = 12  # time for a whole answer, as a multiple of PATIENCE
UNSENT = 64 << 20  # maximum bytes of answers that wait for slow clients, in total
# Paths that are answered under any host name and without a token, because they reveal nothing about the node.
OPEN = frozenset({"/healthz", "/livez", "/readyz"})
# Key in the ASGI scope of a request: whether the client has sent a certificate, which then is a valid one.
CLIENT = "kubelite.client_certificate"


class Guarded(H11Protocol):
    """An HTTP connection with a deadline."""

    silent_since = 0.0  # loop time of the connection's start, or of the last check that found a request
    _requests = 0  # number of requests received since the last check
    _looks = 0  # number of checks during the current answer
    _unsent = 0  # unsent bytes at the last check
    _timer: asyncio.TimerHandle | None = None
    below: asyncio.Transport | None = None  # the transport below TLS, which holds unsent bytes too

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.most:
            _make_room(self.connections)
        super().connection_made(transport)
        if self.below is not None:
            self.app = _WithClient(self.app, verified=bool(transport.get_extra_info("peercert")))
        self.silent_since = self.loop.time()
        self._timer = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        waiting = sum(one.unsent for one in _counted(self.connections))
        if waiting > UNSENT:
            self.transport.abort()
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._requests += 1

    def _should_upgrade(self) -> bool:
        """Answer a request to upgrade like any other request. A WebSocket would not be among the counted connections.
        Nothing is logged, because such requests could fill the log."""
        return False

    @property
    def most(self) -> int:
        """Connections of this port that may be open."""
        return MOST

    @property
    def looks(self) -> float:
        """Time for a whole answer, as a multiple of PATIENCE."""
        return LOOKS

    @property
    def answers(self) -> bool:
        """Whether an answer is in progress, or the client has not read all of it."""
        making = self.cycle is not None and not self.cycle.response_complete
        return making or self.unsent > 0

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken, without those in the kernel's buffer."""
        below = self.below.get_write_buffer_size() if self.below is not None else 0
        return self.transport.get_write_buffer_size() + below

    def _look(self) -> None:
        unsent = self.unsent
        if self.answers:
            # After a request since the last check, this is another answer, to a client that never pauses.
            self._looks = 0 if self._requests else self._looks + 1
            stuck = unsent > 0 and unsent == self._unsent
        else:
            self._looks = 0
            stuck = not self._requests
        if stuck or self._looks > self.looks:
            self.transport.abort()
            return
        if self._requests:
            self.silent_since = self.loop.time()
        self._requests, self._unsent = 0, unsent
        self._timer = self.loop.call_later(PATIENCE, self._look)


def _make_room(connections: Iterable[object]) -> None:
    """Close the connection that has been silent for longest, preferably one without an answer in progress."""
    victim = min(_counted(connections), key=lambda one: (one.answers, one.silent_since), default=None)
    if victim is not None:
        victim.connections.discard(victim)
        victim.transport.abort()


def _counted(connections: Iterable[object]) -> Iterator[Guarded]:
    """Yield the connections that speak HTTP. The server's set has its WebSockets, too."""
    return (one for one in connections if isinstance(one, Guarded))


class _WithClient:
    def __init__(self, app: Any, *, verified: bool) -> None:
        self._app = app
        self._verified = verified

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, CLIENT: self._verified}, receive, send)


class OwnNames:
    """ASGI middleware that answers 421 (RFC 9110, 15.5.20) unless the host of a request is an IP address, localhost or
    one of `names`."""

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower().rstrip(".") for name in names if name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode("latin-1") for key, value in scope.get("headers", ()) if key == b"host"]
        if scope["path"] in OPEN or all(own_name(host, self._names) for host in hosts):
            await self._app(scope, receive, send)
            return
        words = (
            "this port only answers to IP addresses, localhost, the node's name and the names in web_hosts\n"
        )
        await PlainTextResponse(words, 421)(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether `host`, the host part of a listen address, is a loopback address or "localhost"."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
