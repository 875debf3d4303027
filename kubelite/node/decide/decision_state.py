"""The state of one decision in progress: its input, the actions collected so far, and what `stopping`, `starting`,
`restart_all` and `decision` share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubelite.kube.objects import TERMINAL_PHASES, TERMINAL_REASONS
from kubelite.kube.times import unix
from kubelite.node.decide.back_off import is_due
from kubelite.node.decide.pod_rules import restart_policy, should_restart
from kubelite.node.decide.unsupported import blocked_containers
from kubelite.node.model.actions import (
    Facts,
    Failed,
    PodActions,
    PostStart,
    PreemptPod,
    PullImage,
    RemoveContainer,
    StartContainer,
    StopContainer,
    UpdateContainer,
    Waiting,
)
from kubelite.node.model.cri import ObservedContainer, ObservedPod, Rates
from kubelite.node.model.ephemeral import ephemeral_containers
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.pod_view import View, in_sandbox, is_alive, views
from kubelite.node.spec import hashes, limits
from manifests.types.core import Container, Pod


@dataclass(frozen=True, slots=True)
class Recorded:
    """The part of a pod's last recorded status that decisions depend on. They ignore the rest."""

    views: Mapping[str, View]
    over: Failed | None  # the recorded end of the pod, or the recorded reason why it is being stopped
    phase: str  # Succeeded or Failed; "" otherwise
    began: float  # Unix seconds from which its deadline counts; 0 = no deadline


def recorded(pod: Pod, observed: ObservedPod) -> Recorded:
    status = pod.status
    ended = status.phase in TERMINAL_PHASES
    over = (
        Failed(status.reason or "", status.message or "")
        if ended or status.reason in TERMINAL_REASONS
        else None
    )
    began = unix(status.start_time) if pod.spec.active_deadline_seconds else 0.0
    return Recorded(views(pod, observed), over, status.phase or "" if ended else "", began)


class DecisionState:
    """Serves one call of `compute_pod_actions`."""

    def __init__(self, pod: Pod, observed: ObservedPod, facts: Facts, config: NodeConfig) -> None:
        self.pod, self.observed, self.facts, self.config = pod, observed, facts, config
        self.now = facts.now
        self.recorded = recorded(pod, observed)
        self.views = self.recorded.views
        self.inits, self.mains = pod.spec.init_containers, pod.spec.containers
        self.ephemerals = ephemeral_containers(pod)
        self.sidecars = {c.name for c in self.inits if restart_policy(pod, c) == "Always"}
        self.blocked = blocked_containers(pod)
        self.preempt: list[PreemptPod] = []
        self.withdraw = False
        self.stop: list[StopContainer] = []
        self.pull: list[PullImage] = []
        self.kill_sandbox = ""
        self.create_sandbox = ""
        self.update_sandbox = False
        self.start: list[StartContainer] = []
        self.post_start: list[PostStart] = []
        self.update: list[UpdateContainer] = []
        self.limit: Rates | None = None
        self.remove: list[RemoveContainer] = []
        self.finish = False
        self.waiting: dict[str, Waiting] = {}
        self.finished: set[str] = set()
        self.init_failed = ""
        self.done = False
        self.failed: Failed | None = None
        self.must_not_run: Failed | None = None
        self.reasons: list[str] = []
        self.wakes: list[float] = []

    def _actions(self) -> PodActions:
        """The collected actions as a frozen value."""
        return PodActions(
            preempt=tuple(self.preempt),
            withdraw=self.withdraw,
            stop=tuple(self.stop),
            pull=tuple(self.pull),
            kill_sandbox=self.kill_sandbox,
            create_sandbox=self.create_sandbox,
            update_sandbox=self.update_sandbox,
            start=tuple(self.start),
            post_start=tuple(self.post_start),
            update=tuple(self.update),
            limit=self.limit,
            remove=tuple(self.remove),
            finish=self.finish,
            waiting=self.waiting,
            finished=frozenset(self.finished),
            init_failed=self.init_failed,
            done=self.done,
            failed=self.failed,
            blocked=self.must_not_run,
            next_look=min(self.wakes, default=None),
            reasons=tuple(self.reasons),
        )

    def _alive(self) -> list[ObservedContainer]:
        return [c for c in self.observed.containers if is_alive(c) and in_sandbox(self.observed, c)]

    def _spec_of(self, container: ObservedContainer) -> Container | None:
        return next(
            (c for c in [*self.inits, *self.mains, *self.ephemerals] if c.name == container.name), None
        )

    def _should_run(self, container: Container) -> bool:
        view = self.views[container.name]
        if view.attempts == 0 or view.again or view.ended is None:
            return True
        return should_restart(self.pod, container, view.ended.exit_code)

    def _due(self, at: float) -> bool:
        return is_due(at, self.now, self.pod, self.config)

    def _edited(self, container: Container, instance: ObservedContainer) -> bool:
        return instance.spec_hash != hashes.container_hash(self.pod, container) or (
            instance.resources_hash != hashes.resources_hash(self._limits_of(container))
        )

    def _limits_of(self, container: Container) -> dict[str, Any]:
        return limits.container_limits(
            self.pod, container, self.config, self.facts.cpus.get(container.name, "")
        )

    def _default_waiting(self, container: Container) -> None:
        reason = "PodInitializing" if self.inits else "ContainerCreating"
        self.waiting.setdefault(container.name, Waiting(reason))

    def _wait(self, name: str, waiting: Waiting, until: float | None = None) -> None:
        self.waiting[name] = waiting
        self.reasons.append(f"container {name} waits: {waiting.reason}: {waiting.message}".rstrip(": "))
        if until is not None:
            self.wakes.append(until)
