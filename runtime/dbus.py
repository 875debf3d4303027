"""A minimal D-Bus client for calls to a service manager: a connection, method calls, signals.

Source: the D-Bus specification, "Message Protocol" and "Authentication Protocol" (EXTERNAL: the kernel supplies our
identity). Values are marshalled by their signature: `pack("a(sv)", [[("Slice", ("s", "system.slice"))]])`; a variant is
(signature, value). Messages are sent in little endian and received in either. It supports one thread and one call at a
time.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Any, Final, NamedTuple

from runtime.errors import RuntimeFault, SyscallError

SYSTEM_BUS: Final = "unix:path=/run/dbus/system_bus_socket"
SYSTEMD_PRIVATE: Final = "unix:path=/run/systemd/private"
_CALL, _ANSWER, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_FORMATS: Final = {
    "y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I",
}  # fmt: skip
_ALIGNMENT: Final = {
    **{"y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8, "d": 8, "h": 4},
    **{"s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8},
}
_MAX_MESSAGE: Final = 1 << 27


class BusError(RuntimeFault):
    """An error reply from the other side. `name` is its D-Bus name."""

    reason = "DBus"

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{message} ({name})")
        self.name = name


class Message(NamedTuple):
    kind: int
    reply_serial: int
    path: str
    interface: str
    member: str
    error: str
    body: tuple[Any, ...]


def split(signature: str) -> list[str]:
    """Split a signature into its complete types: `sa(sv)u` → s, a(sv), u. ValueError if it is invalid."""
    found, rest = [], signature
    while rest:
        end = _end(rest, 0)
        found.append(rest[:end])
        rest = rest[end:]
    return found


def _end(signature: str, at: int) -> int:
    if at >= len(signature):
        raise ValueError(f"signature {signature!r} ends too early")
    kind = signature[at]
    if kind == "a":
        return _end(signature, at + 1)
    if kind in "({":
        closing = ")" if kind == "(" else "}"
        at += 1
        while at < len(signature) and signature[at] != closing:
            at = _end(signature, at)
        if at >= len(signature):
            raise ValueError(f"signature {signature!r} has an open {kind}")
        return at + 1
    if kind not in _ALIGNMENT:
        raise ValueError(f"signature {signature!r} has an unknown type {kind!r}")
    return at + 1


def pack(signature: str, values: list[Any] | tuple[Any, ...]) -> bytes:
    """Marshal one value for each type of the signature (D-Bus specification, "Marshaling"). ValueError if the numbers
    differ."""
    out = bytearray()
    for kind, value in zip(split(signature), values, strict=True):
        _pack(out, kind, value)
    return bytes(out)


def _align(out: bytearray, size: int) -> None:
    out += b"\0" * (-len(out) % size)


def _pack(out: bytearray, kind: str, value: Any) -> None:
    head = kind[0]
    _align(out, _ALIGNMENT[head])
    if head in _FORMATS:
        out += struct.pack(f"<{_FORMATS[head]}", value)
    elif head in "so":
        raw = value.encode()
        out += struct.pack("<I", len(raw)) + raw + b"\0"
    elif head == "g":
        out += struct.pack("<B", len(value)) + value.encode() + b"\0"
    elif head == "v":
        _pack(out, "g", value[0])
        _pack(out, value[0], value[1])
    elif head == "a":
        at = len(out)
        out += b"\0\0\0\0"
        _align(out, _ALIGNMENT[kind[1]])
        start = len(out)
        for item in value.items() if kind[1] == "{" else value:
            _pack(out, kind[1:], item)
        struct.pack_into("<I", out, at, len(out) - start)
    else:
        for inner, item in zip(split(kind[1:-1]), value, strict=True):
            _pack(out, inner, item)


class _Reading:
    def __init__(self, data: bytes, endian: str) -> None:
        self.data, self.endian, self.at = data, endian, 0

    def value(self, kind: str) -> Any:
        head = kind[0]
        self._align(_ALIGNMENT[head])
        if head in _FORMATS:
            return self._number(_FORMATS[head])
        if head in "so":
            return self._text(self._number("I"))
        if head == "g":
            return self._text(self._number("B"))
        if head == "v":
            inner = self.value("g")
            return (inner, self.value(inner))
        if head == "a":
            size = self._number("I")
            self._align(_ALIGNMENT[kind[1]])
            end, items = self.at + size, []
            while self.at < end:
                items.append(self.value(kind[1:]))
            return items
        return tuple(self.value(inner) for inner in split(kind[1:-1]))

    def _align(self, size: int) -> None:
        self.at += -self.at % size

    def _number(self, code: str) -> Any:
        (found,) = struct.unpack_from(f"{self.endian}{code}", self.data, self.at)
        self.at += struct.calcsize(f"={code}")
        return found

    def _text(self, size: int) -> str:
        text = self.data[self.at : self.at + size].decode(errors="replace")
        self.at += size + 1
        return text


def unpack(signature: str, data: bytes, endian: str = "<") -> tuple[Any, ...]:
    reading = _Reading(data, endian)
    return tuple(reading.value(kind) for kind in split(signature))


def message(
    kind: int, serial: int, fields: dict[int, tuple[str, Any]], signature: str, body: list[Any]
) -> bytes:
    """A complete message for the socket."""
    content = pack(signature, body)
    if signature:
        fields = {**fields, _SIGNATURE: ("g", signature)}
    header = pack("yyyyuua(yv)", [ord("l"), kind, 0, 1, len(content), serial, list(fields.items())])
    return header + b"\0" * (-len(header) % 8) + content


def socket_address(address: str) -> str | bytes:
    """The argument for connect(2) from `unix:path=…[;…]` or `unix:abstract=…`. ValueError for another transport."""
    for one in address.split(";"):
        transport, _, keys = one.partition(":")
        values = dict(pair.partition("=")[::2] for pair in keys.split(","))
        if transport == "unix" and "path" in values:
            return values["path"]
        if transport == "unix" and "abstract" in values:
            return b"\0" + values["abstract"].encode()
    raise ValueError(f"D-Bus address {address!r} is not that of a unix socket")


class Bus:
    """A connection; the caller calls close().

    `direct`: the other side is the service itself, not a bus that assigns names. `descriptors`: file descriptors in
    replies (type h) are put into `received`, and the caller closes them. `seconds`: the timeout of a socket operation.
    """

    def __init__(
        self, address: str, *, direct: bool = False, descriptors: bool = False, seconds: float = 30.0
    ) -> None:
        self.direct = direct
        self.received: list[int] = []
        self._descriptors = descriptors
        self._serial = 0
        self._waiting: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        self._deadline = time.monotonic() + seconds
        try:
            self._socket.connect(socket_address(address))
            self._authenticate()
            if not direct:
                self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")
        except OSError as error:
            self._socket.close()
            raise SyscallError(error.errno or 0, "connect", f"D-Bus {address}") from error
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor to poll for a signal, which `take` then reads."""
        return self._socket.fileno()

    def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", *args: Any
    ) -> tuple[Any, ...]:
        """Call a method; returns the reply's body. BusError for an error reply, SyscallError if the connection fails or
        times out."""
        self._serial += 1
        fields = {_PATH: ("o", path), _INTERFACE: ("s", interface), _MEMBER: ("s", member)}
        if not self.direct:
            fields[_DESTINATION] = ("s", destination)
        self._socket.sendall(message(_CALL, self._serial, fields, signature, list(args)))
        while True:
            said = self._receive()
            if said.kind == _SIGNAL:
                self._waiting.append(said)
            elif said.reply_serial == self._serial and said.kind == _ERROR:
                raise BusError(said.error, str(said.body[0]) if said.body else f"{member} failed")
            elif said.reply_serial == self._serial and said.kind == _ANSWER:
                return said.body

    def signal(self, member: str) -> tuple[Any, ...]:
        """The body of the next signal of that name, including signals already received."""
        while True:
            said = self._waiting.pop(0) if self._waiting else self._receive()
            if said.kind == _SIGNAL and said.member == member:
                return said.body

    def take(self) -> Message:
        """The next message, including those already received. SyscallError if the connection is closed."""
        return self._waiting.pop(0) if self._waiting else self._receive()

    @property
    def waits(self) -> bool:
        """Whether `take` can return a message without reading."""
        return bool(self._waiting)

    def _authenticate(self) -> None:
        identity = str(os.geteuid()).encode().hex().encode()
        # Send BEGIN at once, as sd-bus does, but no message with it: systemd's private socket would ignore that.
        wishes = b"NEGOTIATE_UNIX_FD\r\n" * self._descriptors
        self._socket.sendall(b"\0AUTH EXTERNAL " + identity + b"\r\n" + wishes + b"BEGIN\r\n")
        said = b""
        while said.count(b"\r\n") <= self._descriptors:
            more = self._socket.recv(1)  # byte by byte, because the data after it may carry a descriptor
            if not more:
                raise ConnectionResetError(104, os.strerror(104))
            said += more
        if not said.startswith(b"OK ") or (self._descriptors and b"AGREE_UNIX_FD" not in said):
            raise BusError("org.freedesktop.DBus.Error.AuthFailed", said.decode(errors="replace").strip())

    def _receive(self) -> Message:
        head = self._exactly(16)
        endian = "<" if head[0] == ord("l") else ">"
        kind, size, fields_size = head[1], *struct.unpack_from(f"{endian}I4xI", head, 4)
        rest = fields_size + -fields_size % 8 + size
        if rest > _MAX_MESSAGE:
            raise BusError("org.freedesktop.DBus.Error.InvalidArgs", "the message is larger than 128 MiB")
        data = self._exactly(rest)
        reading = _Reading(head + data, endian)
        reading.at = 12
        fields = {number: value for number, (_, value) in reading.value("a(yv)")}
        body = unpack(fields.get(_SIGNATURE, ""), data[rest - size :], endian)
        path, interface, member, error = (
            fields.get(key, "") for key in (_PATH, _INTERFACE, _MEMBER, _ERROR_NAME)
        )
        return Message(kind, fields.get(_REPLY_SERIAL, 0), path, interface, member, error, body)

    def _exactly(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                if self._descriptors:
                    part, found, _, _ = socket.recv_fds(self._socket, min(size, 65536), 16)
                    self.received += found
                else:
                    part = self._socket.recv(min(size, 65536))
            except OSError as error:
                raise SyscallError(error.errno or 110, "recv", "D-Bus") from error
            if not part:
                raise SyscallError(104, "recv", "D-Bus: the other side has closed the connection")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
