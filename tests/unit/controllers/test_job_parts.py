"""The parts of the decision about a Job. Golden tables: the facts of Kubernetes pkg/controller/job/*_test.go."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.controllers.decide.jobs import back_off, indexes
from kubelite.controllers.decide.jobs.indexes import Intervals
from kubelite.controllers.decide.jobs.policies import judge, success_rule
from kubelite.kube.jobs import TRACKING_FINALIZER, awaits_counting
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("text", "new", "completions", "before", "after"),
    [  # TestCalculateSucceededIndexes, TestParseIndexesFromString
        ("", [1], 2, (), ((1, 1),)),
        ("", [5, 10], 11, (), ((5, 5), (10, 10))),
        ("", [2, 3, 5, 6, 7], 8, (), ((2, 3), (5, 7))),
        ("0-5,8-10", [], 8, ((0, 5),), ((0, 5),)),
        ("0-5,8-10", [], 10, ((0, 5), (8, 9)), ((0, 5), (8, 9))),
        (
            "0,4,5,10-12",
            [2, 7, 8],
            13,
            ((0, 0), (4, 5), (10, 12)),
            ((0, 0), (2, 2), (4, 5), (7, 8), (10, 12)),
        ),
        ("3,4,6", [2, 7, 8], 9, ((3, 4), (6, 6)), ((2, 4), (6, 8))),
        ("2,7,8", [3, 4, 6], 9, ((2, 2), (7, 8)), ((2, 4), (6, 8))),
        ("2-7", [0, 3, 5, 9], 10, ((2, 7),), ((0, 0), (2, 7), (9, 9))),
        ("0,1-foo,bar", [3], 4, ((0, 0),), ((0, 0), (3, 3))),
        ("0-9", [], 0, (), ()),
    ],
)
def test_intervals_grow(
    text: str, new: list[int], completions: int, before: Intervals, after: Intervals
) -> None:
    found = indexes.parse(text, completions)
    assert found == before
    found = indexes.with_indexes(found, new)
    assert found == after
    assert indexes.parse(indexes.text_of(found), completions) == found
    held = [index for index in range(20) if indexes.contains(found, index)]
    assert len(held) == indexes.total(found)


def test_intervals_are_written_as_kubernetes_writes_them() -> None:
    assert indexes.text_of(((0, 0), (2, 3), (5, 7))) == "0,2,3,5-7"


@pytest.mark.parametrize(
    ("taken", "count", "completions", "free"),
    [  # TestFirstPendingIndexes
        ((), 5, 3, [0, 1, 2]),
        ((), 2, 5, [0, 1]),
        (((0, 1),), 3, 10, [2, 3, 4]),
        (((4, 6),), 6, 6, [0, 1, 2, 3]),
        (((2, 5), (8, 9)), 5, 20, [0, 1, 6, 7, 10]),
        (((1, 3), (5, 7), (9, 9)), 5, 20, [0, 4, 8, 10, 11]),
        ((), 0, 5, []),
        (((0, 4),), 3, 5, []),
    ],
)
def test_the_lowest_free_indexes_come_first(
    taken: Intervals, count: int, completions: int, free: list[int]
) -> None:
    assert indexes.first_free(taken, count, completions) == free


def of_index(*found: tuple[object, str]) -> list[Json]:
    return [
        {
            "metadata": {
                "name": f"pod-{number}",
                "uid": f"{number}",
                "annotations": {} if index is None else {indexes.INDEX: str(index)},
            },
            "status": {"phase": phase},
        }
        for number, (index, phase) in enumerate(found)
    ]


def shown(found: list[Json]) -> list[tuple[str | None, str]]:
    return [(pod["metadata"]["annotations"].get(indexes.INDEX), pod["status"]["phase"]) for pod in found]


@pytest.mark.parametrize(
    ("given", "removed", "left"),
    [  # TestAppendDuplicatedIndexPodsForRemoval
        (
            [(None, "Pending"), (2, "Pending"), (5, "Running"), (6, "Running")],
            [(None, "Pending"), ("6", "Running")],
            [("2", "Pending"), ("5", "Running")],
        ),
        (
            [
                (5, "Pending"),
                (0, "Running"),
                (3, "Pending"),
                (0, "Running"),
                (3, "Running"),
                (0, "Pending"),
                (6, "Running"),
                (6, "Pending"),
            ],
            [("0", "Pending"), ("0", "Running"), ("3", "Pending"), ("6", "Running"), ("6", "Pending")],
            [("0", "Running"), ("3", "Running"), ("5", "Pending")],
        ),
        (
            [
                (None, "Pending"),
                ("invalid", "Running"),
                ("-2", "Running"),
                (0, "Pending"),
                (1, "Pending"),
                (1, "Pending"),
                (1, "Running"),
            ],
            [
                (None, "Pending"),
                ("invalid", "Running"),
                ("-2", "Running"),
                ("1", "Pending"),
                ("1", "Pending"),
            ],
            [("0", "Pending"), ("1", "Running")],
        ),
    ],
)
def test_one_pod_of_each_index_stays(given: Any, removed: Any, left: Any) -> None:
    remove, stay = indexes.superfluous(of_index(*given), 6, NOW)
    assert shown(remove) == removed and shown(stay) == left


@pytest.mark.parametrize(
    ("text", "count"),
    [("3", 3), ("", 0), ("x", 0), ("-1", 0), (str(2**31), 0), (str(2**31 - 1), 2**31 - 1), (None, 0)],
)
def test_a_count_that_cannot_be_is_zero(text: str | None, count: int) -> None:
    """TestGetIndexFailureCount"""
    annotations = {} if text is None else {indexes.FAILURES: text}
    assert indexes.failures_of({"metadata": {"annotations": annotations}}) == count


RULE = {"succeededIndexes": "3-6", "succeededCount": 2}


@pytest.mark.parametrize(
    ("rules", "succeeded", "message"),
    [  # TestMatchSuccessPolicy
        (None, ((0, 0),), ""),
        ([], ((0, 0),), ""),
        ([{"succeededIndexes": "invalid-form"}], ((0, 0),), ""),
        ([{"succeededIndexes": "0-2"}], ((0, 2), (4, 7)), "Matched rules at index 0"),
        ([{"succeededIndexes": "3"}], ((0, 2),), ""),
        ([{"succeededCount": 2}], ((0, 2),), "Matched rules at index 0"),
        ([{"succeededCount": 4}], ((0, 2),), ""),
        (
            [{"succeededIndexes": "9"}, {"succeededIndexes": "4,6"}],
            ((0, 2), (4, 7)),
            "Matched rules at index 1",
        ),
        ([RULE], ((0, 2), (4, 7)), "Matched rules at index 0"),
        ([RULE], ((0, 2), (6, 7)), ""),
        ([{"succeededIndexes": "2-4,6-8"}], ((1, 5), (6, 9)), "Matched rules at index 0"),
        ([{"succeededIndexes": "2-4,8-12"}], ((2, 5), (7, 15)), "Matched rules at index 0"),
        ([{"succeededIndexes": ""}], ((1, 3),), ""),
        ([{"succeededIndexes": "10-12,14-16"}], ((1, 3), (5, 7)), ""),
        ([{"succeededIndexes": "1-3,5-7"}], ((2, 4), (6, 8)), ""),
        (
            [{"succeededIndexes": "1-3,5-7", "succeededCount": 4}],
            ((2, 4), (6, 8)),
            "Matched rules at index 0",
        ),
        ([{"succeededIndexes": "0-4,6-9"}], ((1, 3), (7, 8)), ""),
        (
            [{"succeededIndexes": "0-4,6-9", "succeededCount": 5}],
            ((1, 3), (7, 8)),
            "Matched rules at index 0",
        ),
        ([{"succeededCount": 1}], (), ""),
    ],
)
def test_a_success_policy_is_met_by_indexes_or_their_number(
    rules: Any, succeeded: Intervals, message: str
) -> None:
    policy = None if rules is None else {"rules": rules}
    assert success_rule(policy, 10, succeeded) == message


def exits(**codes: int) -> Json:
    return {
        "metadata": {"name": "mypod", "namespace": "default"},
        "status": {
            "phase": "Failed",
            "containerStatuses": [
                {"name": name, "state": {"terminated": {"exitCode": code}}} for name, code in codes.items()
            ],
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
        },
    }


def rule(action: str, operator: str, *values: int, name: str | None = None) -> Json:
    found: Json = {"operator": operator, "values": list(values)}
    return {"action": action, "onExitCodes": {**found, **({"containerName": name} if name else {})}}


DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


@pytest.mark.parametrize(
    ("rules", "pod", "counts", "action", "message"),
    [  # TestMatchPodFailurePolicy
        ([], exits(main=1), True, "", ""),
        (
            [rule("FailJob", "In", 1, 2)],
            exits(main=2),
            True,
            "FailJob",
            "Container main for pod default/mypod failed with exit code 2 matching FailJob rule at index 0",
        ),
        ([rule("FailJob", "In", 1)], exits(main=2), True, "", ""),
        ([rule("Ignore", "NotIn", 1)], exits(main=2), False, "Ignore", ""),
        ([rule("Ignore", "NotIn", 1)], exits(main=0), True, "", ""),
        ([rule("Ignore", "In", 2, name="other")], exits(main=2), True, "", ""),
        ([rule("Ignore", "In", 2, name="main")], exits(main=2), False, "Ignore", ""),
        ([rule("Count", "In", 2), rule("Ignore", "In", 2)], exits(main=2), True, "Count", ""),
        ([rule("FailIndex", "In", 2)], exits(main=2), True, "FailIndex", ""),
        ([rule("FailJob", "In", 1), DISRUPTED], exits(main=2), False, "Ignore", ""),
        (
            [{**DISRUPTED, "action": "FailJob"}],
            exits(),
            True,
            "FailJob",
            "Pod default/mypod has condition DisruptionTarget matching FailJob rule at index 0",
        ),
    ],
)
def test_the_first_rule_that_matches_judges_a_failure(
    rules: Any, pod: Json, counts: bool, action: str, message: str
) -> None:
    verdict = judge({"rules": rules}, pod)
    assert (verdict.counts, verdict.action, verdict.message) == (counts, action, message)


def test_an_init_container_is_judged_after_the_others() -> None:
    """matchOnExitCodes"""
    pod = exits(main=1)
    pod["status"]["initContainerStatuses"] = exits(init=3)["status"]["containerStatuses"]
    assert "Container init" in judge({"rules": [rule("FailJob", "In", 3)]}, pod).message
    assert "Container main" in judge({"rules": [rule("FailJob", "In", 1, 3)]}, pod).message


def ended(at: float | None, **metadata: Any) -> Json:
    terminated = {} if at is None else {"finishedAt": rfc3339(at)}
    return {
        "metadata": {"creationTimestamp": rfc3339(NOW - 100), **metadata},
        "spec": {},
        "status": {"containerStatuses": [{"name": "main", "state": {"terminated": terminated}}]},
    }


def test_only_failures_after_the_last_success_count() -> None:
    """TestNewBackoffRecord"""
    assert back_off.remaining([], [], NOW) == 0
    assert back_off.remaining([], [ended(NOW - 2), ended(NOW)], NOW) == 20
    assert back_off.remaining([ended(NOW)], [ended(NOW - 2), ended(NOW - 1)], NOW) == 0
    times = (NOW, NOW - 4, NOW - 3, NOW - 1)
    assert back_off.remaining([ended(NOW - 2)], map(ended, times), NOW) == 20
    assert back_off.remaining([ended(NOW)], [ended(NOW)], NOW) == 0
    assert back_off.remaining([], [ended(NOW - 4)], NOW) == 6
    assert back_off.remaining([], [ended(NOW - 11)], NOW) == 0
    assert back_off.remaining([], [ended(NOW + 500)], NOW) == 10, "a clock that was set back"


def test_a_pod_ended_when_its_last_container_did_or_when_it_was_unready_or_deleted() -> None:
    """TestGetFinishedTime"""
    pod = ended(NOW - 1)
    pod["status"]["containerStatuses"] += ended(NOW)["status"]["containerStatuses"]
    assert back_off.finished_at(pod) == NOW
    pod["spec"] = {"initContainers": [{"name": "side", "restartPolicy": "Always"}, {"name": "init"}]}
    late = {"state": {"terminated": {"finishedAt": rfc3339(NOW + 9)}}}
    pod["status"]["initContainerStatuses"] = [{"name": "side", **late}, {"name": "init", "state": {}}]
    assert back_off.finished_at(pod) == NOW + 9
    deleted = {"deletionTimestamp": rfc3339(NOW), "deletionGracePeriodSeconds": 30}
    pod = ended(None, **deleted)
    assert back_off.finished_at(pod) == NOW - 30
    pod["status"]["conditions"] = [
        {"type": "Ready", "status": "False", "lastTransitionTime": rfc3339(NOW - 7)}
    ]
    assert back_off.finished_at(pod) == NOW - 7
    pod["status"]["conditions"][0]["status"] = "True"
    assert back_off.finished_at(pod) == NOW - 30
    assert back_off.finished_at(ended(None)) == NOW - 100


def test_a_deleted_pod_stays_for_a_job_that_will_count_it() -> None:
    pod: Json = {"metadata": {"finalizers": [TRACKING_FINALIZER]}}
    running: Json = {"metadata": {}, "status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}}
    finished: Json = {"metadata": {}, "status": {"conditions": [{"type": "Failed", "status": "True"}]}}
    assert awaits_counting(pod, running)
    assert not awaits_counting(pod, finished)
    assert not awaits_counting(pod, None)
    assert not awaits_counting({"metadata": {"finalizers": ["example.com/mine"]}}, running)
