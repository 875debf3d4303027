"""Read a tar archive once, from front to back, as a stream of entries with raw byte names.

Supports ustar, GNU (long names, base-256 numbers, old sparse files) and pax (path, linkpath, size, ids, mtime with its
fraction, xattrs as SCHILY.xattr or LIBARCHIVE.xattr, sparse 0.0, 0.1 and 1.0): what docker, buildkit, buildah, GNU tar
and bsdtar write. Sources: POSIX pax(1) "pax Interchange Format", GNU tar manual "Tar Internals", libarchive tar(5).
Names are bytes, because a layer may carry any. The standard tarfile module decodes names, keeps every member in memory
and takes three times as long per header, which matters with tens of thousands of small files.
"""

from __future__ import annotations

import base64
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from runtime.errors import ImageError

BLOCK = 512
_ZERO_BLOCK = bytes(BLOCK)
# Extended headers (pax headers, long names) use memory, and a small compressed layer can contain many. Limits of one
# entry: PATH_MAX is 4096 bytes, an xattr's value has at most 64 KiB, and so have the names of all xattrs of a file.
_MAX_EXTENDED = 1 << 20  # bytes
_MAX_HEADERS = 64
# The limit of the whole archive, in bytes. Each xattr counts XATTR_COST bytes more, for its place in a dictionary. The
# largest accepted layer (unpack.MAX_ENTRIES), with an SELinux label and a long path for each entry, needs 230 MB.
MAX_TOTAL = 256 << 20
XATTR_COST = 256
_MAX_TIME = 1 << 63  # nanoseconds: the year 2262
_MAX_SPARSE = 1 << 17  # extents of one sparse file

REGULAR, HARD_LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_DATALESS = frozenset((HARD_LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO))

Write = Callable[[memoryview], None]


@dataclass(slots=True)
class Entry:
    """One member, to read or to write. `size` is the number of data bytes in the archive. `real_size` is the file's
    size, which is larger for a sparse file."""

    name: bytes
    type: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None  # (offset, length) of each extent of data
    real_size: int = 0

    @property
    def shown(self) -> str:
        """The name for an error message."""
        return self.name.decode("utf-8", "backslashreplace")


