"""SPDY/3 header blocks: names and values, compressed with zlib and a dictionary. Pure, except for zlib's state.

Source: SPDY protocol draft 3.1, section 2.6.10 (Name/Value Header Block). One compressor serves a whole direction of a
connection, so blocks can only be read in the order in which they were written.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

MOST_BYTES = 64 << 10  # of a decompressed block: a few bytes can decompress to megabytes
MOST_HEADERS = 64

_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 "
    "Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 "
    "Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept "
    "Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,"
    "sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
_LENGTH = struct.Struct(">I")


def _sized(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


#: The dictionary of both directions. Its Adler-32 checksum, e3c6a7c2, begins each compressed stream.
DICTIONARY = b"".join(_sized(name.replace("_", " ").encode()) for name in _NAMES.split()) + _REST.encode()

Headers = Mapping[str, str]  # of a name with several values, they are joined by NUL


class HeaderError(ValueError):
    """A block that cannot be read. The connection is lost: later blocks depend on it."""


class Compressor:
    """Writes the blocks of one direction."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def block(self, headers: Headers) -> bytes:
        pairs = (_sized(part.encode()) for pair in headers.items() for part in pair)
        plain = _LENGTH.pack(len(headers)) + b"".join(pairs)
        return self._zlib.compress(plain) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class Decompressor:
    """Reads the blocks of one direction."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def headers(self, block: bytes) -> dict[str, str]:
        """Return the headers of a compressed block. Raises HeaderError."""
        try:
            plain = self._zlib.decompress(block, MOST_BYTES + 1)
        except zlib.error as error:
            raise HeaderError(f"a header block cannot be decompressed: {error}") from error
        if len(plain) > MOST_BYTES or self._zlib.unconsumed_tail:
            raise HeaderError(f"a header block has more than {MOST_BYTES} bytes")
        return _parsed(plain)


def _parsed(plain: bytes) -> dict[str, str]:
    count, at = _number(plain, 0)
    if count > MOST_HEADERS:
        raise HeaderError(f"a header block has {count} headers, more than {MOST_HEADERS}")
    found: dict[str, str] = {}
    for _ in range(count):
        name, at = _text(plain, at)
        value, at = _text(plain, at)
        if not name or name.lower() in found:
            raise HeaderError("a header has no name, or the name of another one")
        found[name.lower()] = value
    return found


def _number(plain: bytes, at: int) -> tuple[int, int]:
    if at + 4 > len(plain):
        raise HeaderError("a header block is too short")
    return _LENGTH.unpack_from(plain, at)[0], at + 4


def _text(plain: bytes, at: int) -> tuple[str, int]:
    length, at = _number(plain, at)
    if at + length > len(plain):
        raise HeaderError("a header block is too short")
    return plain[at : at + length].decode("latin-1"), at + length
