"""Serve the API on the node's unix socket, with access control by group and an audit log, and over TLS on demand."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from kubelite.api.app import create_app
from kubelite.api.audit import Audit, AuditLog
from kubelite.api.peer import Access, gid_of
from kubelite.api.secure.certificates import asked_for
from kubelite.api.server import serve_unix
from kubelite.daemon.node_api import NodeAgent
from kubelite.kube.background import in_background
from kubelite.kube.errors import is_expected
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from kubelite.api.secure.port import ApiPort


async def _serve_pods(agent: NodeAgent, port: Callable[[], ApiPort]) -> None:
    """Serve the API to pods once one needs it, or remove what is left of that."""
    if agent.store.get("Service", "default", "kubernetes") is None:
        await agent.access.needed.wait()

    from kubelite.daemon.serving.pods import serve_pods
    from kubelite.sources.services import allocator

    await serve_pods(agent, port, allocator(agent.settings))


async def serve_api(agent: NodeAgent) -> None:
    """Serve until cancelled. Raises RuntimeFault if the group `api_group` does not exist or another daemon listens."""
    settings = agent.settings
    try:
        group = gid_of(settings.api_group)
    except KeyError as error:
        words = f"there is no group {settings.api_group!r}, which api_group names"
        raise RuntimeFault(words, reason="InvalidSetting") from error
    app = create_app(agent)
    async with contextlib.AsyncExitStack() as stack:
        log: AuditLog | None = None
        if settings.audit_log:
            sizes = settings.audit_log_max_size, settings.audit_log_max_files
            log = AuditLog(settings.audit_log, max_bytes=sizes[0], files=sizes[1])
            stack.callback(log.close)

        def audited(inner: ASGIApp) -> ASGIApp:
            return Audit(inner, log) if log is not None else inner

        @functools.cache
        def port() -> ApiPort:
            from kubelite.api.secure.port import ApiPort

            made = ApiPort(
                settings, app, agent, audited, lambda words: agent.node_event("APIPortFailed", words)
            )
            stack.push_async_callback(made.close)
            return made

        agent.api_port = port
        if settings.api_address:
            in_background(stack, functools.partial(_serve_pods, agent, port), "pod-api", passes=is_expected)
            if asked_for(f"{settings.root}/pki"):
                opening = asyncio.ensure_future(port().run())
                stack.callback(opening.cancel)
        await serve_unix(audited(Access(app, group)), settings.socket, group=group)
