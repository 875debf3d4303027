"""Unpack one layer's tar stream into one directory in overlayfs's own form, completely or not at all.

It preserves all that a layer can carry: owners, modes with setuid, setgid and sticky, mtimes in nanoseconds, extended
attributes (security.capability too), hard links (also to lower layers), symbolic links, devices, fifos and sparse
files. Whiteouts (image-spec layer.md) become 0:0 character devices. Opaque whiteouts become the xattr
trusted.overlay.opaque=y.

No entry can leave the directory. Names with `..` or a leading `/` are refused. Parents are opened by openat2(2) with
RESOLVE_BENEATH, so the kernel refuses symbolic links that are absolute or lead out. A refusal is an ImageError that
names the entry.

The layers of an image are unpacked in parallel, so `unpack` looks at no other layer. `finish`, called when the lower
layers are in place, adds what the layer takes over from them (`missing_entries.py`), then sets the metadata of
directories.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from runtime.images.layers import tarstream
from runtime.images.layers.confined import clean, naming_entry, refuse, text
from runtime.images.layers.layertree import LayerTree
from runtime.images.layers.lower import is_whiteout
from runtime.images.layers.missing_entries import add_missing_entries
from runtime.images.layers.tarstream import Entry, TarStream

WHITEOUT_PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."  # aufs's bookkeeping (plink, orph), not content

MAX_ENTRIES = 500_000  # a layer of a large distribution has about 100,000
_MAX_ID = (1 << 32) - 2  # (uid_t) -1 means "unchanged" to chown(2)


class LayerUnpacker:
    """Unpacks one layer into `directory`, which must be empty and private. A context manager."""

    whiteouts = True  # false: names that start with .wh. have no special meaning

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
        """The first few attributes that could not be preserved, as sentences."""
        return self._tree.warnings

    @property
    def lists_root(self) -> bool:
        """Whether the archive had an entry for its root."""
        return b"" in self._tree.directories

    def unpack(self, stream: TarStream) -> None:
        """Unpack the whole stream. Directories keep mode 0700 until `finish`. Raises ImageError, OSError."""
        self._stream = stream
        for entry in stream:
            self.entries += 1
            if self.entries > self._max_entries:
                raise refuse(
                    entry, f"it is entry {self.entries}; a layer may have at most {self._max_entries}"
                )
            with naming_entry(entry):
                self._apply(entry)
        self._tree.inside.forget()  # hundreds of layers may wait for `finish`
        self._tree.inside.close_retired()

    def finish(self, lower: Sequence[str]) -> None:
        """Add what the layer takes over from `lower` (unpacked directories, topmost first), then set the metadata of
        directories. Raises ImageError, OSError."""
        add_missing_entries(self._tree, lower)
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
            raise refuse(entry, f"a layer cannot have the tar type {entry.type!r}")
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
            # This order matters: chown clears setuid bits and security.capability, and writing changes the mtime.
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
            raise refuse(entry, "a 0:0 character device is a whiteout to overlayfs, not content")
        if entry.major >= 1 << 12 or entry.minor >= 1 << 20:
            raise refuse(entry, f"device number {entry.major}:{entry.minor} is out of range")
        device = os.makedev(entry.major, entry.minor)
        kind = kinds[entry.type]
        self._tree.create(parent, name, path, lambda: os.mknod(name, kind | 0o600, device, dir_fd=parent))
        self._tree.set_metadata(entry, parent, name)
        os.chmod(name, entry.mode, dir_fd=parent)  # not a symlink: just created in a private directory

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
        """Hide the lower layers' object; the layer's own objects stay (image-spec layer.md "Whiteouts")."""
        if name == OPAQUE_MARKER:
            self._tree.opaque.add(directory)
            return
        if name.startswith(AUFS_PREFIX):
            return
        hidden = name[len(WHITEOUT_PREFIX) :]
        if hidden in {b"", b".", b".."}:
            raise refuse(entry, "it is a whiteout of a name outside its directory")
        path = directory + b"/" + hidden if directory else hidden
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                self._tree.opaque.add(path)


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]
