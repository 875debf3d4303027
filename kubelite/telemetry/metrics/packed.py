"""Builds one gzip stream (RFC 1952) from new text and from text that was compressed for an earlier page.

Most of a page is unchanged since the last scrape, and compression is most of a page's cost. A `Piece` is a sequence of
deflate blocks (RFC 1951) that does not refer to earlier data and ends on a whole byte, as after Z_FULL_FLUSH. It can
therefore be placed anywhere in any stream. The checksum of the stream is combined from those of its parts, as by zlib's
crc32_combine.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # deflate, no name, no time, fastest, unknown system
_POLYNOMIAL = 0xEDB88320  # of CRC-32, bit-reversed
_LEVEL = 1  # higher levels take twice the time and save an eighth


@dataclass(frozen=True)
class Piece:
    """Compressed text that can be reused. `crc` and `size`: checksum and bytes of the uncompressed text."""

    data: bytes
    crc: int
    size: int

    @cached_property
    def shift(self) -> int:
        """Return the factor for the checksum of text to which this piece is appended: x to the power of 8 * size."""
        return _power(self.size)


class Packer:
    """Compresses text and adds pieces, in order. `end()` returns the whole stream."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)  # -15: without a header
        self._parts = [_HEADER]
        self._crc = self._size = 0
        self._clean = True  # the next data will not refer to earlier data

    def text(self, text: bytes) -> None:
        self._parts.append(self._deflate.compress(text))
        self._clean = False
        self._crc = zlib.crc32(text, self._crc)
        self._size += len(text)

    def piece(self, text: bytes) -> Piece:
        """Add `text` and return it as a piece."""
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
    """The pieces of earlier pages: key → version and pieces."""

    def __init__(self) -> None:
        self._places: dict[Hashable, tuple[object, list[Piece]]] = {}

    def find(self, key: Hashable, version: object) -> list[Piece] | None:
        """Return the pieces of this version, or None."""
        known = self._places.get(key)
        if known is None or known[0] != version:
            return None
        if len(known[1]) > 1:
            known[1][:] = [_joined(known[1])]
        return known[1]

    def place(self, key: Hashable, version: object) -> list[Piece]:
        """Return the list to which the pieces of a new version are appended."""
        self._places[key] = version, []
        return self._places[key][1]

    def clear(self) -> None:
        self._places.clear()


def _joined(pieces: list[Piece]) -> Piece:
    """Join pieces. Each ends on a whole byte and does not refer to earlier data, so this is true of the result, too."""
    crc = 0
    for piece in pieces:
        crc = _multiply(piece.shift, crc) ^ piece.crc
    return Piece(b"".join([piece.data for piece in pieces]), crc, sum(piece.size for piece in pieces))


def _multiply(a: int, b: int) -> int:
    """Return a * b modulo the polynomial, as zlib's multmodp."""
    product, bit = 0, 1 << 31
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def _power(size: int) -> int:
    """Return x to the power of 8 * size."""
    square, found = _multiply(1 << 23, 1 << 31), 1 << 31  # x^8, x^0
    while size:
        if size & 1:
            found = _multiply(square, found)
        square = _multiply(square, square)
        size >>= 1
    return found
