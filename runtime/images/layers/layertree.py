"""A layer's directory while it is unpacked, and what must be remembered until the end.

The metadata of directories is set last (`finish_directory`), because creating children would change it. Parents that no
entry lists, opaque directories and hard links to lower layers are recorded for `missing_entries.py`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from runtime.errors import ImageError
from runtime.images.layers.confined import Confined, refuse, text
from runtime.images.layers.lower import OPAQUE, is_whiteout
from runtime.images.layers.tarstream import Entry
from runtime.removal import remove_tree

_MAX_WARNINGS = 20


@dataclass(slots=True)
class Directory:
    """A directory's metadata, set last: creating children would change the mtime, and children would inherit setgid."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


class LayerTree:
    """The tree in `directory`, which must be empty and private. The caller calls `close`."""

    def __init__(self, directory: str) -> None:
        self.warnings: list[str] = []
        self.inside = Confined(directory)
        self.directories: dict[bytes, Directory] = {}
        self.implicit: dict[bytes, None] = {
            b"": None
        }  # parents that no entry lists; insertion order is top-down
        self.opaque: set[bytes] = set()
        self.links: dict[bytes, bytes] = {}  # hard links to lower layers: path → target

    def close(self) -> None:
        self.inside.close()

    # --- creating ---

    def create(self, parent: int, name: bytes, path: bytes, make: Callable[[], None]) -> None:
        """Call `make`. Replaces what an earlier entry or a whiteout created at the path, as docker and GNU tar do."""
        try:
            make()
        except FileExistsError:
            self.clear(parent, name, path)
            make()

    def make_directory(self, parent: int, name: bytes, path: bytes) -> bool:
        """Create a directory. True if it is new. One that replaces a whiteout or a file is opaque, so that it hides
        lower layers."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
            return True
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                return False
        os.unlink(name, dir_fd=parent)
        os.mkdir(name, 0o700, dir_fd=parent)
        self.opaque.add(path)
        self.inside.forget()  # a path through a replaced symlink leads elsewhere now
        return True

    def clear(self, parent: int, name: bytes, path: bytes, *, missing_ok: bool = False) -> None:
        """Delete what exists at `path`, with all that is recorded about it. Raises FileNotFoundError unless
        `missing_ok`."""
        try:
            st = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            if missing_ok:
                return
            raise
        if not stat.S_ISDIR(st.st_mode):
            os.unlink(name, dir_fd=parent)
            if stat.S_ISLNK(st.st_mode):
                self.inside.forget()
            return
        self.inside.forget()
        remove_tree(f"/proc/self/fd/{parent}/{os.fsdecode(name)}")
        below = path + b"/"
        for noted in (self.directories, self.implicit, self.links):
            for key in [key for key in noted if key == path or key.startswith(below)]:
                del noted[key]
        self.opaque = {key for key in self.opaque if key != path and not key.startswith(below)}

    # --- parents ---

    def parent(self, entry: Entry, directory: bytes) -> tuple[int, bytes]:
        """Open a directory, or create it if it is missing. Returns a descriptor and the canonical path, with links
        followed. Raises ImageError."""
        cached = self.inside.cached(directory)
        if cached is not None:
            return cached
        try:
            fd, canonical = self.inside.open(directory)
        except FileNotFoundError:
            fd, canonical = self._create_parent(entry, directory)
        except OSError as error:
            if error.errno != errno.ENOTDIR:
                raise self._bad_parent(entry, directory, error) from error
            fd, canonical = self._create_parent(
                entry, directory
            )  # replaces a whiteout; anything else is refused
        self.inside.keep(directory, fd, canonical)
        return fd, canonical

    def _create_parent(self, entry: Entry, directory: bytes) -> tuple[int, bytes]:
        """Create a parent that the layer does not list. `missing_entries.py` sets its owner and mode."""
        upper, _, name = directory.rpartition(b"/")
        parent, canonical = self.parent(entry, upper)
        path = canonical + b"/" + name if canonical else name
        try:
            st = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            st = None
        if st is not None and not is_whiteout(st):  # a file or a dangling link
            raise refuse(entry, f'its parent "{text(directory)}" is not a directory')
        self.links.pop(path, None)
        if self.make_directory(parent, name, path):
            self.implicit[path] = None
        try:
            return self.inside.open(path)
        except OSError as error:
            raise self._bad_parent(entry, directory, error) from error

    def _bad_parent(self, entry: Entry, directory: bytes, error: OSError) -> ImageError:
        why = {
            errno.EXDEV: "leads out of the layer through a symbolic link",
            errno.ELOOP: "is a loop of symbolic links",
            errno.ENOTDIR: "is not a directory",
        }.get(error.errno or 0, error.strerror or str(error))
        return refuse(entry, f'its parent "{text(directory)}" {why}')

    def existing(self, entry: Entry, path: bytes) -> tuple[int, bytes]:
        """(parent descriptor, name) of an object in this layer. Raises FileNotFoundError if it is not here, or
        ImageError."""
        directory, _, name = path.rpartition(b"/")
        cached = self.inside.cached(directory)
        if cached is None:
            try:
                cached = self.inside.open(directory)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise self._bad_parent(entry, directory, error) from error
            self.inside.keep(directory, *cached)
        os.stat(name, dir_fd=cached[0], follow_symlinks=False)
        return cached[0], name

    # --- metadata ---

    def remember(self, entry: Entry, path: bytes) -> None:
        self._refuse_overlay_xattrs(entry)
        self.implicit.pop(path, None)
        self.directories[path] = Directory(
            entry.mode, entry.uid, entry.gid, entry.mtime_ns, dict(entry.xattrs)
        )

    def set_metadata(self, entry: Entry, parent: int, name: bytes) -> None:
        """Set owner, xattrs and mtime of an object that must not be opened (link, device, fifo)."""
        if entry.uid or entry.gid:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.xattrs:
            self.set_xattrs(entry, entry.xattrs, b"/proc/self/fd/%d/%s" % (parent, name))
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def set_xattrs(self, entry: Entry, xattrs: dict[bytes, bytes], target: int | bytes) -> None:
        self._refuse_overlay_xattrs(entry)
        self._write_xattrs(entry.shown, xattrs, target)

    def _write_xattrs(self, shown: str, xattrs: dict[bytes, bytes], target: int | bytes) -> None:
        for name, value in xattrs.items():
            if name == b"security.selinux":
                continue  # belongs to the build machine's policy
            try:
                if isinstance(target, int):
                    os.setxattr(target, name, value)
                else:
                    os.setxattr(target, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in {errno.ENOTSUP, errno.EPERM, errno.EINVAL}:
                    raise
                self._warn(f'"{shown}": cannot preserve its attribute {text(name)}: {error.strerror}')

    def _refuse_overlay_xattrs(self, entry: Entry) -> None:
        for name in entry.xattrs:
            if name.startswith(b"trusted.overlay."):
                raise refuse(entry, f"attribute {text(name)} would control overlayfs")

    def _warn(self, text: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(text)

    def finish_directory(self, path: bytes) -> None:
        fd = self.inside.open_for_change(path)
        try:
            if path in self.opaque:
                _set_opaque(fd)
            about = self.directories.get(path)
            if about is None:
                return
            os.fchown(fd, about.uid, about.gid)
            os.fchmod(fd, about.mode)
            self._write_xattrs(text(path), about.xattrs, fd)
            os.utime(fd, ns=(about.mtime_ns, about.mtime_ns))
        finally:
            os.close(fd)


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
