"""The API's server: uvicorn in the daemon's event loop, on sockets that this module opens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Generator
from email.utils import formatdate
from typing import Any

import uvicorn
import uvicorn.server as uvicorn_server
from starlette.types import ASGIApp

from kubelite.api.accepting import BACKLOG, Acceptor, Begin, FewWatches, begin_plain
from kubelite.api.peer import Peered
from kubelite.api.upgrade import Upgradable
from kubelite.kube.inotify import DirectoryWatch
from runtime.errors import StateError
from runtime.tree import make_directories

log = logging.getLogger(__name__)
LOOK_SECONDS = 20.0  # between looks at the socket's file, in case its directory cannot be watched


RETRY_SECONDS = 1.0


def listen_unix(path: str, group: int | None = None) -> socket.socket:
    """Return a listening socket to which only root and members of the group can connect. The file of a dead daemon is
    replaced. Raises StateError with reason AlreadyRunning if a daemon listens on it."""
    make_directories(os.path.dirname(path))
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
        server.listen(BACKLOG)
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
    """A uvicorn server that leaves signals to the daemon, and new connections to an Acceptor. It waits for an event,
    whereas uvicorn polls a flag ten times a second, so an idle node does no work."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], begin: Begin) -> None:
        super().__init__(config)
        self.sockets, self.begin = sockets, begin
        self.server_state = _State()
        self.acceptor: Acceptor
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def main_loop(self) -> None:
        self.acceptor = Acceptor(self.sockets, self._protocol, self.server_state.connections, self.begin)
        try:
            self.begun.set()
            await self.ended.wait()
        finally:
            self.acceptor.close()


def _web_socket(**options: Any) -> asyncio.Protocol:
    """Return uvicorn's protocol for a connection that becomes a WebSocket. It is imported with the first of them, since
    its 19 modules take 10 ms of a start."""
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

    if AutoWebSocketsProtocol is None:
        raise ModuleNotFoundError("WebSockets need the package websockets", name="websockets")
    if getattr(AutoWebSocketsProtocol, "__name__", "") != "WebSocketsSansIOProtocol":  # of older versions
        return AutoWebSocketsProtocol(**options)
    from kubelite.api.web_socket import BoundedWebSocket

    return BoundedWebSocket(**options)


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    sockets: list[socket.socket],
    *,
    http: type[asyncio.Protocol] = Upgradable,
    begin: Begin = begin_plain,
) -> AsyncIterator[Acceptor]:
    """Serve the application on these sockets until the block exits, then close them. `http` replaces uvicorn's protocol
    class for connections, `begin` what is done first with one that was accepted."""
    config = uvicorn.Config(
        FewWatches(app),
        http=http,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        ws=_web_socket,  # type: ignore[arg-type]
        ws_ping_interval=None,  # a dead local peer closes its socket; a stopped client (^Z) is not dead
        ws_per_message_deflate=False,
    )
    server = _Server(config, sockets, begin)
    task = asyncio.create_task(server.serve(sockets=[]), name="server")
    begun = asyncio.create_task(server.begun.wait())
    try:
        await asyncio.wait((task, begun), return_when=asyncio.FIRST_COMPLETED)
        yield server.acceptor
    finally:
        begun.cancel()
        server.ended.set()
        await task


async def serve_unix(app: ASGIApp, path: str, *, group: int | None) -> None:
    """Serve on a unix socket for root and the group until cancelled, then remove its file. If the file is removed or
    replaced meanwhile, it is created again; connections stay."""
    listener = listen_unix(path, group)
    async with serving(app, [listener], http=Peered) as acceptor:
        try:
            while True:
                await _until_removed(path)
                new = await _listen_again(path, group)
                acceptor.replace(listener, new)
                listener = new
                log.warning("the socket %s was removed; it is created again", path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


async def _until_removed(path: str) -> None:
    """Wait until there is another file, or none, at `path`."""
    identity, changed = _identity(path), asyncio.Event()
    while identity is not None and _identity(path) == identity:
        changed.clear()
        with DirectoryWatch(os.path.dirname(path), changed.set), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await changed.wait()


async def _listen_again(path: str, group: int | None) -> socket.socket:
    """Listen as soon as the directory can be written. An error is logged once."""
    said = ""
    while True:
        try:
            return listen_unix(path, group)
        except (OSError, StateError) as error:
            if said != (said := str(error)):
                log.error("the socket %s was removed and cannot be created again: %s", path, error)
        await asyncio.sleep(RETRY_SECONDS)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
