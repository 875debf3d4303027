"""Measures the size of writable layers, volumes and logs, and the number of open sockets, in the background. So no
scrape and no decision walks directories. Directories with a project quota are never walked (node/storage/quota.py).

Measurements are made on demand only. A request (`ask`) starts a round in a thread if the last round is older than
`INTERVAL` or a directory was never measured. A long round delays the next one, so that at most a tenth of the time is
spent walking, however large the directories are. The age of the measurements is a metric, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kubelite.node.storage.quota import used
from kubelite.telemetry.sampling.machine import FileSystem, device_name, file_system
from runtime.cgroups import open_cgroup
from runtime.tree import walk

INTERVAL = 30.0  # seconds between rounds
FIRST = 1.0  # seconds between two rounds for directories that were never measured
SHARE = 0.1  # maximum fraction of the time spent walking
SOCKETS_MOST = 4096  # descriptors examined in a container; if there are more, its sockets are not counted


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of a directory: bytes and inodes, its file system, and the container's sockets (None: too many
    descriptors to examine)."""

    bytes: int
    inodes: int
    file_system: FileSystem
    sockets: int | None = None


class DiskUsage:
    """Measures directories. `get(path)` returns the last measurement. `layers()` maps each directory to measure to the
    container's cgroup if it is a writable layer, otherwise to ""."""

    def __init__(self, layers: Callable[[], Mapping[str, str]]) -> None:
        self._layers = layers
        self._measured: dict[str, Usage] = {}
        self._wanted = asyncio.Event()
        self._until = 0.0  # monotonic seconds until which measured directories are not measured again
        self.last_round = 0.0  # Unix seconds when the last round ended
        self.took = 0.0  # duration of the last round in seconds

    def get(self, path: str) -> Usage | None:
        return self._measured.get(path)

    def ask(self) -> None:
        """Request a measurement. It starts if it is due or if a directory was never measured. Call this in the event
        loop's thread."""
        if time.monotonic() >= self._until or any(path not in self._measured for path in self._layers()):
            self._wanted.set()

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            began = time.monotonic()
            layers, systems = dict(self._layers()), dict[int, FileSystem]()
            due = began >= self._until
            for path, cgroup in layers.items():
                if (due or path not in self._measured) and (
                    found := await asyncio.to_thread(measure, path, cgroup, systems)
                ):
                    self._measured[path] = found
            for path in self._measured.keys() - layers.keys():
                del self._measured[path]
            if due:
                self.took, self.last_round = time.monotonic() - began, time.time()
                self._until = time.monotonic() + max(INTERVAL, self.took / SHARE)
            await asyncio.sleep(max(FIRST, (time.monotonic() - began) / SHARE))


def measure(path: str, cgroup: str = "", systems: dict[int, FileSystem] | None = None) -> Usage | None:
    """Measure the bytes on disk and the inodes below a directory, within its file system. Return None if it does not
    exist. Files that disappear meanwhile are not counted. A directory with its own project quota is not walked: the
    file system counts its usage, and reports the project's limit as its size. `systems`: device → file system, a cache
    for the other directories of one round. `cgroup`: the container's, if the directory is a writable layer of an
    overlay."""
    systems = {} if systems is None else systems
    total, inodes = 0, 0
    try:
        counted = used(path, f"{os.path.dirname(path)}/work" if cgroup else "")
        device = (status := os.lstat(path)).st_dev
        place = systems.get(device) if counted is None else None
        if place is None:
            place = file_system(device_name(os.major(device), os.minor(device)), path)
        if counted is None:
            systems[device] = place
    except OSError:
        return None
    if counted is not None:
        return Usage(counted.bytes, counted.inodes, place, _sockets(cgroup))
    with contextlib.suppress(OSError):
        for _, _, found in walk(os.path.realpath(path) if stat.S_ISLNK(status.st_mode) else path):
            inodes += 1
            total += found.st_blocks * 512
    return Usage(total, inodes, place, _sockets(cgroup))


def _sockets(cgroup: str) -> int | None:
    return sockets(open_cgroup(cgroup).pids()) if cgroup else None


def sockets(pids: Iterable[int]) -> int | None:
    """Count the descriptors of these processes that are sockets; None if there are too many descriptors."""
    count, left = 0, SOCKETS_MOST
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    return None
                with contextlib.suppress(OSError):
                    count += os.readlink(entry.path).startswith("socket:")
    return count
