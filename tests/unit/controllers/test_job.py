"""One decision about a Job, rule by rule. Source: Kubernetes pkg/controller/job/job_controller_test.go."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.controllers.decide.jobs import indexes
from kubelite.controllers.model import Create, Delete, Plan, Rewrite
from kubelite.kube.jobs import TRACKING_FINALIZER, finished_condition, is_tracked
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from tests.unit.controllers.jobs import add_pod, created_indexes, events, job_doc, new_world, now, released
from tests.unit.controllers.world import World, single

MOST = 2**31 - 1
ENDED = {"name": "main", "restartCount": 0, "state": {"terminated": {"exitCode": 3}}}
IGNORED = {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [3]}}]}


def test_a_pod_of_an_indexed_job_has_its_index_as_name_annotation_label_variable_and_hostname() -> None:
    template = {
        "metadata": {"annotations": {"a": "b"}},
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [{"name": "init"}],
            "containers": [
                {"name": "main", "env": [{"name": "A", "value": "1"}]},
                {"name": "own", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "mine"}]},
            ],
        },
    }
    world, job = new_world(job_doc("sum", completionMode="Indexed", parallelism=1, template=template))
    pod = next(effect.doc for effect in world.decide(job).effects if isinstance(effect, Create))
    metadata, spec = pod["metadata"], pod["spec"]
    assert metadata["generateName"] == "sum-0-" and spec["hostname"] == "sum-0"
    assert metadata["annotations"] == {"a": "b", "batch.kubernetes.io/job-completion-index": "0"}
    assert metadata["labels"] == {
        "batch.kubernetes.io/controller-uid": "job-uid",
        "batch.kubernetes.io/job-name": "sum",
        "batch.kubernetes.io/job-completion-index": "0",
        "controller-uid": "job-uid",
        "job-name": "sum",
    }
    assert metadata["finalizers"] == [TRACKING_FINALIZER]
    path = "metadata.labels['batch.kubernetes.io/job-completion-index']"
    variable = {
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}},
    }
    assert spec["initContainers"] == [{"name": "init", "env": [variable]}]
    assert spec["containers"][0]["env"] == [{"name": "A", "value": "1"}, variable]
    assert spec["containers"][1] == template["spec"]["containers"][1]  # type: ignore[index]
    assert now(world, job)["spec"]["template"]["spec"] == template["spec"], "the template is not changed"


@pytest.mark.parametrize(("name", "length"), [("short", 5), ("x" * 60, 55)])
def test_a_generated_name_leaves_room_for_the_index(name: str, length: int) -> None:
    """podGenerateNameWithIndex"""
    world, job = new_world(job_doc(name, completionMode="Indexed", parallelism=1))
    pod = next(effect.doc for effect in world.decide(job).effects if isinstance(effect, Create))
    assert pod["metadata"]["generateName"] == f"{name[:length]}-0-"


def test_a_job_gets_the_selector_and_labels_that_an_api_server_generates() -> None:
    """pkg/registry/batch/job/strategy.go generateSelector"""
    bare = job_doc()
    del bare["spec"]["selector"], bare["metadata"]["labels"]
    bare["spec"]["template"]["metadata"] = {"labels": {"app": "x", "controller-uid": "of another cluster"}}
    world, job = new_world(bare)
    (rewrite,) = world.sync(job).effects
    assert isinstance(rewrite, Rewrite)
    labels = {
        "app": "x",
        "batch.kubernetes.io/controller-uid": "job-uid",
        "batch.kubernetes.io/job-name": "job",
        "controller-uid": "job-uid",
        "job-name": "job",
    }
    job = now(world, job)
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "job-uid"}}
    assert job["spec"]["template"]["metadata"]["labels"] == labels == job["metadata"]["labels"]
    assert [type(effect) for effect in world.decide(job).effects].count(Create) == 2


def test_a_job_with_a_manual_selector_adopts_pods_and_counts_them() -> None:
    """getPodsForJob: an adopted pod gets the finalizer, a released one loses it."""
    template = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main"}]},
    }
    selector = {"matchLabels": {"app": "x"}}
    doc = job_doc(manualSelector=True, selector=selector, template=template, parallelism=1, completions=1)
    world, job = new_world(doc)
    stranger = add_pod(world, job, "Succeeded", counted=True)
    world.edit(stranger, lambda new: new["metadata"].pop("ownerReferences"))
    mine = add_pod(world, job)
    world.edit(mine, lambda new: new["metadata"].update(labels={"app": "y"}))
    world.sync(job)
    adopted = now(world, stranger)
    assert is_tracked(adopted) and adopted["metadata"]["ownerReferences"][0]["uid"] == "job-uid"
    let_go = now(world, mine)
    assert not is_tracked(let_go) and not let_go["metadata"].get("ownerReferences")
    world.run_controllers()
    assert finished_condition(now(world, job)) is not None
    assert now(world, job)["status"]["succeeded"] == 1


def test_a_job_that_another_controller_manages_is_left_alone() -> None:
    """TestSyncJobWhenManagedBy"""
    world, job = new_world(job_doc(managedBy="example.com/other"))
    assert world.decide(job) == Plan()
    world, job = new_world(job_doc(managedBy="kubernetes.io/job-controller"))
    assert world.decide(job).effects


def test_the_status_says_when_the_job_started_and_completed() -> None:
    world, job = new_world(job_doc(parallelism=1, completions=1))
    world.sync(job)
    began = rfc3339(world.now)
    world.now += 60
    world.succeed(world.of("Pod")[0])
    plan = world.sync(job)
    assert now(world, job)["status"] == {
        "startTime": began,
        "completionTime": rfc3339(world.now),
        "ready": 0,
        "terminating": 0,
        "succeeded": 1,
        "uncountedTerminatedPods": {},
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "lastProbeTime": rfc3339(world.now),
                "lastTransitionTime": rfc3339(world.now),
                "reason": "CompletionsReached",
                "message": "Reached expected number of succeeded pods",
            }
            for kind in ("SuccessCriteriaMet", "Complete")
        ],
    }
    assert events(plan) == [("Normal", "Completed", "Job completed")]
    assert world.decide(job) == Plan([]), "a finished Job is not touched again"


def test_a_failing_job_says_so_once_and_ends_when_its_pods_have() -> None:
    world, job = new_world(job_doc(backoffLimit=0))
    add_pod(world, job, "Failed")
    running = add_pod(world, job)
    plan = world.sync(job)
    assert events(plan) == [("Normal", "SuccessfulDelete", f"Deleted pod: {running['metadata']['name']}")]
    assert world.decide(job).effects == []
    assert finished_condition(now(world, job)) is None, "a pod still terminates"
    world.terminate(now(world, running))
    message = "Job has reached the specified backoff limit"
    assert events(world.sync(job)) == [("Warning", "BackoffLimitExceeded", message)]
    found = finished_condition(now(world, job))
    assert found is not None and found["type"] == "Failed" and found["message"] == message
    assert "completionTime" not in now(world, job)["status"]


def test_failures_delay_the_next_pod_twice_as_long_each_time() -> None:
    """TestJobBackoffOnRestartPolicyNever, getRemainingTimeForFailuresCount"""
    world, job = new_world(job_doc(parallelism=1, completions=1, backoffLimit=20))
    waits = []
    for _ in range(8):
        world.sync(job)
        world.fail(next(pod for pod in world.of("Pod") if pod["status"]["phase"] == "Pending"))
        plan = world.sync(job)
        assert not any(isinstance(effect, Create) for effect in plan.effects)
        assert plan.again is not None
        waits.append(plan.again)
        world.now += plan.again
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600]


def test_an_index_waits_for_its_own_failures_alone() -> None:
    """TestGetPodCreationInfoForIndependentIndexes"""
    world, job = new_world(job_doc(completionMode="Indexed", backoffLimitPerIndex=4, backoffLimit=MOST))
    add_pod(world, job, "Failed", index=0, annotations={indexes.FAILURES: "1"}, ended_at=world.now)
    plan = world.sync(job)
    assert created_indexes(plan) == [1] and plan.again == 20
    pod = next(effect.doc for effect in plan.effects if isinstance(effect, Create))
    assert pod["metadata"]["annotations"][indexes.FAILURES] == "0"
    assert now(world, job)["status"].get("failed", 0) == 0, "counted when its replacement exists"
    world.now += 20
    plan = world.sync(job)
    assert created_indexes(plan) == [0]
    pod = next(effect.doc for effect in plan.effects if isinstance(effect, Create))
    assert pod["metadata"]["annotations"][indexes.FAILURES] == "2"
    world.sync(job)
    assert now(world, job)["status"]["failed"] == 1


def test_ignored_failures_of_an_index_are_counted_apart() -> None:
    """getNewIndexFailureCounts"""
    doc = job_doc(completionMode="Indexed", backoffLimitPerIndex=1, parallelism=1, podFailurePolicy=IGNORED)
    world, job = new_world(doc)
    add_pod(world, job, "Failed", index=0, containerStatuses=[ENDED])
    plan = world.sync(job)
    pod = next(effect.doc for effect in plan.effects if isinstance(effect, Create))
    annotations = pod["metadata"]["annotations"]
    assert annotations[indexes.FAILURES] == "0" and annotations[indexes.IGNORED_FAILURES] == "1"


@pytest.mark.parametrize(
    ("limit", "phase", "restarts", "fails"),
    [
        (0, "Pending", 1, True),
        (0, "Running", 0, False),
        (1, "Running", 1, True),
        (2, "Running", 1, False),
        (6, "Running", 6, True),
        (6, "Failed", 6, False),
    ],
)
def test_restarts_within_pods_count_towards_the_limit(
    limit: int, phase: str, restarts: int, fails: bool
) -> None:
    """TestJobBackoffForOnFailure, pastBackoffLimitOnFailure"""
    template = {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "main"}]}}
    world, job = new_world(job_doc(parallelism=1, completions=1, backoffLimit=limit, template=template))
    add_pod(
        world,
        job,
        phase,
        containerStatuses=[{"name": "main", "restartCount": restarts}],
        counted=phase == "Failed",
    )
    world.sync(job)
    reasons = [one["reason"] for one in now(world, job)["status"].get("conditions") or ()]
    assert reasons == ["BackoffLimitExceeded"] * fails


def test_a_deadline_is_looked_at_when_it_has_passed() -> None:
    world, job = new_world(job_doc(activeDeadlineSeconds=90))
    assert world.sync(job).again == 90
    world.now += 89
    assert world.sync(job).again == 1
    world.now += 1
    plan = world.sync(job)
    assert [type(effect) for effect in single(plan)].count(Delete) == 2 and plan.again is None


def test_suspension_stops_the_clock_and_a_resumed_job_starts_anew() -> None:
    world, job = new_world(job_doc(activeDeadlineSeconds=90))
    world.sync(job)
    world.now += 60
    world.edit(job, lambda new: new["spec"].update(suspend=True))
    plan = world.sync(job)
    assert ("Normal", "Suspended", "Job suspended") in events(plan) and plan.again is None
    status = now(world, job)["status"]
    assert "startTime" not in status and status.get("failed", 0) == 0
    for pod in world.of("Pod"):
        world.terminate(pod)
    world.now += 600
    world.edit(job, lambda new: new["spec"].update(suspend=False))
    plan = world.sync(job)
    assert events(plan) == [("Normal", "Resumed", "Job resumed")] and plan.again == 90
    assert now(world, job)["status"]["startTime"] == rfc3339(world.now)
    assert now(world, job)["status"]["active"] == 2


def test_a_refused_pod_is_told_and_tried_again() -> None:
    world, job = new_world(job_doc())
    world.refuse = lambda _pod: 'pods "job-x" is forbidden: exceeded quota'
    plan = world.sync(job)
    assert events(plan) == [
        ("Warning", "FailedCreate", 'Error creating: pods "job-x" is forbidden: exceeded quota')
    ]
    assert plan.again == 10 and now(world, job)["status"].get("active", 0) == 0
    world.refuse = lambda _pod: ""
    world.sync(job)
    assert len(world.of("Pod")) == 2


def finished(**more: Any) -> tuple[World, Json]:
    doc = job_doc(parallelism=1, completions=1, ttlSecondsAfterFinished=30)
    doc["metadata"].update(more)
    world, job = new_world(doc)
    world.sync(job)
    world.succeed(world.of("Pod")[0])
    world.sync(job)
    assert finished_condition(now(world, job)) is not None
    return world, job


def test_a_finished_job_is_deleted_after_its_time() -> None:
    """pkg/controller/ttlafterfinished"""
    world, job = finished()
    assert world.sync(job).again == 30
    world.now += 30
    world.sync(job)
    assert world.of("Job") == [] and world.of("Pod") == []


def test_a_finished_job_of_a_manifest_stays_on_record_and_its_pods_go() -> None:
    world, job = finished(annotations={"kubelite.io/source": "job.yaml"})
    world.now += 30
    world.sync(job)
    assert world.of("Pod") == []
    assert world.decide(now(world, job)) == Plan([])


def test_a_pod_of_a_finished_job_does_not_wait_to_be_counted() -> None:
    """handleSingleOrphanPod"""
    world, job = finished()
    pod = add_pod(world, job, "Failed")
    world.sync(job)
    assert not is_tracked(now(world, pod))


def test_too_many_successes_are_told() -> None:
    """recordJobFinished"""
    world, job = new_world(job_doc(parallelism=1, completions=1))
    for _ in range(2):
        add_pod(world, job, "Succeeded")
    assert events(world.sync(job)) == [
        ("Warning", "TooManySucceededPods", "Too many succeeded pods running after completion count reached"),
        ("Normal", "Completed", "Job completed"),
    ]


def test_no_more_than_500_pods_are_counted_or_created_at_once() -> None:
    """MaxUncountedPods, MaxPodCreateDeletePerSync"""
    world, job = new_world(job_doc(parallelism=1200, completions=1200))
    assert len(world.sync(job).effects) == 501  # and the status
    world.run_controllers()
    assert len(world.of("Pod")) == 1200
    for pod in world.of("Pod"):
        world.succeed(pod)
    plan = world.sync(job)
    assert released(plan) == 500
    assert finished_condition(now(world, job)) is None
    world.run_controllers()
    assert now(world, job)["status"]["succeeded"] == 1200
    assert finished_condition(now(world, job)) is not None


def test_an_evicted_pod_that_the_policy_ignores_is_replaced_and_not_counted() -> None:
    """TestSyncJobWithJobPodFailurePolicy: "ignore pod failure based on OnPodConditions"."""
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    world, job = new_world(
        job_doc(parallelism=1, completions=1, backoffLimit=0, podFailurePolicy={"rules": [rule]})
    )
    add_pod(world, job, "Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}])
    plan = world.sync(job)
    assert [type(effect) for effect in plan.effects].count(Create) == 1 and released(plan) == 1
    status = now(world, job)["status"]
    assert "failed" not in status and "conditions" not in status
