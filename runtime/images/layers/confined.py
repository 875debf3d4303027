"""A layer's directory as the only world there is: names that stay inside it, and descriptors of its directories.

Every parent is opened by openat2(2) from the layer's root with RESOLVE_BENEATH: the kernel refuses an absolute symbolic
link and one that leads out, whatever the archive did before. What is refused is an ImageError that names the entry.
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
_DEPTH_MAX = 255  # components of a name; parents that no entry lists are made one in the other
_KEPT = 64  # tar walks depth first: the parent of the next entry is nearly always among the last few

_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS


class Confined:
    """Directories below one root. Keeps the descriptors of those used last."""

    def __init__(self, directory: str) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._kept: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        self._retired: list[int] = []

    def open(self, directory: bytes) -> tuple[int, bytes]:
        """An O_PATH descriptor and the canonical path, symbolic links inside the root followed. FileNotFoundError, or
        OSError: EXDEV (leads out), ELOOP, ENOTDIR. The caller owns the descriptor, or gives it to `keep`."""
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
        """A descriptor of a directory whose own metadata is to be set; no link anywhere in its path."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        return self._openat2(path or b".", flags, _BENEATH | syscalls.RESOLVE_NO_SYMLINKS)

    def cached(self, directory: bytes) -> tuple[int, bytes] | None:
        found = self._kept.get(directory)
        if found is not None:
            self._kept.move_to_end(directory)
        return found

    def keep(self, directory: bytes, fd: int, canonical: bytes) -> None:
        """From now on the descriptor is ours, and `cached` gives it."""
        self._kept[directory] = fd, canonical
        while len(self._kept) > _KEPT:
            _, (oldest, _) = self._kept.popitem(last=False)
            os.close(oldest)

    def forget(self) -> None:
        """Paths may lead elsewhere now. Descriptors stay open until `close_retired`: the current entry uses some."""
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
def named(entry: Entry) -> Iterator[None]:
    """Every failure names the entry it happened on."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise  # says nothing about the entry
        words = os.strerror(error.errno) if error.errno else str(error)
        raise ImageError(f'cannot unpack "{entry.shown}": {words}') from error
    except (OverflowError, ValueError) as error:  # a NUL in a name, a number no system call takes
        raise refuse(entry, str(error)) from error


def clean(entry: Entry, name: bytes) -> bytes:
    """A path of the archive as plain components joined by slashes; b"" is the root."""
    if name.startswith(b"/"):
        raise refuse(entry, f'"{text(name)}" is an absolute name')
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise refuse(entry, f'"{text(name)}" goes up with ".."')
    if len(name) > _PATH_MAX or len(parts) > _DEPTH_MAX or b"\0" in name:
        raise refuse(entry, "its name is too long, too deep or has a NUL byte")
    return b"/".join(parts)


def refuse(entry: Entry, why: str) -> ImageError:
    return ImageError(f'layer entry "{entry.shown}" is refused: {why}')


def text(name: bytes) -> str:
    """For a message: names are bytes and may be no UTF-8."""
    return name.decode("utf-8", "backslashreplace")
