"""How fast, and how far, replicas may change: bounds, policies and stabilization windows. Pure.

Source: Kubernetes pkg/controller/podautoscaler/horizontal.go (normalizeDesiredReplicas,
normalizeDesiredReplicasWithBehaviors and what they call).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from kubelite.autoscaling.model import Change, Memory, Recommendation, Timing
from kubelite.kube.json import Json

_WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_TOO_FAST_UP = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_TOO_FAST_DOWN = (
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
)
_READY = ("ReadyForNewScale", "recommended size matches current size")
_HIGHER = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
_LOWER = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)

Reason = tuple[str, str]


class Normalized(NamedTuple):
    """`able`: reason and message of AbleToScale; `limit`: those of ScalingLimited; `limited`: whether a limit
    applies."""

    replicas: int
    able: Reason
    limit: Reason
    limited: bool
    memory: Memory


class Bounds(NamedTuple):
    least: int
    most: int


def normalized(
    current: int,
    desired: int,
    bounds: Bounds,
    behavior: Json | None,
    memory: Memory,
    *,
    now: float,
    timing: Timing,
) -> Normalized:
    """Return the replicas to which a target is scaled, if the metrics ask for `desired` ones."""
    if behavior is None:
        stable, remembered = _stabilized(desired, memory, now, timing.downscale_stabilization)
        able = _READY if stable == desired else _HIGHER
        replicas, limit = _within_default(current, stable, bounds)
    else:
        up, down = behavior["scaleUp"], behavior["scaleDown"]
        window = down.get("stabilizationWindowSeconds")
        windows = (
            up["stabilizationWindowSeconds"],
            timing.downscale_stabilization if window is None else window,
        )
        stable, remembered = _stabilized_by(current, desired, memory, now, windows)
        changed = _LOWER if desired >= current else _HIGHER
        able = _READY if stable == desired else changed
        replicas, limit = _within(current, stable, bounds, behavior, memory=remembered, now=now)
    return Normalized(replicas, able, limit, replicas != stable, remembered)


def scaled(memory: Memory, behavior: Json | None, current: int, new: int, now: float) -> Memory:
    """Return the memory after a change of the replicas (storeScaleEvent)."""
    if behavior is None:
        return memory
    change = Change(abs(new - current), now)
    if new > current:
        return replace(memory, ups=(*_recent(memory.ups, behavior["scaleUp"], now), change))
    return replace(memory, downs=(*_recent(memory.downs, behavior["scaleDown"], now), change))


def _recent(changes: Sequence[Change], rules: Json, now: float) -> list[Change]:
    longest = max((policy["periodSeconds"] for policy in rules.get("policies") or ()), default=0)
    return [one for one in changes if one.at >= now - longest]


def _stabilized(desired: int, memory: Memory, now: float, window: float) -> tuple[int, Memory]:
    """Return the highest recommendation of the window (stabilizeRecommendation)."""
    recent = tuple(one for one in memory.recommendations if one.at >= now - window)
    highest = max((desired, *(one.replicas for one in recent)))
    return highest, replace(memory, recommendations=(*recent, Recommendation(desired, now)))


def _stabilized_by(
    current: int, desired: int, memory: Memory, now: float, windows: tuple[float, float]
) -> tuple[int, Memory]:
    """Return the recommendation nearest to the current replicas that the windows allow
    (stabilizeRecommendationWithBehaviors). `windows`: seconds for up and down."""
    up, down = (now - window for window in windows)
    lowest = min((desired, *(one.replicas for one in memory.recommendations if one.at > up)))
    highest = max((desired, *(one.replicas for one in memory.recommendations if one.at > down)))
    recommended = min(max(current, lowest), highest)
    recent = tuple(one for one in memory.recommendations if one.at >= min(up, down))
    return recommended, replace(memory, recommendations=(*recent, Recommendation(desired, now)))


def _within_default(current: int, desired: int, bounds: Bounds) -> tuple[int, Reason]:
    """At most twice as many replicas, or four (convertDesiredReplicasWithRules)."""
    fast = max(2 * current, 4)
    most, reason = (fast, _TOO_FAST_UP) if bounds.most > fast else (bounds.most, _TOO_MANY)
    if desired < bounds.least:
        return bounds.least, _TOO_FEW
    return (most, reason) if desired > most else (desired, _WITHIN)


def _within(
    current: int, desired: int, bounds: Bounds, behavior: Json, *, memory: Memory, now: float
) -> tuple[int, Reason]:
    """What the policies allow (convertDesiredReplicasWithBehaviorRate)."""
    if desired > current:
        limit = max(up_limit(current, memory, behavior["scaleUp"], now), current)
        most, reason = (limit, _TOO_FAST_UP) if bounds.most > limit else (bounds.most, _TOO_MANY)
        return (most, reason) if desired > most else (desired, _WITHIN)
    if desired < current:
        limit = min(down_limit(current, memory, behavior["scaleDown"], now), current)
        least, reason = (limit, _TOO_FAST_DOWN) if bounds.least < limit else (bounds.least, _TOO_FEW)
        return (least, reason) if desired < least else (desired, _WITHIN)
    return desired, _WITHIN


def up_limit(current: int, memory: Memory, rules: Json, now: float) -> int:
    """Return to how many replicas the policies allow to scale up (calculateScaleUpLimitWithScalingRules)."""
    select = rules.get("selectPolicy") or "Max"
    if select == "Disabled":
        return current
    proposed: list[int] = []
    for policy in rules.get("policies") or ():
        start = _start_of_period(current, memory, policy["periodSeconds"], now)
        if policy["type"] == "Pods":
            proposed.append(start + policy["value"])
        else:  # rounded up: the target would never grow otherwise
            proposed.append(math.ceil(start * (1 + policy["value"] / 100)))
    return min(proposed) if select == "Min" else max(proposed)


def down_limit(current: int, memory: Memory, rules: Json, now: float) -> int:
    """Return to how many replicas the policies allow to scale down (calculateScaleDownLimitWithBehaviors)."""
    select = rules.get("selectPolicy") or "Max"
    if select == "Disabled":
        return current
    proposed: list[int] = []
    for policy in rules.get("policies") or ():
        start = _start_of_period(current, memory, policy["periodSeconds"], now)
        if policy["type"] == "Pods":
            proposed.append(start - policy["value"])
        else:
            proposed.append(int(start * (1 - policy["value"] / 100)))
    return max(proposed) if select == "Min" else min(proposed)


def _start_of_period(current: int, memory: Memory, seconds: int, now: float) -> int:
    added, removed = (
        sum(one.replicas for one in changes if one.at > now - seconds)
        for changes in (memory.ups, memory.downs)
    )
    return current - added + removed
