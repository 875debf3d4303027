"""Connections of the TLS port: each names its user, and none that is silent, slow or one of too many stays."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from starlette.types import Receive, Scope, Send

from kubelite.api.secure.users import KEY, User, expires_of, of_certificate
from kubelite.api.upgrade import Upgradable
from kubelite.telemetry.web.guard import Guarded


class Secured(Upgradable, Guarded):
    """An HTTP connection with the deadlines of the node's other TCP port, except that an answer may last: a watch, or a
    log that is followed. A client that takes none of its bytes is disconnected there, too."""

    most = 512
    looks = math.inf

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert")
        self.app = _WithUser(self.app, of_certificate(certificate), expires_of(certificate))

    def hand_over(self, headers: list[tuple[bytes, bytes]], protocol: asyncio.Protocol) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().hand_over(headers, protocol)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Hand the connection over. An open WebSocket (exec, attach) may be silent."""
        if self._timer is not None:
            self._timer.cancel()
        super().handle_websocket_upgrade(event)


class _WithUser:
    """A certificate is verified once, when the connection begins or an earlier session is resumed; its end is looked at
    for each request."""

    def __init__(self, app: Any, user: User | None, expires: float) -> None:
        self._app = app
        self._user = user
        self._expires = expires

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = self._user if time.time() < self._expires else None
        await self._app({**scope, KEY: user}, receive, send)
