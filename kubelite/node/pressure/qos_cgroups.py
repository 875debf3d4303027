"""Keeps the limits of the QoS cgroups up to date: a task that runs after the pods' reservations change.

kubelet updates them once a minute. Here an update follows a change after one second, so that a hundred pods that start
together cause a single write. Limits that have not changed are not written again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.recorder import StepRecorder
from kubelite.node.model.schedule import Reservation
from kubelite.node.spec.limits import node_limits, qos_cgroup_limits
from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault

log = logging.getLogger(__name__)
DELAY = 1.0  # seconds from a change to the write


class QosCgroups:
    """`run(reservations)` works until it is cancelled. Call `changed` when the reservations have changed.
    `evicted_below`: bytes of memory.available below which pods are evicted."""

    def __init__(self, config: NodeConfig, tracer: StepRecorder, *, evicted_below: int) -> None:
        self._tracer = tracer
        self._config = config
        self._changed = asyncio.Event()
        self._written: dict[str, dict[str, Any]] = {}
        self._node = node_limits(config, evicted_below=evicted_below)

    def changed(self) -> None:
        self._changed.set()

    async def run(self, reservations: Callable[[], Sequence[Reservation]]) -> None:
        self.changed()  # for the pods that are scheduled already
        while True:
            await self._changed.wait()
            await asyncio.sleep(DELAY)
            self._changed.clear()
            for group, limits in self._wanted(reservations()).items():
                if self._written.get(group) != limits:
                    await self._write(group, limits)

    def _wanted(self, reservations: Sequence[Reservation]) -> dict[str, dict[str, Any]]:
        """The limits of the cgroups that hold a pod: no empty cgroup is created."""
        if not reservations:
            return {}
        wanted = qos_cgroup_limits(((one.qos, one.requests) for one in reservations), self._config)
        wanted[""] = {**wanted.get("", {}), **self._node}
        here = {"", *(one.qos.lower() for one in reservations)}
        return {group: limits for group, limits in wanted.items() if group in here and limits}

    async def _write(self, group: str, limits: dict[str, Any]) -> None:
        path = f"{self._config.cgroup_parent.rstrip('/')}/{group}".rstrip("/")
        cgroup = open_cgroup(path)

        def write() -> list[str]:
            cgroup.create()
            return cgroup.apply(limits)

        try:
            with self._tracer.count("cgroup update"):
                warnings = await asyncio.to_thread(write)
            for warning in warnings:
                log.warning("%s: %s", path, warning)
        except RuntimeFault as error:  # the cgroup may have been removed with its last pod
            log.warning("cannot write the limits of %s: %s", path, error)
            return
        self._written[group] = limits
