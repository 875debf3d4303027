"""Files of the store: atomic writes, syncing, sizes, and errors as sentences."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from contextlib import suppress

from runtime.errors import ImageError
from runtime.files import sync_directory

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class DiskFullError(ImageError):
    """No space left. The session discards its new blobs, so that a failed pull does not keep the disk full."""


def disk_error(error: OSError) -> ImageError:
    """Turn a failed system call into an ImageError with a readable message."""
    words = os.strerror(error.errno) if error.errno else str(error)
    where = f" ({error.filename})" if isinstance(error.filename, str) else ""
    if error.errno in _FULL:
        return DiskFullError(
            "no space left on the image store's file system; see `kubelite image prune`", retriable=True
        )
    return ImageError(f"{words}{where}")


def syncfs(path: str) -> None:
    """syncfs(2): one call instead of an fsync for each of thousands of files. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(fd)


def replace_file(path: str, data: bytes, *, sync: bool = True) -> None:
    """Write a temporary file and rename it to `path`: a reader sees the old content or the new. Raises OSError."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if sync:
        sync_directory(os.path.dirname(path))


def tree_size(path: str) -> int:
    """Bytes a directory tree occupies on disk. A file with several hard links counts once."""
    seen: set[int] = set()
    total = 0
    todo = [path]
    while todo:  # os.walk recurses, and a layer may be nested as deep as PATH_MAX allows
        with suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                st = entry.stat(follow_symlinks=False)
                if st.st_ino not in seen:
                    seen.add(st.st_ino)
                    total += st.st_blocks * 512
                if stat.S_ISDIR(st.st_mode):
                    todo.append(entry.path)
    return total
