"""What the tests of StatefulSets and DaemonSets share: documents and pods in given states."""

from __future__ import annotations

from typing import Any

from kubelite.controllers.model import Create, Delete, Event, Plan
from kubelite.controllers.references import owner_reference
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from tests.unit.controllers.world import World

LABELS = {"app": "web"}


def template(image: str = "web:1", **spec: Any) -> Json:
    return {
        "metadata": {"labels": dict(LABELS)},
        "spec": {"containers": [{"name": "web", "image": image}], **spec},
    }


def owner(kind: str, name: str, spec: Json, **metadata: Any) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": {
            "selector": {"matchLabels": dict(LABELS)},
            "revisionHistoryLimit": 10,
            "template": template(),
            **spec,
        },
    }


def ready(at: float, *, is_ready: bool = True) -> Json:
    status = "True" if is_ready else "False"
    condition = {"type": "Ready", "status": status, "lastTransitionTime": rfc3339(at)}
    return {"phase": "Running", "conditions": [condition]}


def pod(world: World, of: Json, name: str, status: Json | None = None, **metadata: Any) -> Json:
    """Store a pod of an owner. `metadata`: `labels` and whatever else it has."""
    labels = {**LABELS, **metadata.pop("labels", {})}
    doc: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "ownerReferences": [owner_reference(of)], **metadata},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    }
    if status is not None:
        doc["status"] = status
    return world.add(doc)


def counts(plan: Plan) -> tuple[int, int]:
    """Return how many pods a plan creates and deletes, as the tests of Kubernetes' controllers count."""
    created = sum(isinstance(one, Create) and one.doc["kind"] == "Pod" for one in plan.effects)
    return created, sum(isinstance(one, Delete) for one in plan.effects)


def reasons(plan: Plan) -> list[str]:
    return [one.reason for one in plan.effects if isinstance(one, Event)]
