"""The values of a decision: its input, `Facts`, and its result, `PodActions`, which is applied in field order."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kubelite.node.model.cri import ObservedImage, Rates
from kubelite.node.model.probe_results import Health
from kubelite.node.model.schedule import SCHEDULED, Resize, ScheduleResult


class PullPhase(StrEnum):
    PULLING = "pulling"
    PULLED = "pulled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class PullStatus:
    """The state of the pull for one start of one container."""

    phase: PullPhase
    reason: str = ""  # ErrImagePull, InvalidImageName, RegistryUnavailable, …
    error: str = ""
    failed_at: float = 0.0
    retry_at: float = 0.0
    failures: int = 0  # consecutive, of this pod and image


@dataclass(frozen=True, slots=True)
class StartFailure:
    """A start that failed before the container had an instance."""

    reason: str  # CreateContainerConfigError, CreateContainerError, RunContainerError
    message: str
    spec_hash: str  # of the container at that time; an edit ends the wait
    retry_at: float


@dataclass(frozen=True, slots=True)
class SandboxFailure:
    """A sandbox that could not be created, or that ended right away."""

    message: str
    spec_hash: str
    retry_at: float


@dataclass(frozen=True, slots=True)
class VolumeFailure:
    """Volumes that could not be mounted. Until they are, no container of the pod starts."""

    message: str
    generation: int  # of the pod at that time; an edit ends the wait
    retry_at: float


class Hook(StrEnum):
    POST_START = "postStart"
    PRE_STOP = "preStop"


class HookPhase(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Facts:
    """The input of a decision besides the pod and its observed state."""

    now: float
    #: By reference as in the manifest.
    images: Mapping[str, ObservedImage | None] = field(default_factory=dict)
    #: References of present images that the pod may use only after a pull of its own (worker/pull_records.py).
    unverified: frozenset[str] = frozenset()
    pulls: Mapping[tuple[str, int], PullStatus] = field(default_factory=dict)  # by container and attempt
    start_failures: Mapping[str, StartFailure] = field(default_factory=dict)  # by container
    sandbox_failure: SandboxFailure | None = None
    volume_failure: VolumeFailure | None = None
    health: Mapping[str, Health] = field(default_factory=dict)  # by container id, only containers with probes
    hooks: Mapping[tuple[str, Hook], HookPhase] = field(default_factory=dict)  # by container id
    #: container → content_hash(), if RESTART_ON_CHANGE is set
    content: Mapping[str, str] = field(default_factory=dict)
    #: Disk usage in bytes, by the keys of disk_limits.measured().
    used: Mapping[str, int] = field(default_factory=dict)
    cpus: Mapping[str, str] = field(default_factory=dict)  # container → processors, by the static CPU policy
    scheduling: ScheduleResult = SCHEDULED  # whether the pod may run on this node
    resize: Resize | None = None  # why an edit of resources waits; until then the former resources apply
    resize_error: str = ""  # why a resize that was carried out failed
    evicted: str = ""  # the message of a node-pressure eviction of this pod
    shutdown: float | None = None  # during node shutdown: seconds that the pod has


@dataclass(frozen=True, slots=True)
class StopContainer:
    id: str
    name: str
    signal: int  # 0: none yet, the preStop hook runs first
    grace: float
    message: str  # of the Killing event; "" if the event has been recorded
    killed_for: str = ""  # why the node kills it as failed; its restart policy then applies
    pre_stop: float = 0.0  # > 0: run its preStop hook, for at most this many seconds


def volume_pull(volume: str) -> str:
    """The name of the pull of a volume's image. A container's pull has the container's name, which has no slash."""
    return f"volume/{volume}"


@dataclass(frozen=True, slots=True)
class PullImage:
    name: str
    attempt: int
    reference: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    name: str
    attempt: int
    init: bool
    reason: str
    crash_count: int = 0
    discard: str = ""  # id of an instance of the same attempt that never ran, to be removed first
    cpus: str = ""  # the processors it may run on; "" = any


