"""A fake systemd that creates scopes: its D-Bus interface on a separate socket, with real cgroups. Its D-Bus code is
independent of the engine's and follows the text of the specification."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

_SIZES = {"y": (1, "B"), "b": (4, "I"), "u": (4, "I"), "i": (4, "i"), "t": (8, "Q"), "x": (8, "q")}


class Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def read(self, signature: str) -> list[Any]:
        found, position = [], [0]
        while position[0] < len(signature):
            found.append(self._one(signature, position))
        return found

    def _one(self, signature: str, position: list[int]) -> Any:
        kind = signature[position[0]]
        position[0] += 1
        if kind in _SIZES:
            size, code = _SIZES[kind]
            self.at += -self.at % size
            (value,) = struct.unpack_from("<" + code, self.data, self.at)
            self.at += size
            return value
        if kind in "so":
            self.at += -self.at % 4
            (size,) = struct.unpack_from("<I", self.data, self.at)
            return self._text(4, size)
        if kind == "g":
            return self._text(1, self.data[self.at])
        if kind == "v":
            inner = self._text(1, self.data[self.at])
            return self._one(inner, [0])
        if kind == "(":
            self.at += -self.at % 8
            values = []
            while signature[position[0]] != ")":
                values.append(self._one(signature, position))
            position[0] += 1
            return values
        assert kind == "a", kind
        self.at += -self.at % 4
        (size,) = struct.unpack_from("<I", self.data, self.at)
        self.at += 4
        if signature[position[0]] in "(xt":
            self.at += -self.at % 8
        end, start, values = self.at + size, position[0], []
        while self.at < end:
            position[0] = start
            values.append(self._one(signature, position))
        if not values:
            position[0] = _past(signature, start)
        return values

    def _text(self, head: int, size: int) -> str:
        self.at += head
        text = self.data[self.at : self.at + size].decode()
        self.at += size + 1
        return text


def _past(signature: str, at: int) -> int:
    while signature[at] == "a":
        at += 1
    depth = 0
    while True:
        depth += {"(": 1, ")": -1}.get(signature[at], 0)
        at += 1
        if depth == 0:
            return at


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<I", len(raw)) + raw + b"\0"


def packet(kind: int, serial: int, fields: list[tuple[int, str, Any]], signature: str, body: bytes) -> bytes:
    if signature:
        fields = [*fields, (8, "g", signature)]
    block = b""
    for number, of, value in fields:
        block += b"\0" * (-len(block) % 8) + bytes([number, 1]) + of.encode() + b"\0"
        if of == "u":
            block += b"\0" * (-len(block) % 4) + struct.pack("<I", value)
        elif of == "g":
            block += bytes([len(value)]) + value.encode() + b"\0"
        else:
            block += b"\0" * (-len(block) % 4) + text(value)
    head = struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), serial, len(block)) + block
    return head + b"\0" * (-len(head) % 8) + body


class Systemd(threading.Thread):
    """`units`: the existing units; `calls`: (member, arguments) in order."""

    def __init__(self, path: Path, *, result: str = "done") -> None:
        super().__init__(daemon=True)
        self.calls: list[tuple[str, list[Any]]] = []
        self.units: dict[str, dict[str, Any]] = {}
        self.failed: set[str] = set()
        self.result = result
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                with peer, contextlib.suppress(ConnectionError):
                    self._serve(peer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join(10)

    def _serve(self, peer: socket.socket) -> None:
        lines = b""
        while not lines.endswith(b"BEGIN\r\n"):
            lines += (more := peer.recv(1))
            if not more:
                return
            if lines.endswith(b"\r\n") and b"AUTH EXTERNAL " in lines and b"BEGIN" not in lines:
                assert bytes.fromhex(lines.split()[-1].decode()).decode() == str(os.geteuid())
                peer.sendall(b"OK 00112233445566778899aabbccddeeff\r\n")
        with peer.makefile("rb") as stream:
            while head := stream.read(16):
                size, serial, block = struct.unpack("<III", head[4:])
                rest = stream.read(block + -block % 8 + size)
                fields = {number: value for number, value in Reader(head + rest, 12).read("a(yv)")[0]}
                body = Reader(rest[len(rest) - size :]).read(fields.get(8, ""))
                peer.sendall(self._answer(serial, fields[3], body))

    def _answer(self, serial: int, member: str, body: list[Any]) -> bytes:
        self.calls.append((member, body))
        if member in ("StartTransientUnit", "StopUnit"):
            name = body[0]
            if member == "StartTransientUnit" and name in (*self.failed, *self.units):
                return _error(serial, "UnitExists", f"Unit {name} was already loaded.")
            if member == "StopUnit" and name not in self.units:
                return _error(serial, "NoSuchUnit", f"Unit {name} not loaded.")
            if member == "StartTransientUnit" and self.result == "done":
                self._make(name, dict(map(tuple, body[2])))
            if member == "StopUnit":
                self.units.pop(name)
            job = f"/org/freedesktop/systemd1/job/{serial}"
            other = _removed("/org/freedesktop/systemd1/job/4711", "another.service", "failed")
            return packet(2, 1, [(5, "u", serial)], "o", text(job)) + other + _removed(job, name, self.result)
        if member == "ResetFailedUnit":
            self.failed.discard(body[0])
        return packet(2, 1, [(5, "u", serial)], "", b"")

    def _make(self, name: str, properties: dict[str, Any]) -> None:
        parts = properties["Slice"].removesuffix(".slice").split("-")
        path = "".join(f"/{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts))) + f"/{name}"
        unified = Path(
            "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
        )
        others = (Path("/sys/fs/cgroup", name) for name in ("systemd", "pids"))
        for root in (unified, *(place for place in others if place.is_dir())):
            Path(f"{root}{path}").mkdir(parents=True, exist_ok=True)
            for pid in properties["PIDs"]:
                Path(f"{root}{path}/cgroup.procs").write_text(str(pid))
        self.units[name] = properties


def _error(serial: int, name: str, message: str) -> bytes:
    fields = [(5, "u", serial), (4, "s", f"org.freedesktop.systemd1.{name}")]
    return packet(3, 1, fields, "s", text(message))


def _removed(job: str, unit: str, result: str) -> bytes:
    body = struct.pack("<I", 7) + text(job)
    for value in (unit, result):
        body += b"\0" * (-len(body) % 4) + text(value)
    where = [(1, "o", "/org/freedesktop/systemd1"), (2, "s", "org.freedesktop.systemd1.Manager")]
    fields = [*where, (3, "s", "JobRemoved")]
    return packet(4, 2, fields, "uoss", body)
