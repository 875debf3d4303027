"""How running containers are stopped: in which order, with which signal, after which hook, and within the remaining
grace period (docs/explanation/pod-semantics.md, "Termination").
"""

from __future__ import annotations

import signal

from kubelite.kube.times import unix
from kubelite.node.decide.container_details import stop_signal
from kubelite.node.decide.decision_state import DecisionState
from kubelite.node.decide.pod_rules import grace_period
from kubelite.node.model.actions import Hook, HookPhase, StopContainer
from kubelite.node.model.cri import ContainerState, ObservedContainer

MIN_GRACE = 2.0  # seconds after a signal at the least, even if hooks and other containers used up the grace


class Stopping(DecisionState):
    """The part of a decision that stops containers."""

    def _stop_in_order(self, alive: list[ObservedContainer], grace: float, message: str = "") -> None:
        mains = [c for c in alive if c.name not in self.sidecars]
        for container in mains:
            self._stop(container, grace, message)
        if mains:
            return
        order = [c.name for c in self.inits]
        last = max(alive, key=lambda c: order.index(c.name) if c.name in order else -1)
        self._stop(last, max(grace - self._spent(), MIN_GRACE), message)

    def _spent(self) -> float:
        """Seconds of the grace period that the containers stopped earlier took. A stop that ended before the pod's
        deletion began (of a failed liveness probe, say) took none."""
        grace = grace_period(self.pod)
        deadline = unix(self.pod.metadata.deletion_timestamp)  # 0: the pod is stopped for another reason
        newest = (self.observed.latest(name) for name in {c.name for c in self.observed.containers})
        ended = [c for c in newest if c is not None and c.stop_deadline and c.finished_at]
        stopped = [c for c in ended if c.finished_at >= deadline - grace]
        ends = [c.finished_at for c in stopped]
        begins = [c.stop_deadline - grace for c in stopped]
        return max(0.0, max(ends) - min(begins)) if stopped else 0.0

    def _stop(
        self, container: ObservedContainer, grace: float, message: str = "", killed_for: str = ""
    ) -> None:
        """Stop a container, after its preStop hook. Do nothing if an earlier stop has the same or an earlier
        deadline."""
        number = self._stop_signal(container)
        if container.state is ContainerState.CREATED:
            number, grace = int(signal.SIGKILL), 0.0
        elif self._has_pre_stop(container) and not container.stop_signal:
            self._pre_stop(container, grace, message, killed_for)
            return
        elif container.stop_deadline > 0 and container.stop_deadline <= self.now + grace + 0.5:
            self.wakes.append(max(container.stop_deadline, self.now) + 1.0)
            return
        text = message or f"Stopping container {container.name}"
        self.stop.append(StopContainer(container.id, container.name, number, grace, text, killed_for))
        self.wakes.append(self.now + grace + 1.0)

    def _has_pre_stop(self, container: ObservedContainer) -> bool:
        spec = self._spec_of(container)
        return spec is not None and spec.lifecycle is not None and spec.lifecycle.pre_stop is not None

    def _pre_stop(self, container: ObservedContainer, grace: float, message: str, killed_for: str) -> None:
        """Run the hook, then send the stop signal. The hook's time counts against the grace period. After the signal,
        the container has the rest of it, but at least MIN_GRACE seconds. Until then the shim's deadline is MIN_GRACE
        seconds after the grace period, so that no process is killed before its stop signal."""
        phase = self.facts.hooks.get((container.id, Hook.PRE_STOP))
        left = container.stop_deadline - MIN_GRACE - self.now if container.stop_deadline else grace
        begun = container.stop_deadline > 0
        if begun and phase in (HookPhase.DONE, HookPhase.FAILED):
            number, rest = self._stop_signal(container), max(min(left, grace), MIN_GRACE)
            self.stop.append(StopContainer(container.id, container.name, number, rest, "", killed_for))
            self.wakes.append(self.now + rest + 1.0)
            return
        if not begun or phase is None or left > grace + 0.5:
            left = max(min(left, grace), 0.1)
            text = "" if begun else message or f"Stopping container {container.name}"
            hook = StopContainer(
                container.id, container.name, 0, left + MIN_GRACE, text, killed_for, pre_stop=left
            )
            self.stop.append(hook)
        self.wakes.append(self.now + max(left, 0.0) + MIN_GRACE + 1.0)

    def _stop_signal(self, container: ObservedContainer) -> int:
        return stop_signal(self._spec_of(container), container, self.facts)
