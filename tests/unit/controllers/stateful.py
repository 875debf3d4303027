"""What the tests of StatefulSets share: a world with one set, and what its controller does in it."""

from __future__ import annotations

from typing import Any

from kubelite.controllers.decide import stateful_set
from kubelite.controllers.model import Create, Delete
from kubelite.kube.json import Json
from tests.unit.controllers.sets import owner, template
from tests.unit.controllers.world import World

CLAIM = "PersistentVolumeClaim"
TEMPLATE: Json = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
PARALLEL = {"podManagementPolicy": "Parallel"}
ON_DELETE = {"updateStrategy": {"type": "OnDelete"}}


def rolling(**fields: Any) -> Json:
    return {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, **fields}}}


def retention(scaled: str, deleted: str) -> Json:
    return {"persistentVolumeClaimRetentionPolicy": {"whenScaled": scaled, "whenDeleted": deleted}}


def world_of(replicas: int, **spec: Any) -> tuple[World, Json]:
    world = World()
    kinds = ("Pod", "ControllerRevision", CLAIM)
    world.use("StatefulSet", stateful_set.decide, *kinds, shares=CLAIM)
    given = {"replicas": replicas, "serviceName": "db", **rolling(), **spec}
    return world, world.add(owner("StatefulSet", "web", given))


def edit(world: World, of: Json, image: str = "", **spec: Any) -> None:
    more = {"template": template(image)} if image else {}
    world.edit(of, lambda new: new["spec"].update(**spec, **more))


def status(world: World) -> Json:
    found: Json = world.named("StatefulSet", "web")["status"]
    return found


def images(world: World) -> dict[str, str]:
    return {one["metadata"]["name"]: one["spec"]["containers"][0]["image"] for one in world.of("Pod")}


def sync(world: World, of: Json) -> str:
    """Let the controller act once; return what it does with pods, in order: `+0 -2`."""
    by_uid = {one["metadata"]["uid"]: one["metadata"]["name"] for one in world.of("Pod")}
    plan = world.sync(of)
    found: list[str] = []
    for one in plan.effects:
        if isinstance(one, Create) and one.doc["kind"] == "Pod":
            found.append("+" + one.doc["metadata"]["name"].removeprefix("web-"))
        elif isinstance(one, Delete) and one.uid in by_uid:
            found.append("-" + by_uid[one.uid].removeprefix("web-"))
    return " ".join(found)


def course(world: World, of: Json) -> list[str]:
    """Return what the controller does until it rests, if pods become ready and disappear at once."""
    found: list[str] = []
    for _ in range(60):
        done = sync(world, of)
        if not done and not world.start_and_vanish():
            return found
        found += [done] if done else []
        world.start_and_vanish()
        world.now += 1
    raise AssertionError("it does not rest")
