"""A step of a rolling update: the new ReplicaSet grows as the surge allows, old ones shrink as availability allows.

Source: Kubernetes pkg/controller/deployment/rolling.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubelite.controllers.decide.deployments.limits import Limits
from kubelite.controllers.decide.deployments.owned import OwnedSet, counted, planned


def new_replicas(limits: Limits, everything: Sequence[OwnedSet], new: int) -> int:
    """Return how many replicas the new ReplicaSet gets, which has `new` (NewRSNewReplicas). `everything`: all of the
    Deployment's ReplicaSets that exist."""
    if not limits.rolling:
        return limits.replicas
    room = limits.most - planned(everything)
    return new + min(room, limits.replicas - new) if room > 0 else new


def resize_new(limits: Limits, new: OwnedSet, old: Sequence[OwnedSet]) -> bool:
    """Scale the new ReplicaSet; return whether its size changed (reconcileNewReplicaSet)."""
    before = new.replicas
    if before > limits.replicas:
        new.replicas = limits.replicas
    elif before < limits.replicas:
        new.replicas = new_replicas(limits, [*old, new], before)
    return new.replicas != before


def shrink_old(limits: Limits, new: OwnedSet, old: Sequence[OwnedSet]) -> bool:
    """Scale old ReplicaSets down; return whether a size changed (reconcileOldReplicaSets).

    Pods that are not available go first: their end costs no availability. Pods of the new ReplicaSet that are not
    available count as missing: they do not make more of the old ones go.
    """
    if planned(old) == 0:
        return False
    missing = new.replicas - new.status("availableReplicas")
    room = planned([*old, new]) - limits.least_available - missing
    if room <= 0:
        return False
    unhealthy = shrink_unhealthy(old, room)
    return unhealthy + shrink_available(limits, [*old, new], old) > 0


def shrink_unhealthy(old: Sequence[OwnedSet], most: int) -> int:
    """Scale down by the pods that are not available, the oldest ReplicaSet first, by `most` pods in all; return by how
    many (cleanupUnhealthyReplicas)."""
    total = 0
    for found in sorted(old, key=lambda one: one.age_key):
        count = min(most - total, found.replicas - found.status("availableReplicas"))
        if count > 0:
            found.replicas -= count
            total += count
    return total


def shrink_available(limits: Limits, everything: Sequence[OwnedSet], old: Sequence[OwnedSet]) -> int:
    """Scale down by what is available beyond the minimum, the oldest ReplicaSet first; return by how many
    (scaleDownOldReplicaSetsForRollingUpdate)."""
    excess = counted(everything, "availableReplicas") - limits.least_available
    total = 0
    for found in sorted(old, key=lambda one: one.age_key):
        count = min(found.replicas, excess - total)
        if count > 0:
            found.replicas -= count
            total += count
    return total
