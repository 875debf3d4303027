"""Effects: how much of the node's disk a pod has used, where the manifest limits that: `sizeLimit` of an emptyDir on
disk, `ephemeral-storage` of a container (its writable layer and its logs) and of all of them together.

Measured beside everything else, every `PERIOD` seconds while the pod runs, in a thread; the decision reads the sums.
What is over its limit ends the pod (K eviction_manager.go localStorageEviction). A limit on `medium: Memory` needs
none of this: it is the size of the tmpfs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence

from kubelite.node.model.node_config import NodeConfig
from kubelite.node.storage.quota import used
from manifests.types.core import Container, Pod
from manifests.types.meta import Quantity

PERIOD = 10.0  # seconds between two measurements of one pod (kubelet's monitoring interval)
STORAGE = "ephemeral-storage"
CONTAINER = "container/"  # of a container's sum, in what is measured: no volume's name has a slash
BLOCK = 512  # bytes of st_blocks (stat(2))


def limited_volumes(pod: Pod, config: NodeConfig) -> dict[str, tuple[str, int]]:
    """PURE: the emptyDir volumes on disk that have a limit: name → (directory, bytes)."""
    return {
        volume.name: (
            config.volume_dir(pod.metadata.uid or "", "kubernetes.io~empty-dir", volume.name),
            volume.empty_dir.size_limit.value(),
        )
        for volume in pod.spec.volumes
        if volume.empty_dir is not None
        and volume.empty_dir.size_limit is not None
        and not is_in_memory(volume.empty_dir.medium)
    }


def measured(pod: Pod, config: NodeConfig) -> dict[str, tuple[str, ...]]:
    """PURE: what is to be measured → its directories: emptyDir volumes on disk and, where a container's disk is
    limited, all containers too (the pod's own limit is the sum, and everything counts towards it)."""
    uid, limited = pod.metadata.uid or "", any(_storage_limit(c) is not None for c in _containers(pod))
    found: dict[str, tuple[str, ...]] = {
        name: (path,) for name, (path, _) in limited_volumes(pod, config).items()
    }
    if limited:
        for volume in pod.spec.volumes:
            if volume.empty_dir is not None and not is_in_memory(volume.empty_dir.medium):
                found[volume.name] = (config.volume_dir(uid, "kubernetes.io~empty-dir", volume.name),)
        logs = config.pod_log_dir(pod.metadata.namespace or "default", pod.metadata.name or "", uid)
        for container in _containers(pod):
            instances = f"{config.pod_dir(uid)}/containers/{container.name}"
            found[f"{CONTAINER}{container.name}"] = (instances, f"{logs}/{container.name}")
    return found


def is_in_memory(medium: str | None) -> bool:
    """An emptyDir that takes no disk."""
    return (medium or "").startswith(("Memory", "HugePages"))


def _containers(pod: Pod) -> list[Container]:
    return [*pod.spec.init_containers, *pod.spec.containers]


def _storage_limit(container: Container) -> Quantity | None:
    return container.resources.limits.get(STORAGE) if container.resources is not None else None


def excess(pod: Pod, used: Mapping[str, int]) -> str:
    """PURE: kubelet's sentence about the first thing that is over its limit, in kubelet's order (volumes, the pod, its
    containers); "" when none is."""
    for volume in pod.spec.volumes:
        empty = volume.empty_dir
        if empty is None or empty.size_limit is None or is_in_memory(empty.medium):
            continue
        if used.get(volume.name, 0) > empty.size_limit.value():
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{empty.size_limit}". '
    return _pod_excess(pod, used) or _container_excess(pod, used)


def _pod_excess(pod: Pod, used: Mapping[str, int]) -> str:
    """The pod's limit is that of its containers together, once each has one (K resource PodLimits)."""
    limits = [_storage_limit(c) for c in pod.spec.containers]
    if not limits or any(limit is None for limit in limits):
        return ""
    total = sum(limit.value() for limit in limits if limit is not None)
    if sum(used.values()) <= total:
        return ""
    words = str(limits[0]) if len(limits) == 1 else str(total)
    return f"Pod ephemeral local storage usage exceeds the total limit of containers {words}. "


def _container_excess(pod: Pod, used: Mapping[str, int]) -> str:
    for container in _containers(pod):
        limit = _storage_limit(container)
        if limit is not None and used.get(f"{CONTAINER}{container.name}", 0) > limit.value():
            return f'Container {container.name} exceeded its local ephemeral storage limit "{limit}". '
    return ""


class Usage:
    """What was measured last. `wake(uid)` is called when a volume has outgrown its limit."""

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
        """Bytes by volume and container; a new measurement is begun when it is time for one."""
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
        """The look begins the next one, whatever the machine's clock did meanwhile."""
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
    """What a volume, or a container's instances and its logs, take on disk: as the file system has counted it
    (kubelite/node/storage/quota.py), else walked."""
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
    """What the files of a tree take on disk, each once however many names it has; other file systems mounted in it do
    not count. What vanishes meanwhile is not there."""
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
    """How many files and directories a tree has, without those of other file systems mounted in it; what vanishes
    meanwhile is not there."""
    total, others = 0, mounted_below(path)
    for directory, inside, names in os.walk(path):
        inside[:] = [name for name in inside if f"{directory}/{name}" not in others]
        total += len(names) + len(inside)
    return total


def mounted_below(path: str) -> frozenset[str]:
    """The mount points in a tree, by the mount table: to stat(2) one would wait for a server that is away. Names with
    blanks in them, which no volume's directory has, are left out."""
    prefix = f"{path}/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = (line.split(" ", 5)[4] for line in file)
        return frozenset(point for point in points if point.startswith(prefix))
