"""A pod's status, as kubelet writes it, computed from the observed state and the decision (docs/explanation/
pod-semantics.md, "Phase, conditions and container status").

The previous status is part of the input: transition times stay, terminal phases never change, and it may be the only
record of how an instance ended.
"""

from __future__ import annotations

from kubelite.kube.jobs import TRACKING_FINALIZER
from kubelite.kube.objects import TERMINAL_PHASES
from kubelite.kube.times import rfc3339
from kubelite.node.decide.container_details import mounts_of, signal_name, stop_signal, user_of
from kubelite.node.decide.pod_conditions import condition, dated, pod_conditions
from kubelite.node.decide.pod_rules import health_of, restart_policy
from kubelite.node.decide.sysctls import SYSCTL_FORBIDDEN
from kubelite.node.model import resources
from kubelite.node.model.actions import Facts, PodActions
from kubelite.node.model.cri import ContainerState, ObservedContainer, ObservedPod
from kubelite.node.model.ephemeral import ephemeral_containers
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.pod_view import (
    LOST_EXIT_CODE,
    LOST_MESSAGE,
    LOST_REASON,
    SKIPPED_MESSAGE,
    View,
    is_alive,
    never_ran,
    statuses,
    views,
)
from kubelite.node.model.probe_results import Health
from kubelite.node.model.schedule import ScheduleResult
from manifests.types.core import (
    Container,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    HostIP,
    Pod,
    PodIP,
    PodStatus,
    ResourceRequirements,
)
from manifests.types.core import ContainerState as State

OWN_CONDITIONS = frozenset(
    {"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"}
)
REJECTED = (
    "OutOf",
    "NodePorts",
    "UnexpectedAdmissionError",
    SYSCTL_FORBIDDEN,
)  # prefixes of kubelet's admission reasons


def compute_pod_status(
    pod: Pod, observed: ObservedPod, actions: PodActions, facts: Facts, config: NodeConfig
) -> PodStatus:
    """The status to record. `actions` is the decision for `observed`; `pod.status` is the previous status."""
    if (
        (scheduling := facts.scheduling).reason
        and not scheduling.rejected
        and not pod.metadata.deletion_timestamp
    ):
        return _not_scheduled(pod, scheduling, facts.now, config.node_name)
    if actions.failed is not None and actions.failed.reason == SYSCTL_FORBIDDEN:
        scheduling = ScheduleResult(SYSCTL_FORBIDDEN, actions.failed.message, rejected=True)
    if scheduling.rejected or (pod.status.reason or "").startswith(REJECTED):
        return _rejected(pod, scheduling, facts.now)
    report = _Report(pod, observed, actions, facts)
    inits = [report.container(c, init=True) for c in pod.spec.init_containers]
    mains = sorted((report.container(c) for c in pod.spec.containers), key=lambda status: status.name)
    extra = [report.container(c) for c in ephemeral_containers(pod)]
    for status in extra:
        status.ready, status.started = False, None  # an ephemeral container serves no traffic
    old = pod.status
    phase = old.phase if old.phase in TERMINAL_PHASES else _phase(pod, actions, inits, mains)
    if actions.blocked is not None:
        phase = "Pending"
    over = actions.failed or actions.blocked
    ips = _ips(pod, observed, config)
    return PodStatus(
        phase=phase,
        reason=over.reason if over else old.reason if phase in TERMINAL_PHASES else None,
        message=over.message if over else old.message if phase in TERMINAL_PHASES else None,
        conditions=pod_conditions(
            pod,
            observed,
            facts,
            actions,
            inits=inits,
            mains=mains,
            phase="Failed" if actions.failed else str(phase),
            has_address=bool(ips),
        ),
        init_container_statuses=inits,
        container_statuses=mains,
        ephemeral_container_statuses=extra,
        host_ip=config.host_ip or None,
        host_ips=[HostIP(ip=ip) for ip in config.host_ips],
        pod_ip=ips[0] if ips else None,
        pod_ips=[PodIP(ip=ip) for ip in ips],
        qos_class=resources.qos_of_cgroup(observed.sandbox.cgroup if observed.sandbox else "")
        or resources.qos_class(pod),
        start_time=old.start_time or rfc3339(facts.now),
        observed_generation=pod.metadata.generation,
        allocated_resources=dict(pod.spec.resources.requests) if pod.spec.resources is not None else {},
        resources=pod.spec.resources,
    )


