"""Serve the API on the node's unix socket, with access control by group and an audit log."""

from __future__ import annotations

from starlette.types import ASGIApp

from kubelite.api.app import create_app
from kubelite.api.audit import Audit, AuditLog
from kubelite.api.peer import Access, gid_of
from kubelite.api.server import serve_unix
from kubelite.daemon.node_api import NodeAgent
from runtime.errors import RuntimeFault


async def serve_api(agent: NodeAgent) -> None:
    """Serve until cancelled. Raises RuntimeFault if the group `api_group` does not exist or another daemon listens."""
    settings = agent.settings
    try:
        group = gid_of(settings.api_group)
    except KeyError as error:
        words = f"there is no group {settings.api_group!r}, which api_group names"
        raise RuntimeFault(words, reason="InvalidSetting") from error
    app: ASGIApp = Access(create_app(agent), group)
    if not settings.audit_log:
        await serve_unix(app, settings.socket, group=group)
        return
    log = AuditLog(
        settings.audit_log, max_bytes=settings.audit_log_max_size, files=settings.audit_log_max_files
    )
    try:
        await serve_unix(Audit(app, log), settings.socket, group=group)
    finally:
        log.close()
