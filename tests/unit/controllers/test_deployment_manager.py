"""Deployments and ReplicaSets in the manager, on a real store, with a node that starts and ends their pods."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from kubelite.controllers.model import Controller
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from state.store import Record
from tests.unit.controllers.deployment_worlds import deployment_doc, image_of, template_of
from tests.unit.controllers.manager_kit import Kit, replica_set, running
from tests.unit.state.store_kit import commits_of

DECIDE = "kubelite.controllers.decide"
CONTROLLERS = (
    Controller("Deployment", "apps/v1", ("ReplicaSet",), f"{DECIDE}.deployment"),
    Controller("ReplicaSet", "apps/v1", ("Pod",), f"{DECIDE}.replica_set"),
)
READY: Json = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(1_700_000_000)}],
}


def stored(replicas: int = 3, **options: Any) -> Json:
    doc = deployment_doc(replicas, **options)
    metadata = {"name": "web", "namespace": "default", "uid": "uid-web", "generation": 1}
    return {**doc, "metadata": metadata}


def web(kit: Kit) -> Json:
    record = kit.store.get("Deployment", "default", "web")
    assert record is not None
    return record.doc


def reason(kit: Kit) -> str:
    conditions = (web(kit).get("status") or {}).get("conditions") or ()
    return next((found["reason"] for found in conditions if found["type"] == "Progressing"), "")


def complete(kit: Kit, image: str, replicas: int) -> bool:
    status = web(kit).get("status") or {}
    pods = [image_of(pod.doc) for pod in kit.pods()]
    observed = status.get("observedGeneration") == web(kit)["metadata"]["generation"]
    return observed and reason(kit) == "NewReplicaSetAvailable" and pods == [image] * replicas


@contextlib.asynccontextmanager
async def node(kit: Kit) -> AsyncIterator[None]:
    """Make pods ready when they are created, and remove them when they are to be terminated."""

    async def live() -> None:
        async with kit.store.watch("Pod") as watch:
            for pod in kit.pods():
                await one(pod)
            async for change in watch:
                if change.type != "DELETED":
                    await one(change.record)

    async def one(pod: Record) -> None:
        if pod.deleting:
            await kit.store.delete(pod.uid)
        elif pod.doc["status"]["phase"] == "Pending":
            await kit.store.update_status(pod.uid, READY)

    task = asyncio.create_task(live())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def edit(kit: Kit, **spec: Any) -> None:
    def change(doc: Json) -> Json:
        metadata = {**doc["metadata"], "generation": doc["metadata"]["generation"] + 1}
        return {**doc, "metadata": metadata, "spec": {**doc["spec"], **spec}}

    await kit.store.modify("uid-web", change)


def test_a_rollout_a_rollback_and_a_scaling(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, stored(4), controllers=CONTROLLERS) as kit, node(kit):
            await kit.settled(lambda: complete(kit, "v1", 4))
            await edit(kit, template=template_of("v2"))
            await kit.settled(lambda: complete(kit, "v2", 4))
            await edit(kit, template=template_of("v1"))
            await kit.settled(lambda: complete(kit, "v1", 4))
            assert web(kit)["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
            await edit(kit, replicas=6)
            await kit.settled(lambda: complete(kit, "v1", 6))
            assert len(kit.store.list("ReplicaSet")) == 2
            reasons = {reason for reason, _ in await kit.said()}
            assert reasons == {"ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete"}

    asyncio.run(story())


def test_a_new_manager_changes_nothing_at_rest(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, stored(3), controllers=CONTROLLERS) as kit, node(kit):
            await kit.settled(lambda: complete(kit, "v1", 3))
        async with running(tmp_path, controllers=CONTROLLERS) as kit:
            batches = commits_of(kit.store)
            await asyncio.sleep(0.05)
            await kit.settled(lambda: complete(kit, "v1", 3))
            assert batches == []

    asyncio.run(story())


def test_a_restart_in_the_middle_of_a_rollout_finishes_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, stored(4), controllers=CONTROLLERS) as kit, node(kit):
            await kit.settled(lambda: complete(kit, "v1", 4))
            await edit(kit, template=template_of("v2"))
            await asyncio.sleep(0.005)
        async with running(tmp_path, controllers=CONTROLLERS) as kit, node(kit):
            await kit.settled(lambda: complete(kit, "v2", 4))

    asyncio.run(story())


def test_a_replica_set_of_another_owner_with_the_name_is_a_collision(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, stored(1), controllers=CONTROLLERS) as kit, node(kit):
            await kit.settled(lambda: complete(kit, "v1", 1))
            name = kit.store.list("ReplicaSet")[0].name
        other = tmp_path / "other"
        other.mkdir()
        owner = {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "x", "controller": True}
        taken = replica_set(name, 0, ownerReferences=[owner])
        async with running(other, taken, stored(1), controllers=CONTROLLERS[:1]) as kit:
            await kit.settled(lambda: len(kit.store.list("ReplicaSet")) == 2)
            assert web(kit)["status"]["collisionCount"] == 1
            assert not [said for said in await kit.said() if said[0] == "FailedSync"]

    asyncio.run(story())


def test_a_rollout_of_a_hundred_pods_costs_few_commits(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, stored(100), controllers=CONTROLLERS) as kit:
            batches = commits_of(kit.store)
            await kit.settled(lambda: len(kit.pods()) == 100)
            assert len(batches) <= 12
            async with node(kit):
                await kit.settled(lambda: complete(kit, "v1", 100), 20)

    asyncio.run(story())
