"""One layer's tar stream → one directory in overlayfs's own form, complete or not at all.

Faithful to what a layer can carry: owners, modes with setuid, setgid and sticky, mtimes in nanoseconds, extended
attributes (security.capability too), hard links (to earlier layers as well), symbolic links, devices, fifos, sparse
files. Whiteouts (image-spec layer.md) become 0:0 character devices, opaque ones the xattr trusted.overlay.opaque=y.

Nothing of it can leave the directory: names with `..` or a leading `/` are refused, and parents are opened by
openat2(2) with RESOLVE_BENEATH, so a symbolic link that leads out (or is absolute) is refused by the kernel. What is
refused is an ImageError that names the entry.

Layers of an image are unpacked beside each other, so `unpack` looks at nothing below; `finish`, called when the
parents are in place, settles what a layer left to them (see `lower`), then sets the directories' own metadata.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime.errors import ImageError
from runtime.images import tarstream
from runtime.images.confined import Confined, clean, named, refuse, text
from runtime.images.lower import OPAQUE, LowerView, copy_metadata, is_whiteout
from runtime.images.tarstream import Entry, TarStream
from runtime.removal import remove_tree

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."  # aufs's own bookkeeping (plink, orph): not content

MAX_ENTRIES = 500_000  # a layer of a large distribution has about 100,000
_MAX_ID = (1 << 32) - 2  # (uid_t) -1 means "leave it" to chown(2)
_MAX_WARNINGS = 20


@dataclass(slots=True)
class _Directory:
    """A directory's own metadata, set last: creating children would change its mtime, setgid would spread."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class LayerUnpacker:
    """Unpacks one layer into `directory` (empty, private to the caller). Use as a context manager."""

    def __init__(self, directory: str, *, max_entries: int = MAX_ENTRIES) -> None:
        self.directory = directory
        self.warnings: list[str] = []
        self.entries = 0
        self._max_entries = max_entries
        self._inside = Confined(directory)
        self._directories: dict[bytes, _Directory] = {}
        self._implicit: dict[bytes, None] = {b"": None}  # used but not listed; insertion order is top-down
        self._opaque: set[bytes] = set()
        self._links: dict[bytes, bytes] = {}  # hard links whose target is not in this layer: path → target
        self._make: dict[bytes, Callable[[Entry, int, bytes, bytes], None]] = {
            tarstream.REGULAR: self._file,
            tarstream.HARD_LINK: self._hard_link,
            tarstream.SYMLINK: self._symlink,
            tarstream.CHAR: self._node,
            tarstream.BLOCK_DEVICE: self._node,
            tarstream.FIFO: self._node,
            tarstream.DIRECTORY: self._directory,
        }

    def __enter__(self) -> LayerUnpacker:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._inside.close()

    def unpack(self, stream: TarStream) -> None:
        """Read the whole stream. Directories keep mode 0700 until `finish`."""
        self._stream = stream
        for entry in stream:
            self.entries += 1
            if self.entries > self._max_entries:
                raise refuse(entry, f"it is entry {self.entries}; a layer may have {self._max_entries}")
            with named(entry):
                self._apply(entry)
        self._inside.forget()  # an image may have hundreds of layers waiting for `finish`
        self._inside.close_retired()

    def finish(self, lower: Sequence[str]) -> None:
        """Settle what depends on the layers below (unpacked directories, topmost first), then directory metadata."""
        view = LowerView(lower)
        settled: set[bytes] = set()
        while todo := [path for path in self._implicit if path not in settled]:
            for path in todo:  # settling one may make or move others
                settled.add(path)
                self._adopt_parent(view, path)
        for path, target in list(self._links.items()):
            self._link_below(view, path, target)
        for path in self._directories.keys() | self._opaque:
            self._finish_directory(path)

    # --- entries ---

    def _apply(self, entry: Entry) -> None:
        self._inside.close_retired()
        path = clean(entry, entry.name)
        if not path:
            if entry.type != tarstream.DIRECTORY:
                raise refuse(entry, "the layer's root can only be a directory")
            self._remember(entry, b"")
            return
        make = self._make.get(entry.type)
        if make is None:
            raise refuse(entry, f"its tar type {entry.type!r} is not one that layers have")
        if entry.uid > _MAX_ID or entry.gid > _MAX_ID:
            raise refuse(entry, f"owner {entry.uid}:{entry.gid} is out of range")
        directory, _, name = path.rpartition(b"/")
        parent, canonical = self._parent(entry, directory)
        path = canonical + b"/" + name if canonical else name
        if name.startswith(WHITEOUT_PREFIX):
            self._whiteout(entry, parent, canonical, name)
            return
        if self._links:
            self._links.pop(path, None)
        make(entry, parent, name, path)

    def _file(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name, path)
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            if entry.sparse is not None:
                self._sparse_data(entry, fd)
            elif entry.size:
                self._stream.copy_data(entry, lambda view: _write_all(fd, view))
            # This order: chown clears setuid bits and security.capability, writing would change the mtime.
            if entry.uid or entry.gid:
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                self._set_xattrs(entry, entry.xattrs, fd)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _sparse_data(self, entry: Entry, fd: int) -> None:
        os.ftruncate(fd, entry.real_size)
        for offset, length in entry.sparse or ():
            os.lseek(fd, offset, os.SEEK_SET)
            self._stream.copy_extent(length, lambda view: _write_all(fd, view))

    def _symlink(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        self._create(parent, name, path, lambda: os.symlink(entry.link, name, dir_fd=parent))
        self._set_metadata(entry, parent, name)

    def _node(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        kinds = {
            tarstream.CHAR: stat.S_IFCHR,
            tarstream.BLOCK_DEVICE: stat.S_IFBLK,
            tarstream.FIFO: stat.S_IFIFO,
        }
        if entry.type == tarstream.CHAR and entry.major == entry.minor == 0:
            raise refuse(entry, "a 0:0 character device is overlayfs's own whiteout, not content")
        if entry.major >= 1 << 12 or entry.minor >= 1 << 20:
            raise refuse(entry, f"device number {entry.major}:{entry.minor} is out of range")
        device = os.makedev(entry.major, entry.minor)
        kind = kinds[entry.type]
        self._create(parent, name, path, lambda: os.mknod(name, kind | 0o600, device, dir_fd=parent))
        self._set_metadata(entry, parent, name)
        os.chmod(name, entry.mode, dir_fd=parent)  # not a symlink: made just now in a directory of our own

    def _directory(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        self._make_directory(parent, name, path)
        self._implicit.pop(path, None)
        self._remember(entry, path)

    def _hard_link(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        target = clean(entry, entry.link)
        if not target:
            raise refuse(entry, "it is a hard link to the layer's root")
        target = self._links.get(target, target)
        try:
            source_parent, source = self._existing(entry, target)
        except FileNotFoundError:
            self._clear(parent, name, path, missing_ok=True)
            self._links[path] = target
            return
        st = os.stat(source, dir_fd=source_parent, follow_symlinks=False)
        if stat.S_ISDIR(st.st_mode) or is_whiteout(st):
            raise refuse(entry, f'it is a hard link to "{text(target)}", which is not a file here')
        if target == path:
            return
        self._create(
            parent,
            name,
            path,
            lambda: os.link(source, name, src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False),
        )

    def _whiteout(self, entry: Entry, parent: int, directory: bytes, name: bytes) -> None:
        """Hides what lower layers have; what this layer itself has stays (image-spec layer.md "Whiteouts")."""
        if name == OPAQUE_MARKER:
            self._opaque.add(directory)
            return
        if name.startswith(AUFS_PREFIX):
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in {b"", b".", b".."}:
            raise refuse(entry, "it is a whiteout aimed outside its directory")
        path = directory + b"/" + hidden if directory else hidden
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                self._opaque.add(path)

    # --- making things ---

    def _create(self, parent: int, name: bytes, path: bytes, make: Callable[[], None]) -> None:
        """Make it; what an earlier entry (or a whiteout) put there gives way, as with docker and GNU tar."""
        try:
            make()
        except FileExistsError:
            self._clear(parent, name, path)
            make()

    def _make_directory(self, parent: int, name: bytes, path: bytes) -> bool:
        """True when it was made now. Over a whiteout or a file it is opaque: nothing below may shine through."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
            return True
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                return False
        os.unlink(name, dir_fd=parent)
        os.mkdir(name, 0o700, dir_fd=parent)
        self._opaque.add(path)
        self._inside.forget()  # a path through a symlink that was here leads elsewhere now
        return True

    def _clear(self, parent: int, name: bytes, path: bytes, *, missing_ok: bool = False) -> None:
        """Take away what stands at `path`, with all that was noted about it."""
        try:
            st = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            if missing_ok:
                return
            raise
        if not stat.S_ISDIR(st.st_mode):
            os.unlink(name, dir_fd=parent)
            if stat.S_ISLNK(st.st_mode):
                self._inside.forget()
            return
        self._inside.forget()
        remove_tree(f"/proc/self/fd/{parent}/{os.fsdecode(name)}")
        below = path + b"/"
        for noted in (self._directories, self._implicit, self._links):
            for key in [key for key in noted if key == path or key.startswith(below)]:
                del noted[key]
        self._opaque = {key for key in self._opaque if key != path and not key.startswith(below)}

    def _remember(self, entry: Entry, path: bytes) -> None:
        self._refuse_overlay_xattrs(entry)
        self._implicit.pop(path, None)
        self._directories[path] = _Directory(
            entry.mode, entry.uid, entry.gid, entry.mtime_ns, dict(entry.xattrs)
        )

    def _set_metadata(self, entry: Entry, parent: int, name: bytes) -> None:
        """Owner, xattrs and mtime of something that must not be opened (link, device, fifo)."""
        if entry.uid or entry.gid:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            self._set_xattrs(entry, entry.xattrs, b"/proc/self/fd/%d/%s" % (parent, name))
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _set_xattrs(self, entry: Entry, xattrs: dict[bytes, bytes], target: int | bytes) -> None:
        self._refuse_overlay_xattrs(entry)
        self._write_xattrs(entry.shown, xattrs, target)

    def _write_xattrs(self, shown: str, xattrs: dict[bytes, bytes], target: int | bytes) -> None:
        for name, value in xattrs.items():
            if name == b"security.selinux":
                continue  # the build machine's policy, not this one's
            try:
                if isinstance(target, int):
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in {errno.ENOTSUP, errno.EPERM, errno.EINVAL}:
                    raise
                self._warn(f'"{shown}": cannot keep its attribute {text(name)}: {error.strerror}')

    def _refuse_overlay_xattrs(self, entry: Entry) -> None:
        for name in entry.xattrs:
            if name.startswith(b"trusted.overlay."):
                raise refuse(entry, f"attribute {text(name)} would steer overlayfs")

    def _warn(self, text: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(text)

    # --- parents ---

    def _parent(self, entry: Entry, directory: bytes) -> tuple[int, bytes]:
        """A descriptor of the directory and its canonical path (links followed); made when it is not there."""
        cached = self._inside.cached(directory)
        if cached is not None:
            return cached
        try:
            fd, canonical = self._inside.open(directory)
        except FileNotFoundError:
            fd, canonical = self._imply(entry, directory)
        except OSError as error:
            if error.errno != errno.ENOTDIR:
                raise self._bad_parent(entry, directory, error) from error
            fd, canonical = self._imply(entry, directory)  # over a whiteout; over anything else it is refused
        self._inside.keep(directory, fd, canonical)
        return fd, canonical

    def _imply(self, entry: Entry, directory: bytes) -> tuple[int, bytes]:
        """Make a parent the layer does not list; who it belongs to is settled in `finish`."""
        upper, _, name = directory.rpartition(b"/")
        parent, canonical = self._parent(entry, upper)
        path = canonical + b"/" + name if canonical else name
        try:
            st = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            st = None
        if st is not None and not is_whiteout(st):  # a file, or a link that leads to nothing
            raise refuse(entry, f'its parent "{text(directory)}" is not a directory')
        self._links.pop(path, None)
        if self._make_directory(parent, name, path):
            self._implicit[path] = None
        try:
            return self._inside.open(path)
        except OSError as error:
            raise self._bad_parent(entry, directory, error) from error

    def _bad_parent(self, entry: Entry, directory: bytes, error: OSError) -> ImageError:
        why = {
            errno.EXDEV: "leads out of the layer through a symbolic link",
            errno.ELOOP: "goes in circles through symbolic links",
            errno.ENOTDIR: "is not a directory",
        }.get(error.errno or 0, error.strerror or str(error))
        return refuse(entry, f'its parent "{text(directory)}" {why}')

    def _existing(self, entry: Entry, path: bytes) -> tuple[int, bytes]:
        """(parent, name) of something in this layer. FileNotFoundError when it is not here."""
        directory, _, name = path.rpartition(b"/")
        cached = self._inside.cached(directory)
        if cached is None:
            try:
                cached = self._inside.open(directory)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise self._bad_parent(entry, directory, error) from error
            self._inside.keep(directory, *cached)
        os.stat(name, dir_fd=cached[0], follow_symlinks=False)
        return cached[0], name

    # --- what depends on the layers below ---

    def _hidden_here(self, path: bytes) -> bool:
        """Whether this layer itself hides what lower layers have at `path`."""
        parts = path.split(b"/")
        return any(b"/".join(parts[:n]) in self._opaque for n in range(len(parts)))

    def _adopt_parent(self, view: LowerView, path: bytes) -> None:
        if path not in self._implicit:  # moved away with a parent that was a link below
            return
        hidden = path in self._opaque or self._hidden_here(path)
        found = None if hidden else view.find(path)
        if found is not None and stat.S_ISLNK(found.stat.st_mode):
            target = view.resolve(path)
            if target is not None and stat.S_ISDIR(target.stat.st_mode):
                self._relocate(path, target.path)
                return
        if found is None or not stat.S_ISDIR(found.stat.st_mode):
            self._directories[path] = _Directory(0o755, 0, 0, 0)
            return
        fd = self._inside.open_for_change(path)
        try:
            copy_metadata(found.real, found.stat, fd)
            os.chmod(fd, 0o700)  # children are still being made; the mode is set with the rest
        finally:
            os.close(fd)
        st = found.stat
        self._directories[path] = _Directory(stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns)

    def _relocate(self, path: bytes, target: bytes) -> None:
        """`lib/x` where the layers below have `lib → usr/lib` belongs to usr/lib/x: move what was unpacked."""
        self._inside.forget()
        entry = Entry(name=path, type=tarstream.DIRECTORY)
        directory, _ = self._parent(entry, target)
        source = self._inside.open_for_change(path)
        try:
            self._merge(entry, source, directory)
        finally:
            os.close(source)
        parent, name = self._existing(entry, path)
        os.rmdir(name, dir_fd=parent)
        self._inside.forget()
        self._move_notes(path, target)

    def _merge(self, entry: Entry, source: int, target: int) -> None:
        for name in map(os.fsencode, os.listdir(source)):
            try:
                st = os.stat(name, dir_fd=target, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
                continue
            if not stat.S_ISDIR(st.st_mode):
                raise refuse(
                    entry, f'a link of a layer below leads two entries called "{text(name)}" to one place'
                )
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner_source = os.open(name, flags, dir_fd=source)
            inner_target = os.open(name, flags, dir_fd=target)
            try:
                self._merge(entry, inner_source, inner_target)
            finally:
                os.close(inner_source)
                os.close(inner_target)
            os.rmdir(name, dir_fd=source)

    def _move_notes(self, path: bytes, target: bytes) -> None:
        below = path + b"/"

        def moved(key: bytes) -> bytes:
            return target + b"/" + key[len(below) :] if key.startswith(below) else key

        self._implicit.pop(path, None)
        self._directories = {moved(key): value for key, value in self._directories.items()}
        self._implicit = {moved(key): None for key in self._implicit}
        self._links = {moved(key): value for key, value in self._links.items()}
        self._opaque = {moved(key) for key in self._opaque}

    def _link_below(self, view: LowerView, path: bytes, target: bytes) -> None:
        """A hard link to an earlier layer's file: copy that file up into this layer, as overlayfs would, and link."""
        entry = Entry(name=path, type=tarstream.HARD_LINK, link=target)
        with named(entry):
            try:
                source_parent, source = self._existing(entry, target)
            except FileNotFoundError:
                found = None if self._hidden_here(target) else view.find(target)
                if found is None or stat.S_ISDIR(found.stat.st_mode):
                    raise refuse(entry, f'hard link to "{text(target)}", which no layer has') from None
                source_parent, source = self._copy_up(view, entry, found.real, found.stat, found.path)
            parent, _ = self._parent(entry, path.rpartition(b"/")[0])
            name = path.rpartition(b"/")[2]
            os.link(source, name, src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False)

    def _copy_up(
        self, view: LowerView, entry: Entry, real: bytes, st: os.stat_result, path: bytes
    ) -> tuple[int, bytes]:
        directory, _, name = path.rpartition(b"/")
        before = set(self._implicit)
        parent, _ = self._parent(entry, directory)
        for made in [key for key in self._implicit if key not in before]:
            self._adopt_parent(view, made)
        if stat.S_ISLNK(st.st_mode):
            os.symlink(os.readlink(real), name, dir_fd=parent)
            os.chown(name, st.st_uid, st.st_gid, dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=(st.st_atime_ns, st.st_mtime_ns), dir_fd=parent, follow_symlinks=False)
            return parent, name
        if not stat.S_ISREG(st.st_mode):
            raise refuse(entry, f'hard link to "{text(path)}", which is neither a file nor a link')
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            with open(real, "rb", buffering=0) as source:
                while os.sendfile(fd, source.fileno(), None, 1 << 30):
                    pass
            copy_metadata(real, st, fd)
        finally:
            os.close(fd)
        return parent, name

    def _finish_directory(self, path: bytes) -> None:
        fd = self._inside.open_for_change(path)
        try:
            if path in self._opaque:
                _set_opaque(fd)
            about = self._directories.get(path)
            if about is None:
                return
            os.fchown(fd, about.uid, about.gid)
            os.fchmod(fd, about.mode)
            self._write_xattrs(text(path), about.xattrs, fd)
            os.utime(fd, ns=(about.mtime_ns, about.mtime_ns))
        finally:
            os.close(fd)


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]


def _set_opaque(fd: int) -> None:
    try:
        os.setxattr(fd, OPAQUE, b"y")
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        raise ImageError(
            "the image store's file system has no trusted.* attributes, which overlayfs needs",
            reason="NotSupported",
        ) from error