class ChunkSource:
    """Read exact counts from an iterable of byte chunks of any size. Data that is passed on is not joined."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._view = memoryview(b"")
        self._at = 0

    def read(self, count: int) -> bytes:
        """Read `count` bytes; fewer only at the end of the stream."""
        if self._at + count <= len(self._view):
            piece = self._view[self._at : self._at + count].tobytes()
            self._at += count
            return piece
        parts: list[bytes] = []
        self.copy(count, lambda view: parts.append(view.tobytes()))
        return b"".join(parts)

    def copy(self, count: int, write: Write) -> int:
        """Pass `count` bytes to `write` in pieces. Returns the number of bytes passed; fewer only at the end."""
        left = count
        while left:
            if self._at == len(self._view) and not self._more():
                break
            piece = self._view[self._at : self._at + left]
            self._at += len(piece)
            left -= len(piece)
            write(piece)
        return count - left

    def skip(self, count: int) -> int:
        return self.copy(count, _drop)

    def drain(self) -> None:
        """Read to the end, so that the chunks' consumer has hashed all of them."""
        while self._more():
            pass

    def _more(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._view, self._at = memoryview(chunk), 0
                return True
        self._view, self._at = memoryview(b""), 0
        return False


class TarStream:
    """Iterate over the entries of an archive. Call `copy_data` while an entry is current. Raises ImageError for invalid
    tar."""

    def __init__(self, source: ChunkSource) -> None:
        self._source = source
        self._left = 0  # unread data bytes of the current entry
        self._padding = 0
        self._global: dict[bytes, bytes] = {}
        self._headers = self._extended_bytes = 0  # extended headers before the current entry
        self._total = 0  # bytes of extended headers in the archive, at most MAX_TOTAL
        self._name = ""  # the current entry's name, for messages

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
        self._source.drain()

    def copy_data(self, entry: Entry, write: Write) -> None:
        """Pass the entry's stored data to `write`; for a sparse file, its extents one after the other."""
        self._take(min(entry.size, self._left), write)

    def copy_extent(self, length: int, write: Write) -> None:
        """Pass the next `length` bytes of a sparse entry's data to `write`."""
        if length > self._left:
            raise _bad(f'the sparse map of "{self._name}" is longer than its data')
        self._take(length, write)

    def _take(self, count: int, write: Write) -> None:
        got = self._source.copy(count, write)
        self._left -= got
        if got != count:
            raise _bad(f'it ends in the middle of "{self._name}"')

    def _next(self) -> Entry | None:
        pax: dict[bytes, bytes] = {}
        sparse_map: list[tuple[int, int]] = []
        long_name = long_link = b""
        self._headers = self._extended_bytes = 0
        while True:
            header = self._header()
            if header is None:
                return None
            kind = header[156:157]
            size = _number(header[124:136], "size")
            if kind == b"x":
                sparse_map = _parse_pax(self._extended(size), pax)
            elif kind == b"g":
                before = len(self._global)
                _parse_pax(self._extended(size), self._global)
                self._charge((len(self._global) - before) * XATTR_COST)
            elif kind == b"L":
                long_name = self._extended(size).rstrip(b"\0")
            elif kind == b"K":
                long_link = self._extended(size).rstrip(b"\0")
            else:
                break
        entry = _plain_entry(header, size)
        entry.name = long_name or entry.name
        entry.link = long_link or entry.link
        self._name = entry.shown
        if self._global or pax:
            _apply_pax(entry, {**self._global, **pax})
            self._name = entry.shown
            self._charge(len(entry.xattrs) * XATTR_COST)
        if not -_MAX_TIME < entry.mtime_ns < _MAX_TIME:
            raise _bad(f'the time of "{self._name}" is out of range')
        self._begin_data(entry)
        if entry.type == REGULAR and entry.name.endswith(
            b"/"
        ):  # the whole name: in a header it may be cut at a slash
            entry.type = DIRECTORY  # the old form of a directory; its data is skipped
        if kind == b"S":
            self._gnu_sparse(entry, header)
        elif b"GNU.sparse.major" in pax or b"GNU.sparse.map" in pax or sparse_map:
            self._pax_sparse(entry, pax, sparse_map)
        return entry

    def _begin_data(self, entry: Entry) -> None:
        if entry.type in _DATALESS:
            entry.size = 0
        entry.real_size = entry.size
        self._left = entry.size
        self._padding = -entry.size % BLOCK

    def _header(self) -> bytes | None:
        """The next header block, or None at the end: at two zero blocks, at one, or (as in Go) simply at the end of the
        data."""
        if self._left or self._padding:
            rest = self._left + self._padding
            skipped = self._source.skip(rest)
            if skipped < rest:
                raise _bad(f'it ends in the middle of "{self._name}"')
            self._left = self._padding = 0
        header = self._source.read(BLOCK)
        if not header or header == _ZERO_BLOCK:
            return None
        if len(header) < BLOCK:
            raise _bad(
                f'it ends in the middle of the header after "{self._name}"'
                if self._name
                else "it is too short"
            )
        if not _checksum_ok(header):
            where = f'after "{self._name}"' if self._name else "at its start"
            raise _bad(f"there is no valid header {where}")
        return header

    def _extended(self, size: int) -> bytes:
        self._headers += 1
        self._extended_bytes += size
        if self._extended_bytes > _MAX_EXTENDED or self._headers > _MAX_HEADERS:
            raise _bad(
                f'the entry after "{self._name}" has {self._headers} extended headers of {self._extended_bytes} bytes; '
                f"at most {_MAX_HEADERS} of {_MAX_EXTENDED} bytes are accepted"
            )
        self._charge(size)
        data = self._source.read(size + (-size % BLOCK))
        if len(data) < size:
            raise _bad(f'it ends in the middle of an extended header after "{self._name}"')
        return data[:size]

    def _charge(self, cost: int) -> None:
        self._total += cost
        if self._total > MAX_TOTAL:
            raise _bad(
                f'its extended headers up to "{self._name}" need more than {MAX_TOTAL >> 20} MiB; '
                "no honest layer has so many names and attributes"
            )

    def _gnu_sparse(self, entry: Entry, header: bytes) -> None:
        """Read the map of GNU's old format: four extents in the header, 21 in each extension block after it."""
        extents = _gnu_extents(header[386:482])
        entry.type = REGULAR
        extended = header[482]
        while extended:
            block = self._source.read(BLOCK)
            if len(block) < BLOCK or len(extents) > _MAX_SPARSE:
                raise _bad(f'the sparse map of "{self._name}" is broken')
            extents += _gnu_extents(block[:504])
            extended = block[504]
        _set_sparse(entry, extents, _number(header[483:495], "real size"))

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes], extents: list[tuple[int, int]]) -> None:
        if name := pax.get(b"GNU.sparse.name"):
            entry.name = name
            self._name = entry.shown
        real = _decimal(pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b"0", "sparse size")
        if pax.get(b"GNU.sparse.major") == b"1":
            extents = self._sparse_1_0(entry)
        elif encoded := pax.get(b"GNU.sparse.map"):
            numbers = [_decimal(n, "sparse map") for n in encoded.split(b",")]
            extents = list(zip(numbers[::2], numbers[1::2], strict=False))
        _set_sparse(entry, extents, real)

    def _sparse_1_0(self, entry: Entry) -> list[tuple[int, int]]:
        """Read the map of version 1.0: decimal lines at the start of the data, padded to a block."""
        buffer = b""
        wanted = 1
        numbers: list[int] = []
        while len(numbers) < wanted:
            newline = buffer.find(b"\n")
            if newline < 0:
                if len(buffer) > 64 or self._left < BLOCK:
                    raise _bad(f'the sparse map of "{self._name}" is broken')
                parts: list[bytes] = []
                self._take(BLOCK, lambda view, into=parts: into.append(view.tobytes()))  # type: ignore[misc]
                entry.size -= BLOCK
                buffer += b"".join(parts)
                continue
            numbers.append(_decimal(buffer[:newline], "sparse map"))
            buffer = buffer[newline + 1 :]
            if len(numbers) == 1:
                wanted = 1 + 2 * numbers[0]
                if numbers[0] > _MAX_SPARSE:
                    raise _bad(f'the sparse map of "{self._name}" has {numbers[0]} extents')
        return list(zip(numbers[1::2], numbers[2::2], strict=True))


