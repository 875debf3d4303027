"""Small files with few system calls, and files that last beyond a power failure.

`open` makes eight system calls to read a file and up to fifteen to rewrite one; a pod's start reads and writes dozens.
"""

from __future__ import annotations

import os


def read_bytes(path: str) -> bytes:
    """Return the content of a file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def write_all(fd: int, content: bytes) -> None:
    """Write everything at the descriptor's position. Raises OSError, perhaps after a part is written."""
    while content:
        content = content[os.write(fd, content) :]


def write_new(path: str, content: bytes, mode: int = 0o600) -> None:
    """Create a file with this mode, whatever the umask is. Raises OSError: FileExistsError if the name is taken."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        write_all(fd, content)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """fsync(2) a directory, so that names created, renamed or removed in it reach the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
