"""Which objects a workload controls: of a Deployment ReplicaSets and their pods, of a CronJob Jobs and their pods."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from kubelite.cli.describe.workloads import Owned
from kubelite.cli.names import PODS, path_of, resource_type

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json

_BETWEEN = {"Deployment": "ReplicaSet", "CronJob": "Job"}  # kind → what it controls, which controls pods


def owned_by(server: Client, doc: Json) -> Owned:
    """Return what a workload controls."""
    namespace, owners = doc["metadata"].get("namespace") or "default", {doc["metadata"]["uid"]}
    sets: list[Json] = []
    if between := _BETWEEN.get(doc["kind"]):
        items = server.get(path_of(resource_type(between), namespace))["items"]
        sets = [one for one in items if is_controlled(one, owners)]
        owners = {one["metadata"]["uid"] for one in sets}
    pods = [pod for pod in server.get(path_of(PODS, namespace))["items"] if is_controlled(pod, owners)]
    return Owned(pods, sets)


def is_controlled(doc: Json, owners: Collection[str]) -> bool:
    """Whether one of the owners (uids) controls the object."""
    references = doc["metadata"].get("ownerReferences") or ()
    return any(reference.get("controller") and reference.get("uid") in owners for reference in references)
