"""Scaling: the Deployment's size changed, or it is paused. During a rollout all ReplicaSets with pods grow or shrink in
proportion, so that the rollout goes no faster than its limits allow.

Source: Kubernetes pkg/controller/deployment/sync.go (scale), util/deployment_util.go (GetReplicaSetProportion).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kubelite.controllers.decide.deployments.limits import Limits
from kubelite.controllers.decide.deployments.owned import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    OwnedSet,
    active,
    planned,
)


def is_scaling(limits: Limits, sets: Sequence[OwnedSet]) -> bool:
    """Whether the Deployment had another size when a ReplicaSet with pods was last scaled (isScalingEvent)."""
    sizes = (found.number(DESIRED_REPLICAS) for found in active(sets))
    return any(size is not None and size != limits.replicas for size in sizes)


def scale(limits: Limits, new: OwnedSet | None, old: Sequence[OwnedSet], current: int) -> None:
    """Scale the ReplicaSets. `current`: the Deployment's status.replicas. With Recreate and several ReplicaSets with
    pods nothing is scaled: the rollout stops the old ones first."""
    only = _active_or_latest(new, old)
    if only is not None:
        only.replicas = limits.replicas
        only.note_sizes(limits.replicas, limits.most)
    elif new is not None and _is_saturated(limits, new):
        for found in active(old):
            found.replicas = 0
    elif limits.rolling:
        _scale_in_proportion(limits, active([*old, new]), current)


def _active_or_latest(new: OwnedSet | None, old: Sequence[OwnedSet]) -> OwnedSet | None:
    """Return the ReplicaSet that gets all replicas: the only one with pods; if none has pods, the new one, or the
    newest. None if several have pods, or there is none (FindActiveOrLatest)."""
    with_pods = active([*old, new])
    if with_pods:
        return with_pods[0] if len(with_pods) == 1 else None
    return new or max(old, key=lambda found: found.age_key, default=None)


def _is_saturated(limits: Limits, new: OwnedSet) -> bool:
    """Whether all replicas are pods of the new ReplicaSet, and available (IsSaturated)."""
    sizes = (new.replicas, new.number(DESIRED_REPLICAS), new.status("availableReplicas"))
    return all(size == limits.replicas for size in sizes)


def _scale_in_proportion(limits: Limits, sets: Sequence[OwnedSet], current: int) -> None:
    """Distribute what is to be added or removed, the largest ReplicaSet first, which also gets the remainder. Of equal
    ones the newest grows first, and the oldest shrinks first."""
    to_add = (limits.most if limits.replicas > 0 else 0) - planned(sets)
    ordered = sorted(sets, key=lambda found: found.age_key, reverse=to_add > 0)
    ordered.sort(key=lambda found: -found.replicas)
    added = 0
    sizes = []
    for found in ordered:
        share = _share(limits, found, current, to_add - added)
        sizes.append(found.replicas + share)
        added += share
    if ordered:
        sizes[0] = max(sizes[0] + to_add - added, 0)
    for found, size in zip(ordered, sizes, strict=True):
        found.replicas = size
        found.note_sizes(limits.replicas, limits.most)


def _share(limits: Limits, found: OwnedSet, current: int, left: int) -> int:
    """Return by how many replicas one ReplicaSet changes; `left`: what is left to add, or to remove (negative)."""
    if left == 0:
        return 0
    share = fraction(limits, found, current)
    return min(share, left) if left > 0 else max(share, left)


def fraction(limits: Limits, found: OwnedSet, current: int) -> int:
    """Return by how many replicas a ReplicaSet would change alone (getReplicaSetFraction)."""
    if limits.replicas == 0:
        return -found.replicas
    before = found.number(MAX_REPLICAS) or current
    if before == 0:  # no annotation, and no pod
        return 0
    return math.floor(found.replicas * limits.most / before + 0.5) - found.replicas
