"""Write an overlay's upper directory as a layer's tar: what was added, changed and (as whiteouts) deleted.

Equal files give equal bytes: entries are sorted, owners are numeric, access times are omitted. Whiteouts and opaque
directories change from overlayfs's form to the image's (image-spec layer.md, "Whiteouts"). Hard links, devices, fifos,
extended attributes and nanoseconds are preserved. With an epoch (SOURCE_DATE_EPOCH), younger files get that time, both
in the directory and in the tar.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.images.layers import tarstream
from runtime.images.layers.lower import LowerView, is_opaque, is_whiteout
from runtime.images.layers.tarstream import Entry
from runtime.images.layers.unpack import OPAQUE_MARKER, WHITEOUT_PREFIX

_BLOCK = 512
_RECORD = 10240  # GNU tar's default, which every reader accepts
_CHUNK = 1 << 20
_OCTAL_MAX = 0o7777777  # the largest uid or gid in a header; larger ones need a pax record
_SIZE_MAX = 0o77777777777
_NOT_CONTENT = (b"trusted.overlay.", b"security.selinux")
_KINDS = {
    stat.S_IFREG: tarstream.REGULAR,
    stat.S_IFDIR: tarstream.DIRECTORY,
    stat.S_IFLNK: tarstream.SYMLINK,
    stat.S_IFCHR: tarstream.CHAR,
    stat.S_IFBLK: tarstream.BLOCK_DEVICE,
    stat.S_IFIFO: tarstream.FIFO,
}


@dataclass(frozen=True, slots=True)
class Diff:
    digest: str  # of the tar; also the diff id
    size: int
    entries: int


class TarWriter:
    """Writes tar members and hashes them."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._hash = hashlib.sha256()
        self.size = 0
        self.entries = 0

    def add(self, member: Entry) -> None:
        """Write a member's header. For a regular file, call `data` next with its `size`."""
        records = _pax_records(member)
        if records:
            self.put(_header(Entry(b"PaxHeaders/x", b"x", 0o644, size=len(records))))
            self.put(records + bytes(-len(records) % _BLOCK))
        self.put(_header(member))
        self.entries += 1

    def put(self, data: bytes) -> None:
        self._hash.update(data)
        self._write(data)
        self.size += len(data)

    def data(self, fd: int, size: int) -> None:
        """Write exactly `size` bytes of the file. If the file is shorter, zeros follow."""
        left = size
        while left:
            chunk = os.read(fd, min(left, _CHUNK))
            if not chunk:
                chunk = bytes(min(left, _CHUNK))
            self.put(chunk)
            left -= len(chunk)
        self.put(bytes(-size % _BLOCK))

    def finish(self) -> Diff:
        end = 2 * _BLOCK
        self.put(bytes(end + -(self.size + end) % _RECORD))
        return Diff(f"sha256:{self._hash.hexdigest()}", self.size, self.entries)


def write_layer(
    upper: str, lower: Sequence[str], write: Callable[[bytes], object], *, epoch: int | None = None
) -> Diff:
    """Write the tar of `upper` over `lower` (layer directories, topmost first). Raises OSError."""
    writer = TarWriter(write)
    _Walk(writer, upper, LowerView(lower), epoch).run(_root_changed(upper, lower))
    return writer.finish()


def write_tree(root: int, write: Callable[[bytes], object], *, epoch: int | None = None) -> Diff:
    """Write the tar of the whole file system below the descriptor `root`. Raises OSError."""
    writer = TarWriter(write)
    _Walk(writer, f"/proc/self/fd/{root}", LowerView(()), epoch, change=False).run(False)
    return writer.finish()


def _root_changed(upper: str, lower: Sequence[str]) -> bool:
    if not lower:
        return False
    now, before = os.stat(upper), os.stat(lower[0])
    return (now.st_mode, now.st_uid, now.st_gid) != (before.st_mode, before.st_uid, before.st_gid)


