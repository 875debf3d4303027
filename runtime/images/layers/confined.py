"""Confine a layer to its directory: check entry names, and open parent directories only below the root.

Every parent is opened by openat2(2) from the layer's root with RESOLVE_BENEATH. The kernel then refuses symbolic links
that are absolute or lead out, whatever the archive created earlier. A refusal is an ImageError that names the entry.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from runtime import syscalls
from runtime.errors import ImageError
from runtime.images.layers.tarstream import Entry

_PATH_MAX = 4096
_DEPTH_MAX = 255  # components of a name; missing parents are created recursively
_KEPT = 64  # tar is depth first: the next entry's parent is nearly always among the last few

_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS


class Confined:
    """Directories below one root. Caches the descriptors used last."""

    def __init__(self, directory: str) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._kept: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        self._retired: list[int] = []

    def open(self, directory: bytes) -> tuple[int, bytes]:
        """Open a directory. Returns an O_PATH descriptor and the canonical path, with symbolic links inside the root
        followed. Raises FileNotFoundError, or OSError: EXDEV (leads out), ELOOP, ENOTDIR. The caller owns the
        descriptor, or passes it to `keep`."""
        flags = os.O_PATH | os.O_DIRECTORY
        if not directory:
            return os.open(b".", flags | os.O_CLOEXEC, dir_fd=self._root), b""
        try:
            return self._openat2(directory, flags, _BENEATH | syscalls.RESOLVE_NO_SYMLINKS), directory
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        fd = self._openat2(directory, flags, _BENEATH)
        real = os.readlink(b"/proc/self/fd/%d" % fd)
        root = os.readlink(b"/proc/self/fd/%d" % self._root)
        return fd, real[len(root) + 1 :]

    def open_for_change(self, path: bytes) -> int:
        """Open a directory to set its metadata. No component of its path may be a link. Raises OSError."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        return self._openat2(path or b".", flags, _BENEATH | syscalls.RESOLVE_NO_SYMLINKS)

    def cached(self, directory: bytes) -> tuple[int, bytes] | None:
        found = self._kept.get(directory)
        if found is not None:
            self._kept.move_to_end(directory)
        return found

    def keep(self, directory: bytes, fd: int, canonical: bytes) -> None:
        """Take ownership of the descriptor, and return it from `cached`."""
        self._kept[directory] = fd, canonical
        while len(self._kept) > _KEPT:
            _, (oldest, _) = self._kept.popitem(last=False)
            os.close(oldest)

    def forget(self) -> None:
        """Empty the cache, because a path may lead elsewhere now. The descriptors stay open until `close_retired`: the
        current entry uses some."""
        self._retired += [fd for fd, _ in self._kept.values()]
        self._kept.clear()

    def close_retired(self) -> None:
        while self._retired:
            os.close(self._retired.pop())

    def close(self) -> None:
        self.forget()
        self.close_retired()
        os.close(self._root)

    def _openat2(self, path: bytes, flags: int, resolve: int) -> int:
        try:
            return syscalls.openat2(self._root, path, flags, resolve=resolve)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
            raise


@contextmanager
def naming_entry(entry: Entry) -> Iterator[None]:
    """Turn a failure into an ImageError that names the entry."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise  # not about this entry
        words = os.strerror(error.errno) if error.errno else str(error)
        raise ImageError(f'cannot unpack "{entry.shown}": {words}') from error
    except (OverflowError, ValueError) as error:  # a NUL in a name, a number out of range for a system call
        raise refuse(entry, str(error)) from error


def clean(entry: Entry, name: bytes) -> bytes:
    """Normalise a path of the archive to components joined by slashes; b"" is the root. Raises ImageError."""
    if name.startswith(b"/"):
        raise refuse(entry, f'"{text(name)}" is an absolute name')
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise refuse(entry, f'"{text(name)}" contains ".."')
    if len(name) > _PATH_MAX or len(parts) > _DEPTH_MAX or b"\0" in name:
        raise refuse(entry, "its name is too long, too deep or has a NUL byte")
    return b"/".join(parts)


def refuse(entry: Entry, why: str) -> ImageError:
    return ImageError(f'layer entry "{entry.shown}" is refused: {why}')


def text(name: bytes) -> str:
    """A name as text for a message. Names are bytes and need not be UTF-8."""
    return name.decode("utf-8", "backslashreplace")
