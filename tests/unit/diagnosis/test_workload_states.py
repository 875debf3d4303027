"""The states of workloads in a few words, and which pods belong to which."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.diagnosis.health import Level
from kubelite.diagnosis.workload_states import grouped, owners, state_of

Json = dict[str, Any]


def doc(kind: str, spec: Json, status: Json | None = None, *, name: str = "web", **meta: Any) -> Json:
    return {
        "kind": kind,
        "metadata": {"name": name, "uid": f"{kind}-{name}", **meta},
        "spec": spec,
        "status": status or {},
    }


def owned(kind: str, name: str, owner: Json, **more: Any) -> Json:
    reference = {"uid": owner["metadata"]["uid"], "controller": True}
    return doc(kind, {"replicas": 1}, name=name, ownerReferences=[reference], **more)


def condition(type_: str, status: str = "True", **more: str) -> Json:
    return {"type": type_, "status": status, **more}


FULL = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
NEW_REVISION = {**FULL, "updatedReplicas": 1, "updateRevision": "b"}
ON_NODE = {
    "desiredNumberScheduled": 1,
    "updatedNumberScheduled": 1,
    "numberAvailable": 1,
    "numberReady": 1,
}
REFUSED, GIVEN_UP = condition("ReplicaFailure"), condition("Failed", reason="BackoffLimitExceeded")
STUCK = condition("Progressing", "False", reason="ProgressDeadlineExceeded")


@pytest.mark.parametrize(
    ("kind", "spec", "status", "level", "words", "ready"),
    [
        ("Deployment", {"replicas": 2}, FULL, Level.RUNNING, "Available", "2/2"),
        ("Deployment", {"replicas": 3}, FULL, Level.WAITING, "Rolling out", "2/3"),
        ("Deployment", {"replicas": 2}, {**FULL, "replicas": 3}, Level.WAITING, "Rolling out", "2/2"),
        ("Deployment", {"replicas": 2}, {**FULL, "availableReplicas": 1}, Level.WAITING, "Not ready", "2/2"),
        ("Deployment", {"replicas": 2}, {**FULL, "conditions": [STUCK]}, Level.FAILING, "Stuck", "2/2"),
        ("Deployment", {"replicas": 2, "paused": True}, FULL, Level.RUNNING, "Paused", "2/2"),
        ("Deployment", {"replicas": 0}, {}, Level.COMPLETED, "Scaled to 0", "0/0"),
        ("Deployment", {"replicas": 2}, {"conditions": [REFUSED]}, Level.FAILING, "Pods refused", "0/2"),
        ("ReplicaSet", {"replicas": 2}, FULL, Level.RUNNING, "Available", "2/2"),
        ("ReplicationController", {"replicas": 2}, {}, Level.WAITING, "Not ready", "0/2"),
        ("StatefulSet", {"replicas": 2}, FULL, Level.RUNNING, "Available", "2/2"),
        ("StatefulSet", {"replicas": 2}, NEW_REVISION, Level.WAITING, "Rolling out", "2/2"),
        ("DaemonSet", {}, ON_NODE, Level.RUNNING, "Available", "1/1"),
        ("DaemonSet", {}, {}, Level.COMPLETED, "Not for this node", "0/0"),
        ("Job", {"completions": 3}, {"succeeded": 1}, Level.RUNNING, "Running", "1/3"),
        ("Job", {}, {"failed": 2}, Level.WAITING, "Running", "0/1"),
        ("Job", {}, {"conditions": [condition("Complete")], "succeeded": 1}, Level.COMPLETED, "Complete", "1/1"),
        ("Job", {}, {"conditions": [GIVEN_UP]}, Level.FAILING, "Failed", "0/1"),
        ("Job", {}, {"conditions": [condition("Suspended")]}, Level.COMPLETED, "Suspended", "0/1"),
        ("CronJob", {"schedule": "@daily"}, {"active": [{}]}, Level.RUNNING, "At @daily", "1 active"),
        ("CronJob", {"schedule": "@daily", "suspend": True}, {}, Level.COMPLETED, "Suspended", "0 active"),
    ],
)  # fmt: skip
def test_states(*, kind: str, spec: Json, status: Json, level: Level, words: str, ready: str) -> None:
    found = state_of(doc(kind, spec, status))
    assert (found.level, found.words, found.ready) == (level, words, ready)


def test_a_workload_that_ends_or_has_changed() -> None:
    assert (
        state_of(doc("Deployment", {}, FULL, deletionTimestamp="2026-01-01T00:00:00Z")).words == "Terminating"
    )
    assert (
        state_of(doc("Deployment", {}, {**FULL, "observedGeneration": 1}, generation=2)).words == "Changing"
    )


def test_pods_belong_to_the_workload_at_the_top() -> None:
    deployment = doc("Deployment", {"replicas": 2}, {**FULL, "availableReplicas": 1})
    newest = owned("ReplicaSet", "web-1", deployment)
    cron = doc("CronJob", {"schedule": "@daily"}, name="daily")
    job = owned("Job", "daily-1", cron)
    workloads = [deployment, newest, cron, job]
    assert owners(workloads)["ReplicaSet-web-1"] is deployment
    pods = [
        (owned("Pod", "web-1-a", newest), Level.FAILING),
        (owned("Pod", "web-1-b", newest), Level.RUNNING),
        (owned("Pod", "daily-1-a", job), Level.COMPLETED),
        (doc("Pod", {}, name="alone"), Level.RUNNING),
        (owned("Pod", "lost", doc("ReplicaSet", {}, name="gone")), Level.RUNNING),
    ]
    web, daily = grouped(workloads, pods)
    assert [pod["metadata"]["name"] for pod in web.pods] == ["web-1-a", "web-1-b"]
    assert (web.name, web.state.level, web.state.because) == (
        "deployment/web",
        Level.FAILING,
        "1 pod is failing",
    )
    assert (daily.name, len(daily.pods)) == ("cronjob/daily", 1)


def test_a_job_with_failed_pods_is_not_failing_before_it_has_failed() -> None:
    job = doc("Job", {}, {"failed": 1})
    (found,) = grouped([job], [(owned("Pod", "a", job), Level.FAILING)])
    assert (found.state.level, found.state.because) == (Level.WAITING, "1 pod failed")
