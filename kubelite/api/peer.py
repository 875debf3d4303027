"""Authentication and authorization of the clients of the unix socket.

The kernel reports the peer's user, groups and process as of connect(2) (unix(7), SO_PEERCRED and SO_PEERGROUPS). Root
may do everything. Members of the group `api_group` may read everything except Secrets and documents that contain their
values, as with Kubernetes' ClusterRole `view`. They may not change anything or run programs in a container.
"""

from __future__ import annotations

import grp
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from kubelite.api.errors import refuse
from kubelite.api.guard import is_proxied
from kubelite.api.upgrade import Upgradable, upgrades
from kubelite.kube.errors import ApiError

SO_PEERGROUPS = 59  # asm-generic/socket.h; Python does not name it
KEY = "kubelite.peer"  # key in the ASGI scope of a request
_UCRED = struct.Struct("3i")
_MOST_GROUPS = 65536  # NGROUPS_MAX
_READS = frozenset({"GET", "HEAD"})


class Peer(NamedTuple):
    """The process at the other end, as of its connect(2)."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()  # supplementary


def peer_of(connection: socket.socket) -> Peer | None:
    """Return the peer of a unix socket; None for another kind of socket. Raises OSError."""
    if connection.family != socket.AF_UNIX:
        return None
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 256)
    except OSError:  # ERANGE: the buffer is too small
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _MOST_GROUPS)
    return Peer(pid, uid, gid, struct.unpack(f"{len(raw) // 4}I", raw))


def gid_of(group: str) -> int | None:
    """Return the id of a group, given by name or number; None for "". Raises KeyError."""
    if not group:
        return None
    return int(group) if group.isascii() and group.isdigit() else grp.getgrnam(group).gr_gid


def forbidden(peer: Peer | None, group: int | None, scope: Scope) -> ApiError | None:
    """Return the error if the peer may not send this request, else None. Root and the daemon's own user may send any
    request."""
    if peer is not None and peer.uid in (0, os.geteuid()):
        return None
    if peer is None or group is None or group not in (peer.gid, *peer.groups):
        words = "only root may use the API: use sudo, or let a group read with the setting api_group"
        return ApiError("Forbidden", words)
    who = f'User "{peer.uid}"'
    if upgrades(scope) or scope["method"] not in _READS:
        return ApiError(
            "Forbidden", f"{who} is in the group that may read; only root may change or run anything"
        )
    if is_proxied(scope["path"]):
        words = f"{who} is in the group that may read; only root may send requests to pods"
        return ApiError("Forbidden", words)
    if _shows_secrets(scope["path"].strip("/").split("/")):
        return ApiError("Forbidden", f"{who} is in the group that may read, but only root may read Secrets")
    return None


def _shows_secrets(parts: Sequence[str]) -> bool:
    """Whether the answer of a path contains Secrets, or a container's config.json, whose environment may contain their
    values."""
    kube = parts[:2] == ["api", "v1"] and (
        parts[2:3] == ["secrets"] or (parts[2:3] == ["namespaces"] and parts[4:5] == ["secrets"])
    )
    return kube or parts[:3] == ["kubelite", "v1", "inspect"]


class Peered(Upgradable):
    """A connection that adds its peer to the ASGI scope of each request, WebSockets included."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app = _WithPeer(self.app, peer_of(transport.get_extra_info("socket")))


class _WithPeer:
    def __init__(self, app: Any, peer: Peer | None) -> None:
        self._app = app
        self._peer = peer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, KEY: self._peer}, receive, send)


class Access:
    """ASGI middleware that refuses, as Forbidden, requests that the peer may not send."""

    def __init__(self, app: ASGIApp, group: int | None) -> None:
        self._app = app
        self._group = group

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = forbidden(scope.get(KEY), self._group, scope)
        if error is None:
            await self._app(scope, receive, send)
        else:
            await refuse(error, scope, receive, send)