def _not_scheduled(pod: Pod, scheduling: ScheduleResult, now: float, node: str) -> PodStatus:
    """The status of a pod that fits on no node: Pending, and one condition with the reason."""
    scheduled = dated(condition("PodScheduled", False, scheduling.reason, scheduling.message), pod, now)
    foreign = [c for c in pod.status.conditions if c.type not in OWN_CONDITIONS]
    return PodStatus(
        phase="Pending",
        conditions=[scheduled, *foreign],
        nominated_node_name=node if scheduling.nominated else None,
        qos_class=resources.qos_class(pod),
        observed_generation=pod.metadata.generation,
    )


def _rejected(pod: Pod, scheduling: ScheduleResult, now: float) -> PodStatus:
    """The status of a pod that kubelet does not admit: Failed, without containers (Kubernetes kubelet.go,
    rejectPod)."""
    if pod.status.phase in TERMINAL_PHASES:
        return pod.status
    return PodStatus(
        phase="Failed",
        reason=scheduling.reason,
        message=scheduling.message,
        conditions=[dated(condition("PodScheduled", True), pod, now)],
        qos_class=resources.qos_class(pod),
        start_time=rfc3339(now),
        observed_generation=pod.metadata.generation,
    )


def _ips(pod: Pod, observed: ObservedPod, config: NodeConfig) -> list[str]:
    """The pod's addresses. A pod that has ended keeps its last ones. With hostNetwork they are those of the node, of
    both families if it has them (Kubernetes pkg/kubelet/kubelet_pods.go, generateAPIPodStatus)."""
    if observed.sandbox is not None and observed.sandbox.ready:
        return list(config.host_ips if pod.spec.host_network else observed.sandbox.ips)
    return [ip.ip for ip in pod.status.pod_ips] if pod.status.phase in TERMINAL_PHASES else []


