"""The order in which pods are stopped at node shutdown, and the time they get (Kubernetes pkg/kubelet/nodeshutdown)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kubelite.node.model.priority import CRITICAL, priority
from manifests.types.core import Pod

REASON, MESSAGE = "Terminated", "Pod was terminated in response to imminent node shutdown."
REJECTED, REJECTED_MESSAGE = "NodeShutdown", "Pod was rejected as the node is shutting down."
SHUTDOWN_REASONS = (REASON, REJECTED)


class Group(NamedTuple):
    """The pods from this priority up to that of the next group, and the seconds that they share."""

    priority: int
    seconds: float
    pods: tuple[Pod, ...] = ()


def shutdown_groups(
    seconds: float, critical: float, by_priority: Mapping[int, float] = {}
) -> tuple[Group, ...]:
    """The groups that the settings define. With `by_priority`, the pods of each priority or above get its seconds.
    Otherwise critical pods get the last `critical` of all `seconds`. Empty if pods are not stopped."""
    if by_priority:
        return tuple(Group(priority, by_priority[priority]) for priority in sorted(by_priority))
    if seconds <= 0:
        return ()
    return (Group(0, seconds - critical), Group(CRITICAL, critical))


def group_pods(groups: tuple[Group, ...], pods: Iterable[Pod]) -> list[Group]:
    """Assign the pods to the groups, and return these in stop order. Groups without pods are left out."""
    members: dict[int, list[Pod]] = {group.priority: [] for group in groups}
    for pod in pods:
        own = max((p for p in members if p <= priority(pod)), default=min(members))
        members[own].append(pod)
    found = (group._replace(pods=tuple(members[group.priority])) for group in groups)
    return [group for group in found if group.pods]
