"""One layer's tar stream → one directory in overlayfs's own form, complete or not at all.

Faithful to what a layer can carry: owners, modes with setuid, setgid and sticky, mtimes in nanoseconds, extended
attributes (security.capability too), hard links (to earlier layers as well), symbolic links, devices, fifos, sparse
files. Whiteouts (image-spec layer.md) become 0:0 character devices, opaque ones the xattr trusted.overlay.opaque=y.

Nothing of it can leave the directory: names with `..` or a leading `/` are refused, and parents are opened by
openat2(2) with RESOLVE_BENEATH, so a symbolic link that leads out (or is absolute) is refused by the kernel. What is
refused is an ImageError that names the entry.

Layers of an image are unpacked beside each other, so `unpack` looks at nothing below; `finish`, called when the
parents are in place, settles what a layer left to them (see `settle`), then sets the directories' own metadata.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from runtime.images.layers import tarstream
from runtime.images.layers.confined import clean, named, refuse, text
from runtime.images.layers.layertree import LayerTree
from runtime.images.layers.lower import is_whiteout
from runtime.images.layers.settle import settle
from runtime.images.layers.tarstream import Entry, TarStream

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."  # aufs's own bookkeeping (plink, orph): not content

MAX_ENTRIES = 500_000  # a layer of a large distribution has about 100,000
_MAX_ID = (1 << 32) - 2  # (uid_t) -1 means "leave it" to chown(2)


class LayerUnpacker:
    """Unpacks one layer into `directory` (empty, private to the caller). Use as a context manager."""

    whiteouts = True  # false: names that begin with .wh. are only names

    def __init__(self, directory: str, *, max_entries: int = MAX_ENTRIES) -> None:
        self.directory = directory
        self.entries = 0
        self._max_entries = max_entries
        self._tree = LayerTree(directory)
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
        self._tree.close()

    @property
    def warnings(self) -> list[str]:
        """What could not be kept, in sentences; the first few."""
        return self._tree.warnings

    @property
    def lists_root(self) -> bool:
        """Whether the archive had an entry for its root."""
        return b"" in self._tree.directories

    def unpack(self, stream: TarStream) -> None:
        """Read the whole stream. Directories keep mode 0700 until `finish`."""
        self._stream = stream
        for entry in stream:
            self.entries += 1
            if self.entries > self._max_entries:
                raise refuse(entry, f"it is entry {self.entries}; a layer may have {self._max_entries}")
            with named(entry):
                self._apply(entry)
        self._tree.inside.forget()  # an image may have hundreds of layers waiting for `finish`
        self._tree.inside.close_retired()

    def finish(self, lower: Sequence[str]) -> None:
        """Settle what depends on the layers below (unpacked directories, topmost first), then directory metadata."""
        settle(self._tree, lower)
        for path in self._tree.directories.keys() | self._tree.opaque:
            self._tree.finish_directory(path)

    # --- entries ---

    def _apply(self, entry: Entry) -> None:
        self._tree.inside.close_retired()
        path = clean(entry, entry.name)
        if not path:
            if entry.type != tarstream.DIRECTORY:
                raise refuse(entry, "the layer's root can only be a directory")
            self._tree.remember(entry, b"")
            return
        make = self._make.get(entry.type)
        if make is None:
            raise refuse(entry, f"its tar type {entry.type!r} is not one that layers have")
        if entry.uid > _MAX_ID or entry.gid > _MAX_ID:
            raise refuse(entry, f"owner {entry.uid}:{entry.gid} is out of range")
        directory, _, name = path.rpartition(b"/")
        parent, canonical = self._tree.parent(entry, directory)
        path = canonical + b"/" + name if canonical else name
        if self.whiteouts and name.startswith(WHITEOUT_PREFIX):
            self._whiteout(entry, parent, canonical, name)
            return
        if self._tree.links:
            self._tree.links.pop(path, None)
        make(entry, parent, name, path)

    def _file(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self._tree.clear(parent, name, path)
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
                self._tree.set_xattrs(entry, entry.xattrs, fd)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _sparse_data(self, entry: Entry, fd: int) -> None:
        os.ftruncate(fd, entry.real_size)
        for offset, length in entry.sparse or ():
            os.lseek(fd, offset, os.SEEK_SET)
            self._stream.copy_extent(length, lambda view: _write_all(fd, view))

    def _symlink(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        self._tree.create(parent, name, path, lambda: os.symlink(entry.link, name, dir_fd=parent))
        self._tree.set_metadata(entry, parent, name)

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
        self._tree.create(parent, name, path, lambda: os.mknod(name, kind | 0o600, device, dir_fd=parent))
        self._tree.set_metadata(entry, parent, name)
        os.chmod(name, entry.mode, dir_fd=parent)  # not a symlink: made just now in a directory of our own

    def _directory(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        self._tree.make_directory(parent, name, path)
        self._tree.implicit.pop(path, None)
        self._tree.remember(entry, path)

    def _hard_link(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        target = clean(entry, entry.link)
        if not target:
            raise refuse(entry, "it is a hard link to the layer's root")
        target = self._tree.links.get(target, target)
        try:
            source_parent, source = self._tree.existing(entry, target)
        except FileNotFoundError:
            self._tree.clear(parent, name, path, missing_ok=True)
            self._tree.links[path] = target
            return
        st = os.stat(source, dir_fd=source_parent, follow_symlinks=False)
        if stat.S_ISDIR(st.st_mode) or is_whiteout(st):
            raise refuse(entry, f'it is a hard link to "{text(target)}", which is not a file here')
        if target == path:
            return
        self._tree.create(
            parent,
            name,
            path,
            lambda: os.link(source, name, src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False),
        )

    def _whiteout(self, entry: Entry, parent: int, directory: bytes, name: bytes) -> None:
        """Hides what lower layers have; what this layer itself has stays (image-spec layer.md "Whiteouts")."""
        if name == OPAQUE_MARKER:
            self._tree.opaque.add(directory)
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
                self._tree.opaque.add(path)


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]
