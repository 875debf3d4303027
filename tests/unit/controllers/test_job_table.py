"""One decision about a Job in a prepared world, by the rows of Kubernetes' tests."""

from __future__ import annotations

import pytest

from kubelite.controllers.decide.jobs import indexes
from kubelite.controllers.model import Create, Delete
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from tests.unit.controllers.job_limit_rows import LIMIT_ROWS
from tests.unit.controllers.job_rows import SYNC_ROWS, Row
from tests.unit.controllers.jobs import add_pod, created_indexes, job_doc, new_world, now, released
from tests.unit.controllers.world import World, single


@pytest.mark.parametrize("row", [*SYNC_ROWS, *LIMIT_ROWS], ids=lambda row: row.name)
def test_a_decision_does_what_the_controller_of_kubernetes_does(row: Row) -> None:
    world, job = new_world(job_doc(**row.spec))
    job = prepare(world, job, row)
    plan = world.sync(job)
    of = [type(effect) for effect in single(plan)]
    assert (of.count(Create), of.count(Delete), released(plan)) == (row.created, row.deleted, row.released)
    if row.created_indexes is not None:
        assert created_indexes(plan) == list(row.created_indexes)
    status = now(world, job)["status"]
    counts = {key: status.get(key, 0) for key in ("active", "ready", "succeeded", "failed", "terminating")}
    assert counts == {key: getattr(row, key) for key in counts}
    assert status["uncountedTerminatedPods"] == {}
    assert status.get("completedIndexes") == (row.completed or None)
    assert status.get("failedIndexes") == row.failed_indexes
    found = [(one["type"], one["status"], one["reason"]) for one in status.get("conditions") or ()]
    assert found == list(row.conditions)
    assert ("startTime" in status) is not row.spec.get("suspend", False) or row.deleting


def prepare(world: World, job: Json, row: Row) -> Json:
    if row.status:
        status = dict(row.status)
        if "startTime" in status:
            status["startTime"] = rfc3339(world.now - status["startTime"])
        world.set_status(job, **status)
    if row.deleting:
        world.edit(job, lambda new: new["metadata"].update(deletionTimestamp=rfc3339(world.now)))
    ready = row.pods.get("ready", 0)
    for _ in range(row.pods.get("pending", 0)):
        add_pod(world, job, "Pending")
    for number in range(row.pods.get("active", 0)):
        add_pod(world, job, "Running", ready=number < ready)
    for phase in ("Succeeded", "Failed"):
        for _ in range(row.pods.get(phase.lower(), 0)):
            add_pod(world, job, phase)
    for _ in range(row.pods.get("terminating", 0)):
        add_pod(world, job, "Running", deleting=True)
    for index, phase, *before in row.of_index:
        annotations = {indexes.FAILURES: str(before[0])} if before else {}
        pod = add_pod(world, job, phase, index=index, annotations=annotations)
        if phase == "Failed" and row.exits != 1:
            ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
            terminated = {**ended, "exitCode": row.exits}
            world.set_status(
                pod,
                containerStatuses=[{"name": "main", "restartCount": 0, "state": {"terminated": terminated}}],
            )
    return now(world, job)
