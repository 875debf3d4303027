"""The API's server: uvicorn on sockets that are ours to open, inside the daemon's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Generator

import uvicorn
from starlette.types import ASGIApp

from runtime.errors import StateError


def listen_unix(path: str) -> socket.socket:
    """A listening socket that only its owner (root) can reach. A file that a dead daemon left is replaced; a living
    one keeps its socket (StateError AlreadyRunning)."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.connect(path)
        raise StateError(f"another kubelite already listens on {path}", reason="AlreadyRunning")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with contextlib.ExitStack() as undo:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.callback(server.close)
        server.bind(path)
        os.chmod(path, 0o600)  # between bind and listen: nobody can have connected yet
        server.listen(128)
        server.setblocking(False)
        undo.pop_all()
    return server


class _Server(uvicorn.Server):
    """Signals stay the daemon's own business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, sockets: list[socket.socket]) -> AsyncIterator[None]:
    """Serve the application on these sockets while the block runs; they are closed at its end."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ws_ping_interval=None,  # a local peer's death is its socket's end; a stopped client (^Z) is not dead
        ws_per_message_deflate=False,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=sockets), name="api")
    try:
        while not server.started and not task.done():  # uvicorn has a flag, not an event
            await asyncio.sleep(0.002)
        yield
    finally:
        server.should_exit = True
        await task


async def serve_unix(app: ASGIApp, path: str) -> None:
    """Serve on a unix socket until cancelled; its file is gone afterwards."""
    async with serving(app, [listen_unix(path)]):
        try:
            await asyncio.Event().wait()
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
