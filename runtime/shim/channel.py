"""The daemon's end of a socket to a shim or to the forkserver: packets, pending answers, errors as exceptions. asyncio.

Nothing here blocks: packets are small, and sockets are non-blocking. An error from the other side is raised as the
runtime.errors class for its reason.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from runtime.errors import CapabilityError, NotFoundError, RuntimeFault, SpecError, StartError, StateError
from runtime.shim.protocol import MAX_PACKET

_FDS_MAX = 8


class ShimGone(RuntimeFault):
    """No shim is at the other end: it died or was shut down, or the connection broke."""

    reason = "ShimGone"
    retriable = True


_CLASSES: dict[str, type[RuntimeFault]] = {
    "InvalidSpec": SpecError,
    "InvalidState": StateError,
    "AlreadyExists": StateError,
    "StaleSandbox": StateError,
    "NotFound": NotFoundError,
    "StartError": StartError,
    "NotSupported": CapabilityError,
}


def _fault(error: dict[str, Any]) -> RuntimeFault:
    reason = str(error.get("reason", "RuntimeFault"))
    kind = _CLASSES.get(reason, RuntimeFault)
    fault = kind(str(error.get("message", "")), reason=reason, retriable=bool(error.get("retriable", False)))
    if "exit_code" in error:
        fault.exit_code = int(error["exit_code"])  # type: ignore[attr-defined]
    return fault


class Channel:
    """JSON packets with file descriptors over a non-blocking seqpacket socket."""

    def __init__(
        self,
        sock: socket.socket,
        on_packet: Callable[[dict[str, Any], list[int]], None],
        on_close: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_packet = on_packet
        self._on_close = on_close
        self._outbox: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self.closed = False
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PACKET)
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a packet, with copies of descriptors."""
        payload = json.dumps(message, separators=(",", ":")).encode()
        if len(payload) > MAX_PACKET:
            raise SpecError(f"the request has {len(payload)} bytes; a packet can have at most {MAX_PACKET}")
        self._outbox.append((payload, tuple(map(os.dup, fds))))
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._outbox:
            payload, fds = self._outbox[0]
            try:
                if fds:
                    socket.send_fds(self._sock, [payload], fds)
                else:
                    self._sock.send(payload)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._writable)
                return
            except OSError:
                self.close()
                return
            self._outbox.popleft()
            close_fds(fds)

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock.fileno())
        self._flush()

    def _readable(self) -> None:
        try:
            payload, rights, _flags, _ = self._sock.recvmsg(
                MAX_PACKET, socket.CMSG_SPACE(_FDS_MAX * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            payload, rights = b"", []
        fds = array.array("i")
        for level, kind, data in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if not payload:
            self.close()
            return
        try:
            message = json.loads(payload)
        except ValueError:
            close_fds(list(fds))
            self.close()
            return
        self._on_packet(message, list(fds))

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        while self._outbox:
            close_fds(self._outbox.popleft()[1])
        self._on_close()


def close_fds(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


class Calls:
    """Requests that wait for their answers."""

    def __init__(self) -> None:
        self._next = 0
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}

    def new(self) -> tuple[int, asyncio.Future[tuple[dict[str, Any], list[int]]]]:
        self._next += 1
        future = asyncio.get_running_loop().create_future()
        self._waiting[self._next] = future
        return self._next, future

    def forget(self, number: int) -> None:
        self._waiting.pop(number, None)

    def answer(self, message: dict[str, Any], fds: list[int]) -> bool:
        """Deliver an answer. If the request was cancelled or has timed out, drop the answer, close its descriptors, and
        return False."""
        number = message.get("id")
        future = self._waiting.pop(number, None) if isinstance(number, int) else None
        if future is None or future.done():
            close_fds(fds)
            return False
        if "error" in message:
            close_fds(fds)
            future.set_exception(_fault(message["error"]))
        else:
            future.set_result((message.get("ok") or {}, fds))
        return True

    def fail_all(self, make: Callable[[], RuntimeFault]) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(make())
