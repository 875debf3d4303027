"""The shim's end of its socket: any number of clients, their requests, answers and events. It never waits for a client.

Packets for a client that does not read are queued up to a limit; then its connection is closed. The client can
reconnect and read the state again. No behaviour of a client affects a container.
"""

from __future__ import annotations

import array
import errno
import json
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from runtime.errors import RuntimeFault
from runtime.shim.loop import Loop
from runtime.shim.protocol import MAX_PACKET

ACCEPT_PAUSE = 0.5  # seconds to wait if no descriptor is free
QUEUE_MAX = 256  # unread packets per client, in addition to those in its socket

# The "ok" object, and descriptors that are closed after they are sent.
Answer = tuple[dict[str, Any], list[int]]
Dispatch = Callable[["Client", str, dict[str, Any]], Answer | None]  # None: the answer is sent later


class Client:
    """A connection. Compared by identity."""

    def __init__(self, loop: Loop, sock: socket.socket, packet: Callable[[Client], None]) -> None:
        self.sock = sock
        self.subscribed = False
        self.closed = False
        self.on_close: Callable[[Client], None] | None = None
        self._loop = loop
        self._packet = packet
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PACKET)
        loop.watch(sock.fileno(), self._event)

    def _event(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & ~select.EPOLLOUT and not self.closed:
            self._packet(self)

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        payload = json.dumps(message, separators=(",", ":")).encode()
        if len(payload) > MAX_PACKET:
            close_fds(fds or [])
            sentence = f"the answer has {len(payload)} bytes, more than a packet can have"
            payload = json.dumps(
                {
                    "id": message.get("id"),
                    "error": {"reason": "TooLarge", "message": sentence, "retriable": False},
                }
            ).encode()
            fds = None
        if self.closed or len(self._outbox) >= QUEUE_MAX:
            close_fds(fds or [])
            self.close()
            return
        self._outbox.append((payload, fds or []))
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._outbox:
            payload, fds = self._outbox[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                self.sock.sendmsg([payload], rights, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._loop.rearm(self.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError:
                self.close()
                return
            self._outbox.popleft()
            close_fds(fds)
        self._loop.rearm(self.sock.fileno(), select.EPOLLIN)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.unwatch(self.sock.fileno())
        self.sock.close()
        for _, fds in self._outbox:
            close_fds(fds)
        self._outbox.clear()
        if self.on_close is not None:
            self.on_close(self)


class Server:
    """Accepts connections, parses and dispatches requests, and sends answers. `dispatch` raises RuntimeFault for an
    error answer."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        dispatch: Dispatch,
        left: Callable[[Client], None],
        fault: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._dispatch = dispatch
        self._left = left
        self._fault = fault
        self._clients: set[Client] = set()
        self._probe = bytearray(1)
        listener.setblocking(False)
        loop.watch(listener.fileno(), self._accept)

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                # Otherwise epoll would report it again immediately, without end.
                self._loop.unwatch(self._listener.fileno())
                self._loop.after(
                    ACCEPT_PAUSE, lambda: self._loop.watch(self._listener.fileno(), self._accept)
                )
            return
        client = Client(self._loop, sock, self._packet)
        client.on_close = self._gone
        self._clients.add(client)

    def _gone(self, client: Client) -> None:
        self._clients.discard(client)
        self._left(client)

    def _packet(self, client: Client) -> None:
        try:
            # Get the length first (MSG_TRUNC, recv(2)), to allocate no buffer of MAX_PACKET.
            size = client.sock.recv_into(
                self._probe, 1, socket.MSG_PEEK | socket.MSG_TRUNC | socket.MSG_DONTWAIT
            )
            packet = client.sock.recv(min(size, MAX_PACKET), socket.MSG_DONTWAIT) if size else b""
        except BlockingIOError:
            return
        except OSError:
            client.close()
            return
        if not packet:
            client.close()
            return
        if size > MAX_PACKET:
            client.send(_error(None, "TooLarge", f"a request can have at most {MAX_PACKET} bytes"))
            return
        try:
            request = json.loads(packet)
        except ValueError as error:
            client.send(_error(None, "BadRequest", f"the request is not JSON: {error}"))
            return
        if not isinstance(request, dict):
            client.send(_error(None, "BadRequest", "a request must be a JSON object"))
            return
        self._answer(client, request)

    def _answer(self, client: Client, request: dict[str, Any]) -> None:
        number = request.get("id")
        operation = str(request.get("op", ""))
        try:
            answer = self._dispatch(client, operation, request)
        except RuntimeFault as fault:
            client.send(
                _error(number, fault.reason, str(fault), fault.retriable, getattr(fault, "exit_code", None))
            )
        except OSError as error:
            self._fault()
            client.send(_error(number, "SyscallError", f"{operation}: {error}"))
        except Exception as error:  # noqa: BLE001  a bug: report and log it; the pod continues
            self._fault()
            client.send(_error(number, "InternalError", f"{operation}: {type(error).__name__}: {error}"))
        else:
            if answer is not None:
                client.send({"id": number, "ok": answer[0]}, answer[1])

    def publish(self, event: dict[str, Any], owner: object = None) -> None:
        """Send an event to all subscribers, and to the client `owner` even if it has not subscribed."""
        for client in list(self._clients):
            if client.subscribed or client is owner:
                client.send(event)

    def close(self) -> None:
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()
        for client in list(self._clients):
            client.close()


def answer_later(
    client: Client,
    number: object,
    ok: dict[str, Any] | None,
    fault: RuntimeFault | None = None,
    *,
    fds: list[int] | None = None,
) -> None:
    """Answer a request whose dispatch returned None. `fds` are closed after they are sent."""
    if fault is not None:
        client.send(
            _error(number, fault.reason, str(fault), fault.retriable, getattr(fault, "exit_code", None))
        )
    else:
        client.send({"id": number, "ok": ok or {}}, fds)


def close_fds(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def _error(
    number: object, reason: str, message: str, retriable: bool = False, exit_code: int | None = None
) -> dict[str, Any]:
    error: dict[str, Any] = {"reason": reason, "message": message, "retriable": retriable}
    if exit_code is not None:
        error["exit_code"] = exit_code
    return {"id": number, "error": error}
