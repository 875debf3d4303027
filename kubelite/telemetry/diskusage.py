"""How much the writable layers hold, measured in the background so that no scrape and no decision walks a directory.

One layer at a time, each at most every `INTERVAL` seconds, in a thread of its own; a round that takes long makes the
next one wait (a tenth of the time at most is spent walking), so the cost is bounded however big the layers are.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable

INTERVAL = 30.0
SHARE = 0.1  # of the time may be spent walking


class DiskUsage:
    """`get(path)` → (bytes, inodes) as last measured. `run()` measures until cancelled."""

    def __init__(self, paths: Callable[[], Iterable[str]]) -> None:
        self._paths = paths
        self._measured: dict[str, tuple[int, int]] = {}
        self.last_round = 0.0  # Unix seconds when the last round ended
        self.took = 0.0  # seconds it took

    def get(self, path: str) -> tuple[int, int] | None:
        return self._measured.get(path)

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            paths = set(self._paths())
            for path in paths:
                self._measured[path] = await asyncio.to_thread(measure, path)
            for path in set(self._measured) - paths:
                del self._measured[path]
            self.took, self.last_round = time.monotonic() - began, time.time()
            # new containers are measured soon, known ones at leisure
            pause = max(INTERVAL, self.took / SHARE) if paths else 1.0
            await self._wait(pause, paths)

    async def _wait(self, pause: float, known: set[str]) -> None:
        until = time.monotonic() + pause
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 5.0))
            if set(self._paths()) - known:
                return


def measure(path: str) -> tuple[int, int]:
    """Bytes on disk and inodes below a directory, on its own file system; what vanishes meanwhile does not count."""
    total, inodes = 0, 0
    stack = [path]
    try:
        device = os.lstat(path).st_dev
    except OSError:
        return 0, 0
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev != device:
                        continue
                    inodes += 1
                    total += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
        except OSError:
            continue
    return total, inodes