class _Report:
    """The statuses of one pod's containers."""

    def __init__(self, pod: Pod, observed: ObservedPod, actions: PodActions, facts: Facts) -> None:
        self.pod, self.observed, self.actions, self.facts = pod, observed, actions, facts
        self.views = views(pod, observed)
        self.recorded = {status.name: status for status in statuses(pod.status)}
        self.restarting = {start.name for start in actions.start}
        self.lost = self._never_seen() if actions.done else frozenset()

    def _never_seen(self) -> frozenset[str]:
        """For a pod that has ended: containers that count as having run although no record exists. These are all
        containers of an initialized pod, else the init containers up to the last that started (Kubernetes
        pkg/kubelet/status/status_manager.go, TerminatePod)."""
        inits, mains = self.pod.spec.init_containers, self.pod.spec.containers
        begun = [index for index, c in enumerate(inits) if self.views[c.name].attempts]
        lost = {c.name for c in inits[: max(begun, default=0) + 1]}
        initialized = not inits or any(self.views[c.name].attempts for c in mains)
        if not initialized and restart_policy(self.pod, inits[-1]) != "Always":
            last = self.views[inits[-1].name].ended
            initialized = last is not None and last.exit_code == 0
        return frozenset(lost | {c.name for c in mains} if initialized else lost)

    def container(self, container: Container, *, init: bool = False) -> ContainerStatus:
        view, old = self.views[container.name], self.recorded.get(container.name)
        instance = self._instance(container.name)
        skipped = init and self._skipped(container, view)
        state = State(terminated=_skipped_end()) if skipped else self._state(view, instance, old)
        terminated, running = state.terminated, state.running is not None
        sidecar = init and restart_policy(self.pod, container) == "Always"
        completed = init and not sidecar and terminated is not None and terminated.exit_code == 0
        made = view.attempts > 0
        health = Health(started=False, ready=False)
        if running and view.current is not None:
            health = health_of(self.facts, container, view.current)
        status = ContainerStatus(
            name=container.name,
            image=self._image(container, instance, old if made else None),
            image_id=self._image_id(container, instance, old if made else None),
            container_id=self._container_id(instance, old if made else None),
            ready=completed if init and not sidecar else health.ready,
            started=health.started,
            restart_count=max(view.attempts - 1, 0),
            state=state,
        )
        if container.resources is not None and instance is not None:
            self._resources(container, instance, status, old)
        self._details(container, instance, status, old if made else None)
        last = self._last_state(view, state, instance, old)
        if last is not None:
            status.last_state = State(terminated=last)
        return status

    def _details(
        self,
        container: Container,
        instance: ObservedContainer | None,
        status: ContainerStatus,
        old: ContainerStatus | None,
    ) -> None:
        """Describe how the newest instance was created. If that is no longer known, keep the recorded details."""
        if instance is not None:
            status.user = user_of(instance)
            status.stop_signal = signal_name(stop_signal(container, instance, self.facts))
            status.volume_mounts = list(mounts_of(self.pod, container, self.facts))
        elif old is not None:
            status.user, status.stop_signal = old.user, old.stop_signal
            status.volume_mounts = old.volume_mounts

    def _resources(
        self,
        container: Container,
        instance: ObservedContainer,
        status: ContainerStatus,
        old: ContainerStatus | None,
    ) -> None:
        """Report the allocated resources and those of the cgroup. Both are the manifest's, but while an update is
        pending, the cgroup's are the recorded ones."""
        given = container.resources
        assert given is not None
        status.allocated_resources = dict(given.requests)
        pending = any(update.id == instance.id for update in self.actions.update)
        kept = old.resources if pending and old is not None else None
        status.resources = kept or ResourceRequirements(limits=given.limits, requests=given.requests)

    def _instance(self, name: str) -> ObservedContainer | None:
        """The newest instance that ran."""
        found = [c for c in self.observed.containers if c.name == name and not never_ran(c)]
        return max(found, key=lambda c: c.attempt) if found else None

    def _skipped(self, container: Container, view: View) -> bool:
        """Whether an edit added this init container when the pod was already initialized (Kubernetes kubelet_pods.go,
        convertToAPIContainerStatuses). It runs in the pod's next sandbox."""
        if view.attempts or view.name not in self.actions.finished:
            return False
        if restart_policy(self.pod, container) == "Always":
            return False
        return any(self.views[main.name].attempts for main in self.pod.spec.containers)

    def _state(self, view: View, instance: ObservedContainer | None, old: ContainerStatus | None) -> State:
        pending = view.current is not None and view.current.post_start == "pending"
        if view.running and view.current is not None and not (pending and view.name in self.actions.waiting):
            return State(running=ContainerStateRunning(started_at=rfc3339(view.current.started_at)))
        waiting = self.actions.waiting.get(view.name)
        crashed = view.current is not None and not view.again and view.name in self.restarting
        if waiting is not None and view.name not in self.actions.finished and not crashed:
            return State(
                waiting=ContainerStateWaiting(reason=waiting.reason, message=waiting.message or None)
            )
        end = self._terminated(view, instance, old)
        if end is not None:
            return State(terminated=end)
        if view.name in self.lost:
            return State(terminated=_lost(None, 0.0))
        reason = "PodInitializing" if self.pod.spec.init_containers else "ContainerCreating"
        return State(waiting=ContainerStateWaiting(reason=reason))

    def _terminated(
        self, view: View, instance: ObservedContainer | None, old: ContainerStatus | None
    ) -> ContainerStateTerminated | None:
        """How the newest instance ended."""
        if view.attempts == 0 or view.alive:
            return None
        if instance is not None and instance.attempt == view.attempts - 1:
            return terminated_of(instance)
        return _recorded_end(old)

    def _last_state(
        self, view: View, state: State, instance: ObservedContainer | None, old: ContainerStatus | None
    ) -> ContainerStateTerminated | None:
        """How the instance before the one in `state` ended. For a waiting state this is the newest instance."""
        if state.waiting is not None:
            return self._terminated(view, instance, old)
        attempt = view.attempts - 1
        before = [
            c
            for c in self.observed.containers
            if c.name == view.name and c.attempt < attempt and not is_alive(c)
        ]
        if before:
            return terminated_of(max(before, key=lambda c: c.attempt))
        if old is None:
            return None
        if old.restart_count < attempt:
            return _recorded_end(old)
        return old.last_state.terminated if old.last_state is not None else None

    def _image(
        self, container: Container, instance: ObservedContainer | None, old: ContainerStatus | None
    ) -> str:
        if instance is None:
            return old.image if old is not None else container.image or ""
        found = self.facts.images.get(instance.image)
        same = found is not None and found.id == instance.image_id
        return found.reference if found is not None and same and found.reference else instance.image

    def _image_id(
        self, container: Container, instance: ObservedContainer | None, old: ContainerStatus | None
    ) -> str:
        if instance is None:
            return old.image_id if old is not None else ""
        found = self.facts.images.get(instance.image)
        if found is not None and found.id == instance.image_id and found.repo_digests:
            return found.repo_digests[0]
        return instance.image_id

    def _container_id(self, instance: ObservedContainer | None, old: ContainerStatus | None) -> str | None:
        if instance is None:
            return old.container_id if old is not None else None
        return f"kubelite://{instance.id}"


