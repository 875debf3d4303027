"""The conditions of a Deployment: cases of kube-controller-manager's own tests (pkg/controller/deployment)."""

from __future__ import annotations

import pytest

from kubelite.controllers.decide.deployments import progress
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from tests.unit.controllers.test_deployment_golden import NOW, UNLIMITED, owned


def counts(replicas: int, updated: int, available: int, ready: int = 0) -> Json:
    return {
        "replicas": replicas,
        "updatedReplicas": updated,
        "availableReplicas": available,
        "readyReplicas": ready,
    }


@pytest.mark.parametrize(
    ("wanted", "status", "expected"),
    [
        # util/deployment_util_test.go TestDeploymentComplete
        (5, counts(5, 5, 4), False),
        (5, counts(5, 5, 3), False),
        (5, counts(5, 5, 5), True),
        (5, counts(5, 4, 5), False),
        (1, counts(2, 1, 1), False),
        (1, counts(1, 1, 0), False),
    ],
)
def test_completion(wanted: int, status: Json, expected: bool) -> None:
    assert progress.is_complete({"metadata": {}, "spec": {"replicas": wanted}}, status) is expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        # util/deployment_util_test.go TestDeploymentProgressing: replicas, updated, ready, available
        ((10, 4, 4, 4), (10, 6, 4, 4), True),
        ((10, 4, 4, 4), (10, 4, 4, 4), False),
        ((10, 4, 6, 6), (8, 4, 6, 6), True),
        ((10, 7, 3, 3), (10, 6, 3, 3), False),
        ((10, 4, 7, 7), (8, 8, 5, 5), True),
        ((10, 10, 9, 8), (10, 10, 10, 8), True),
        ((10, 10, 10, 9), (10, 10, 10, 10), True),
    ],
)
def test_progression(old: tuple[int, ...], new: tuple[int, ...], expected: bool) -> None:
    one, other = (counts(found[0], found[1], found[3], found[2]) for found in (old, new))
    assert progress.has_progressed(one, other) is expected


def condition(reason: str, status: str = "True", ago: float = 100) -> Json:
    at = rfc3339(NOW - ago)
    return {
        "type": "Progressing",
        "status": status,
        "reason": reason,
        "message": "",
        "lastUpdateTime": at,
        "lastTransitionTime": at,
    }


def rollout(seconds: int | None, wanted: int, status: tuple[int, int, int], *conditions: Json) -> Json:
    spec: Json = {"replicas": wanted, "strategy": {"type": "Recreate"}}
    if seconds is not None:
        spec["progressDeadlineSeconds"] = seconds
    found = {**counts(*status), "conditions": list(conditions)}
    return {"metadata": {"name": "progress-test"}, "spec": spec, "status": found}


OLD_TIME, NEW_TIME = rfc3339(NOW - 100), rfc3339(NOW)


