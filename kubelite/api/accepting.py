"""Accepts connections as long as file descriptors are left for the node itself.

asyncio accepts whatever comes, and when no descriptor is left, it logs a traceback for each of up to `backlog` attempts
and tries all of them again a second later. Pods need descriptors too, for their shims, files and probes. So the last
descriptors up to the limit (RLIMIT_NOFILE) are reserved:

    0 ............................ limit - 2·spare ......... limit - spare ......... limit
         every request is answered        | no new watch or       | a watch ends for each new connection
                                          | stream (429)          |
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubelite.api.errors import failure, refuse
from kubelite.api.upgrade import upgrades
from kubelite.kube.errors import EXHAUSTED, ApiError

log = logging.getLogger(__name__)

BACKLOG = 2048  # connections that wait in the kernel; at most net.core.somaxconn
AT_ONCE = 16  # connections accepted in one turn of the event loop
PAUSE = 0.2  # seconds without accepting after no descriptor was left
LOOK = 1.0  # seconds between looks at the descriptors while a client is connected
TELL = 60.0  # seconds between two warnings
AGAIN = 10  # seconds after which a refused client may try again
KEEPALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 6}  # tcp(7)
MOST_UPGRADED = 256  # connections of an application that have left HTTP: exec, attach, port-forward
OPEN = "/proc/self/fd"
LEAST, MOST = 16, 512  # bounds of `spare`


def spare_descriptors() -> int:
    """Return the size of one reserved zone: a quarter of the process's limit, within bounds."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if limit == resource.RLIM_INFINITY else max(LEAST, min(MOST, limit // 4))


