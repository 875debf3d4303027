"""What a HorizontalPodAutoscaler is decided from, and what is decided: frozen values.

Amounts are in thousandths, as in Kubernetes' controller: 250 is a quarter of a CPU, 1000 is a byte. Times are Unix
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kubelite.kube.json import Json

#: Kinds that can be scaled, with their API versions.
SCALED = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "ReplicaSet": "apps/v1",
    "ReplicationController": "v1",
}
KIND = "HorizontalPodAutoscaler"


class Sample(NamedTuple):
    """What the containers of a pod used in the `window` seconds before `at`. `containers`: name → resource → amount."""

    at: float
    window: float
    containers: Mapping[str, Mapping[str, int]]


class Usage(NamedTuple):
    """An amount of one resource that a pod used, with the times of its sample."""

    value: int
    at: float = 0.0
    window: float = 0.0


class Recommendation(NamedTuple):
    replicas: int
    at: float


class Change(NamedTuple):
    """A change of the number of replicas by the autoscaler. `replicas`: by how many, never negative."""

    replicas: int
    at: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered between two decisions about an autoscaler. As in Kubernetes, it does not survive a restart."""

    recommendations: tuple[Recommendation, ...] = ()
    ups: tuple[Change, ...] = ()
    downs: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """The defaults of kube-controller-manager's flags, in seconds (pkg/controller/podautoscaler/config/v1alpha1)."""

    sync: float = 15.0
    tolerance: float = 0.1
    downscale_stabilization: float = 300.0
    cpu_initialization: float = 300.0
    initial_readiness_delay: float = 30.0


@dataclass(frozen=True, slots=True)
class View:
    """`target`: the workload, None if it does not exist; `pods`: all of the namespace that its selector matches;
    `samples`: by name of the pod; `sharing`: the names of all autoscalers with one of these pods."""

    autoscaler: Json
    now: float
    target: Json | None = None
    pods: Sequence[Json] = ()
    samples: Mapping[str, Sample] = field(default_factory=dict)
    sharing: Sequence[str] = ()
    memory: Memory = Memory()
    timing: Timing = Timing()


class Event(NamedTuple):
    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """`replicas`: to how many the target is scaled, None if it stays."""

    status: Json
    events: tuple[Event, ...] = ()
    replicas: int | None = None
    memory: Memory = Memory()
