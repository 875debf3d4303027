"""The values of scheduling: taints, the node as a scheduler sees it, what a pod reserves, and the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kubelite.node.model import resources
from manifests.types.core import (
    PodAffinityTerm,
)

NO_SCHEDULE, PREFER_NO_SCHEDULE, NO_EXECUTE = "NoSchedule", "PreferNoSchedule", "NoExecute"
UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
MEMORY_PRESSURE_TAINT = "node.kubernetes.io/memory-pressure"
RESIZE_PENDING = "PodResizePending"  # the condition of a pod whose resize waits
UNSCHEDULABLE, GATED = "Unschedulable", "SchedulingGated"


class Taint(NamedTuple):
    key: str
    value: str = ""
    effect: str = NO_SCHEDULE
    added: float = 0.0  # Unix seconds: tolerationSeconds count from here


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """This node, as far as scheduling needs it. Amounts: cpu in thousandths, the rest in bytes or counts."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False
    allocatable: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)  # of device plugins, unhealthy ones included


class Port(NamedTuple):
    """A port of the host. An ip of "" means all addresses."""

    number: int
    protocol: str = "TCP"
    ip: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one pod reserves on the node."""

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    #: cpu in thousandths, the rest in bytes or counts
    requests: Mapping[str, int] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    repels: tuple[PodAffinityTerm, ...] = ()  # its required anti-affinity
    terminating: bool = False  # it is being deleted, or is over and its sandbox still exists
    qos: str = resources.BEST_EFFORT
    priority: int = 0
    since: str = ""  # when it started here (RFC 3339)
    volumes: tuple[str, ...] = ()  # the PersistentVolumeClaims that it mounts


@dataclass(frozen=True, slots=True)
class ScheduleResult:
    """The outcome of scheduling. If `reason` is "", the pod runs on this node. Otherwise it waits or, if `rejected`,
    never runs here. `victims` are the pods to preempt for it. While these terminate, the pod is `nominated`: the room
    that they free is reserved for it."""

    reason: str = ""
    message: str = ""
    rejected: bool = False
    victims: tuple[Reservation, ...] = ()
    nominated: bool = False
    short_of: str = ""  # the resource that the victims free; "" if it is not a resource (a host port)


SCHEDULED = ScheduleResult()


class Unbound(NamedTuple):
    """Why a pod's claims keep it from being scheduled, in the scheduler's words. `here`: the reason concerns this node;
    otherwise it would be the same on any node."""

    words: str
    here: bool = False


class Resize(NamedTuple):
    """Why a resize of a pod is not carried out: Deferred or Infeasible, and a message with the numbers."""

    reason: str
    message: str