def left_descriptors() -> int:
    """Return how many descriptors this process may still open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return MOST * 4
    try:
        used = os.stat(OPEN).st_size or len(os.listdir(OPEN))  # the size is their number since Linux 6.2
    except OSError:  # none is left to read the directory
        return 0
    return max(0, limit - used)


def is_watch(scope: Scope) -> bool:
    """Whether a request is answered for as long as its client stays: a watch, or a log that is followed."""
    if scope["type"] != "http" or scope.get("method") != "GET":
        return False
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return any(query.get(name, [""])[-1].lower() in ("1", "true") for name in ("watch", "follow"))


#: Begins an accepted connection with a protocol that the function makes. Raises OSError if the client is gone.
Begin = Callable[[Callable[[], asyncio.Protocol], socket.socket], Coroutine[object, object, None]]


async def begin_plain(make: Callable[[], asyncio.Protocol], connection: socket.socket) -> None:
    await asyncio.get_running_loop().connect_accepted_socket(make, connection)


class Acceptor:
    """Accepts connections on listening sockets from construction to `close()`.

    `connections`: uvicorn's set of protocols, whose `transport` and `scope` are read. `make`: creates one.
    """

    def __init__(
        self,
        sockets: Iterable[socket.socket],
        make: Callable[[], asyncio.Protocol],
        connections: set[Any],
        begin: Begin = begin_plain,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = list(sockets)
        self._make = make
        self._connections = connections
        self._begin_with = begin
        self._coming: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._told = -TELL
        for listener in self._sockets:
            listener.setblocking(False)
            listener.listen(BACKLOG)
        self._listen()

    def close(self) -> None:
        """Accept no more connections, and close the sockets."""
        self._deafen()
        for timer in self._timers.values():
            timer.cancel()
        for task in self._coming:
            task.cancel()
        for listener in self._sockets:
            listener.close()

    def replace(self, old: socket.socket, new: socket.socket) -> None:
        """Accept on `new` in place of `old`, which is closed. Connections stay."""
        self._loop.remove_reader(old)
        old.close()
        self._sockets[self._sockets.index(old)] = new
        new.setblocking(False)
        new.listen(BACKLOG)
        self._loop.add_reader(new, self._accept, new)

    def _listen(self) -> None:
        for listener in self._sockets:
            self._loop.add_reader(listener, self._accept, listener)

    def _deafen(self) -> None:
        for listener in self._sockets:
            self._loop.remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._back_off(error)
                return
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            _tune(connection)
        task = self._loop.create_task(self._begin(connection))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)
        if left_descriptors() < spare_descriptors():
            self._shed(1)
        if "look" not in self._timers:
            self._timers["look"] = self._loop.call_later(LOOK, self._look)

    async def _begin(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(connection.close)
            # OSError: the client is gone already, or its handshake failed
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._begin_with(self._make, connection)
                undo.pop_all()

    def _back_off(self, error: OSError) -> None:
        """Leave the connections that wait to the kernel for a moment. A watch that ends makes room for them."""
        self._deafen()
        self._shed(AT_ONCE)
        self._tell(f"cannot accept connections: {os.strerror(error.errno or 0)}; they wait")
        self._timers["listen"] = self._loop.call_later(PAUSE, self._listen)

    def _look(self) -> None:
        """End watches if the pods need the descriptors that watches occupy."""
        self._timers.pop("look", None)
        if (lacking := spare_descriptors() - left_descriptors()) > 0:
            self._shed(lacking)
        if self._connections:
            self._timers["look"] = self._loop.call_later(LOOK, self._look)

    def _shed(self, count: int) -> None:
        """End watches, the oldest first, and then connections without a request. A client connects again and lists
        again, as after every watch that ends."""
        watches = [one for one in self._connections if is_watching(one)]
        idle = [one for one in self._connections if is_idle(one)]
        victims = [*sorted(watches, key=_age), *sorted(idle, key=_age)][:count]
        for one in victims:
            self._connections.discard(one)
            one.transport.abort()
        if victims:
            self._tell(f"file descriptors run out: ended {len(victims)} watches or idle connections")

    def _tell(self, words: str) -> None:
        if (now := self._loop.time()) - self._told >= TELL:
            self._told = now
            log.warning(
                "%s (the limit is %d: ulimit -n)", words, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            )


def _tune(connection: socket.socket) -> None:
    """Have the kernel send each piece of an answer at once: it would hold the second one, the body, until the client
    acknowledges the first, and many clients delay that by 40 ms. (asyncio sets this only where the listening socket was
    created with a protocol number.)

    Have it end a connection whose peer's machine is gone, after 90 seconds. TCP_USER_TIMEOUT, which would
    limit how long sent bytes wait, too, is not set: it also ends connections of clients that are stopped (^Z)."""
    with contextlib.suppress(OSError):  # the client is gone already
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def is_watching(protocol: Any) -> bool:
    cycle = getattr(protocol, "cycle", None)
    return cycle is not None and not cycle.response_complete and is_watch(cycle.scope)


def is_idle(protocol: Any) -> bool:
    """Whether a connection waits for a request. A WebSocket (exec, attach) never is idle."""
    if not hasattr(protocol, "cycle"):
        return False
    return protocol.cycle is None or protocol.cycle.response_complete


def _age(protocol: Any) -> int:
    """Connections of a busy node have ascending descriptors, so a low one is likely the oldest."""
    found: int = protocol.transport.get_extra_info("socket").fileno()
    return found


class FewWatches:
    """ASGI middleware that refuses new watches (429, as the API server does) while descriptors are scarce."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_watch(scope) and left_descriptors() < 2 * spare_descriptors():
            error = _too_many("watches for the node's limit of file descriptors")
            answer = failure(error)
            answer.headers["connection"] = "close"
            return await answer(scope, receive, send)
        await self._app(scope, receive, send)


class FewUpgrades:
    """ASGI middleware that refuses connections that leave HTTP (429) while many are open, or descriptors are scarce:
    each needs some for its program or its pod. It stands behind the check of who sends a request, so that nobody else
    is counted. A shortage that comes before the answer is a refusal, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not upgrades(scope):
            return await self._app(scope, receive, send)
        if self._open >= MOST_UPGRADED:
            words = f"streams: {self._open} are open"
            return await refuse(_too_many(words), scope, receive, send)
        if left_descriptors() < 2 * spare_descriptors():
            words = "streams for the node's limit of file descriptors"
            return await refuse(_too_many(words), scope, receive, send)
        answered = False

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        self._open += 1
        try:
            await self._app(scope, receive, noted)
        except OSError as error:
            if answered or error.errno not in EXHAUSTED:
                raise
            words = f"streams: {os.strerror(error.errno or 0)}"
            await refuse(_too_many(words), scope, receive, send)
        finally:
            self._open -= 1


def _too_many(what: str) -> ApiError:
    words = f"too many {what}, please try again later"
    return ApiError("TooManyRequests", words, details={"retryAfterSeconds": AGAIN})
