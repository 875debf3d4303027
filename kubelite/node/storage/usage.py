"""Measures a pod's disk usage if its manifest limits it (decide/disk_limits.py).

A thread measures every `PERIOD` seconds while the pod runs. The decision reads the sums.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence

from kubelite.node.decide.disk_limits import CONTAINER, FILES, excess, measured
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.storage.quota import used
from manifests.types.core import Pod
from runtime.tree import walk

PERIOD = 10.0  # seconds between two measurements of one pod (kubelet's monitoring interval)
_TERMINATION_LOG = "termination-log"  # NodeConfig.termination_log
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
        """Make the next sync measure again, even if the machine's clock was changed."""
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
    if name == FILES:
        return sum(_size(path) for path in paths)
    first, *logs = paths
    total = sum(bytes_below(path) for path in logs)
    if not name.startswith(CONTAINER):
        return total + _counted_or_walked(first, first)
    with contextlib.suppress(OSError):
        for instance in (f"{first}/{attempt}" for attempt in os.listdir(first)):
            total += _counted_or_walked(instance, f"{instance}/upper", f"{instance}/work", _TERMINATION_LOG)
    return total


def _counted_or_walked(path: str, counted: str, work: str = "", beside: str = "") -> int:
    """The bytes that the file system counts for the directory `counted`, or else those of the tree `path`. `beside`: a
    file in `path` that the container can write, but that is not in `counted`."""
    with contextlib.suppress(OSError):
        if (found := used(counted, work)) is not None:
            return found.bytes + (_size(f"{path}/{beside}") if beside else 0)
    return bytes_below(path)


def _size(path: str) -> int:
    """The bytes on disk of a single file; 0 if it is missing."""
    with contextlib.suppress(OSError):
        return os.lstat(path).st_blocks * BLOCK
    return 0


def bytes_below(path: str) -> int:
    """The bytes on disk of the files in a tree. Files with several names count once; other file systems mounted in the
    tree do not count. Files that disappear meanwhile are ignored."""
    total, seen = 0, set[int]()
    with contextlib.suppress(OSError):
        for _, _, found in walk(path):
            if stat.S_ISDIR(found.st_mode) or found.st_ino in seen:
                continue
            if found.st_nlink > 1:
                seen.add(found.st_ino)
            total += found.st_blocks * BLOCK
    return total


def inodes_below(path: str) -> int:
    """The number of files and directories in a tree, without other file systems mounted in it. Files that disappear
    meanwhile are ignored."""
    with contextlib.suppress(OSError):
        return sum(1 for _ in walk(path))
    return 0
