"""Pods that their Job has to count: a deleted one stays on record, ended, until the Job has removed the finalizer."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.kube.jobs import TRACKING_FINALIZER, without_finalizer
from tests.unit.node.decide.pod_worlds import UID
from tests.unit.node.worker.worker_kit import Node, Run
from tests.unit.state.store_kit import commits_of

JOB_UID = "job-uid"
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "sum", "uid": JOB_UID, "controller": True}


async def put_counted(node: Node, **spec: Any) -> None:
    """Put a pod of a Job that runs."""
    metadata = {"name": "sum", "namespace": "default", "uid": JOB_UID}
    await node.store.create(
        "Job", {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {}}
    )
    await node.put(restartPolicy="Never", **spec)
    tracked = {"finalizers": [TRACKING_FINALIZER], "ownerReferences": [OWNER]}
    await node.edit(lambda old: {**old, "metadata": {**old["metadata"], **tracked}})


async def finish_job(node: Node) -> None:
    done = {"conditions": [{"type": "Failed", "status": "True"}]}
    await node.store.modify(JOB_UID, lambda doc: {**doc, "status": done})


async def count(node: Node) -> None:
    await node.edit(lambda old: without_finalizer(old, TRACKING_FINALIZER))


def test_a_deleted_pod_stays_on_record_until_its_job_has_counted_it(run: Run) -> None:
    async def story(node: Node) -> None:
        await put_counted(node)
        await node.settle()
        await node.delete(grace=5)
        assert await node.settle() == 5.0
        record = node.store.get_uid(UID)
        assert record is not None and record.deleting
        assert node.status["phase"] == "Failed"
        assert node.state()["state"]["terminated"]["exitCode"] != 0
        assert node.fake.calls[-1] == ("remove_pod", UID), "nothing else is left of it"
        calls = len(node.fake.calls)
        assert await node.settle() == 5.0
        assert len(node.fake.calls) == calls, "it is not removed again"
        await count(node)
        assert await node.worker.reconcile(UID) is None
        assert node.store.get_uid(UID) is None

    run(story)


def test_a_new_daemon_keeps_it_as_well(run: Run) -> None:
    async def story(node: Node) -> None:
        await put_counted(node)
        await node.settle()
        await node.delete(grace=5)
        await node.settle()
        before = node.status
        node.worker = node.new_worker(node.config)
        assert await node.settle() == 5.0
        for key in ("phase", "containerStatuses"):
            assert node.status[key] == before[key], "how it ended is still on record"
        await count(node)
        assert await node.worker.reconcile(UID) is None
        assert node.store.get_uid(UID) is None

    run(story)


def test_a_pod_that_succeeded_while_it_was_terminated_has_succeeded(run: Run) -> None:
    async def story(node: Node) -> None:
        await put_counted(node)
        await node.settle()
        node.fake.stubborn.add("app")
        await node.delete(grace=5)
        await node.settle()
        node.fake.exit(UID, "app", 0)
        await node.settle()
        assert node.status["phase"] == "Succeeded"
        await count(node)
        await node.worker.reconcile(UID)
        assert node.store.get_uid(UID) is None

    run(story)


def test_a_pod_that_never_ran_counts_as_failed(run: Run) -> None:
    async def story(node: Node) -> None:
        await put_counted(node)
        await node.delete()
        assert await node.settle() == 5.0
        assert node.status["phase"] == "Failed"

    run(story)


@pytest.mark.parametrize("end", ["deleted", "finished"])
def test_nobody_counts_pods_of_a_job_that_is_gone_or_has_finished(run: Run, end: str) -> None:
    async def story(node: Node) -> None:
        await put_counted(node)
        await node.settle()
        await node.delete(grace=5)
        await node.settle()
        assert node.store.get_uid(UID) is not None
        if end == "deleted":
            await node.store.delete(JOB_UID)
        else:
            await finish_job(node)
        assert await node.worker.reconcile(UID) is None
        assert node.store.get_uid(UID) is None

    run(story)


def test_the_finalizer_of_a_job_is_no_field_without_effect(run: Run) -> None:
    async def story(node: Node) -> None:
        await put_counted(node)
        await node.settle()
        assert not [one for one in node.events.seen if "finalizers" in one[2]]

    run(story)


def test_an_end_is_on_the_disk_before_it_is_seen_and_what_follows_is_not_waited_for(run: Run) -> None:
    """The conditions that change when the sandbox of an ended pod is stopped."""

    async def story(node: Node) -> None:
        await put_counted(node)
        await node.settle()
        commits = commits_of(node.store)
        node.fake.exit(UID, "app", 0)
        await node.settle()
        written = [
            (batch.durable, doc.doc["status"]["phase"])
            for batch in commits
            if (doc := batch.objects.get(UID)) is not None
        ]
        assert written == [(True, "Succeeded"), (False, "Succeeded")]

    run(story)