@pytest.mark.parametrize(
    ("deployment", "old", "new", "expected"),
    [
        # progress_test.go TestSyncRolloutStatus: status, reason, lastUpdateTime, lastTransitionTime
        (rollout(None, 3, (2, 2, 2), condition("ReplicaSetUpdated")), (0, 1, 1), (3, 2, 2), None),
        (
            rollout(60, 3, (3, 3, 3), condition("NewReplicaSetAvailable")),
            (3, 3, 3),
            None,
            ("True", "NewReplicaSetAvailable", OLD_TIME, OLD_TIME),
        ),
        (
            rollout(60, 3, (2, 2, 2), condition("ReplicaSetUpdated")),
            (0, 1, 1),
            (3, 2, 2),
            ("True", "ReplicaSetUpdated", NEW_TIME, OLD_TIME),
        ),
        (
            rollout(60, 3, (2, 2, 2), condition("ProgressDeadlineExceeded", "False")),
            (0, 1, 1),
            (3, 2, 2),
            ("True", "ReplicaSetUpdated", NEW_TIME, NEW_TIME),
        ),
        (
            rollout(60, 3, (2, 2, 2)),
            (0, 1, 1),
            (3, 2, 2),
            ("True", "ReplicaSetUpdated", NEW_TIME, NEW_TIME),
        ),
        (
            rollout(60, 3, (3, 3, 3), condition("ReplicaSetUpdated")),
            None,
            (3, 3, 3),
            ("True", "NewReplicaSetAvailable", NEW_TIME, OLD_TIME),
        ),
        (
            rollout(60, 3, (3, 3, 3), condition("ProgressDeadlineExceeded", "False")),
            None,
            (3, 3, 3),
            ("True", "NewReplicaSetAvailable", NEW_TIME, NEW_TIME),
        ),
        (rollout(60, 3, (3, 3, 3)), None, (3, 3, 3), ("True", "NewReplicaSetAvailable", NEW_TIME, NEW_TIME)),
        (
            rollout(60, 0, (3, 3, 3), condition("ReplicaSetUpdated")),
            (0, 0, 0),
            None,
            ("True", "NewReplicaSetAvailable", NEW_TIME, OLD_TIME),
        ),
        (
            rollout(60, 3, (2, 2, 2), condition("ReplicaSetUpdated")),
            None,
            (3, 2, 2),
            ("False", "ProgressDeadlineExceeded", NEW_TIME, NEW_TIME),
        ),
        (
            rollout(60, 3, (2, 2, 2), condition("ProgressDeadlineExceeded", "False")),
            None,
            (3, 2, 2),
            ("False", "ProgressDeadlineExceeded", OLD_TIME, OLD_TIME),
        ),
    ],
)
def test_progressing_conditions(
    deployment: Json,
    old: tuple[int, int, int] | None,
    new: tuple[int, int, int] | None,
    expected: tuple[str, ...] | None,
) -> None:
    """`old` and `new`: a ReplicaSet's spec.replicas, status.replicas and availableReplicas."""
    fresh = owned("foo", new[0], replicas=new[1], availableReplicas=new[2]) if new else None
    sets = [owned("bar", old[0], replicas=old[1], availableReplicas=old[2])] if old else []
    conditions = progress.Conditions(deployment, NOW)
    everything = [*sets, *([fresh] if fresh else [])]
    status = progress.counts(deployment, everything, fresh, None)
    progress.note_progress(deployment, status, fresh, conditions, NOW)
    found = conditions.get("Progressing")
    keys = ("status", "reason", "lastUpdateTime", "lastTransitionTime")
    assert (found and tuple(found[key] for key in keys)) == expected


@pytest.mark.parametrize(
    ("seconds", "reason", "ago", "status", "expected"),
    [
        # progress_test.go TestRequeueStuckDeployment; a second is added to what is left
        (None, "ReplicaSetUpdated", 30, counts(3, 3, 2), None),
        (UNLIMITED, "ReplicaSetUpdated", 30, counts(3, 3, 2), None),
        (60, None, 0, counts(3, 3, 2), None),
        (60, "ReplicaSetUpdated", 30, counts(3, 3, 3), None),
        (60, "ProgressDeadlineExceeded", 30, counts(3, 3, 0), None),
        (60, "ReplicaSetUpdated", 30, counts(3, 3, 1), 31),
        (60, "ReplicaSetUpdated", 59, counts(3, 3, 1), 2),
        (60, "ReplicaSetUpdated", 60, counts(3, 3, 1), 1),
        (60, "ReplicaSetUpdated", 120, counts(3, 3, 1), 1),
    ],
)
def test_stuck_rollouts_are_looked_at_again(
    seconds: int | None, reason: str | None, ago: float, status: Json, expected: float | None
) -> None:
    found = [condition(reason, ago=ago)] if reason else []
    deployment = rollout(seconds, 3, (3, 3, 1), *found)
    conditions = progress.Conditions(deployment, NOW)
    assert progress.next_check(deployment, status, conditions, NOW) == expected


@pytest.mark.parametrize(
    ("seconds", "reason", "ago", "expected"),
    [
        # util/deployment_util_test.go TestDeploymentTimedOut
        (None, "", 11, False),
        (UNLIMITED, "", 11, False),
        (10, "", 11, True),
        (10, "", 9, False),
        (10, "NewReplicaSetAvailable", 11, False),
    ],
)
def test_deadlines(seconds: int | None, reason: str, ago: float, expected: bool) -> None:
    deployment = rollout(seconds, 3, (3, 2, 2), condition(reason, ago=ago))
    conditions = progress.Conditions(deployment, NOW)
    progress.note_progress(deployment, counts(3, 2, 2), None, conditions, NOW)
    assert (conditions.reason("Progressing") == "ProgressDeadlineExceeded") is expected
