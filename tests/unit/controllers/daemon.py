"""What the tests of DaemonSets share: a world with one DaemonSet."""

from __future__ import annotations

from typing import Any

from kubelite.controllers.decide import daemon_set, revisions
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of
from tests.unit.controllers.sets import owner, template
from tests.unit.controllers.world import NODE, World

ON_DELETE: Json = {"type": "OnDelete"}
TAINT: Json = {"key": "k", "effect": "NoSchedule"}


def unavailable(most: int | str = 1) -> Json:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": most, "maxSurge": 0}}


def surge(most: int | str = 1) -> Json:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": most}}


STRATEGIES = [ON_DELETE, unavailable(), surge()]


def node(*taints: Json, **labels: str) -> Json:
    metadata = {**NODE["metadata"], "labels": labels}
    return {**NODE, "metadata": metadata, "spec": {"taints": list(taints)}}


def world_of(strategy: Json, *, at: Json | None = None, **spec: Any) -> tuple[World, Json]:
    world = World(node=at)
    world.use("DaemonSet", daemon_set.decide, "Pod", "ControllerRevision")
    return world, world.add(owner("DaemonSet", "web", {"updateStrategy": strategy, **spec}))


def current_hash(world: World) -> str:
    newest = max(world.of(revisions.KIND), key=lambda one: one["revision"])
    return str(labels_of(newest)[revisions.POD_LABEL])


def set_image(world: World, ds: Json, image: str, **spec: Any) -> None:
    world.edit(ds, lambda new: new["spec"].update(template=template(image), **spec))


def settled(world: World, ds: Json) -> Json:
    """Let the world settle; return the only pod."""
    world.settle()
    (only,) = world.owned(ds, "Pod")
    return only
