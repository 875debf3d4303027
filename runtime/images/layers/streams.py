"""Streams: a file that is read while it grows, and decompression in bounded memory.

A blob from the network is written to a file in the session's directory. The thread that hashes and unpacks it follows
the file as it grows. The network never waits for unpacking, memory stays at a few chunks for images of any size, and a
broken download resumes at the file's length.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Full, Queue
from typing import IO, Protocol, cast

from runtime.errors import ImageError

CHUNK = 1 << 20
_COMPRESSED_CHUNK = 256 * 1024
_LARGE = 1 << 27  # bytes of a window, as with `zstd --long`; limits the memory that an image can make us use
_USUAL = 1 << 25  # bytes of a window: enough for every zstd level, except with --ultra or --long
_ZSTD_HEADER = 18  # bytes: the maximum of a frame header (RFC 8878 §3.1.1.1)


class MemoryBudget:
    """A memory budget that the streams of this process share. A stream that needs more than is left waits until others
    end."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._changed = threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        with self._changed:
            while size > self._left:
                self._changed.wait()
            self._left -= size
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()


_window_budget = MemoryBudget(_LARGE)  # bounds the memory of a pull, whatever the number of layers


class Aborted(Exception):
    """The other side of a pipe has given up. Its own error has the reason."""


class Reader(Protocol):
    def read(self, count: int, /) -> bytes: ...


class Spool:
    """A temporary file with one writer and any number of readers that follow it. Thread-safe."""

    def __init__(self, path: str, size: int) -> None:
        self.path = path
        self.size = size  # bytes, from the descriptor; -1 if unknown
        self.received = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._grown = threading.Condition()
        self._complete = False
        self._failure: BaseException | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Append data. Raises ImageError as soon as the data exceeds the promised size, so that a lying registry cannot
        fill the disk."""
        if 0 <= self.size < self.received + len(data):
            raise ImageError(f"the registry sent more than the {self.size} bytes in the manifest")
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        with self._grown:
            self.received += len(data)
            self._grown.notify_all()

    def complete(self) -> None:
        if self.size >= 0 and self.received != self.size:
            raise ImageError(f"received only {self.received} of the {self.size} bytes in the manifest")
        with self._grown:
            self._complete = True
            self._grown.notify_all()

    def fail(self, error: BaseException) -> None:
        with self._grown:
            self._failure = self._failure or error
            self._grown.notify_all()

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read_at(self, offset: int, count: int) -> bytes:
        """Wait for and return up to `count` bytes at `offset`; b"" at the end. Raises Aborted if the writer failed."""
        with self._grown:
            while self.received <= offset and not self._complete and self._failure is None:
                self._grown.wait()
            if self._failure is not None:
                raise Aborted from self._failure
            available = self.received - offset
        return os.pread(self._fd, min(count, available), offset) if available > 0 else b""


class SpoolReader:
    """Follow a spool from its start, and hash what is read."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._at = 0
        self._hash = hashlib.sha256()

    def read(self, count: int, /) -> bytes:
        data = self._spool.read_at(self._at, count)
        self._at += len(data)
        self._hash.update(data)
        return data

    def finish(self) -> str:
        """Read what the decompressor left unread. Returns the digest of the whole blob."""
        while self.read(CHUNK):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def decompress(reader: Reader) -> Generator[bytes]:
    """Decompress a gzip, zstd, bzip2, xz or plain stream, in chunks of at most about CHUNK bytes. The content decides
    the format, not the media type: registries hold layers with a wrong type. Close the generator if it is not read to
    the end, because another stream may wait for its memory. Raises ImageError."""
    yield from _detected(reader)  # lazily, so that errors of the first read too reach the consumer


def _detected(reader: Reader) -> Iterator[bytes]:
    head = b""
    while len(head) < _ZSTD_HEADER and (more := reader.read(_COMPRESSED_CHUNK)):
        head += more
    source = _Prefixed(head, reader)
    if head.startswith(b"\x1f\x8b"):
        return _guarded("gzip", _gunzip(source))
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return _guarded("zstd", _unzstd(source, _window(head)))
    if head.startswith(b"BZh"):
        return _guarded("bzip2", _stdlib(source, bz2.BZ2Decompressor))
    if head.startswith(b"\xfd7zXZ\0"):
        return _guarded("xz", _unxz(source))
    return _plain(source)


