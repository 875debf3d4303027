"""One decision about a CronJob. The table has the facts of Kubernetes
pkg/controller/cronjob/cronjob_controllerv2_test.go TestControllerV2SyncCronJob."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from kubelite.controllers.decide import cron_job
from kubelite.controllers.model import Create, Delete, Event, Plan
from kubelite.controllers.references import owner_reference
from kubelite.kube.json import Json
from kubelite.kube.objects import reference
from kubelite.kube.times import rfc3339, unix
from tests.unit.controllers.world import World

HOUR = "0 * * * ?"
EVERY = "@every 1h"
SHORT, MEDIUM, LONG = 10, 2 * 60 * 60, 1_000_000
BEFORE_PRIOR, AFTER_PRIOR, BEFORE = "08:59:00", "09:01:00", "09:59:00"
TOP, AFTER, BEFORE_NEXT = "10:00:00", "10:01:00", "10:59:00"
SOON, LATE = {"startingDeadlineSeconds": SHORT}, {"startingDeadlineSeconds": LONG}
WEEK = 7 * 24 * 3600.0
TEMPLATE = {
    "metadata": {"labels": {"a": "b"}, "annotations": {"x": "y"}},
    "spec": {
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "app:1"}]}}
    },
}


def at(clock: str, more: float = 0.0) -> float:
    return datetime.fromisoformat(f"2016-05-19T{clock}+00:00").timestamp() + more


def cron_doc(created: float, **spec: Any) -> Json:
    given: Json = {
        "schedule": HOUR,
        "timeZone": "Etc/UTC",
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": TEMPLATE,
        **spec,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "cron", "uid": "cron-uid", "creationTimestamp": rfc3339(created)},
        "spec": {key: value for key, value in given.items() if value is not None},
    }


def new_world(now: float, doc: Json) -> tuple[World, Json]:
    world = World()
    world.now = now
    world.use("CronJob", cron_job.decide, "Job")
    return world, world.add(doc)


def add_job(world: World, cron: Json, scheduled: float, *, active: bool = True, known: bool = True) -> Json:
    """Add a Job of the CronJob; `known`: it is in `status.active`."""
    job = world.add(cron_job.new_job(cron, scheduled))
    if not active:
        finish(world, job, "Complete", scheduled + 10)
    if known:
        ref = reference(job)
        world.edit(cron, lambda new: new["status"].setdefault("active", []).append(ref))
    return job


def finish(world: World, job: Json, kind: str, when: float, began: float | None = None) -> None:
    done = {"type": kind, "status": "True", "lastTransitionTime": rfc3339(when)}
    status: Json = {"startTime": rfc3339(when if began is None else began), "conditions": [done]}
    if kind == "Complete":
        status["completionTime"] = rfc3339(when)
    world.set_status(job, **status)


def of(plan: Plan, kind: type) -> list[Any]:
    return [effect for effect in plan.effects if isinstance(effect, kind)]


def reasons(plan: Plan, type_: str | None = None) -> list[str]:
    return [event.reason for event in of(plan, Event) if type_ in (None, event.type)]


def current(world: World, cron: Json) -> Json:
    found = world.get(cron["metadata"]["uid"])
    assert found is not None
    return found


# What is expected: C create, D delete, then the number of active Jobs, then the seconds to wait.
# Policies: A Allow, F Forbid, R Replace.
NEVER = [
    ("not valid schedule", "AFR", {"schedule": "obvious error schedule"}, at(BEFORE), "", 0, None),
    ("not valid time zone", "A", {"timeZone": "bad timezone"}, at(BEFORE), "", 0, None),
    ("not time", "AFR", {}, at(BEFORE), "", 0, 60),
    ("not time in zone", "A", {"timeZone": "America/New_York"}, at(BEFORE), "", 0, 60),
    ("is time", "AFR", {}, at(AFTER), "C", 1, 3540),
    ("is time in zone", "A", {"timeZone": "America/New_York"}, at(AFTER), "C", 1, 3540),
    ("is time, suspended", "A", {"suspend": True}, at(AFTER), "", 0, None),
    (
        "is time, past deadline",
        "A",
        {"startingDeadlineSeconds": SHORT},
        at(AFTER, 60 * (SHORT + 1)),
        "",
        0,
        3540 - 60 * (SHORT + 1),
    ),
    ("is time, not past deadline", "A", {"startingDeadlineSeconds": LONG}, at(AFTER), "C", 1, 3540),
]
DONE = [
    ("not time", "AFR", {}, at(BEFORE), "", 0, 60),
    ("is time", "AFR", {}, at(AFTER), "C", 1, 3540),
    ("is time, suspended", "A", {"suspend": True}, at(AFTER), "", 0, None),
    ("is time, past deadline", "A", {"startingDeadlineSeconds": SHORT}, at(AFTER), "", 0, 3540),
    ("is time, not past deadline", "A", {"startingDeadlineSeconds": LONG}, at(AFTER), "C", 1, 3540),
    ("long overdue", "AFR", {"startingDeadlineSeconds": LONG}, at(TOP, WEEK), "C", 1, 3600),
    ("long overdue, no deadline", "AFR", {}, at(TOP, WEEK), "C", 1, 3600),
    ("long overdue, medium", "AFR", {"startingDeadlineSeconds": MEDIUM}, at(TOP, WEEK), "C", 1, 3600),
    ("long overdue, short", "AFR", {"startingDeadlineSeconds": SHORT}, at(TOP, WEEK), "C", 1, 3600),
]
ACTIVE = [
    ("not time", "AFR", {}, at(BEFORE), "", 1, 60),
    ("is time", "A", {}, at(AFTER), "C", 2, 3540),
    ("is time", "F", {}, at(AFTER), "", 1, 3540),
    ("is time", "R", {}, at(AFTER), "CD", 1, 3540),
    ("is time, suspended", "A", {"suspend": True}, at(AFTER), "", 1, None),
    ("is time, past deadline", "A", {"startingDeadlineSeconds": SHORT}, at(AFTER), "", 1, 3540),
    ("is time, not past deadline", "A", {"startingDeadlineSeconds": LONG}, at(AFTER), "C", 2, 3540),
]


@pytest.mark.parametrize(
    ("ran", "row"),
    [
        *(("never", row) for row in NEVER),
        *(("done", row) for row in DONE),
        *(("active", row) for row in ACTIVE),
    ],
)
def test_a_decision_does_what_the_controller_of_kubernetes_does(ran: str, row: tuple[Any, ...]) -> None:
    _, policies, spec, now, effects, active, wait = row
    for policy in policies:
        full = {"A": "Allow", "F": "Forbid", "R": "Replace"}[policy]
        created = at(BEFORE) if ran == "never" else at(BEFORE_PRIOR)
        world, cron = new_world(now, cron_doc(created, concurrencyPolicy=full, **spec))
        if ran != "never":
            world.set_status(cron, lastScheduleTime=rfc3339(at(AFTER_PRIOR)))
            add_job(world, cron, at(AFTER_PRIOR), active=ran == "active")
        check(world, cron, effects, active, wait)
        completed = "SawCompletedJob" in [event.reason for event in world.events]
        assert completed is (ran == "done")


def check(world: World, cron: Json, effects: str, active: int, wait: float | None) -> Plan:
    plan = world.sync(cron)
    assert len(of(plan, Create)) == effects.count("C") and len(of(plan, Delete)) == effects.count("D")
    assert plan.again == (None if wait is None else pytest.approx(wait + 0.1))
    world.sync(cron)  # now the uid of the new Job is known
    assert len(current(world, cron)["status"].get("active") or ()) == active
    return plan


INTERVALS = [  # (state, spec, created, last, now) → effects, active, wait
    (("never", {}, at(BEFORE), None, at(TOP)), "", 0, 3540),
    (("never", {}, at(BEFORE_PRIOR), None, at(BEFORE)), "C", 1, 3600),
    (("never", SOON, at(BEFORE_PRIOR), None, at(BEFORE, 11)), "", 0, 3589),
    (("never", LATE, at(BEFORE_PRIOR), None, at(BEFORE, 9)), "C", 1, 3591),
    (("done", {}, at(BEFORE_PRIOR), at(BEFORE), at(TOP)), "", 0, 3540),
    (("done", {}, at(BEFORE_PRIOR), at(BEFORE), at(TOP, 3600)), "C", 1, 3540),
    (("done", SOON, at(BEFORE_PRIOR), at(BEFORE), at(BEFORE_NEXT, 11)), "", 0, 3589),
    (("active", {}, at(BEFORE_PRIOR), at(BEFORE), at(TOP)), "", 1, 3540),
    (("active", {}, at(BEFORE_PRIOR), at(BEFORE_PRIOR), at(AFTER)), "C", 2, 3480),
    (("active", SOON, at(BEFORE_PRIOR), at(BEFORE), at(BEFORE_NEXT, 11)), "", 1, 3589),
    (("active", LATE, at(BEFORE_PRIOR), at(BEFORE), at(BEFORE_NEXT, 9)), "C", 2, 3591),
    (("done", {}, at(AFTER_PRIOR), at(AFTER), at(TOP, WEEK)), "C", 1, 60),
]


@pytest.mark.parametrize(("given", "effects", "active", "wait"), INTERVALS)
def test_an_interval_counts_from_the_last_run(
    given: tuple[str, Json, float, float | None, float], effects: str, active: int, wait: float
) -> None:
    ran, spec, created, last, now = given
    world, cron = new_world(now, cron_doc(created, schedule=EVERY, **spec))
    if ran != "never":
        world.set_status(cron, lastScheduleTime=rfc3339(last or 0))
        add_job(world, cron, at(BEFORE_PRIOR), active=ran == "active")
    check(world, cron, effects, active, wait)


def test_many_missed_times_are_one_run_and_a_warning() -> None:
    world, cron = new_world(at(TOP, WEEK), cron_doc(at(BEFORE_PRIOR)))
    plan = world.sync(cron)
    message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
    (warning,) = [event for event in of(plan, Event) if event.type == "Warning"]
    assert (warning.reason, warning.message) == ("TooManyMissedTimes", message)
    assert len(of(plan, Create)) == 1
    assert current(world, cron)["status"]["lastScheduleTime"] == rfc3339(at(TOP, WEEK))


@pytest.mark.parametrize(
    ("spec", "reason", "message"),
    [
        (
            {"schedule": "x"},
            "UnparseableSchedule",
            'unparseable schedule: "x" : expected exactly 5 fields, found 1: [x]',
        ),
        (
            {"schedule": "59 23 31 2 *"},
            "InvalidSchedule",
            "invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 second",
        ),
        (
            {"timeZone": "no/where"},
            "UnknownTimeZone",
            'invalid timeZone: "no/where": unknown time zone no/where',
        ),
    ],
)
def test_what_cannot_be_scheduled_is_said(spec: Json, reason: str, message: str) -> None:
    world, cron = new_world(at(AFTER), cron_doc(at(BEFORE), **spec))
    plan = world.sync(cron)
    assert [(event.reason, event.message) for event in of(plan, Event)] == [(reason, message)]
    assert plan.again is None and not of(plan, Create)


def test_a_missed_time_is_said_with_its_date() -> None:
    """A time that the deadline still covers when it is looked for, and no more when it is run, as the clock's fraction
    of a second decides."""
    world, cron = new_world(at(TOP, 11.5), cron_doc(at(BEFORE), startingDeadlineSeconds=SHORT))
    assert reasons(world.sync(cron)) == []
    the = cron_job._Round(world.view(current(world, cron)))
    the._run(at(TOP), False)
    message = "Missed scheduled time to start a job: Thu, 19 May 2016 10:00:00 +0000"
    assert [(event.reason, event.message) for event in the.events if isinstance(event, Event)] == [
        ("MissSchedule", message)
    ]


def test_the_job_has_the_name_of_its_minute_and_says_its_time() -> None:
    """TestGetJobFromTemplate2"""
    world, cron = new_world(at(AFTER), cron_doc(at(BEFORE), timeZone="America/New_York"))
    (create,) = of(world.sync(cron), Create)
    metadata = create.doc["metadata"]
    assert metadata["name"] == f"cron-{int(at(TOP)) // 60}"
    assert metadata["annotations"] == {
        "x": "y",
        "batch.kubernetes.io/cronjob-scheduled-timestamp": "2016-05-19T06:00:00-04:00",
    }
    assert metadata["labels"] == {"a": "b"}
    assert metadata["ownerReferences"] == [owner_reference(cron)]
    spec = create.doc["spec"]
    assert spec["backoffLimit"] == 6 and spec["completionMode"] == "NonIndexed", "the Job's defaults"
    (event,) = of(world.decide(cron), Event) or [None]
    assert event is None
    assert world.events[-1].message == f"Created job {metadata['name']}"


def test_without_a_zone_the_time_is_written_in_utc() -> None:
    doc = cron_job.new_job(cron_doc(at(BEFORE), timeZone=None), at(TOP))
    assert doc["metadata"]["annotations"][cron_job.SCHEDULED] == "2016-05-19T10:00:00Z"


def test_a_new_job_is_active_once_its_uid_is_known() -> None:
    world, cron = new_world(at(AFTER), cron_doc(at(BEFORE)))
    world.run_controllers()
    (job,) = world.of("Job")
    assert current(world, cron)["status"] == {
        "active": [reference(job)],
        "lastScheduleTime": rfc3339(at(TOP)),
    }
    finish(world, job, "Complete", at(AFTER, 30))
    plan = world.sync(cron)
    assert current(world, cron)["status"] == {
        "lastScheduleTime": rfc3339(at(TOP)),
        "lastSuccessfulTime": rfc3339(at(AFTER, 30)),
    }
    message = f"Saw completed job: {job['metadata']['name']}, condition: Complete"
    assert [event.message for event in of(plan, Event)] == [message]


def test_a_time_that_a_killed_daemon_has_run_is_not_run_again() -> None:
    world, cron = new_world(at(AFTER), cron_doc(at(BEFORE), successfulJobsHistoryLimit=0))
    world.sync(cron, most=1)  # the Job exists, the status says nothing of it
    (job,) = world.of("Job")
    assert not current(world, cron)["status"]
    finish(world, job, "Complete", at(AFTER, 5))
    plan = world.sync(cron, most=1)
    assert not of(plan, Create)
    assert current(world, cron)["status"]["lastScheduleTime"] == rfc3339(at(TOP)), "before the Job is deleted"
    world.run_controllers()
    assert world.of("Job") == []
    assert not of(world.decide(cron), Create)


def test_a_job_of_the_same_name_that_is_another_ones_is_left_alone() -> None:
    world, cron = new_world(at(AFTER), cron_doc(at(BEFORE)))
    other = cron_job.new_job(cron, at(TOP))
    del other["metadata"]["ownerReferences"]
    world.add(other)
    plan = world.sync(cron)
    assert plan.effects == [] and plan.again == pytest.approx(3540.1)


def test_jobs_that_appear_or_disappear_are_told() -> None:
    world, cron = new_world(at(BEFORE), cron_doc(at(BEFORE_PRIOR)))
    world.set_status(cron, lastScheduleTime=rfc3339(at(AFTER_PRIOR)))
    gone = add_job(world, cron, at(AFTER_PRIOR))
    world.vanish(gone["metadata"]["uid"])
    by_hand = cron_job.new_job(cron, at(BEFORE_PRIOR))
    by_hand["metadata"]["name"] = "by-hand"
    del by_hand["metadata"]["annotations"]
    world.add(by_hand)
    plan = world.sync(cron)
    assert [event.message for event in of(plan, Event)] == [
        "Saw a job that the controller did not create or forgot: by-hand",
        f"Active job went missing: {gone['metadata']['name']}",
    ]
    assert "active" not in current(world, cron)["status"]


@pytest.mark.parametrize(
    ("successful", "failed", "left"),
    [  # TestControllerV2CleanupFinishedJobs
        (3, 1, {"c2", "c3", "c4", "f2"}),
        (1, 5, {"c4", "f1", "f2"}),
        (0, 0, set()),
        (None, None, {"c1", "c2", "c3", "c4", "f1", "f2"}),
    ],
)
def test_the_oldest_finished_jobs_beyond_the_limits_are_deleted(
    successful: int | None, failed: int | None, left: set[str]
) -> None:
    limits = {"successfulJobsHistoryLimit": successful, "failedJobsHistoryLimit": failed}
    world, cron = new_world(at(BEFORE), cron_doc(at(BEFORE), **limits))
    for kind, count in (("Complete", 4), ("Failed", 2)):
        for number in range(count, 0, -1):
            doc = cron_job.new_job(cron, at(AFTER_PRIOR))
            doc["metadata"]["name"] = f"{kind[0].lower()}{number}"
            finish(world, world.add(doc), kind, at(AFTER_PRIOR, number), at(AFTER_PRIOR, number))
    running = add_job(world, cron, at(BEFORE_PRIOR))["metadata"]["name"]
    world.run_controllers()
    assert {job["metadata"]["name"] for job in world.of("Job")} == {*left, running}


def test_an_idle_cron_job_sleeps_until_its_next_time() -> None:
    world, cron = new_world(at(BEFORE), cron_doc(at(BEFORE), schedule="0 0 1 1 *"))
    plan = world.decide(cron)
    assert plan.effects == []
    assert plan.again == pytest.approx(unix("2017-01-01T00:00:00Z") - at(BEFORE) + 0.1)


def test_a_cron_job_that_is_deleted_starts_nothing() -> None:
    world, cron = new_world(at(AFTER), cron_doc(at(BEFORE)))
    world.edit(cron, lambda new: new["metadata"].update(deletionTimestamp=rfc3339(at(AFTER))))
    assert world.decide(cron) == Plan([])