class _Walk:
    def __init__(
        self, writer: TarWriter, top: str, below: LowerView, epoch: int | None, *, change: bool = True
    ) -> None:
        self._writer = writer
        self._top = os.fsencode(top)
        self._below = below
        self._limit = None if epoch is None else epoch * 1_000_000_000
        self._change = change
        self._links: dict[tuple[int, int], bytes] = {}

    def run(self, with_root: bool) -> None:
        self._clamp(self._top, os.stat(self._top))
        if with_root:
            self._add(b"./", self._top, os.stat(self._top))
        todo = [b""]
        while todo:
            directory = todo.pop()
            if directory:
                self._directory(directory)
            names = sorted(os.listdir(self._top + b"/" + directory if directory else self._top))
            inner = []
            for name in names:
                path = directory + b"/" + name if directory else name
                real = self._top + b"/" + path
                st = os.lstat(real)
                if stat.S_ISDIR(st.st_mode):
                    inner.append(path)
                else:
                    self._entry(path, real, st)
            todo += reversed(inner)

    def _directory(self, path: bytes) -> None:
        real = self._top + b"/" + path
        st = os.lstat(real)
        self._clamp(real, st)
        self._add(path + b"/", real, os.lstat(real))
        if self._change and is_opaque(real) and self._hides_something(path):
            self._writer.add(Entry(path + b"/" + OPAQUE_MARKER, tarstream.REGULAR, 0o644))

    def _hides_something(self, path: bytes) -> bool:
        """Whether an opaque directory hides a directory below. overlayfs also marks directories that hide nothing, to
        save look-ups."""
        found = self._below.find(path)
        return found is not None and stat.S_ISDIR(found.stat.st_mode)

    def _entry(self, path: bytes, real: bytes, st: os.stat_result) -> None:
        if is_whiteout(st):
            parent, _, name = path.rpartition(b"/")
            hidden = WHITEOUT_PREFIX + name
            self._writer.add(Entry(parent + b"/" + hidden if parent else hidden, tarstream.REGULAR, 0o644))
            return
        if stat.S_ISSOCK(st.st_mode):
            return  # tar has no sockets; without their server they have no use
        if self._clamp(real, st):
            st = os.lstat(real)
        self._add(path, real, st)

    def _clamp(self, real: bytes, st: os.stat_result) -> bool:
        if self._limit is None or st.st_mtime_ns <= self._limit or not self._change:
            return False
        os.utime(real, ns=(st.st_atime_ns, self._limit), follow_symlinks=False)
        return True

    def _add(self, name: bytes, real: bytes, st: os.stat_result) -> None:
        mtime = st.st_mtime_ns if self._limit is None else min(st.st_mtime_ns, self._limit)
        kind = _KINDS[stat.S_IFMT(st.st_mode)]
        member = Entry(name, kind, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, 0, mtime)
        if kind != tarstream.DIRECTORY and st.st_nlink > 1:
            first = self._links.setdefault((st.st_dev, st.st_ino), name)
            if first != name:
                member.type, member.link = tarstream.HARD_LINK, first
                self._writer.add(member)
                return
        member.xattrs = _xattrs(real)
        if kind == tarstream.SYMLINK:
            member.link = os.readlink(real)
        elif kind in (tarstream.CHAR, tarstream.BLOCK_DEVICE):
            member.major, member.minor = os.major(st.st_rdev), os.minor(st.st_rdev)
        if kind != tarstream.REGULAR:
            self._writer.add(member)
            return
        member.size = st.st_size
        self._writer.add(member)
        if st.st_size:
            fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._writer.data(fd, st.st_size)
            finally:
                os.close(fd)


def _xattrs(real: bytes) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(real, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return {}
    found = {}
    for name in sorted(map(os.fsencode, names)):
        if not name.startswith(_NOT_CONTENT):
            found[name] = os.getxattr(real, name, follow_symlinks=False)
    return found


def _header(member: Entry) -> bytes:
    """A POSIX.1-2001 ustar header. Values that do not fit are in the pax records before it."""
    name, prefix = _split_name(member.name)
    fields = (
        name.ljust(100, b"\0"),
        b"%07o\0" % member.mode,
        b"%07o\0" % (member.uid if member.uid <= _OCTAL_MAX else 0),
        b"%07o\0" % (member.gid if member.gid <= _OCTAL_MAX else 0),
        b"%011o\0" % (member.size if member.size <= _SIZE_MAX else 0),
        b"%011o\0" % max(member.mtime_ns // 1_000_000_000, 0),
        b"        ",
        member.type,
        member.link[:100].ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        b"%07o\0" % member.major,
        b"%07o\0" % member.minor,
        prefix.ljust(155, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split_name(name: bytes) -> tuple[bytes, bytes]:
    """Split a name into (name, prefix): a name over 100 bytes is split at a slash, with up to 155 bytes in the prefix
    field."""
    if len(name) <= 100:
        return name, b""
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    if cut > 0 and len(name) - cut - 1 <= 100:
        return name[cut + 1 :], name[:cut]
    return name[:100], b""


def _fits(name: bytes) -> bool:
    split, prefix = _split_name(name)
    return (prefix + b"/" + split if prefix else split) == name


def _pax_records(member: Entry) -> bytes:
    records: list[tuple[bytes, bytes]] = []
    if not (_fits(member.name) and member.name.isascii()):
        records.append((b"path", member.name))
    if len(member.link) > 100 or not member.link.isascii():
        records.append((b"linkpath", member.link))
    if member.size > _SIZE_MAX:
        records.append((b"size", b"%d" % member.size))
    for key, value in ((b"uid", member.uid), (b"gid", member.gid)):
        if value > _OCTAL_MAX:
            records.append((key, b"%d" % value))
    seconds, fraction = divmod(abs(member.mtime_ns), 1_000_000_000)
    if fraction or member.mtime_ns < 0:
        sign = b"-" if member.mtime_ns < 0 else b""
        records.append((b"mtime", sign + (b"%d.%09d" % (seconds, fraction)).rstrip(b"0").rstrip(b".")))
    records += [(b"SCHILY.xattr." + name, value) for name, value in member.xattrs.items()]
    return b"".join(_pax(key, value) for key, value in records)


def _pax(key: bytes, value: bytes) -> bytes:
    """A pax record, `<length> <key>=<value>\\n`. The length includes itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if rest + len(str(length)) != length:
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
