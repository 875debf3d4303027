"""Jobs and pods for the tests of the Job's controller."""

from __future__ import annotations

from typing import Any

from kubelite.controllers.decide import job as jobs
from kubelite.controllers.decide.jobs import indexes
from kubelite.controllers.model import Create, Delete, Event, Plan, Release
from kubelite.controllers.references import owner_reference
from kubelite.kube.jobs import TRACKING_FINALIZER, with_selector
from kubelite.kube.json import Json
from tests.unit.controllers.world import World, single


def job_doc(name: str = "job", *, uid: str = "job-uid", **spec: Any) -> Json:
    """A Job as the manifest's types complete it, with its selector."""
    given = {"parallelism": 2, "completions": 5, "backoffLimit": 6, "completionMode": "NonIndexed", **spec}
    template = given.pop("template", {"spec": {"restartPolicy": "Never", "containers": [{"name": "main"}]}})
    doc = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "spec": {key: value for key, value in given.items() if value is not None} | {"template": template},
    }
    return with_selector(doc)


def new_world(job: Json, seed: int = 0) -> tuple[World, Json]:
    world = World(seed)
    world.use("Job", jobs.decide, "Pod")
    return world, world.add(job)


def add_pod(
    world: World, job: Json, phase: str = "Running", *, index: object = None, ready: bool = False, **more: Any
) -> Json:
    """Add a pod of the Job, which has yet to be counted. `index`: its completion index; `more`: `deleting`, `counted`,
    `annotations`, `ended_at` (Unix seconds), and fields of the status."""
    annotations = {**more.pop("annotations", {}), **({} if index is None else {indexes.INDEX: str(index)})}
    metadata: Json = {
        "generateName": f"{job['metadata']['name']}-",
        "namespace": "default",
        "labels": dict(job["spec"]["template"]["metadata"]["labels"]),
        "annotations": annotations,
        "ownerReferences": [owner_reference(job)],
        "finalizers": [] if more.pop("counted", False) else [TRACKING_FINALIZER],
    }
    deleting, ended_at = more.pop("deleting", False), more.pop("ended_at", world.now - 3600)
    spec = {"restartPolicy": "Never", "containers": [{"name": "main"}]}
    pod = world.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    uid = pod["metadata"]["uid"]
    now, world.now = world.now, ended_at
    if phase == "Succeeded":
        world.succeed(pod)
    elif phase == "Failed":
        world.fail(pod)
    world.now = now
    if phase == "Running":
        world.start(pod, ready=ready)
    if more:
        world.set_status(pod, **more)
    if deleting:
        found = world.get(uid)
        assert found is not None
        world.edit(found, lambda new: new["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"))
    found = world.get(uid)
    assert found is not None
    return found


def now(world: World, job: Json) -> Json:
    found = world.get(job["metadata"]["uid"])
    assert found is not None
    return found


def released(plan: Plan) -> int:
    return sum(
        isinstance(effect, Delete | Release) and effect.finalizer == TRACKING_FINALIZER
        for effect in single(plan)
    )


def created_indexes(plan: Plan) -> list[int]:
    return [indexes.index_of(effect.doc) for effect in plan.effects if isinstance(effect, Create)]


def events(plan: Plan) -> list[tuple[str, str, str]]:
    return [(e.type, e.reason, e.message) for e in plan.effects if isinstance(e, Event)]