def terminated_of(container: ObservedContainer) -> ContainerStateTerminated:
    """The end of an instance: Completed, Error, OOMKilled, StartError, or ContainerStatusUnknown if it was not
    observed."""
    if container.state is ContainerState.UNKNOWN or is_alive(container):
        return _lost(f"kubelite://{container.id}", container.started_at)
    reason = container.reason or ("Completed" if container.exit_code == 0 else "Error")
    if container.oom_killed:
        reason = "OOMKilled"
    return ContainerStateTerminated(
        exit_code=container.exit_code,
        signal=container.signal or None,
        reason=reason,
        message=container.message or None,
        started_at=rfc3339(container.started_at),
        finished_at=rfc3339(container.finished_at),
        container_id=f"kubelite://{container.id}",
    )


def _skipped_end() -> ContainerStateTerminated:
    return ContainerStateTerminated(exit_code=0, reason="Completed", message=SKIPPED_MESSAGE)


def _lost(container_id: str | None, started_at: float) -> ContainerStateTerminated:
    return ContainerStateTerminated(
        exit_code=LOST_EXIT_CODE,
        reason=LOST_REASON,
        message=LOST_MESSAGE,
        started_at=rfc3339(started_at) if started_at else None,
        container_id=container_id,
    )


def _recorded_end(old: ContainerStatus | None) -> ContainerStateTerminated | None:
    if old is None or old.state is None:
        return None
    if old.state.running is not None:
        end = _lost(old.container_id, 0.0)
        end.started_at = old.state.running.started_at
        return end
    if old.state.terminated is not None:
        return old.state.terminated
    return old.last_state.terminated if old.last_state is not None else None


def _phase(pod: Pod, actions: PodActions, inits: list[ContainerStatus], mains: list[ContainerStatus]) -> str:
    """The phase, as Kubernetes kubelet_pods.go, getPhase, computes it. The decision says whether the pod is over
    (`failed`, `init_failed`, `done`). A pod is not over while any of its containers runs and holds resources
    (Kubernetes status_manager.go, mergePodStatus)."""
    if actions.failed is not None and not actions.done:
        return pod.status.phase or "Pending"
    if actions.failed is not None or (actions.init_failed and actions.done):
        return "Failed"
    ends = [
        status.state.terminated for status in mains if status.state is not None and status.state.terminated
    ]
    if actions.done and (ends or not actions.finish):
        return "Succeeded" if len(ends) == len(mains) and not any(end.exit_code for end in ends) else "Failed"
    begun = any(_has_begun(status) for status in mains)
    if any(
        _init_pending(pod, c, s, begun=begun) for c, s in zip(pod.spec.init_containers, inits, strict=True)
    ):
        return "Pending"
    if any(status.state and status.state.waiting and not status.last_state for status in mains):
        return "Pending"
    return "Running"


def _has_begun(status: ContainerStatus) -> bool:
    return (
        bool(status.state and (status.state.running or status.state.terminated))
        or status.last_state is not None
    )


def _init_pending(pod: Pod, container: Container, status: ContainerStatus, *, begun: bool) -> bool:
    """Whether the pod waits for this init container: a regular one that has not run yet or is running, or a sidecar
    that has not started in a pod that is not initialized."""
    state = status.state
    if restart_policy(pod, container) == "Always":
        return not begun and not status.started
    if begun and (state is None or state.waiting is not None):
        return False  # it runs again in a new sandbox, and the pod was Running before
    return state is None or state.running is not None or (state.waiting is not None and not status.last_state)


def must_be_on_disk(pod: Pod, new: PodStatus) -> bool:
    """Tell whether a new status must be on the disk before anything sees it.

    That of a pod being deleted only serves watchers: after a power failure the deletion starts again. But a Job counts
    its pods by their statuses, and must not run again what has succeeded. That a pod has ended is on the disk when its
    sandbox is stopped; the conditions that follow can be seen again."""
    had = pod.status
    if had.phase in TERMINAL_PHASES and (had.phase, _containers(had)) == (new.phase, _containers(new)):
        return False
    return not pod.metadata.deletion_timestamp or TRACKING_FINALIZER in pod.metadata.finalizers


def _containers(status: PodStatus) -> tuple[object, ...]:
    return status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses
