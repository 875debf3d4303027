"""Bounds, policies and windows. The rows are those of Kubernetes' horizontal_test.go:
TestConvertDesiredReplicasWithRules, TestNormalizeDesiredReplicas, TestScalingWithRules, TestCalculateScale…"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kubelite.autoscaling.behavior import Bounds, down_limit, normalized, scaled, up_limit
from kubelite.autoscaling.model import Change, Memory, Recommendation, Timing
from kubelite.kube.json import Json
from tests.unit.autoscaling.kit import NOW

TIMING = Timing()


def rules(pods: int, pods_period: int, percent: int, percent_period: int, window: int = 0) -> Json:
    """generateScalingRules."""
    policies = [
        {"type": type_, "value": value, "periodSeconds": period}
        for type_, value, period in (("Pods", pods, pods_period), ("Percent", percent, percent_period))
        if value
    ]
    return {"selectPolicy": "Max", "stabilizationWindowSeconds": window, "policies": policies}


def spread(changes: Sequence[int], period: int) -> tuple[Change, ...]:
    """generateEventsUniformDistribution: changes in the middle of equal parts of the last seconds."""
    part = period / len(changes)
    return tuple(
        Change(one, NOW - int(period - part * (place + 1) + part / 2)) for place, one in enumerate(changes)
    )


DEFAULT: Json = {"scaleUp": rules(4, 15, 100, 15), "scaleDown": rules(0, 0, 100, 15, 300)}


@pytest.mark.parametrize(
    ("current", "desired", "bounds", "expected", "reason"),
    [
        (5, 7, (3, 8), 7, "DesiredWithinRange"),
        (3, 1, (2, 8), 2, "TooFewReplicas"),
        (20, 1000, (1, 10), 10, "TooManyReplicas"),
        (3, 1000, (1, 2000), 6, "ScaleUpLimit"),
        (1, 1000, (1, 2000), 4, "ScaleUpLimit"),
    ],
)
def test_without_behavior(
    current: int, desired: int, bounds: tuple[int, int], expected: int, reason: str
) -> None:
    found = normalized(current, desired, Bounds(*bounds), None, Memory(), now=NOW, timing=TIMING)
    assert (found.replicas, found.limit[0]) == (expected, reason)
    assert found.limited == (reason != "DesiredWithinRange")


@pytest.mark.parametrize(
    ("name", "recommended", "stable"),
    [
        ("empty log", [], 3),
        ("stabilize", [(4, 120), (5, 60)], 5),
        ("no stabilize", [(1, 120), (2, 60)], 3),
        ("no stabilize - old recommendations", [(10, 600), (9, 540)], 3),
        ("stabilize - old recommendations", [(10, 600), (4, 60), (5, 120), (9, 540)], 5),
    ],
)
def test_the_highest_recommendation_of_five_minutes(
    name: str, recommended: list[tuple[int, int]], stable: int
) -> None:
    memory = Memory(tuple(Recommendation(count, NOW - age) for count, age in recommended))
    found = normalized(5, 3, Bounds(1, 10), None, memory, now=NOW, timing=TIMING)
    assert found.replicas == stable, name
    assert found.able[0] == ("ReadyForNewScale" if stable == 3 else "ScaleDownStabilized")
    left = sum(age <= 300 for _, age in recommended)
    assert len(found.memory.recommendations) == left + 1


@pytest.mark.parametrize(
    ("up", "ups", "downs", "current", "desired", "bounds", "expected", "reason"),
    [
        (rules(100, 60, 100, 60), (), (), 10, 500, (1, 1000), 110, "ScaleUpLimit"),
        (rules(2, 60, 100, 60), (), (), 10, 500, (1, 1000), 20, "ScaleUpLimit"),
        (rules(100, 60, 0, 0), (), (), 10, 50, (1, 1000), 50, "DesiredWithinRange"),
        (rules(30, 60, 0, 0), (), (), 10, 50, (1, 1000), 40, "ScaleUpLimit"),
        (rules(0, 0, 200, 60), (), (), 10, 50, (1, 1000), 30, "ScaleUpLimit"),
        (rules(300, 60, 0, 0), (1, 5, 9), (), 100, 500, (1, 200), 200, "TooManyReplicas"),
        (rules(0, 0, 10000, 60), (1, 5, 9), (), 100, 500, (1, 200), 200, "TooManyReplicas"),
        (rules(150, 120, 0, 0), (1, 5, 9), (), 100, 500, (1, 1000), 235, "ScaleUpLimit"),
        (rules(0, 0, 200, 120), (1, 5, 9), (), 100, 500, (1, 1000), 255, "ScaleUpLimit"),
        (rules(0, 0, 300, 300), (4,), (2,), 6, 24, (1, 1000), 16, "ScaleUpLimit"),
    ],
)
def test_scale_up_policies(
    *, up: Json, ups: Sequence[int], downs: Sequence[int], current: int, desired: int,
    bounds: tuple[int, int], expected: int, reason: str,
) -> None:  # fmt: skip
    memory = Memory(ups=spread(ups, 120) if ups else (), downs=spread(downs, 120) if downs else ())
    behavior = {**DEFAULT, "scaleUp": up}
    found = normalized(current, desired, Bounds(*bounds), behavior, memory, now=NOW, timing=TIMING)
    assert (found.replicas, found.limit[0]) == (expected, reason)


@pytest.mark.parametrize(
    ("down", "ups", "downs", "current", "desired", "least", "expected", "reason"),
    [
        (rules(20, 60, 1, 60, 300), (), (), 100, 2, 1, 80, "ScaleDownLimit"),
        (rules(2, 60, 1, 60, 300), (), (), 100, 2, 1, 98, "ScaleDownLimit"),
        (rules(100, 60, 0, 0, 300), (), (), 10, 0, 1, 1, "TooFewReplicas"),
        (rules(0, 0, 100, 60, 300), (), (), 10, 2, 5, 5, "TooFewReplicas"),
        (rules(5, 60, 0, 0, 300), (), (), 10, 2, 1, 5, "ScaleDownLimit"),
        (rules(0, 0, 50, 60, 300), (), (), 10, 5, 1, 5, "DesiredWithinRange"),
        (rules(115, 120, 0, 0, 300), (), (1, 5, 9), 100, 0, 1, 1, "TooFewReplicas"),
        (rules(130, 120, 0, 0, 300), (), (1, 5, 9), 100, 0, 5, 5, "TooFewReplicas"),
        (rules(5, 120, 0, 0, 300), (), (1, 5, 9), 100, 2, 1, 100, "ScaleDownLimit"),
        (rules(0, 0, 50, 120, 300), (), (2, 4, 6), 100, 0, 1, 56, "ScaleDownLimit"),
        (rules(0, 0, 50, 180), (2,), (4,), 10, 1, 1, 6, "ScaleDownLimit"),
    ],
)
def test_scale_down_policies(
    *, down: Json, ups: Sequence[int], downs: Sequence[int], current: int, desired: int,
    least: int, expected: int, reason: str,
) -> None:  # fmt: skip
    memory = Memory(ups=spread(ups, 120) if ups else (), downs=spread(downs, 120) if downs else ())
    behavior = {**DEFAULT, "scaleDown": down}
    found = normalized(current, desired, Bounds(least, 1000), behavior, memory, now=NOW, timing=TIMING)
    assert (found.replicas, found.limit[0]) == (expected, reason)


def test_limits_with_the_policy_of_the_smallest_change() -> None:
    """TestCalculateScaleUpLimitWithScalingRules and TestCalculateScaleDownLimitWithBehaviors."""
    least = {**rules(2, 60, 50, 60, 300), "selectPolicy": "Min"}
    assert up_limit(1, Memory(), least, NOW) == 2
    assert down_limit(5, Memory(), least, NOW) == 3
    off = {**least, "selectPolicy": "Disabled"}
    assert (up_limit(5, Memory(), off, NOW), down_limit(5, Memory(), off, NOW)) == (5, 5)


def test_windows_of_behavior_hold_back_in_both_directions() -> None:
    behavior = {"scaleUp": rules(100, 60, 0, 0, 120), "scaleDown": rules(100, 60, 0, 0, 120)}
    low = Memory((Recommendation(4, NOW - 60), Recommendation(9, NOW - 500)))
    up = normalized(3, 8, Bounds(1, 10), behavior, low, now=NOW, timing=TIMING)
    assert (up.replicas, up.able[0]) == (4, "ScaleUpStabilized")
    high = Memory((Recommendation(6, NOW - 60),))
    down = normalized(7, 2, Bounds(1, 10), behavior, high, now=NOW, timing=TIMING)
    assert (down.replicas, down.able[0]) == (6, "ScaleDownStabilized")


def test_changes_are_remembered_as_long_as_a_policy_needs_them() -> None:
    """TestStoreScaleEvents."""
    assert scaled(Memory(), None, 5, 10, NOW) == Memory()
    behavior = {"scaleUp": rules(10, 60, 0, 0), "scaleDown": rules(10, 60, 0, 0)}
    known = Memory(ups=(Change(7, NOW - 129), Change(2, NOW - 10)))
    found = scaled(known, behavior, 5, 10, NOW)
    assert found.ups == (Change(2, NOW - 10), Change(5, NOW))
    assert scaled(Memory(), behavior, 10, 7, NOW).downs == (Change(3, NOW),)
