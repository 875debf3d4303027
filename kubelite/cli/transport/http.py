"""A minimal HTTP/1.1 client over a connected socket: one request and one response per connection.

The standard library's client takes longer to import (email, ssl) than the daemon takes to answer.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import IO, Any

LONGEST = 64 * 1024  # bytes per header line
CHUNK = 64 * 1024
#: Characters that need no encoding in a path or a query (RFC 3986: unreserved, and the slash).
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


class Broken(OSError):
    """The peer closed the connection or sent an invalid response."""


def quote(text: str) -> str:
    """Encode the text as UTF-8 and percent-encode it, except slashes."""
    return "".join(
        chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape")
    )


def target(path: str, query: Mapping[str, Any] | None) -> str:
    """Build the request target. A list in the query becomes one `name=value` per item."""
    pairs = [
        f"{quote(name)}={quote(str(item))}"
        for name, value in (query or {}).items()
        for item in (value if isinstance(value, list | tuple) else [value])
    ]
    return quote(path) + (f"?{'&'.join(pairs)}" if pairs else "")


def ask(
    connection: socket.socket,
    method: str,
    wanted: str,
    *,
    body: bytes | IO[bytes] | None,
    headers: Mapping[str, str],
) -> Answer:
    """Send the request and return the response with an unread body. The response owns the connection. A file may have
    an unknown length. Raises OSError."""
    lines = [f"{method} {wanted} HTTP/1.1", "Host: kubelite", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    known = isinstance(body, bytes) or "content-length" in {name.lower() for name in headers}
    if isinstance(body, bytes):
        lines.append(f"Content-Length: {len(body)}")
    elif body is None:
        lines += ["Content-Length: 0"] * (method not in ("GET", "HEAD"))
    elif not known:
        lines.append("Transfer-Encoding: chunked")
    head = "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")
    try:
        if body is None or isinstance(body, bytes):
            connection.sendall(head + (body or b""))
        else:
            connection.sendall(head)
            for piece in _pieces(body, chunked=not known):
                connection.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server stopped reading: its response says why
    return Answer(connection)


def _pieces(body: IO[bytes], *, chunked: bool) -> Iterable[bytes]:
    while data := body.read(CHUNK):
        yield b"%x\r\n%b\r\n" % (len(data), data) if chunked else data
    if chunked:
        yield b"0\r\n\r\n"


class Answer:
    """A response: status, headers (names in lower case) and a body that is read as it arrives. Reading raises OSError
    if the connection ends before the body. The connection is closed after the last byte."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")  # keeps the socket open
        self._number = connection.fileno()
        connection.close()
        self.status, self.reason, self.headers = 0, "", list[tuple[str, str]]()
        try:
            while self.status < 200:
                self._head()
            self._chunked = self.header("transfer-encoding").lower() == "chunked"
            length = self.header("content-length")
            if not self._chunked and length and not length.isdigit():
                raise Broken(f"an answer of {length} bytes")
        except BaseException:
            self.close()
            raise
        # bytes left in the body or the current chunk; None: read until the connection closes
        self._left: int | None = 0 if self._chunked else int(length) if length else None
        self._over = self.status in (204, 304) or (self._left == 0 and not self._chunked)
        if self._over:
            self.close()

    def header(self, name: str) -> str:
        """Return the first header of that name, or ""."""
        return next((value for key, value in self.headers if key == name), "")

    def _head(self) -> None:
        words = self._line().split(" ", 2)
        if not words[0].startswith("HTTP/") or len(words) < 2 or not words[1].isdigit():
            raise Broken("it does not speak HTTP")
        self.status, self.reason, self.headers = int(words[1]), words[2] if len(words) > 2 else "", []
        while line := self._line():
            name, _, value = line.partition(":")
            self.headers.append((name.strip().lower(), value.strip()))

    def _line(self) -> str:
        line = self._file.readline(LONGEST)
        if not line.endswith(b"\n"):
            raise Broken("a line without an end" if line else "it was closed")
        return line.decode("latin-1").rstrip("\r\n")

    def _some(self) -> bool:
        """Whether the body has more bytes. After a complete chunk, read the header of the next."""
        if not self._over and self._chunked and self._left == 0:
            size = self._line().partition(";")[0].strip()
            try:
                self._left = int(size, 16)
            except ValueError:
                raise Broken(f"a chunk of {size[:20]!r} bytes") from None
            if self._left == 0:
                while self._line():  # trailers
                    pass
                self._end()
        return not self._over

    def _took(self, data: bytes) -> bytes:
        if self._left is None:
            if not data:
                self._end()
            return data
        if not data:
            raise Broken("it was closed")
        self._left -= len(data)
        if self._left == 0:
            if self._chunked:
                self._line()  # the line break after a chunk
            else:
                self._end()
        return data

    def _end(self) -> None:
        self._over = True
        self.close()

    def read1(self, most: int = CHUNK) -> bytes:
        """Return the available bytes; wait for at least one. b"" at the end of the body."""
        if not self._some():
            return b""
        return self._took(self._file.read1(most if self._left is None else min(most, self._left)))

    def read(self) -> bytes:
        """Read the rest of the body."""
        pieces = []
        while self._some():
            pieces.append(self._took(self._file.read(-1 if self._left is None else self._left)))
        return b"".join(pieces)

    def readline(self) -> bytes:
        """Read up to the end of the line or the body; b"" after the body."""
        pieces: list[bytes] = []
        while not (pieces and pieces[-1].endswith(b"\n")) and self._some():
            pieces.append(self._took(self._file.readline(-1 if self._left is None else self._left)))
        return b"".join(pieces)

    def fileno(self) -> int:
        return -1 if self._file.closed else self._number

    def close(self) -> None:
        self._file.close()
