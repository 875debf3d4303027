"""A pod's conditions, as kubelet writes them (docs/explanation/pod-semantics.md, "Phase, conditions and container
status").
"""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.kube.times import rfc3339
from kubelite.node.decide import shutdown_order
from kubelite.node.decide.pod_rules import restart_policy
from kubelite.node.model.actions import Facts, PodActions
from kubelite.node.model.cri import ObservedPod
from kubelite.node.model.schedule import RESIZE_PENDING
from manifests.types.core import ContainerStatus, Pod, PodCondition

RESIZING = "PodResizeInProgress"


def pod_conditions(
    pod: Pod,
    observed: ObservedPod,
    facts: Facts,
    actions: PodActions,
    *,
    inits: list[ContainerStatus],
    mains: list[ContainerStatus],
    phase: str,
    has_address: bool,
) -> list[PodCondition]:
    """The conditions to record: the node's own, and all others unchanged."""
    sandbox = (
        observed.sandbox is not None
        and observed.sandbox.ready
        and (has_address or bool(pod.spec.host_network))
    )
    containers = _containers_ready(pod, phase, inits, mains)
    made = [
        condition("PodReadyToStartContainers", sandbox),
        _initialized(pod, phase, inits, mains),
        _ready(pod, containers),
        containers,
        condition("PodScheduled", True),
    ]
    gone_for = facts.evicted or (shutdown_order.MESSAGE if facts.shutdown is not None else "")
    # Kubernetes eviction_manager.go, nodeshutdown_manager.go
    if gone_for and actions.failed is not None and actions.done:
        made.append(condition("DisruptionTarget", True, "TerminationByKubelet", gone_for))
    if actions.update or actions.update_sandbox:  # the new limits are not in the cgroups yet
        error = facts.resize_error
        made.append(condition(RESIZING, True, "Error" if error else "", error))
    if (waits := facts.resize) is not None:
        made.append(condition(RESIZE_PENDING, True, waits.reason, waits.message))
    own = {RESIZE_PENDING, RESIZING, *(one.type for one in made)}
    foreign = [one for one in pod.status.conditions if one.type not in own]
    return [*(dated(one, pod, facts.now) for one in made), *foreign]


def condition(kind: str, value: bool, reason: str = "", message: str = "") -> PodCondition:
    return PodCondition(
        type=kind, status="True" if value else "False", reason=reason or None, message=message or None
    )


def dated(made: PodCondition, pod: Pod, now: float) -> PodCondition:
    """Set the time of the last transition. It stays as long as the condition's status is the same."""
    old = next((c for c in pod.status.conditions if c.type == made.type), None)
    kept = old.last_transition_time if old is not None and old.status == made.status else None
    made.last_transition_time = kept or rfc3339(now)
    made.observed_generation = pod.metadata.generation
    return made


def _initialized(
    pod: Pod, phase: str, inits: list[ContainerStatus], mains: list[ContainerStatus]
) -> PodCondition:
    """Kubernetes pkg/kubelet/status/generate.go, GeneratePodInitializedCondition."""
    if phase == "Succeeded":
        return condition("Initialized", True, "PodCompleted")
    if any(status.state and (status.state.running or status.state.terminated) for status in mains):
        return condition("Initialized", True)
    waiting = [
        status.name
        for container, status in zip(pod.spec.init_containers, inits, strict=True)
        if not (status.started if restart_policy(pod, container) == "Always" else status.ready)
    ]
    if not waiting:
        return condition("Initialized", True)
    message = f"containers with incomplete status: [{' '.join(waiting)}]"
    return condition("Initialized", False, "ContainersNotInitialized", message)


def _containers_ready(
    pod: Pod, phase: str, inits: list[ContainerStatus], mains: list[ContainerStatus]
) -> PodCondition:
    if phase == "Succeeded":
        return condition("ContainersReady", False, "PodCompleted")
    if phase == "Failed":
        return condition("ContainersReady", False, "PodFailed")
    unready = _unready(pod, inits, mains)
    if not unready:
        return condition("ContainersReady", True)
    message = f"containers with unready status: [{' '.join(unready)}]"
    return condition("ContainersReady", False, "ContainersNotReady", message)


def _unready(pod: Pod, inits: list[ContainerStatus], mains: list[ContainerStatus]) -> Iterable[str]:
    """Unready containers in kubelet's order: sidecars, then main containers, in the order of the manifest."""
    by_name = {status.name: status for status in [*inits, *mains]}
    sidecars = [c.name for c in pod.spec.init_containers if restart_policy(pod, c) == "Always"]
    return [name for name in [*sidecars, *(c.name for c in pod.spec.containers)] if not by_name[name].ready]


def _ready(pod: Pod, containers: PodCondition) -> PodCondition:
    if containers.status != "True":
        return condition("Ready", False, containers.reason or "", containers.message or "")
    problems = []
    for gate in pod.spec.readiness_gates:
        found = next((c for c in pod.status.conditions if c.type == gate.condition_type), None)
        if found is None:
            problems.append(
                f'corresponding condition of pod readiness gate "{gate.condition_type}" does not exist.'
            )
        elif found.status != "True":
            problems.append(
                f'the status of pod readiness gate "{gate.condition_type}" is not "True", but {found.status}'
            )
    if problems:
        return condition("Ready", False, "ReadinessGatesNotReady", ", ".join(problems))
    return condition("Ready", True)
