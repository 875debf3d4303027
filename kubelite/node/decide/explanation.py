"""The last sync of a pod in words: what was observed, what was decided and why, and when the next sync is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from kubelite.kube.times import rfc3339
from kubelite.node.model.actions import PodActions
from kubelite.node.model.cri import ContainerState, ObservedContainer, ObservedPod

AS_SPECIFIED = "everything is as the manifest specifies"


@dataclass(frozen=True, slots=True)
class Look:
    """One sync: its time, what was observed, what was decided, and the error that ended it early."""

    at: float
    observed: ObservedPod
    actions: PodActions
    error: str = ""


def words(look: Look, change: Look | None, pod: str) -> dict[str, Any]:
    """The fields of kubelite.api.node.Why. `change` is the last sync that had any effect."""
    actions = look.actions
    reasons = list(actions.reasons) or [AS_SPECIFIED]
    earlier: dict[str, Any] = {}
    if change is not None and change is not look:
        done = {"at": rfc3339(change.at), "decided": change.actions.describe()}
        earlier = {"lastChange": {**done, "reasons": list(change.actions.reasons)}}
    if look.error:
        reasons.append(f"the last attempt failed: {look.error}")
    return {
        "pod": pod,
        "observedAt": rfc3339(look.at),
        "observed": observed_lines(look.observed),
        "decided": actions.describe(),
        "reasons": reasons,
        "next": f"next sync at {rfc3339(actions.next_look)}" if actions.next_look else "",
        "current": current(look),
        "actions": _json(actions),
        **earlier,
    }


def current(look: Look) -> dict[str, str]:
    """Return the running instances that stay, as container → id: neither being stopped nor about to be."""
    actions = look.actions
    if actions.kill_sandbox:
        return {}
    stopped = {stop.id for stop in actions.stop}
    return {
        one.name: f"kubelite://{one.id}"
        for one in look.observed.containers
        if one.state is ContainerState.RUNNING and not one.stop_deadline and one.id not in stopped
    }


def observed_lines(observed: ObservedPod) -> list[str]:
    sandbox = observed.sandbox
    if sandbox is None:
        lines = ["there is no sandbox"]
    else:
        where = f", address {' and '.join(sandbox.ips)}" if sandbox.ip else ""
        state = "is ready" if sandbox.ready else "is not ready"
        created = rfc3339(sandbox.created_at)
        lines = [f"the sandbox {state} (shim pid {sandbox.pid}{where}), created {created}"]
    lines += [_container(container) for container in observed.containers]
    return lines


def _container(observed: ObservedContainer) -> str:
    what = f"container {observed.name}" + (f" (attempt {observed.attempt})" if observed.attempt else "")
    if observed.state is ContainerState.RUNNING:
        ending = f", will be killed at {rfc3339(observed.stop_deadline)}" if observed.stop_deadline else ""
        return f"{what} has been running since {rfc3339(observed.started_at)} (pid {observed.pid}){ending}"
    if observed.state is ContainerState.CREATED:
        return f"{what} is created but not started"
    if observed.state is ContainerState.UNKNOWN:
        return f"{what} was lost with its sandbox"
    how = (
        " (out of memory)"
        if observed.oom_killed
        else f" ({observed.message.strip()})"
        if observed.message
        else ""
    )
    return f"{what} ended at {rfc3339(observed.finished_at)} with exit code {observed.exit_code}{how}"


def _json(actions: PodActions) -> dict[str, Any]:
    """All fields of the PodActions that are set, as JSON values."""
    return {
        entry.name: _plain(value)
        for entry in dataclasses.fields(actions)
        if (value := getattr(actions, entry.name)) not in ((), "", None, False, {}, frozenset())
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
