"""A fake logind on a separate bus, as far as delay locks need it, with the D-Bus code of
tests/conformance/systemd_peer.py."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

from tests.conformance.systemd_peer import Reader, packet, text

MANAGER = "org.freedesktop.login1.Manager"


class LogindPeer(threading.Thread):
    """`calls`: (member, arguments) in order; `delay`: seconds that it allows, `raised`: those after it is told to."""

    def __init__(self, path: Path, *, delay: float = 5.0, raised: float = 5.0) -> None:
        super().__init__(daemon=True)
        self.address = f"unix:path={path}"
        self.calls: list[tuple[str, list[Any]]] = []
        self.delay, self.raised = delay, raised
        self.shutting_down = False
        self._locks: list[int] = []  # the reading ends: at their end when the lock is let go
        self._peers: list[socket.socket] = []
        self._serial = 100
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                self._peers.append(peer)
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def close(self) -> None:
        for one in (self._socket, *self._peers):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.join(10)
        for lock in self._locks:
            os.close(lock)
        self._locks = []

    def held(self) -> bool:
        """Whether a client has a lock."""
        return any(not _at_end(lock) for lock in self._locks)

    def prepare_for_shutdown(self, begins: bool) -> None:
        self.shutting_down = begins
        fields = [(1, "o", "/org/freedesktop/login1"), (2, "s", MANAGER), (3, "s", "PrepareForShutdown")]
        self._serial += 1
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.sendall(packet(4, self._serial, fields, "b", struct.pack("<I", begins)))

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            lines = b""
            while not lines.endswith(b"BEGIN\r\n"):
                lines += (more := peer.recv(1))
                if not more:
                    return
                if lines.endswith(b"\r\n") and lines.count(b"\r\n") == 1:
                    peer.sendall(b"OK 00112233445566778899aabbccddeeff\r\n")
                elif lines.endswith(b"NEGOTIATE_UNIX_FD\r\n"):
                    peer.sendall(b"AGREE_UNIX_FD\r\n")
            with peer.makefile("rb") as stream:
                while head := stream.read(16):
                    size, serial, block = struct.unpack("<III", head[4:])
                    rest = stream.read(block + -block % 8 + size)
                    fields = {number: value for number, value in Reader(head + rest, 12).read("a(yv)")[0]}
                    body = Reader(rest[len(rest) - size :]).read(fields.get(8, ""))
                    self._answer(peer, serial, fields[3], body)

    def _answer(self, peer: socket.socket, serial: int, member: str, body: list[Any]) -> None:
        self.calls.append((member, body))
        to: list[tuple[int, str, Any]] = [(5, "u", serial)]
        if member == "Hello":
            peer.sendall(packet(2, 1, to, "s", text(":1.7")))
        elif member == "Get" and body[1] == "InhibitDelayMaxUSec":
            peer.sendall(
                packet(2, 1, to, "v", b"\1t\0" + b"\0" * 5 + struct.pack("<Q", int(self.delay * 1e6)))
            )
        elif member == "Get":
            peer.sendall(packet(2, 1, to, "v", b"\1b\0\0" + struct.pack("<I", self.shutting_down)))
        elif member == "Inhibit":
            reading, writing = os.pipe()
            self._locks.append(reading)
            answer = packet(2, 1, [*to, (9, "u", 1)], "h", struct.pack("<I", 0))
            socket.send_fds(peer, [answer], [writing])
            os.close(writing)
        else:
            if member == "KillUnit":
                self.delay = self.raised
            peer.sendall(packet(2, 1, to, "", b""))


def _at_end(descriptor: int) -> bool:
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 1) == b""
    except BlockingIOError:
        return False