@dataclass(frozen=True, slots=True)
class PostStart:
    """Run an instance's postStart hook."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class UpdateContainer:
    id: str
    name: str
    resources: Mapping[str, Any]
    resources_hash: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    id: str
    name: str
    attempt: int
    keep_log: bool = False  # until the container's next instance is removed: shows why the pod restarted


@dataclass(frozen=True, slots=True)
class PreemptPod:
    """Preempt a pod of lower priority."""

    uid: str
    pod: str  # namespace/name
    short_of: str = ""  # the resource that is short


@dataclass(frozen=True, slots=True)
class Waiting:
    """A container's waiting state, as in the pod's status."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The pod as a whole has failed, whatever the state of its containers."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PodActions:
    """The effects, in the order in which they are applied, then what the status and `kubelite why` report."""

    preempt: tuple[PreemptPod, ...] = ()
    withdraw: bool = False  # end new connections to the pod before `stop`
    stop: tuple[StopContainer, ...] = ()
    pull: tuple[PullImage, ...] = ()
    kill_sandbox: str = ""  # why; "" = keep it
    create_sandbox: str = ""  # why
    update_sandbox: bool = False  # write the pod's own limits
    start: tuple[StartContainer, ...] = ()  # all of them in parallel
    post_start: tuple[PostStart, ...] = ()
    update: tuple[UpdateContainer, ...] = ()
    limit: Rates | None = None  # the pod's new limits of bandwidth; None = keep those it has
    remove: tuple[RemoveContainer, ...] = ()
    finish: bool = False  # remove everything the pod has, then the object itself

    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    finished: frozenset[str] = frozenset()  # containers that will not run (again)
    init_failed: str = ""  # the init container whose failure ends the pod
    done: bool = False  # nothing runs, and nothing will start
    failed: Failed | None = None
    blocked: Failed | None = None  # why the pod must not run on this host; it stays Pending
    next_look: float | None = None  # Unix seconds; None = only when something changes
    reasons: tuple[str, ...] = ()  # sentences that explain the decision

    @property
    def effects(self) -> bool:
        """Whether there is anything to apply."""
        return bool(
            self.preempt
            or self.stop
            or self.pull
            or self.kill_sandbox
            or self.create_sandbox
            or self.update_sandbox
            or self.start
            or self.post_start
            or self.update
            or self.limit is not None
            or self.remove
            or self.finish
        )

    def describe(self) -> list[str]:
        """The effects in words, in order, as `why` and `diff` show them."""
        lines = [f"preempt pod {p.pod}" for p in self.preempt]
        lines += [_stop_words(stop) for stop in self.stop]
        lines += [f"pull image {p.reference} for container {p.name}" for p in self.pull]
        lines += ["stop the sandbox"] * bool(self.kill_sandbox)
        lines += ["create the sandbox"] * bool(self.create_sandbox)
        lines += ["update the pod's limits in place"] * self.update_sandbox
        lines += [
            f"start {'init ' * s.init}container {s.name}" + f" (restart {s.attempt})" * (s.attempt > 0)
            for s in self.start
        ]
        lines += [f"run the postStart hook of container {p.name}" for p in self.post_start]
        lines += [f"update the limits of container {u.name} in place" for u in self.update]
        lines += ["change the pod's limits of bandwidth in place"] * (self.limit is not None)
        lines += [f"remove attempt {r.attempt} of container {r.name}" for r in self.remove]
        lines += ["remove everything the pod has"] * self.finish
        return lines or ["nothing to do"]


def _stop_words(stop: StopContainer) -> str:
    if stop.signal:
        return f"stop container {stop.name} (signal {stop.signal}, {stop.grace:g}s grace)"
    return f"run the preStop hook of container {stop.name}, for at most {stop.pre_stop:g}s"


def signal_number(name: str | None) -> int:
    """SIGTERM, TERM or 15 → 15. Also accepts SIGRTMIN+n. Anything invalid is SIGTERM."""
    text = (name or "").strip().upper()
    if text.isdigit():
        return int(text) if 0 < int(text) <= signal.SIGRTMAX else signal.SIGTERM
    text = text.removeprefix("SIG")
    base, sign, offset = text.partition("+") if "+" in text else text.partition("-")
    found = getattr(signal, f"SIG{base}", None)
    if not isinstance(found, int):
        return int(signal.SIGTERM)
    return int(found) + (int(offset) if sign == "+" else -int(offset)) if offset.isdigit() else int(found)
