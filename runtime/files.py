"""Files that last beyond a power failure."""

from __future__ import annotations

import os


def sync_directory(path: str) -> None:
    """fsync(2) a directory, so that names created, renamed or removed in it reach the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
