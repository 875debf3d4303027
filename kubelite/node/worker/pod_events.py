"""The events of a round: what the pod or its containers have started to wait for, and which fields are unsupported."""

from __future__ import annotations

from kubelite.kube.pod_security import PodSecurity
from kubelite.node.decide.pod_security.admission import warning
from kubelite.node.decide.unsupported import unsupported_fields
from kubelite.node.model.actions import Facts, PodActions
from kubelite.node.model.pod_view import statuses
from kubelite.node.model.recorder import NORMAL, WARNING, PodEvents
from manifests.types.core import ContainerStatus, Pod, PodStatus

_VIOLATIONS = "pod-security"  # the key in `said`


def say_waiting(before: PodStatus, actions: PodActions, facts: Facts, events: PodEvents) -> None:
    """Send an event for each new reason that the pod or a container waits for."""
    scheduling, said = facts.scheduling, {c.message for c in before.conditions}
    if scheduling.reason and not scheduling.rejected and scheduling.message not in said:
        events.pod(WARNING, "FailedScheduling", scheduling.message)
    if facts.resize is not None and facts.resize.message not in said:
        reason, why = facts.resize
        events.resize(WARNING, f"Resize{reason}", reason, error=why)
    error = facts.resize_error if actions.update or actions.update_sandbox else ""
    if error and error not in said:
        events.resize(WARNING, "ResizeError", "error", error=error)
    recorded = {status.name: status for status in statuses(before)}
    for name, waiting in actions.waiting.items():
        if name in actions.finished or _waited(recorded.get(name)) == (waiting.reason, waiting.message):
            continue
        if waiting.reason == "CrashLoopBackOff":
            text = f"Back-off restarting failed container {name} in pod {events.name}"
            events.container(name, WARNING, "BackOff", text)
        elif waiting.reason == "ImagePullBackOff":
            image = waiting.message.partition(": ")[0]
            events.container(name, NORMAL, "BackOff", image)
            events.container(name, WARNING, "Failed", "Error: ImagePullBackOff")
        elif waiting.reason == "ErrImageNeverPull":
            events.container(name, WARNING, "ErrImageNeverPull", waiting.message)
            events.container(name, WARNING, "Failed", "Error: ErrImageNeverPull")
        elif waiting.reason == "InvalidImageName" and waiting.message.startswith("Failed to apply"):
            events.container(name, WARNING, "InspectFailed", waiting.message)
            events.container(name, WARNING, "Failed", "Error: InvalidImageName")
        elif waiting.reason == "CreateContainerConfigError" and name not in facts.start_failures:
            events.container(name, WARNING, "Failed", f"Error: {waiting.message}")


def say_unsupported(pod: Pod, said: set[str], events: PodEvents) -> None:
    """Send a Warning event for each unsupported field that is not in `said`, and add it there."""
    for found in unsupported_fields(pod):
        if found.path not in said:
            said.add(found.path)
            events.pod(WARNING, "Unsupported", f"{found.path}: {found.sentence}")


def say_violations(pod: Pod, security: PodSecurity, said: set[str], events: PodEvents) -> None:
    """Send a Warning event if the pod violates its namespace's warning level, once for each version of the pod."""
    if _VIOLATIONS not in said and not security.open:
        said.add(_VIOLATIONS)
        if words := warning(pod, security):
            events.pod(WARNING, "PodSecurity", words)


def _waited(status: ContainerStatus | None) -> tuple[str, str] | None:
    waiting = status.state.waiting if status is not None and status.state is not None else None
    return (waiting.reason or "", waiting.message or "") if waiting is not None else None
