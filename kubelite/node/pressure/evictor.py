"""Node-pressure eviction: observe the machine every few seconds, decide in eviction_policy.py, evict one pod at a time.

An observation only reads a few files in /proc and the statistics of the file systems. What each pod uses is measured
only under pressure. Under disk pressure, data of ended pods and unused images are removed before any pod is evicted.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

from kubelite.kube.objects import TERMINAL_PHASES
from kubelite.node.cri.local import LocalCri
from kubelite.node.model.capacity import Threshold
from kubelite.node.pressure.ended_pods import free
from kubelite.node.pressure.eviction_policy import (
    Met,
    Observation,
    PodUse,
    Pressure,
    met,
    pressure,
    sentence,
    victims,
)
from kubelite.node.storage.usage import bytes_below, inodes_below
from kubelite.node.worker.pod_worker import PodWorker
from runtime.errors import RuntimeFault
from state.errors import StoreError

log = logging.getLogger(__name__)


def observe(root: str, images: str, *, meminfo: str = "/proc/meminfo") -> dict[str, Observation]:
    """Every signal's present value. Images count separately only on a file system of their own."""
    seen = {"memory.available": _memory(meminfo), "pid.available": _pids()}
    for name, path in (("nodefs", root), ("imagefs", images)):
        if name == "imagefs" and (not os.path.exists(path) or os.stat(path).st_dev == os.stat(root).st_dev):
            continue
        disk = os.statvfs(path)
        seen[f"{name}.available"] = Observation(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)
        if disk.f_files:
            seen[f"{name}.inodesFree"] = Observation(disk.f_favail, disk.f_files)
    return seen


def _memory(path: str) -> Observation:
    with open(path, encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return Observation(*(int(fields[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal")))


def _pids() -> Observation:
    """How many more tasks the machine can have, and how many in total (proc_loadavg(5))."""
    most = min(_number("/proc/sys/kernel/pid_max"), _number("/proc/sys/kernel/threads-max"))
    with open("/proc/loadavg", encoding="ascii") as file:
        tasks = int(file.read().split()[3].partition("/")[2])
    return Observation(most - tasks, most)


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


class Measured(NamedTuple):
    """What a pod uses now: bytes of memory, processes, and the same for each container."""

    memory: int
    pids: int
    containers: Mapping[str, Mapping[str, int]]


class NodeUnderPressure(Protocol):
    """What the evictor needs from the node."""

    @property
    def worker(self) -> PodWorker: ...

    @property
    def cri(self) -> LocalCri: ...

    @property
    def pressure_since(self) -> dict[str, float]:
        """When each condition last changed, in Unix seconds."""

    async def measured_pods(self) -> Mapping[str, Measured]:
        """What each pod uses, by uid; pods that are not running are left out."""

    def evicted(self, signal: str, age: float) -> None:
        """A pod was evicted because of this signal, observed `age` seconds before."""

    def node_event(self, reason: str, message: str) -> None: ...


class Evictor:
    """`run()` works until it is cancelled. `once()` makes one observation and evicts at most one pod.

    `roots`: the directories of pods and of images. `period`: seconds between observations. `transition`: seconds for
    which a condition outlasts its pressure. `free_images` removes unused images and returns whether any bytes were
    freed.
    """

    def __init__(
        self,
        node: NodeUnderPressure,
        thresholds: tuple[Threshold, ...],
        *,
        roots: tuple[str, str],
        period: float,
        transition: float,
        free_images: Callable[[], Awaitable[object]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._thresholds = thresholds
        self._roots = roots
        self._period = period
        self._transition = transition
        self._free_images = free_images
        self._clock = clock
        self.pressure = Pressure()
        self._observed_at = 0.0  # Unix seconds of the last observation
        self._evicted = ""  # uid of the pod evicted last: the next eviction waits until it has ended

    async def run(self) -> None:
        while True:
            try:
                await self.once()
            except (RuntimeFault, StoreError, OSError) as error:
                log.error("cannot observe the node's resources: %s", error)
            await asyncio.sleep(self._period)

    async def once(self) -> None:
        found = self._look()
        if not found:
            return
        for make_room in (self._free_ended, self._free_images):
            if any(one.condition == "DiskPressure" for one in found) and await make_room():
                found = self._look()
        if found and not self._terminating():
            await self._evict(found)

    async def _free_ended(self) -> bool:
        """Remove the emptyDir volumes and writable layers of ended pods. Return whether there were any."""
        worker, running = self._node.worker, self._node.cri.running_sandboxes()
        uids = [uid for uid in worker.scheduler.ended() if uid not in running]
        return any([await asyncio.to_thread(free, worker.config, uid) for uid in uids])

    def _look(self) -> tuple[Met, ...]:
        found = met(self._thresholds, observe(*self._roots))
        self._observed_at = now = self._clock()
        before = self.pressure.conditions
        self.pressure = pressure(self.pressure, found, now=now, period=self._transition)
        if (conditions := self.pressure.conditions) != before:
            for kind in conditions ^ before:
                self._node.pressure_since[kind] = now
                log.warning("%s %s", kind, "begins" if kind in conditions else "ends")
            self._node.worker.scheduler.node.pressure = conditions
            self._node.worker.scheduler.retry_waiting()
        return found

    def _terminating(self) -> bool:
        """Whether the pod evicted last still has processes."""
        return self._evicted in self._node.cri.running_sandboxes()

    async def _evict(self, found: tuple[Met, ...]) -> None:
        """Evict one pod, for the first shortage that an eviction can relieve."""
        uses = await self._uses()
        for one in found:
            order = victims(one.resource, uses)
            if order:
                uid, words = order[0].pod.metadata.uid or "", sentence(one, order[0])
                log.warning("evicting pod: %s", words, extra={"uid": uid})
                self._evicted = uid
                self._node.worker.evict(uid, words)
                self._node.evicted(one.threshold.signal, self._clock() - self._observed_at)
                return
            self._node.node_event("EvictionThresholdMet", f"Attempting to reclaim {one.resource}")

    async def _uses(self) -> list[PodUse]:
        measured = await self._node.measured_pods()
        uses = []
        for pod in self._node.worker.scheduler.pods():
            uid = pod.metadata.uid or ""
            if pod.metadata.deletion_timestamp or pod.status.phase in TERMINAL_PHASES or uid not in measured:
                continue
            config = self._node.worker.config
            logs = config.pod_log_dir(pod.metadata.namespace or "default", pod.metadata.name or "", uid)
            places = (config.pod_dir(uid), logs)
            uses.append(
                PodUse(
                    pod,
                    memory=measured[uid].memory,
                    disk=sum([await asyncio.to_thread(bytes_below, place) for place in places]),
                    inodes=sum([await asyncio.to_thread(inodes_below, place) for place in places]),
                    pids=measured[uid].pids,
                    containers=measured[uid].containers,
                )
            )
        return uses
