"""The controllers of Jobs and CronJobs in the manager, on a real store."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from kubelite.controllers.model import Controller
from kubelite.kube.jobs import TRACKING_FINALIZER, finished_condition, is_tracked, without_finalizer
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from state.store import Record, Store
from tests.unit.controllers.jobs import job_doc
from tests.unit.controllers.manager_kit import TEMPLATE, Kit, running
from tests.unit.state.store_kit import commits_of

CRON = Controller("CronJob", "batch/v1", ("Job",), "kubelite.controllers.decide.cron_job")
JOB = (Controller("Job", "batch/v1", ("Pod",), "kubelite.controllers.decide.job"),)


def small_job(**spec: Any) -> Json:
    return job_doc("sum", template={"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}, **spec)


def job_of(kit: Kit) -> Json:
    record = kit.store.get("Job", "default", "sum")
    assert record is not None
    return record.doc


def waiting(kit: Kit) -> list[Record]:
    """Pods that have not ended."""
    return [pod for pod in kit.pods() if pod.doc["status"]["phase"] not in ("Succeeded", "Failed")]


async def end(kit: Kit, pod: Record, phase: str) -> None:
    await kit.store.update_status(pod.uid, {"phase": phase})


def test_a_job_runs_its_completions_and_is_complete(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, small_job(completions=3, parallelism=2), controllers=JOB) as kit:
            for _ in range(3):
                await kit.settled(lambda: bool(waiting(kit)))
                assert len(waiting(kit)) <= 2
                await end(kit, waiting(kit)[0], "Succeeded")
            await kit.settled(lambda: finished_condition(job_of(kit)) is not None)
            assert job_of(kit)["status"]["succeeded"] == 3
            assert not any(is_tracked(pod.doc) for pod in kit.pods())
            reasons = [reason for reason, _ in await kit.said()]
            assert sorted(reasons) == ["Completed", *["SuccessfulCreate"] * 3]

    asyncio.run(story())


def test_a_pod_is_counted_in_the_commit_in_which_it_loses_its_finalizer(tmp_path: Path) -> None:
    """A kill of the daemon can come between two commits, not within one."""

    async def story() -> None:
        async with running(tmp_path, small_job(completions=2, parallelism=1), controllers=JOB) as kit:
            commits = commits_of(kit.store)
            for _ in range(2):
                await kit.settled(lambda: bool(waiting(kit)))
                await end(kit, waiting(kit)[0], "Succeeded")
            await kit.settled(lambda: finished_condition(job_of(kit)) is not None)
            succeeded, ends = 0, 0
            for commit in commits:
                found = [record.doc for record in commit.objects.values() if record is not None]
                succeeded += sum(
                    doc["kind"] == "Pod" and doc["status"]["phase"] == "Succeeded" and not is_tracked(doc)
                    for doc in found
                )
                for doc in found:
                    if doc["kind"] == "Job":
                        assert doc["status"].get("succeeded", 0) == succeeded
                        assert doc["status"]["uncountedTerminatedPods"] == {}
                        ends += finished_condition(doc) is not None
            assert (succeeded, ends) == (2, 1)

    asyncio.run(story())


def test_a_job_that_an_older_version_left_between_two_steps_counts_each_pod_once(tmp_path: Path) -> None:
    """It had written a uid as uncounted, and removed the finalizer of one pod of two."""

    async def story() -> None:
        async with running(tmp_path, small_job(completions=2, parallelism=2), controllers=JOB) as kit:
            await kit.settled(lambda: len(waiting(kit)) == 2)
            job, pods = job_of(kit), kit.pods()
        store = Store.open(str(tmp_path / "state.db"))
        for number, one in enumerate(pods):
            ended = {**one.doc, "status": {"phase": "Succeeded"}}
            await store.update("Pod", without_finalizer(ended, TRACKING_FINALIZER) if number else ended)
        uncounted = {"uncountedTerminatedPods": {"succeeded": [one.uid for one in pods]}}
        await store.update("Job", {**job, "status": {**job["status"], **uncounted}})
        await store.close()
        async with running(tmp_path, controllers=JOB) as kit:
            await kit.settled(lambda: finished_condition(job_of(kit)) is not None)
            assert job_of(kit)["status"]["succeeded"] == 2 and len(kit.pods()) == 2
            assert not any(is_tracked(one.doc) for one in kit.pods())

    asyncio.run(story())


def test_a_new_manager_does_not_run_a_finished_job_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, small_job(completions=1, parallelism=1), controllers=JOB) as kit:
            await kit.settled(lambda: bool(waiting(kit)))
            await end(kit, waiting(kit)[0], "Succeeded")
            await kit.settled(lambda: finished_condition(job_of(kit)) is not None)
            before = job_of(kit)
        async with running(tmp_path, controllers=JOB) as kit:
            await kit.settled(lambda: True)
            assert job_of(kit) == before and len(kit.pods()) == 1

    asyncio.run(story())


def test_a_pod_that_a_job_deletes_loses_its_finalizer_in_the_same_write(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, small_job(), controllers=JOB) as kit:
            await kit.settled(lambda: len(kit.pods()) == 2)
            uid = job_of(kit)["metadata"]["uid"]
            async with kit.store.watch("Pod") as watch:
                suspended = {"suspend": True}
                await kit.store.modify(uid, lambda doc: {**doc, "spec": {**doc["spec"], **suspended}})
                await kit.settled(lambda: all(pod.deleting for pod in kit.pods()))
                for change in watch.take():
                    metadata = change.record.metadata
                    assert ("deletionTimestamp" in metadata) is (
                        TRACKING_FINALIZER not in metadata.get("finalizers", ())
                    )
            status = job_of(kit)["status"]
            assert status["terminating"] == 2 and "failed" not in status and "startTime" not in status

    asyncio.run(story())


def cron(schedule: str, **status: Any) -> Json:
    spec = {"restartPolicy": "Never", **TEMPLATE["spec"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": "tick",
            "namespace": "default",
            "uid": "cron-uid",
            "creationTimestamp": rfc3339(time.time()),
        },
        "spec": {
            "schedule": schedule,
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 1,
            "jobTemplate": {"spec": {"template": {"spec": spec}}},
        },
        "status": status,
    }


def test_a_cron_job_runs_a_job_which_runs_a_pod(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, cron("@every 1s"), controllers=(CRON, *JOB)) as kit:
            await kit.settled(lambda: bool(waiting(kit)))
            (job,) = kit.store.list("Job")
            assert job.metadata["generation"] == 1, "it has its selector from the beginning"
            assert job.name.startswith("tick-") and job.metadata["ownerReferences"][0]["uid"] == "cron-uid"
            await end(kit, waiting(kit)[0], "Succeeded")

            def succeeded() -> bool:
                status = kit.store.docs("CronJob")[0]["status"]
                return "lastSuccessfulTime" in status and not status.get("active")

            await kit.settled(succeeded)
            reasons = {reason for reason, _ in await kit.said()}
            assert reasons >= {"SuccessfulCreate", "Completed", "SawCompletedJob"}

    asyncio.run(story())


def test_a_changed_clock_makes_cron_jobs_look_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, cron("0 0 1 1 *"), controllers=(CRON, *JOB)) as kit:
            await kit.settled(lambda: kit.queue.scheduled == 1)
            decided = kit.queue.added
            kit.manager.decide_again()
            await kit.settled(lambda: kit.queue.added > decided)
            assert kit.queue.scheduled == 1 and not kit.store.list("Job")

    asyncio.run(story())
