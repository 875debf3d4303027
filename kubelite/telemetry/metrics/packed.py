"""One gzip stream (RFC 1952) of text that is new and of text that was packed for an earlier page.

Most of a page says what it said at the last scrape, and packing is most of a page's cost. A `Piece` is a run of deflate
blocks (RFC 1951) that looks at nothing before it and ends on a whole byte, as Z_FULL_FLUSH leaves it: it can stand
anywhere in any stream. The checksum of the whole is put together from those of its parts, as zlib's crc32_combine does.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # deflate, no name, no time, fastest, unknown system
_POLYNOMIAL = 0xEDB88320  # of CRC-32, its bits reversed
_LEVEL = 1  # the next ones take twice the time for an eighth less


@dataclass(frozen=True)
class Piece:
    """Packed text that can be used again: `crc` and `size` are of the text."""

    data: bytes
    crc: int
    size: int

    @cached_property
    def shift(self) -> int:
        """What a checksum is multiplied by when this follows: x to the power of 8 * size."""
        return _power(self.size)


class Packer:
    """Takes text and pieces in order; `end()` gives the whole."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)  # -15: without a header of its own
        self._parts = [_HEADER]
        self._crc = self._size = 0
        self._clean = True  # what comes next looks at nothing before it

    def text(self, text: bytes) -> None:
        self._parts.append(self._deflate.compress(text))
        self._clean = False
        self._crc = zlib.crc32(text, self._crc)
        self._size += len(text)

    def piece(self, text: bytes) -> Piece:
        """`text`, and what it was packed to."""
        self._cut()
        data = self._deflate.compress(text) + self._deflate.flush(zlib.Z_FULL_FLUSH)
        self._parts.append(data)
        self._crc = zlib.crc32(text, self._crc)
        self._size += len(text)
        return Piece(data, zlib.crc32(text), len(text))

    def again(self, piece: Piece) -> None:
        self._cut()
        self._parts.append(piece.data)
        self._crc = _multiply(piece.shift, self._crc) ^ piece.crc
        self._size += piece.size

    def end(self) -> bytes:
        self._parts += (self._deflate.flush(), struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))
        return b"".join(self._parts)

    def _cut(self) -> None:
        if not self._clean:
            self._parts.append(self._deflate.flush(zlib.Z_FULL_FLUSH))
            self._clean = True


class Shelf:
    """Pieces of the last pages by what they are of, each in the version that was packed."""

    def __init__(self) -> None:
        self._places: dict[Hashable, tuple[object, list[Piece]]] = {}

    def find(self, key: Hashable, version: object) -> list[Piece] | None:
        """None when there is none of this version."""
        known = self._places.get(key)
        if known is None or known[0] != version:
            return None
        if len(known[1]) > 1:
            known[1][:] = [_joined(known[1])]
        return known[1]

    def place(self, key: Hashable, version: object) -> list[Piece]:
        """Where the pieces of a new version go."""
        self._places[key] = version, []
        return self._places[key][1]

    def clear(self) -> None:
        self._places.clear()


def _joined(pieces: list[Piece]) -> Piece:
    """They end on whole bytes and look at nothing before them: so does what they are together."""
    crc = 0
    for piece in pieces:
        crc = _multiply(piece.shift, crc) ^ piece.crc
    return Piece(b"".join([piece.data for piece in pieces]), crc, sum(piece.size for piece in pieces))


def _multiply(a: int, b: int) -> int:
    """a * b modulo the polynomial, as zlib's multmodp."""
    product, bit = 0, 1 << 31
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _power(size: int) -> int:
    """x to the power of 8 * size."""
    square, found = _multiply(1 << 23, 1 << 31), 1 << 31  # x^8, x^0
    while size:
        if size & 1:
            found = _multiply(square, found)
        square = _multiply(square, square)
        size >>= 1
    return found
