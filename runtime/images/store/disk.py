"""The image store's file system: its failures as sentences, and syncing all of it at once."""

from __future__ import annotations

import ctypes
import errno
import os

from runtime.errors import ImageError

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class DiskFullError(ImageError):
    """What this session brought is taken back, so that a pull which cannot succeed does not keep the disk full."""


def disk_error(error: OSError) -> ImageError:
    """A system call's failure as a sentence."""
    words = os.strerror(error.errno) if error.errno else str(error)
    where = f" ({error.filename})" if isinstance(error.filename, str) else ""
    if error.errno in _FULL:
        return DiskFullError("no space left on the image store's file system", retriable=True)
    return ImageError(f"{words}{where}")


def syncfs(path: str) -> None:
    """syncfs(2): one call instead of an fsync for each of thousands of files."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(fd)
