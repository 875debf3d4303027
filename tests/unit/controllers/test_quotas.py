"""ResourceQuotas and what controllers create: as many as fit, an event and a condition, and more when there is room."""

from __future__ import annotations

import time
from pathlib import Path

from kubelite.controllers.registry import CONTROLLERS
from kubelite.kube.json import Json
from kubelite.policies.gate import Gate
from tests.unit.controllers.manager_kit import replica_set, running
from tests.unit.policies.kit import quota


def limited(**hard: str) -> Json:
    found = quota(given=hard)
    found["metadata"]["namespace"] = "default"
    return found


async def test_a_replica_set_gets_as_many_pods_as_fit_and_more_when_there_is_room(tmp_path: Path) -> None:
    async with running(tmp_path, limited(pods="3"), controllers=CONTROLLERS) as kit:
        kit.store.gate = Gate(time.time)
        await kit.store.create("ReplicaSet", replica_set(replicas=5))
        await kit.settled(lambda: bool(kit.store.docs("ReplicaSet")[0].get("status", {}).get("conditions")))
        assert len(kit.pods()) == 3
        said = 'pods "web-" is forbidden: exceeded quota: quota, requested: pods=1, used: pods=3, limited: pods=3'
        assert ("FailedCreate", f"Error creating: {said}") in await kit.said()
        (condition,) = kit.store.docs("ReplicaSet")[0]["status"]["conditions"]
        assert (condition["type"], condition["message"]) == ("ReplicaFailure", said)
        await kit.store.modify("uid-quota", lambda doc: {**doc, "spec": {"hard": {"pods": "4"}}})
        await kit.settled(lambda: len(kit.pods()) == 4)
        await kit.store.delete("uid-quota")
        await kit.settled(lambda: len(kit.pods()) == 5)


async def test_an_object_that_is_not_a_pod_is_counted_too(tmp_path: Path) -> None:
    deployment = replica_set(replicas=1)
    deployment |= {"kind": "Deployment"}
    deployment["spec"] |= {"strategy": {"type": "Recreate"}, "revisionHistoryLimit": 10}
    full = limited(**{"count/replicasets.apps": "0"})
    async with running(tmp_path, full, controllers=CONTROLLERS) as kit:
        kit.store.gate = Gate(time.time)
        await kit.store.create("Deployment", deployment)
        said = "is forbidden: exceeded quota: quota, requested: count/replicasets.apps=1"
        await kit.settled(lambda: kit.queue.added > 0)
        heard = [message for reason, message in await kit.said() if reason == "FailedCreate"]
        assert heard[0].startswith('Failed to create new replica set "web-') and said in heard[0]
        await kit.store.delete("uid-quota")
        await kit.settled(lambda: len(kit.pods()) == 1)
