"""What the node's TCP port bears: connections that are many, slow or silent, and names that are not the node's.

The daemon's descriptors are its pods' too: whoever opens connections and says nothing must not have them all. So there
are `MOST` at a time, the one that has been silent for longest makes room for a new one, and each must get on within
`PATIENCE`. Headers are bounded by h11 (64 KiB).

A browser on this machine may be made to ask the loopback address under a stranger's name, whose page then reads the
answer (DNS rebinding). A port of loopback answers to addresses, `localhost`, the node's name and `web_hosts` only.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from typing import cast

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 64  # connections
PATIENCE = 10.0  # seconds for a request to come, or for the peer to take anything of the answer
LOOKS = 12  # times PATIENCE for the whole answer
UNSENT = 64 << 20  # bytes of answers that may wait for slow peers, all together
OPEN = frozenset({"/healthz", "/livez", "/readyz"})  # under whatever name: they say nothing of the node


class Guarded(H11Protocol):
    """An HTTP connection with a deadline."""

    silent_since = 0.0  # the loop's time of its beginning, or of the last look at which a request had come
    _requests = 0  # that came since
    _looks = 0  # during the answer that is under way
    _unsent = 0  # bytes, at the last look
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= MOST:
            _make_room(cast("Iterable[Guarded]", self.connections))
        super().connection_made(transport)
        self.silent_since = self.loop.time()
        self._timer = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        waiting = sum(one.transport.get_write_buffer_size() for one in self.connections)
        if waiting > UNSENT:
            self.transport.abort()
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._requests += 1

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing is said: whoever asks for an upgrade, which this port does not have, could fill the log."""

    @property
    def answers(self) -> bool:
        """Whether an answer is being made, or is not yet taken."""
        making = self.cycle is not None and not self.cycle.response_complete
        return making or self.transport.get_write_buffer_size() > 0

    def _look(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if self.answers:
            # a request since the last look: this is another answer, to one that asks without a pause
            self._looks = 0 if self._requests else self._looks + 1
            stuck = unsent > 0 and unsent == self._unsent
        else:
            self._looks = 0
            stuck = not self._requests
        if stuck or self._looks > LOOKS:
            self.transport.abort()
            return
        if self._requests:
            self.silent_since = self.loop.time()
        self._requests, self._unsent = 0, unsent
        self._timer = self.loop.call_later(PATIENCE, self._look)


def _make_room(connections: Iterable[Guarded]) -> None:
    """End the one that has been silent for longest; when all are being answered, the oldest."""
    victim = min(connections, key=lambda one: (one.answers, one.silent_since))
    victim.connections.discard(victim)
    victim.transport.abort()


class OwnNames:
    """Passes on what is asked of an address, of localhost or of one of `names`; the rest gets 421 (RFC 9110,
    15.5.20)."""

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset({"localhost", *(name.lower().rstrip(".") for name in names if name)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode("latin-1") for key, value in scope.get("headers", ()) if key == b"host"]
        if scope["path"] in OPEN or all(self.knows(host) for host in hosts):
            await self._app(scope, receive, send)
            return
        words = "this port answers to addresses, localhost, the node's name and web_hosts of its settings\n"
        await PlainTextResponse(words, 421)(scope, receive, send)

    def knows(self, host: str) -> bool:
        """Of a Host header: a name or an address, perhaps a port."""
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        name = name.lower().rstrip(".")
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def is_loopback(host: str) -> bool:
    """Of the address that is listened on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
