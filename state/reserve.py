"""Space kept for the day the disk is full: without it nobody could record the removal that would make room again.

A file beside the state file that holds nothing. A commit that finds no space takes a piece of it and tries again, as
often as there are pieces: whoever filled the disk may be quicker with the first. It is made whole again when there is
room.
"""

from __future__ import annotations

import contextlib
import os
import time

SIZE = 2 * 1024 * 1024  # some four hundred commits; SQLite's log, once it has grown, is written over and over
PIECES = 8
PAUSE = 10.0  # seconds between attempts to have it whole


class Reserve:
    """One process's; made by `keep`, given by `give`."""

    def __init__(self, path: str, size: int = SIZE) -> None:
        self._path = path
        self._size = size
        self._next_try = 0.0

    def keep(self) -> None:
        """See that it is whole, if there is room: cheap, and silent when there is not."""
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

    def give(self) -> bool:
        """Give a piece of it back to the disk; False when there is none left."""
        self._next_try = time.monotonic() + PAUSE
        try:
            left = os.stat(self._path).st_size
            if left <= 0:
                return False
            os.truncate(self._path, max(0, left - self._size // PIECES))
        except OSError:
            return False
        return True
