"""How many replicas a metric asks for. The rows are those of Kubernetes' replica_calculator_test.go; each has the name
of its function there."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from kubelite.autoscaling.calculator import (
    MetricError,
    Tolerances,
    by_average,
    by_utilization,
    metrics_of,
)
from kubelite.kube.json import Json
from tests.unit.autoscaling.kit import COOL, HOT, NOW, TIMING, pod, samples


class Row(NamedTuple):
    """`expected`: replicas, utilization, and the average of a pod."""

    test: str
    current: int
    target: int
    levels: tuple[Any, ...]
    expected: tuple[int, int, int]
    pods: tuple[Json, ...] = ()
    container: str = ""
    tolerances: Tolerances = Tolerances()


def three(**more: Any) -> tuple[Json, ...]:
    """Three pods; of each field, the values of the pods."""
    return tuple(pod(n, **{key: values[n] for key, values in more.items()}) for n in range(3))


def five(**more: Any) -> tuple[Json, ...]:
    return tuple(pod(n, **{key: values[n] for key, values in more.items()}) for n in range(5))


def many(count: int, request: str = "1.0") -> tuple[Json, ...]:
    return tuple(pod(n, request) for n in range(count))


MIXED = (pod(0, "0.9"), pod(1), pod(2, "1.1"))
OVER = (pod(0, ready=False), pod(1), pod(2, "2.0"), pod(3, "2.0"))
UP = (300, 500, 700)
DOWN = (100, 300, 500, 250, 250)
NO_FIRST = (False, True, True)
ROWS = (
    Row("ScaleUp", 3, 30, UP, (5, 50, 1000)),
    Row("ContainerScaleUp", 3, 30, ([1000, 300], [1000, 500], [1000, 700]), (5, 50, 500), container="container2"),
    Row("ScaleUpUnreadyLessScale", 3, 30, UP, (4, 60, 1200), three(ready=NO_FIRST)),
    Row("ScaleUpHotCpuLessScale", 3, 30, UP, (4, 60, 1200), three(started=(HOT, COOL, COOL))),
    Row("ScaleUpContainerHotCpuLessScale", 3, 30, ([0, 300], [0, 500], [0, 700]), (4, 60, 600),
        three(started=(HOT, COOL, COOL)), "container2"),
    Row("ScaleUpUnreadyNoScale", 3, 30, (400, 500, 700), (3, 40, 800), three(ready=(True, False, False))),
    Row("ScaleHotCpuNoScale", 3, 30, (400, 500, 700), (3, 40, 800),
        three(ready=(True, False, False), started=(COOL, HOT, HOT))),
    Row("ScaleUpIgnoresFailedPods", 2, 30, (500, 700), (4, 60, 1200),
        (pod(0), pod(1), pod(2, ready=False, phase="Failed"), pod(3, ready=False, phase="Failed"))),
    Row("ScaleUpIgnoresDeletionPods", 2, 30, (500, 700), (4, 60, 1200),
        (pod(0), pod(1), pod(2, ready=False, deleted=True), pod(3, ready=False, deleted=True))),
    Row("ScaleDown", 5, 50, DOWN, (3, 28, 560)),
    Row("ScaleDownExcludeUnreadyPods", 5, 50, DOWN, (2, 30, 600), five(ready=(True, True, True, False, False))),
    Row("ScaleDownExcludeUnscheduledPods", 5, 50, (100,), (1, 10, 200),
        five(ready=(True, False, False, False, False),
             phase=("Running", "Pending", "Pending", "Pending", "Pending"))),
    Row("ScaleDownIgnoreHotCpuPods", 5, 50, DOWN, (2, 30, 600), five(started=(COOL, COOL, COOL, HOT, HOT))),
    Row("ScaleDownIgnoresFailedPods", 5, 50, DOWN, (3, 28, 560),
        (*many(5), pod(5, ready=False, phase="Failed"), pod(6, ready=False, phase="Failed"))),
    Row("Tolerance", 3, 100, (1010, 1030, 1020), (3, 102, 2040), MIXED),
    Row("ConfigurableTolerance: outside of 0%", 3, 100, (909, 1010, 1111), (4, 101, 2020), MIXED, "", Tolerances(0, 0)),
    Row("ConfigurableTolerance: within 200% up", 3, 100, (1890, 1910, 1900), (3, 190, 3800), MIXED, "",
        Tolerances(0.1, 2)),
    Row("ConfigurableTolerance: outside 8% up", 3, 100, (1100, 1080, 1090), (4, 109, 2180), MIXED, "",
        Tolerances(2, 0.08)),
    Row("ConfigurableTolerance: within 36% down", 3, 100, (660, 640, 650), (3, 65, 1300), MIXED, "",
        Tolerances(0.36, 0.1)),
    Row("ConfigurableTolerance: outside 34% down", 3, 100, (660, 640, 650), (2, 65, 1300), MIXED, "",
        Tolerances(0.34, 0.1)),
    Row("SuperfluousMetrics", 4, 100, (4000, 9500, 3000, 7000, 3200, 2000), (24, 587, 11750), many(4)),
    Row("MissingMetrics", 4, 100, (400, 95), (3, 24, 495), many(4)),
    Row("MissingMetricsNoChangeEq", 2, 100, (1000,), (2, 100, 2000), many(2)),
    Row("MissingMetricsNoChangeGt", 2, 100, (1900,), (2, 190, 3800), many(2)),
    Row("MissingMetricsNoChangeLt", 2, 100, (600,), (2, 60, 1200), many(2)),
    Row("MissingMetricsUnreadyChange", 3, 50, (100, 450), (3, 45, 900), three(ready=NO_FIRST)),
    Row("MissingMetricsUnreadyScaleUp", 3, 50, (100, 2000), (4, 200, 4000), three(ready=NO_FIRST)),
    Row("MissingMetricsScaleDownTargetOver100", 4, 300, (200, 100, 100), (2, 6, 200), OVER),
    Row("DuringRollingUpdateWithMaxSurge", 2, 50, (100, 100), (2, 10, 200), many(3)),
)  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.test)
def test_by_utilization(row: Row) -> None:
    pods = row.pods or many(row.current)
    found = by_utilization(
        row.current,
        row.target,
        "cpu",
        pods,
        metrics_of(samples(*row.levels), "cpu", row.container),
        container=row.container,
        tolerances=row.tolerances,
        now=NOW,
        timing=TIMING,
    )
    assert (found.replicas, found.utilization, found.average) == row.expected


@pytest.mark.parametrize(
    ("test", "current", "target", "levels", "expected"),
    [
        ("ScaleUpCM", 3, 15000, (20000, 10000, 30000), (4, 20000)),
        ("ScaleDownCM", 5, 20000, (12000, 12000, 12000, 12000, 12000), (3, 12000)),
        ("ToleranceCM", 3, 20000, (20000, 21000, 21000), (3, 20666)),
        ("DuringRollingUpdateWithMaxSurgeCM", 2, 17000, (10000, 10000), (2, 10000)),
    ],
)
def test_by_average(
    test: str, current: int, target: int, levels: tuple[int, ...], expected: tuple[int, int]
) -> None:
    used = samples(*([one, 0] for one in levels), resource="memory")
    found = by_average(
        current, target, "memory", many(3 if "Surge" in test else current), metrics_of(used, "memory"),
        tolerances=Tolerances(), now=NOW, timing=TIMING,
    )  # fmt: skip
    assert (found.replicas, found.average) == expected, test


@pytest.mark.parametrize(
    ("pods", "levels", "container", "said"),
    [
        (many(4), (), "", "unable to get metrics for resource cpu: no metrics returned from resource metrics API"),
        (many(2, ""), (200, 200), "", "missing request for cpu in container container1 of Pod web-0"),
        (many(1), (100,), "other", "did not receive metrics for targeted pods (pods might be unready)"),
        ((), (100,), "", "no pods returned by selector while calculating replica count"),
        ((pod(5),), (100,), "", "no metrics returned matched known pods"),
        (three(ready=(False, False, False)), UP, "",
         "did not receive metrics for targeted pods (pods might be unready)"),
    ],
)  # fmt: skip
def test_errors(pods: tuple[Json, ...], levels: tuple[int, ...], container: str, said: str) -> None:
    """EmptyMetrics, EmptyCPURequest, DisjointResourcesMetrics, and pods that are all unready."""
    with pytest.raises(MetricError) as caught:
        by_utilization(
            3, 100, "cpu", pods, metrics_of(samples(*levels), "cpu", container),
            container=container, tolerances=Tolerances(), now=NOW, timing=TIMING,
        )  # fmt: skip
    assert str(caught.value) == said


def test_resources_of_the_whole_pod_are_its_request() -> None:
    one = pod(0, "")
    one["spec"]["resources"] = {"requests": {"cpu": "2"}}
    found = by_utilization(
        1, 50, "cpu", [one], metrics_of(samples(1000), "cpu"), tolerances=Tolerances(), now=NOW, timing=TIMING
    )
    assert found.utilization == 100