def _drop(_view: memoryview) -> None:
    return


def _bad(why: str) -> ImageError:
    return ImageError(f"not a good tar stream: {why}")


def _checksum_ok(header: bytes) -> bool:
    """Check the header's checksum: the sum of all bytes, with the checksum field taken as spaces. Some old tars summed
    signed bytes."""
    try:
        stored = int(header[148:156].split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        return False
    total = sum(header) - sum(header[148:156]) + 8 * 32
    if stored == total:
        return True
    negative = sum(1 for byte in header[:148] + header[156:] if byte > 127)
    return stored == total - 256 * negative


def _number(raw: bytes, what: str) -> int:
    """Parse octal text, or base-256 if the top bit of the first byte is set (GNU). Raises ImageError for negative
    numbers."""
    if raw[0] & 0x80:
        if raw[0] & 0x40:
            raise _bad(f"a header has a negative {what}")
        return int.from_bytes(bytes([raw[0] & 0x3F]) + raw[1:], "big")
    text = raw.split(b"\0", 1)[0].strip()
    try:
        value = int(text, 8) if text else 0
    except ValueError:
        raise _bad(f"a header's {what} is not a number") from None
    if value < 0:
        raise _bad(f"a header has a negative {what}")
    return value


def _signed_number(raw: bytes, what: str) -> int:
    """Like `_number`, for mtime, which may be before 1970."""
    if raw[0] & 0x80 and raw[0] & 0x40:
        return int.from_bytes(raw, "big", signed=True)
    return _number(raw, what)


def _decimal(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 20:
        raise _bad(f"a pax header's {what} is not a number")
    return int(text)


def _plain_entry(header: bytes, size: int) -> Entry:
    kind = header[156:157]
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":  # POSIX; GNU's "ustar  " has other fields in place of the prefix
        prefix = header[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    if kind in {b"\0", b"7"}:
        kind = REGULAR
    return Entry(
        name=name,
        type=kind,
        mode=_number(header[100:108], "mode") & 0o7777,
        uid=_number(header[108:116], "uid"),
        gid=_number(header[116:124], "gid"),
        size=size,
        mtime_ns=_signed_number(header[136:148], "mtime") * 1_000_000_000,
        link=header[157:257].split(b"\0", 1)[0],
        major=_number(header[329:337], "device number") if kind in {CHAR, BLOCK_DEVICE} else 0,
        minor=_number(header[337:345], "device number") if kind in {CHAR, BLOCK_DEVICE} else 0,
    )


_XATTRS = (b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")
# The keys of pax headers that are used; all others (comments, access times, checksums, …) are dropped.
_KEYS = frozenset((b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime")) | {
    b"GNU.sparse." + key for key in (b"name", b"realsize", b"size", b"major", b"map")
}


def _parse_pax(data: bytes, into: dict[bytes, bytes]) -> list[tuple[int, int]]:
    """Parse `<length> <key>=<value>\\n` records. An empty value deletes the key. Sparse 0.0 repeats offset and
    numbytes; these pairs are returned."""
    offsets: list[int] = []
    lengths: list[int] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        if space < 0:
            raise _bad("a pax record has no length")
        length = _decimal(data[at:space], "record length")
        record = data[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if length <= space + 1 - at or not equals or value[-1:] != b"\n":
            raise _bad("a pax record is broken")
        at += length
        value = value[:-1]
        if key == b"GNU.sparse.offset":
            offsets.append(_decimal(value, "sparse offset"))
        elif key == b"GNU.sparse.numbytes":
            lengths.append(_decimal(value, "sparse length"))
        elif key.startswith(_XATTRS) or (value and key in _KEYS):
            into[key] = value
        else:
            into.pop(key, None)
    return list(zip(offsets, lengths, strict=False))


def _apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
    for key, value in pax.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = _decimal(value, "size")
        elif key == b"uid":
            entry.uid = _decimal(value, "uid")
        elif key == b"gid":
            entry.gid = _decimal(value, "gid")
        elif key == b"mtime":
            entry.mtime_ns = _pax_time(value)
        elif key.startswith(b"SCHILY.xattr."):
            entry.xattrs[key[13:]] = value
        elif key.startswith(b"LIBARCHIVE.xattr."):
            name = urllib.parse.unquote_to_bytes(key[17:])
            entry.xattrs.setdefault(name, _base64(value))


def _base64(value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4))
    except ValueError:
        raise _bad("a pax header's attribute is not base64") from None


def _pax_time(value: bytes) -> int:
    """Convert decimal seconds with a fraction of any length to exact nanoseconds. A float would lose the last
    digits."""
    negative = value.startswith(b"-")
    whole, _, fraction = value.lstrip(b"-").partition(b".")
    nanoseconds = _decimal(whole or b"0", "mtime") * 1_000_000_000
    nanoseconds += _decimal(fraction[:9].ljust(9, b"0"), "mtime")
    return -nanoseconds if negative else nanoseconds


def _gnu_extents(raw: bytes) -> list[tuple[int, int]]:
    extents = []
    for at in range(0, len(raw), 24):
        if not raw[at]:
            break
        offset = _number(raw[at : at + 12], "sparse offset")
        extents.append((offset, _number(raw[at + 12 : at + 24], "sparse length")))
    return extents


def _set_sparse(entry: Entry, extents: list[tuple[int, int]], real_size: int) -> None:
    end = 0
    for offset, length in extents:
        if offset < end:
            raise _bad(f'the sparse map of "{entry.shown}" overlaps')
        end = offset + length
    if end > real_size or sum(length for _, length in extents) > entry.size:
        raise _bad(f'the sparse map of "{entry.shown}" does not fit its size')
    entry.sparse = extents
    entry.real_size = real_size
