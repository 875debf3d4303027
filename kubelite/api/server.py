"""The API's server: uvicorn in the daemon's event loop, on sockets that this module opens."""

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

from kubelite.api.peer import Peered
from runtime.errors import StateError


def listen_unix(path: str, group: int | None = None) -> socket.socket:
    """Return a listening socket to which only root and members of the group can connect. The file of a dead daemon is
    replaced. Raises StateError with reason AlreadyRunning if a daemon listens on it."""
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
        os.chmod(path, 0o600)  # before listen(), so that nobody can connect yet
        if group is not None:
            os.chown(path, -1, group)
            os.chmod(path, 0o660)
        server.listen(128)
        server.setblocking(False)
        undo.pop_all()
    return server


class _State(uvicorn_server.ServerState):
    """Computes the default headers of an answer on demand; uvicorn would update the date every second."""

    @property
    def default_headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"date", formatdate(usegmt=True).encode())]

    @default_headers.setter
    def default_headers(self, _value: list[tuple[bytes, bytes]]) -> None: ...


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the daemon. It waits for an event, whereas uvicorn polls a flag ten times
    a second, so an idle node does no work."""

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
) -> AsyncIterator[None]:
    """Serve the application on these sockets until the block exits, then close them. `http` replaces uvicorn's protocol
    class for connections."""
    config = uvicorn.Config(
        app,
        http=http,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ws_ping_interval=None,  # a dead local peer closes its socket; a stopped client (^Z) is not dead
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


async def serve_unix(app: ASGIApp, path: str, *, group: int | None) -> None:
    """Serve on a unix socket for root and the group until cancelled, then remove its file."""
    async with serving(app, [listen_unix(path, group)], http=Peered):
        try:
            await asyncio.Event().wait()
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
