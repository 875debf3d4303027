"""The API's server: uvicorn on sockets that are ours to open, inside the daemon's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Generator
from email.utils import formatdate
from typing import Literal

import uvicorn
import uvicorn.server as uvicorn_server
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


class _State(uvicorn_server.ServerState):
    """The headers of every answer, made when they are asked for: uvicorn keeps the date by the clock."""

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"date", formatdate(usegmt=True).encode())]

    @default_headers.setter
    def default_headers(self, _value: list[tuple[bytes, bytes]]) -> None: ...


class _Server(uvicorn.Server):
    """Signals stay the daemon's own business; and where uvicorn looks at a flag ten times a second, an event is waited
    for: an idle node has nothing to do."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server_state = _State()
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def main_loop(self) -> None:
        self.begun.set()
        await self.ended.wait()


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    sockets: list[socket.socket],
    *,
    http: type[asyncio.Protocol] | Literal["auto"] = "auto",
    websockets: bool = True,
) -> AsyncIterator[None]:
    """Serve the application on these sockets while the block runs; they are closed at its end. `http`: what a
    connection is, in place of uvicorn's own. Without `websockets` a request to upgrade is answered as any other."""
    config = uvicorn.Config(
        app,
        http=http,
        ws="auto" if websockets else "none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ws_ping_interval=None,  # a local peer's death is its socket's end; a stopped client (^Z) is not dead
        ws_per_message_deflate=False,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=sockets), name="server")
    begun = asyncio.create_task(server.begun.wait())
    try:
        await asyncio.wait((task, begun), return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        begun.cancel()
        server.ended.set()
        await task


async def serve_unix(app: ASGIApp, path: str) -> None:
    """Serve on a unix socket until cancelled; its file is gone afterwards."""
    async with serving(app, [listen_unix(path)]):
        try:
            await asyncio.Event().wait()
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