class _Prefixed:
    def __init__(self, head: bytes, rest: Reader) -> None:
        self._head = head
        self._rest = rest

    def read(self, count: int, /) -> bytes:
        if self._head:
            piece, self._head = self._head[:count], self._head[count:]
            return piece
        return self._rest.read(count)


def _plain(source: Reader) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk


def _gunzip(source: Reader) -> Iterator[bytes]:
    """Decompress every member of the file: pigz, eStargz and `cat a.gz b.gz` write several."""
    member = zlib.decompressobj(wbits=31)
    pending = b""
    started = False
    while True:
        data = pending or source.read(_COMPRESSED_CHUNK)
        if not data:
            break
        if member.eof:
            if data.strip(b"\0") == b"":  # tape padding
                pending = b""
                continue
            member = zlib.decompressobj(wbits=31)
        started = True
        out = member.decompress(data, CHUNK)
        pending = member.unused_data if member.eof else member.unconsumed_tail
        if out:
            yield out
    if started and not member.eof:
        raise EOFError("it is truncated")


def _window(head: bytes) -> int:
    """The window size of the first frame in bytes; 0 if the frame does not state one (a skippable or broken frame)."""
    import zstandard

    try:
        return zstandard.get_frame_parameters(head).window_size
    except zstandard.ZstdError:
        return 0


def _unzstd(source: Reader, window: int) -> Iterator[bytes]:
    most = _USUAL if 0 < window <= _USUAL else _LARGE
    with _window_budget.take(most):
        yield from _frames(source, most)


def _unxz(source: Reader) -> Iterator[bytes]:
    with _window_budget.take(_LARGE):
        yield from _stdlib(source, partial(lzma.LZMADecompressor, memlimit=_LARGE))


def _frames(source: Reader, most: int) -> Iterator[bytes]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=most)
    follow = cast(IO[bytes], source)  # all it uses is read(size)
    with decompressor.stream_reader(follow, read_size=_COMPRESSED_CHUNK, read_across_frames=True) as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _stdlib(
    source: Reader, make: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]
) -> Iterator[bytes]:
    member = make()
    data = b""
    while True:
        if member.eof:
            data = member.unused_data or source.read(_COMPRESSED_CHUNK)
            if not data.strip(b"\0"):
                return
            member = make()
        elif member.needs_input:
            data = source.read(_COMPRESSED_CHUNK)
            if not data:
                raise EOFError("it is truncated")
        out = member.decompress(data, CHUNK)
        data = b""
        if out:
            yield out


def _guarded(what: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Turn the libraries' errors into ImageError."""
    try:
        yield from chunks
    except (zlib.error, EOFError, lzma.LZMAError) as error:
        raise ImageError(f"not a good {what} stream: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ImageError(f"not a good {what} stream: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "zstandard":
            raise
        raise ImageError(f"not a good {what} stream: {error}") from error


class BombGuard:
    """Refuse a layer that unpacks to more than `floor` bytes and to more than `ratio` times its compressed size."""

    def __init__(self, compressed: int, *, floor: int = 4 << 30, ratio: int = 200) -> None:
        self.limit = max(floor, compressed * ratio)
        self.total = 0

    def watch(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.total += len(chunk)
            if self.total > self.limit:
                raise ImageError(
                    f"it unpacks to more than {self.limit} bytes, which looks like a decompression bomb: refused"
                )
            yield chunk


class Pipe:
    """A bounded queue of chunks between two threads. Either side may abort it."""

    _END = object()

    def __init__(self, depth: int = 4) -> None:
        self._queue: Queue[object] = Queue(depth)
        self._stopped = threading.Event()
        self._failure: BaseException | None = None

    def put_all(self, chunks: Iterator[bytes]) -> None:
        """Producer: put all chunks, then the end. The consumer sees a failure as Aborted."""
        try:
            for chunk in chunks:
                self._put(chunk)
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._put_end()

    def __iter__(self) -> Iterator[bytes]:
        while (item := self._queue.get()) is not self._END:
            assert isinstance(item, bytes)
            yield item
        if self._failure is not None:
            raise Aborted from self._failure

    def stop(self) -> None:
        """Consumer: stop. The producer's next put raises Aborted."""
        self._stopped.set()
        while not self._queue.empty():
            self._queue.get_nowait()

    def _put(self, item: object) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return
            except Full:
                continue
        raise Aborted

    def _put_end(self) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(self._END, timeout=0.2)
                return
            except Full:
                continue
