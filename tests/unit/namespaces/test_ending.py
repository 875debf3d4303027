"""A namespace that is terminated: pods first, then the rest, then the namespace; nothing new meanwhile."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from kubelite.kube.errors import Forbidden
from kubelite.kube.json import Json
from kubelite.namespaces.ending import decide
from kubelite.namespaces.lifecycle import NamespaceController, end
from kubelite.policies.gate import Gate
from state.store import Store
from tests.unit.policies.kit import claim, pod
from tests.waiting import until_async

NOW = 1_800_000_000.0
SHOP: Json = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test", "uid": "uid-ns"}}


def going(doc: Json) -> Json:
    return {**doc, "metadata": {**doc["metadata"], "deletionTimestamp": "2026-11-24T14:00:00Z"}}


def condition(status: Json, type_: str) -> tuple[str, str, str]:
    (found,) = (one for one in status["conditions"] if one["type"] == type_)
    return found["status"], found["reason"], found["message"]


def test_pods_are_deleted_before_everything_else() -> None:
    """namespaced_resources_deleter_test.go, TestDeleteAllContent with OrderedNamespaceDeletion."""
    held = claim("1Gi")
    held["metadata"]["finalizers"] = ["kubernetes.io/pvc-protection"]
    objects = {"Pod": [going(pod("a")), pod("b")], "PersistentVolumeClaim": [held], "Secret": []}
    step = decide(SHOP, objects, NOW)
    assert (step.delete, step.gone) == (["uid-b"], False)
    said = (
        "Some resources are remaining: "
        "persistentvolumeclaims. has 1 resource instances, pods. has 2 resource instances"
    )
    assert condition(step.status, "NamespaceContentRemaining") == ("True", "SomeResourcesRemain", said)
    said = (
        "Some content in the namespace has finalizers remaining: "
        "kubernetes.io/pvc-protection in 1 resource instances"
    )
    assert condition(step.status, "NamespaceFinalizersRemaining") == ("True", "SomeFinalizersRemain", said)
    assert decide(SHOP, {"Pod": [], "PersistentVolumeClaim": [held]}, NOW).delete == ["uid-data"]
    last = decide(SHOP, {"Pod": []}, NOW)
    assert last.gone and condition(last.status, "NamespaceContentRemaining")[1] == "ContentRemoved"


def test_from_any_world_a_namespace_ends() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        kinds = rng.sample(("Pod", "ConfigMap", "Deployment", "PersistentVolumeClaim", "Event"), 3)
        world = {
            kind: [{**pod(f"{kind}{n}"), "kind": kind} for n in range(rng.randrange(4))]
            for kind in kinds
            if kind != "Event"
        }
        for _ in range(40):
            step = decide(SHOP, world, NOW)
            if step.gone:
                break
            for kind, docs in world.items():
                left = [going(doc) if doc["metadata"]["uid"] in step.delete else doc for doc in docs]
                world[kind] = [
                    d for d in left if not (d["metadata"].get("deletionTimestamp") and rng.random() < 0.5)
                ]
        assert step.gone and not any(world.values())


async def test_the_controller_empties_and_deletes_it_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"), gate=Gate(lambda: NOW))
    await store.create("Namespace", SHOP)
    await store.create("Pod", pod("a"))
    await store.create("ConfigMap", {**pod("settings"), "kind": "ConfigMap"})
    event = {"kind": "Event", "metadata": {"name": "e", "namespace": "test", "uid": "uid-e"}}
    await store.create("Event", event)
    await end(store, "test", NOW)
    with pytest.raises(Forbidden) as caught:
        await store.create("Pod", pod("b"))
    said = "unable to create new content in namespace test because it is being terminated"
    assert str(caught.value) == f'pods "b" is forbidden: {said}'
    gone: list[str] = []

    async def running_until(condition: object) -> None:
        controller = NamespaceController(store, lambda record: gone.append(record.name), lambda: NOW)
        task = asyncio.create_task(controller.run())
        await until_async(condition)  # type: ignore[arg-type]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def terminating() -> bool:
        record = store.get_uid("uid-a")
        return record is not None and record.deleting

    await running_until(terminating)
    assert store.list("ConfigMap") and store.get_uid("uid-ns")
    await store.delete("uid-a")
    await running_until(lambda: gone)
    assert gone == ["test"] and not any(store.list(kind) for kind in ("Namespace", "ConfigMap", "Event"))
    await store.create("Pod", pod("b"))
    await store.close()
