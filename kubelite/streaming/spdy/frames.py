"""SPDY/3.1 frames as values, read from bytes and written to bytes. No I/O.

Source: SPDY protocol draft 3.1, section 2.2 (frames) and 2.6 (control frames). The data of a frame is handed on in the
pieces in which it arrives, so a frame of 16 MiB needs no buffer of that size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from kubelite.streaming.spdy.headers import Compressor, Decompressor, HeaderError, Headers

VERSION = 3
MOST_CONTROL = 64 << 10  # bytes of a control frame
MOST_DATA = (1 << 24) - 1  # bytes of a data frame that is written
_HEAD = struct.Struct(">II")
_CONTROL = 1 << 31
_ID = _CONTROL - 1
_FIN = 1


class Type(IntEnum):
    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class Reset(IntEnum):
    """The status of a RST_STREAM."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    CANCEL = 5
    INTERNAL_ERROR = 6


class FrameError(ValueError):
    """Bytes that are no SPDY/3.1. The connection is of no further use."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """The peer opens a stream. `fin`: it sends nothing on it."""

    stream: int
    headers: Headers
    fin: bool = False


@dataclass(frozen=True, slots=True)
class SynReply:
    stream: int
    headers: Headers
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Answered with the same number. Those of a client are odd."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer opens no more streams."""

    last: int
    status: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """Data of a stream, or a piece of a frame's data; `fin` is then with the last piece."""

    stream: int
    data: bytes
    fin: bool = False


Frame = SynStream | SynReply | RstStream | Ping | GoAway | Data


class Decoder:
    """Reads the frames of one direction. SETTINGS, WINDOW_UPDATE and unknown control frames are skipped: the library of
    Kubernetes' clients has no flow control either (github.com/moby/spdystream, connection.go, Serve)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._headers = Decompressor()
        self._data: tuple[int, int, bool] | None = (
            None  # of the data frame being read: stream, bytes left, fin
        )

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that these bytes complete. Raises FrameError."""
        self._buffer += data
        while (frame := self._next()) is not None:
            if not isinstance(frame, _Skipped):
                yield frame

    def _next(self) -> Frame | _Skipped | None:
        if self._data is not None:
            return self._piece(*self._data)
        if len(self._buffer) < _HEAD.size:
            return None
        first, second = _HEAD.unpack_from(self._buffer)
        flags, length = second >> 24, second & 0xFFFFFF
        if not first & _CONTROL:
            if not first:
                raise FrameError("a data frame has no stream")
            del self._buffer[: _HEAD.size]
            self._data = (first, length, bool(flags & _FIN))
            return self._piece(*self._data)
        if (version := first >> 16 & 0x7FFF) != VERSION:
            raise FrameError(f"a frame has the version {version} of SPDY, not {VERSION}")
        if length > MOST_CONTROL:
            raise FrameError(f"a control frame has {length} bytes, more than {MOST_CONTROL}")
        if len(self._buffer) < _HEAD.size + length:
            return None
        body = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
        del self._buffer[: _HEAD.size + length]
        return self._control(first & 0xFFFF, bool(flags & _FIN), body)

    def _piece(self, stream: int, left: int, fin: bool) -> Data | None:
        """Return what has arrived of the current data frame, if that is something or all."""
        piece = bytes(self._buffer[:left])
        if not piece and left:
            return None
        del self._buffer[: len(piece)]
        left -= len(piece)
        self._data = (stream, left, fin) if left else None
        return Data(stream, piece, fin and not left)

    def _control(self, kind: int, fin: bool, body: bytes) -> Frame | _Skipped:
        match kind:
            case Type.SYN_STREAM:
                stream, *_ = _fields(">IIH", body)
                return SynStream(_stream(stream), self._block(body[10:]), fin)
            case Type.SYN_REPLY:
                return SynReply(_stream(*_fields(">I", body)), self._block(body[4:]), fin)
            case Type.RST_STREAM:
                stream, status = _fields(">II", body)
                return RstStream(_stream(stream), status)
            case Type.PING:
                return Ping(*_fields(">I", body))
            case Type.GOAWAY:
                last, status = _fields(">II", body)
                return GoAway(last & _ID, status)
            case Type.HEADERS:
                self._block(body[4:])  # nothing uses them, but the next block depends on them
        return _Skipped()

    def _block(self, block: bytes) -> dict[str, str]:
        try:
            return self._headers.headers(block)
        except HeaderError as error:
            raise FrameError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Skipped:
    """A frame that means nothing to us."""


def _fields(form: str, body: bytes) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, body)
    except struct.error as error:
        raise FrameError("a control frame is too short") from error


def _stream(number: int) -> int:
    if not number & _ID:
        raise FrameError("a control frame has no stream")
    return number & _ID


class Encoder:
    """Writes the frames of one direction."""

    def __init__(self) -> None:
        self._headers = Compressor()

    def encode(self, frame: Frame) -> bytes:
        match frame:
            case Data(stream, data, fin):
                return b"".join(_data_frames(stream, data, fin))
            case SynStream(stream, headers, fin):
                body = struct.pack(">IIH", stream, 0, 0) + self._headers.block(headers)
                return _control_frame(Type.SYN_STREAM, body, fin)
            case SynReply(stream, headers, fin):
                return _control_frame(
                    Type.SYN_REPLY, struct.pack(">I", stream) + self._headers.block(headers), fin
                )
            case RstStream(stream, status):
                return _control_frame(Type.RST_STREAM, struct.pack(">II", stream, status))
            case Ping(number):
                return _control_frame(Type.PING, struct.pack(">I", number))
            case GoAway(last, status):
                return _control_frame(Type.GOAWAY, struct.pack(">II", last, status))


def _control_frame(kind: Type, body: bytes, fin: bool = False) -> bytes:
    return _HEAD.pack(_CONTROL | VERSION << 16 | kind, fin << 24 | len(body)) + body


def _data_frames(stream: int, data: bytes, fin: bool) -> Iterator[bytes]:
    """Yield the frames of data, which may be larger than one can be."""
    for start in range(0, max(1, len(data)), MOST_DATA):
        piece = data[start : start + MOST_DATA]
        last = fin and start + MOST_DATA >= len(data)
        yield _HEAD.pack(stream, last << 24 | len(piece)) + piece
