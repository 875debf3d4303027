"""Decisions about an autoscaler: replicas, conditions, events, status. The cases are those of Kubernetes'
horizontal_test.go; each test names them."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.autoscaling.decide import amount, decide
from kubelite.autoscaling.model import Memory, Outcome, Recommendation
from kubelite.kube.json import Json
from tests.unit.autoscaling.kit import NOW, autoscaler, deployment, pod, samples, view


def conditions(found: Outcome) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in found.status["conditions"]}


def pods(count: int) -> list[Json]:
    return [pod(number) for number in range(count)]


def decided(hpa: Json, replicas: int, *levels: int, **more: Any) -> Outcome:
    return decide(view(hpa, deployment(replicas), pods(replicas), samples(*levels), **more))


def test_scale_up() -> None:
    """TestScaleUp, TestScaleUpDeployment, TestEventCreated."""
    found = decided(autoscaler(2, 6), 3, 300, 500, 700)
    assert found.replicas == 5
    assert conditions(found) == {
        "AbleToScale": ("True", "SucceededRescale"),
        "ScalingActive": ("True", "ValidMetricFound"),
        "ScalingLimited": ("False", "DesiredWithinRange"),
    }
    (event,) = found.events
    reason = "cpu resource utilization (percentage of request) above target"
    assert event == ("Normal", "SuccessfulRescale", f"New size: 5; reason: {reason}")
    assert {key: found.status[key] for key in ("currentReplicas", "desiredReplicas", "currentMetrics")} == {
        "currentReplicas": 3,
        "desiredReplicas": 5,
        "currentMetrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "current": {"averageUtilization": 50, "averageValue": "1"}},
            }
        ],
    }
    assert found.status["lastScaleTime"]


def test_scale_down_and_the_initial_size() -> None:
    """TestScaleDown, TestScaleDownStabilizeInitialSize."""
    hpa = autoscaler(2, 6, 50)
    found = decided(hpa, 5, 100, 300, 500, 250, 250)
    assert (found.replicas, found.events[0].message) == (3, "New size: 3; reason: All metrics below target")
    first = decided(hpa, 5, 100, 300, 500, 250, 250, memory=Memory())
    assert first.replicas is None and first.memory.recommendations == (
        Recommendation(5, NOW),
        Recommendation(3, NOW),
    )
    assert conditions(first)["AbleToScale"] == ("True", "ScaleDownStabilized")


def test_within_the_tolerance_nothing_happens() -> None:
    """TestTolerance, TestEventNotCreated."""
    found = decided(autoscaler(1, 5, 100), 3, 1010, 1030, 1020)
    assert (found.replicas, found.events) == (None, ())
    assert conditions(found)["AbleToScale"] == ("True", "ReadyForNewScale")
    up = {"scaleUp": {"tolerance": "0", "selectPolicy": "Max", "stabilizationWindowSeconds": 0, "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15}]}, "scaleDown": {"policies": []}}  # fmt: skip
    assert decided(autoscaler(1, 5, 100, behavior=up), 3, 1010, 1030, 1020).replicas == 4


@pytest.mark.parametrize(
    ("case", "hpa", "replicas", "levels", "expected", "reason"),
    [
        ("MinReplicas", autoscaler(2, 5, 90), 3, (10, 95, 10), 2, "TooFewReplicas"),
        ("MaxReplicas", autoscaler(2, 5, 90), 3, (8000, 9500, 1000), 5, "TooManyReplicas"),
        ("UpscaleCap", autoscaler(1, 100, 10), 3, (1000, 2000, 3000), 6, "ScaleUpLimit"),
        ("UpscaleCapGreaterThanMaxReplicas", autoscaler(1, 20, 10), 3, (1000, 2000, 3000), 6, "ScaleUpLimit"),
    ],
)
def test_limits(
    *, case: str, hpa: Json, replicas: int, levels: tuple[int, ...], expected: int, reason: str
) -> None:
    found = decided(hpa, replicas, *levels)
    assert found.replicas == expected, case
    assert conditions(found)["ScalingLimited"] == ("True", reason)


@pytest.mark.parametrize(
    ("replicas", "expected", "reason"),
    [
        (10, 6, "Current number of replicas above Spec.MaxReplicas"),
        (2, 3, "Current number of replicas below Spec.MinReplicas"),
    ],
)
def test_a_target_outside_the_bounds(replicas: int, expected: int, reason: str) -> None:
    """TestTooManyReplicas, TestTooFewReplicas: without a look at metrics."""
    found = decided(autoscaler(3, 6), replicas)
    assert (found.replicas, found.events[0].message) == (expected, f"New size: {expected}; reason: {reason}")
    assert conditions(found) == {"AbleToScale": ("True", "SucceededRescale")}


def test_no_replicas_switch_scaling_off() -> None:
    """TestZeroReplicas."""
    found = decided(autoscaler(3, 5), 0)
    assert (found.replicas, found.status["desiredReplicas"]) == (None, 0)
    assert conditions(found)["ScalingActive"] == ("False", "ScalingDisabled")


def test_no_target() -> None:
    """TestConditionFailedGetScale."""
    found = decide(view(autoscaler(), None, [], {}))
    assert conditions(found) == {"AbleToScale": ("False", "FailedGetScale")}
    (event,) = found.events
    assert event == ("Warning", "FailedGetScale", 'deployments.apps "web" not found')


def test_metrics_that_cannot_be_had() -> None:
    """TestMissingReports, TestConditionFailedGetMetrics."""
    custom = "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"
    value = {"type": "AverageValue", "averageValue": "10"}
    about = {"kind": "Service", "name": "web"}
    failing: dict[str, tuple[Json, str]] = {
        "FailedGetPodsMetric": (
            {"type": "Pods", "pods": {"metric": {"name": "qps"}, "target": value}},
            f"unable to get metric qps: {custom}",
        ),
        "FailedGetObjectMetric": (
            {
                "type": "Object",
                "object": {"describedObject": about, "metric": {"name": "qps"}, "target": value},
            },
            f"unable to get metric qps: {custom} on Service test/web",
        ),
        "FailedGetExternalMetric": (
            {"type": "External", "external": {"metric": {"name": "qps"}, "target": value}},
            "unable to get external metric test/qps/: unable to fetch metrics from external metrics API: the server "
            "could not find the requested resource (get qps.external.metrics.k8s.io)",
        ),
        "FailedGetResourceMetric": (
            autoscaler()["spec"]["metrics"][0],
            "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource "
            "metrics API",
        ),
    }
    for reason, (metric, said) in failing.items():
        found = decided(autoscaler(metrics=[metric]), 3)
        assert found.replicas is None
        assert conditions(found)["ScalingActive"] == ("False", reason)
        message = next(one for one in found.status["conditions"] if one["type"] == "ScalingActive")["message"]
        assert message == f"the HPA was unable to compute the replica count: {said}"
        first, second = found.events
        assert first == ("Warning", reason, said)
        assert second.message.startswith(
            "invalid metrics (1 invalid out of 1), first error is: failed to get "
        )


def test_one_of_two_metrics_fails() -> None:
    """TestScaleUpOneMetricInvalid, TestNoScaleDownOneMetricInvalid: it scales up, and not down."""
    bad = {
        "type": "Pods",
        "pods": {"metric": {"name": "qps"}, "target": {"type": "AverageValue", "averageValue": "1"}},
    }
    up, down = autoscaler(), autoscaler(cpu=50)
    for one in (up, down):
        one["spec"]["metrics"].append(bad)
    found = decided(up, 3, 300, 400, 500)
    assert found.replicas == 4 and conditions(found)["ScalingActive"] == ("True", "ValidMetricFound")
    assert found.status["currentMetrics"][1] == {"type": ""}
    found = decided(down, 5, 100, 300, 500, 250, 250)
    assert found.replicas is None
    assert conditions(found)["ScalingActive"] == ("False", "FailedGetPodsMetric")


def test_the_metric_that_wants_most_counts() -> None:
    target = {"type": "AverageValue", "averageValue": "100Mi"}
    memory = {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "container1", "target": {
        "type": "Utilization", "averageUtilization": 10}}}  # fmt: skip
    hpa = autoscaler(metrics=[*autoscaler(cpu=50)["spec"]["metrics"], memory])
    found = decided(hpa, 3, 500, 500, 500)
    assert found.replicas == 6
    assert (
        "cpu container resource utilization (percentage of request) above target" in found.events[0].message
    )
    by_value = autoscaler(metrics=[{"type": "Resource", "resource": {"name": "memory", "target": target}}])
    used = samples(*([(80 << 20) * 1000, 0],) * 2, resource="memory")
    found = decide(view(by_value, deployment(2), pods(2), used))
    assert found.status["currentMetrics"][0]["resource"]["current"] == {"averageValue": "80Mi"}


def test_selectors() -> None:
    """TestConditionInvalidSelectorMissing, TestConditionAmbiguousSelector…"""
    found = decided(autoscaler(), 3, 300, 500, 700, sharing=["other", "web"])
    assert conditions(found)["ScalingActive"] == ("False", "AmbiguousSelector")
    said = "pods by selector app=web are controlled by multiple HPAs: [test/other test/web]"
    assert found.events[0] == ("Warning", "AmbiguousSelector", said)
    target = deployment()
    del target["spec"]["selector"]
    found = decide(view(autoscaler(), target, pods(3), samples(1, 1, 1)))
    assert conditions(found)["ScalingActive"] == ("False", "InvalidSelector")


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    hpa = autoscaler(2, 6)
    hpa["status"] = decided(hpa, 3, 300, 300, 300).status
    for one in hpa["status"]["conditions"]:
        one["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    again = decided(hpa, 3, 300, 500, 700)
    assert {one["lastTransitionTime"] for one in again.status["conditions"]} == {"2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("resource", "milli", "text"),
    [
        ("memory", 1000 * (64 << 20), "64Mi"),
        ("memory", 1500, "1500m"),
        ("cpu", 500, "500m"),
        ("cpu", 2000, "2"),
    ],
)
def test_amounts(resource: str, milli: int, text: str) -> None:
    """TestBuildQuantity."""
    assert str(amount(resource, milli)) == text
