"""Disk space reserved for a full disk: without it, the removals that free space could not be recorded.

The reserve is an empty file of a fixed size beside the state file. A commit that finds no space releases a piece of it
and tries again, as long as there are pieces, since another program may take the freed space first. The reserve is
refilled when there is space again.
"""

from __future__ import annotations

import contextlib
import os
import time

SIZE = 2 * 1024 * 1024  # about four hundred commits: once SQLite's log has grown, it is overwritten in place
PIECES = 8
PAUSE = 10.0  # seconds between attempts to refill it


class Reserve:
    """The reserve of one process: `refill` creates it, `release` gives a piece back."""

    def __init__(self, path: str, size: int = SIZE) -> None:
        self._path = path
        self._size = size
        self._next_try = 0.0

    def refill(self) -> None:
        """Restore the full size, if there is space. Cheap, and silent if there is none."""
        now = time.monotonic()
        if now < self._next_try:
            return
        self._next_try = float("inf")
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            self._next_try = now + PAUSE
            return
        try:
            before = os.fstat(descriptor).st_size
            if before < self._size:
                os.posix_fallocate(descriptor, 0, self._size)
        except OSError:
            self._next_try = now + PAUSE
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, before)
        finally:
            os.close(descriptor)

    def release(self) -> bool:
        """Return a piece of the reserve to the disk. Returns False if none is left."""
        self._next_try = time.monotonic() + PAUSE
        try:
            left = os.stat(self._path).st_size
            if left <= 0:
                return False
            os.truncate(self._path, max(0, left - self._size // PIECES))
        except OSError:
            return False
        return True
