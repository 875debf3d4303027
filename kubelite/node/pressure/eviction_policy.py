"""Pure: whether the node is short of a resource, and which pod to evict first (docs/explanation/scheduling.md,
Kubernetes pkg/kubelet/eviction).

A signal below its threshold is a pressure: it shows as a condition of the node, keeps new pods away, and evicts one pod
per observation until the pressure ends. Pods that use more than they request are evicted first, then those of lower
priority, then those furthest over their request; for process ids, priority and number of processes decide. Only pods of
system-critical priority are exempt: unlike kubelet's static pods, pods from manifest files are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kubelite.node.model.capacity import Threshold
from kubelite.node.model.priority import CRITICAL, priority
from kubelite.node.model.resources import pod_requests
from manifests.types.core import Pod

_CONDITIONS = {
    "memory": "MemoryPressure",
    "nodefs": "DiskPressure",
    "imagefs": "DiskPressure",
    "pid": "PIDPressure",
}


class Observation(NamedTuple):
    """A signal's present value in bytes, inodes or process ids."""

    available: int
    capacity: int


class Met(NamedTuple):
    """A threshold that is met, and the observation that met it."""

    threshold: Threshold
    observation: Observation

    @property
    def condition(self) -> str:
        return _CONDITIONS[self.threshold.signal.partition(".")[0]]

    @property
    def resource(self) -> str:
        """The resource to reclaim, as the message names it."""
        signal = self.threshold.signal
        if signal.endswith("inodesFree"):
            return "inodes"
        return {"memory": "memory", "pid": "pids"}.get(signal.partition(".")[0], "ephemeral-storage")


def met(thresholds: Iterable[Threshold], observed: Mapping[str, Observation]) -> tuple[Met, ...]:
    """The thresholds that are met. Memory comes first, because kubelet reclaims it first."""
    found = [
        Met(threshold, observation)
        for threshold in thresholds
        if (observation := observed.get(threshold.signal)) is not None
        and observation.available < threshold.value(observation.capacity)
    ]
    return tuple(sorted(found, key=lambda one: one.resource != "memory"))


@dataclass(frozen=True, slots=True)
class PodUse:
    """What one pod uses now, and what each of its containers uses, for the message."""

    pod: Pod
    memory: int = 0
    disk: int = 0
    inodes: int = 0
    pids: int = 0
    containers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # name → resource → amount

    def of(self, resource: str) -> int:
        names = {
            "memory": self.memory,
            "ephemeral-storage": self.disk,
            "inodes": self.inodes,
            "pids": self.pids,
        }
        return names[resource]


def victims(resource: str, uses: Iterable[PodUse]) -> list[PodUse]:
    """The pods that may be evicted for a resource, the first to evict first."""
    candidates = [use for use in uses if priority(use.pod) < CRITICAL]

    def rank(use: PodUse) -> tuple[bool, int, int]:
        used = use.of(resource)
        if resource in ("pids", "inodes"):
            return (False, priority(use.pod), -used)
        over = used - pod_requests(use.pod).get(resource, 0)
        return (over <= 0, priority(use.pod), -over)

    return sorted(candidates, key=rank)


def sentence(found: Met, victim: PodUse) -> str:
    """kubelet's message. It lists the containers that exceed their request."""
    threshold, observation = found
    quantity = _text(found.resource, threshold.value(observation.capacity))
    words = (
        f"The node was low on resource: {found.resource}. "
        f"Threshold quantity: {quantity}, available: {_text(found.resource, observation.available)}. "
    )
    for container in (*victim.pod.spec.init_containers, *victim.pod.spec.containers):
        used = victim.containers.get(container.name, {}).get(found.resource, 0)
        requests = container.resources.requests if container.resources is not None else {}
        request = requests.get(found.resource)
        if used > (request.value() if request is not None else 0):
            asked = str(request) if request is not None else "0"
            words += (
                f"Container {container.name} was using {_text(found.resource, used)}, request is {asked}, "
                f"has larger consumption of {found.resource}. "
            )
    return words


def _text(resource: str, amount: int) -> str:
    if resource in ("pids", "inodes"):
        return str(amount)
    return (
        f"{amount >> 20}Mi" if amount and amount % (1 << 20) == 0 else f"{amount >> 10}Ki" if amount else "0"
    )


@dataclass(frozen=True, slots=True)
class Pressure:
    """The conditions that hold, and when each was last met (Unix seconds)."""

    last_met: Mapping[str, float] = field(default_factory=dict)

    @property
    def conditions(self) -> frozenset[str]:
        return frozenset(self.last_met)


def pressure(before: Pressure, found: Sequence[Met], *, now: float, period: float) -> Pressure:
    """The conditions after an observation: those met now and those met within the transition period. The period keeps
    an unsteady signal from admitting and evicting the same pods in turn."""
    kept = {kind: at for kind, at in before.last_met.items() if now - at < period and at <= now}
    return Pressure({**kept, **{one.condition: now for one in found}})
