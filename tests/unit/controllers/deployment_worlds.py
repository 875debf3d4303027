"""Deployments for tests: a document, and a world with its two controllers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubelite.controllers.decide import deployment, pods, replica_set
from kubelite.controllers.decide.deployments.limits import Limits
from kubelite.kube.json import Json
from tests.unit.controllers.world import World

LABELS = {"app": "web"}


def deployment_doc(
    replicas: int = 3,
    *,
    surge: int | str = "25%",
    unavailable: int | str = "25%",
    image: str = "v1",
    **spec: Any,
) -> Json:
    """A Deployment with Kubernetes' defaults. `spec`: further fields, or other values of these."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
            },
            "template": template_of(image),
            "minReadySeconds": 0,
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
            **spec,
        },
    }


def template_of(image: str) -> Json:
    return {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": image}]}}


def world_of(doc: Json, seed: int = 0) -> tuple[World, Json]:
    world = World(seed)
    world.use("Deployment", deployment.decide, "ReplicaSet")
    world.use("ReplicaSet", replica_set.decide, "Pod")
    return world, world.add(doc)


def set_spec(world: World, doc: Json, **fields: Any) -> None:
    world.edit(doc, lambda new: new["spec"].update(fields))


def set_image(world: World, doc: Json, image: str) -> None:
    set_spec(world, doc, template=template_of(image))


def image_of(doc: Json) -> str:
    """The image of a pod, or of a ReplicaSet's template."""
    spec = doc["spec"]["template"]["spec"] if doc["kind"] == "ReplicaSet" else doc["spec"]
    found: str = spec["containers"][0]["image"]
    return found


def sizes(world: World) -> dict[str, int]:
    """Return spec.replicas by image."""
    return {image_of(found): found["spec"]["replicas"] for found in world.of("ReplicaSet")}


def active_pods(world: World) -> list[Json]:
    return [pod for pod in world.of("Pod") if pods.is_active(pod)]


def condition(world: World, type_: str) -> tuple[str, str]:
    """Return the status and the reason of a condition, both "" without one."""
    for found in world.named("Deployment", "web")["status"].get("conditions", ()):
        if found["type"] == type_:
            return found["status"], found["reason"]
    return "", ""


def limit_checker(world: World, doc: Json, what: str) -> Callable[[], None]:
    """Return the assertion that no more pods exist than the surge allows, and no fewer are available than must be."""
    limits = Limits.of(doc)
    seconds = doc["spec"].get("minReadySeconds", 0)

    def check() -> None:
        found = active_pods(world)
        available = sum(pods.is_available(pod, seconds, world.now) for pod in found)
        assert len(found) <= limits.most, f"{what}: {len(found)} pods, at most {limits.most}"
        assert available >= limits.least_available, (
            f"{what}: {available} available, at least {limits.least_available}"
        )

    return check
