"""How much the writable layers hold and how many sockets are open, measured in the background so that no scrape and no
decision walks a directory. Where the file system keeps project quotas nothing does (kubelite/node/storage/quota.py).

Measured on demand: nobody asks, nothing is done. A question (`ask`) that finds the last round older than `INTERVAL`, or
a layer that was never measured, starts one in a thread of its own; a round that took long makes the next one wait (a
tenth of the time at most is spent walking), so the cost is bounded however big the layers are. The age of what is shown
is a metric of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kubelite.node.storage.quota import used
from kubelite.telemetry.sampling.machine import FileSystem, device_name, file_system
from runtime.cgroups import open_cgroup

INTERVAL = 30.0  # seconds
FIRST = 1.0  # seconds between two rounds for what was never measured
SHARE = 0.1  # of the time may be spent walking
SOCKETS_MOST = 4096  # descriptors looked at in a container; with more its sockets are not counted


@dataclass(frozen=True, slots=True)
class Usage:
    """A writable layer: bytes and inodes in use, where it is, and the sockets of the container (None: too many
    descriptors to look at)."""

    bytes: int
    inodes: int
    file_system: FileSystem
    sockets: int | None = None


class DiskUsage:
    """`get(path)` → as last measured. `layers()` gives each layer's directory with its container's cgroup."""

    def __init__(self, layers: Callable[[], Mapping[str, str]]) -> None:
        self._layers = layers
        self._measured: dict[str, Usage] = {}
        self._wanted = asyncio.Event()
        self._until = 0.0  # monotonic seconds until which known layers are left alone
        self.last_round = 0.0  # Unix seconds when the last round ended
        self.took = 0.0  # seconds it took

    def get(self, path: str) -> Usage | None:
        return self._measured.get(path)

    def ask(self) -> None:
        """Somebody wants to know: measure if it is time, or if something was never measured. From the loop's thread."""
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
    """Bytes on disk and inodes below a directory, on its own file system; what vanishes meanwhile does not count. A
    directory with a project of its own is not walked: its file system counts that anyhow, and says the project's size
    for its own. The others share what is in `systems` (by device), asked for once a round. One with a cgroup is a
    writable layer, an overlay's."""
    systems = {} if systems is None else systems
    total, inodes = 0, 0
    try:
        counted = used(path, f"{os.path.dirname(path)}/work" if cgroup else "")
        device = os.lstat(path).st_dev
        place = systems.get(device) if counted is None else None
        if place is None:
            place = file_system(device_name(os.major(device), os.minor(device)), path)
        if counted is None:
            systems[device] = place
    except OSError:
        return None
    if counted is not None:
        return Usage(counted.bytes, counted.inodes, place, _sockets(cgroup))
    stack = [path]
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
    return Usage(total, inodes, place, _sockets(cgroup))


def _sockets(cgroup: str) -> int | None:
    return sockets(open_cgroup(cgroup).pids()) if cgroup else None


def sockets(pids: Iterable[int]) -> int | None:
    """Descriptors that are sockets, of these processes together."""
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
