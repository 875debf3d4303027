"""Measures how much of the node's disk a pod uses, if its manifest limits that (decide/disk_limits.py).

A thread measures every `PERIOD` seconds while the pod runs. The decision reads the sums.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence

from kubelite.node.decide.disk_limits import CONTAINER, excess, measured
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.storage.quota import used
from manifests.types.core import Pod

PERIOD = 10.0  # seconds between two measurements of one pod (kubelet's monitoring interval)
BLOCK = 512  # bytes of st_blocks (stat(2))


class Usage:
    """The last measurements. `wake(uid)` is called when a pod exceeds a limit."""

    def __init__(
        self, config: NodeConfig, *, clock: Callable[[], float], wake: Callable[[str], None]
    ) -> None:
        self._config = config
        self._clock = clock
        self._wake = wake
        self._used: dict[str, dict[str, int]] = {}
        self._due: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def of(self, pod: Pod) -> Mapping[str, int]:
        """Bytes by volume and container. Starts a new measurement when it is due."""
        limited = measured(pod, self._config)
        if not limited:
            return {}
        uid, now = pod.metadata.uid or "", self._clock()
        if uid not in self._tasks and not now < self._due.get(uid, 0.0) <= now + PERIOD:
            self._due[uid] = now + PERIOD
            self._tasks[uid] = asyncio.get_running_loop().create_task(self._measure(pod, limited))
        return self._used.get(uid, {})

    async def _measure(self, pod: Pod, limited: Mapping[str, tuple[str, ...]]) -> None:
        uid = pod.metadata.uid or ""
        try:
            sums = {name: await asyncio.to_thread(bytes_of, name, paths) for name, paths in limited.items()}
        finally:
            self._tasks.pop(uid, None)
        if uid in self._due:
            self._used[uid] = sums
            if excess(pod, sums):
                self._wake(uid)
            loop = asyncio.get_running_loop()
            self._timers[uid] = loop.call_later(PERIOD, self._again, uid)

    def _again(self, uid: str) -> None:
        """The next sync measures again, even if the machine's clock was changed."""
        self._due[uid] = 0.0
        self._wake(uid)

    def forget(self, uid: str) -> None:
        self._used.pop(uid, None)
        self._due.pop(uid, None)
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()
        if (task := self._tasks.pop(uid, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for uid in list(self._due):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)


def bytes_of(name: str, paths: Sequence[str]) -> int:
    """The bytes on disk of a volume, or of a container's instances and logs: as counted by the file system
    (storage/quota.py), else by walking the directory."""
    first, *logs = paths
    total = sum(bytes_below(path) for path in logs)
    if not name.startswith(CONTAINER):
        return total + _counted_or_walked(first, first)
    with contextlib.suppress(OSError):
        for instance in (f"{first}/{attempt}" for attempt in os.listdir(first)):
            total += _counted_or_walked(instance, f"{instance}/upper", f"{instance}/work")
    return total


def _counted_or_walked(path: str, counted: str, work: str = "") -> int:
    with contextlib.suppress(OSError):
        if (found := used(counted, work)) is not None:
            return found.bytes
    return bytes_below(path)


def bytes_below(path: str) -> int:
    """The bytes on disk of the files in a tree. Files with several names count once; other file systems mounted in the
    tree do not count. Files that disappear meanwhile are ignored."""
    total, seen, others = 0, set[int](), mounted_below(path)
    with contextlib.suppress(OSError):
        device = os.stat(path).st_dev
        for directory, inside, names, fd in os.fwalk(path, follow_symlinks=False):
            inside[:] = [name for name in inside if f"{directory}/{name}" not in others]
            for name in names:
                with contextlib.suppress(OSError):
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if found.st_dev == device and found.st_ino not in seen:
                        seen.add(found.st_ino)
                        total += found.st_blocks * BLOCK
    return total


def inodes_below(path: str) -> int:
    """The number of files and directories in a tree, without other file systems mounted in it. Files that disappear
    meanwhile are ignored."""
    total, others = 0, mounted_below(path)
    for directory, inside, names in os.walk(path):
        inside[:] = [name for name in inside if f"{directory}/{name}" not in others]
        total += len(names) + len(inside)
    return total


def mounted_below(path: str) -> frozenset[str]:
    """The mount points in a tree, from the mount table, because stat(2) would wait for a server that does not answer.
    Names with blanks are left out, but no volume's directory has any."""
    prefix = f"{path}/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = (line.split(" ", 5)[4] for line in file)
        return frozenset(point for point in points if point.startswith(prefix))
