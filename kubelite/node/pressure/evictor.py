"""The watch on what the machine has left: looks every few seconds, decides in `node.eviction`, ends one pod at a time.

A look reads /proc/meminfo and asks the file systems, nothing else; what each pod uses is measured only under pressure.
Unused images go before any pod does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kubelite.node.model.capacity import Threshold
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
from kubelite.node.pressure.usage import bytes_below, inodes_below
from runtime.errors import RuntimeFault
from state.errors import StoreError

if TYPE_CHECKING:
    from kubelite.daemon.node_api import Agent
    from kubelite.node.pressure.image_collector import ImageCollector

log = logging.getLogger(__name__)
TERMINAL = ("Succeeded", "Failed")


def observe(root: str, images: str, *, meminfo: str = "/proc/meminfo") -> dict[str, Observation]:
    """Every signal as it is now. Images count apart only on a file system of their own."""
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
    """Tasks of the whole machine (proc_loadavg(5)) against what there can be."""
    most = min(_number("/proc/sys/kernel/pid_max"), _number("/proc/sys/kernel/threads-max"))
    with open("/proc/loadavg", encoding="ascii") as file:
        tasks = int(file.read().split()[3].partition("/")[2])
    return Observation(most - tasks, most)


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


class Evictor:
    """`run()` until cancelled; `once()` is one look."""

    def __init__(
        self,
        agent: Agent,
        collector: ImageCollector,
        thresholds: tuple[Threshold, ...],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._agent = agent
        self._collector = collector
        self._thresholds = thresholds
        self._clock = clock
        self.pressure = Pressure()
        self._looked = 0.0  # when it was last seen what the machine has left
        self._going = (
            ""  # the pod that was evicted last: the next one waits until it has given back what it had
        )

    async def run(self) -> None:
        while True:
            try:
                await self.once()
            except (RuntimeFault, StoreError, OSError) as error:
                log.error("what the machine has left cannot be told: %s", error)
            await asyncio.sleep(self._agent.settings.eviction_monitoring_period)

    async def once(self) -> None:
        found = self._look()
        if not found:
            return
        if any(one.condition == "DiskPressure" for one in found) and await self._collector.free_all():
            found = self._look()
        if found and not self._ends():
            await self._evict(found)

    def _look(self) -> tuple[Met, ...]:
        settings = self._agent.settings
        found = met(self._thresholds, observe(settings.root, self._agent.images_client.store.root))
        self._looked = now = self._clock()
        before = self.pressure.conditions
        period = settings.eviction_pressure_transition_period
        self.pressure = pressure(self.pressure, found, now=now, period=period)
        if (conditions := self.pressure.conditions) != before:
            for kind in conditions ^ before:
                self._agent.pressure_since[kind] = now
                log.warning("%s %s", kind, "begins" if kind in conditions else "ends")
            self._agent.worker.placing.node.pressure = conditions
            self._agent.worker.placing.ask_again()
        return found

    def _ends(self) -> bool:
        """Whether the pod that was evicted last still has processes."""
        return self._going in self._agent.cri.living()

    async def _evict(self, found: tuple[Met, ...]) -> None:
        """One pod, for the first shortage that any pod can help with."""
        uses = await self._uses()
        for one in found:
            order = victims(one.resource, uses)
            if order:
                uid, words = order[0].pod.metadata.uid or "", sentence(one, order[0])
                log.warning("evicting a pod: %s", words, extra={"uid": uid})
                self._going = uid
                self._agent.worker.evict(uid, words)
                signal = f'eviction_signal="{one.threshold.signal}"'
                self._agent.meters.evictions.add(signal)
                self._agent.meters.stats_age.observe(self._clock() - self._looked, signal)
                return
            self._agent.node_event("EvictionThresholdMet", f"Attempting to reclaim {one.resource}")

    async def _uses(self) -> list[PodUse]:
        snapshot = await self._agent.pages().snapshot()
        memory = {s.target.uid: s.stats.memory.working_set for s in snapshot.pods}
        pids = {s.target.uid: len(s.pids) for s in snapshot.pods}
        by_container: dict[str, dict[str, dict[str, int]]] = {}
        for s in snapshot.containers:
            amounts = {"memory": s.stats.memory.working_set, "pids": len(s.pids)}
            by_container.setdefault(s.target.uid, {})[s.target.container] = amounts
        uses = []
        for pod in self._agent.worker.placing.pods():
            uid = pod.metadata.uid or ""
            if pod.metadata.deletion_timestamp or pod.status.phase in TERMINAL or uid not in memory:
                continue
            config = self._agent.worker.config
            logs = config.pod_log_dir(pod.metadata.namespace or "default", pod.metadata.name or "", uid)
            places = (config.pod_dir(uid), logs)
            uses.append(
                PodUse(
                    pod,
                    memory=memory[uid],
                    disk=sum([await asyncio.to_thread(bytes_below, place) for place in places]),
                    inodes=sum([await asyncio.to_thread(inodes_below, place) for place in places]),
                    pids=pids.get(uid, 0),
                    containers=by_container.get(uid, {}),
                )
            )
        return uses
