"""The rules of a namespace and what controllers create: defaults, refusals and their events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kubelite.controllers.registry import CONTROLLERS
from kubelite.kube.json import Json
from tests.unit.controllers.manager_kit import TEMPLATE, replica_set, running
from tests.unit.policies.kit import compute, limit_range


def ranged(**item: Mapping[str, str]) -> Json:
    found = limit_range("Container", "limits", **item)
    found["metadata"] |= {"namespace": "default", "uid": "uid-limits"}
    return found


async def test_pods_of_a_template_get_defaults_and_the_template_does_not(tmp_path: Path) -> None:
    docs = (ranged(default=compute("", "64Mi"), defaultRequest=compute("", "32Mi")), replica_set(replicas=2))
    async with running(tmp_path, *docs, controllers=CONTROLLERS) as kit:
        await kit.settled(lambda: len(kit.pods()) == 2)
        for found in kit.pods():
            (one,) = found.doc["spec"]["containers"]
            assert one["resources"] == {"requests": {"memory": "32Mi"}, "limits": {"memory": "64Mi"}}
    assert "resources" not in TEMPLATE["spec"]["containers"][0]


async def test_a_refused_pod_is_an_event_and_a_condition_until_it_fits(tmp_path: Path) -> None:
    docs = (ranged(max=compute("", "64Mi")), replica_set(replicas=2))
    said = 'pods "web-" is forbidden: maximum memory usage per Container is 64Mi.  No limit is specified'
    async with running(tmp_path, *docs, controllers=CONTROLLERS) as kit:
        await kit.settled(lambda: bool(kit.store.get_uid("uid-web").doc.get("status")))  # type: ignore[union-attr]
        assert kit.pods() == []
        assert await kit.said() == [("FailedCreate", f"Error creating: {said}")]
        (condition,) = kit.store.docs("ReplicaSet")[0]["status"]["conditions"]
        assert (condition["type"], condition["message"]) == ("ReplicaFailure", said)
        await kit.store.delete("uid-limits")
        await kit.settled(lambda: len(kit.pods()) == 2)


async def test_pods_of_a_template_cannot_pose_as_those_of_a_cluster(tmp_path: Path) -> None:
    owner = replica_set(replicas=1)
    owner["spec"]["template"] = {
        **TEMPLATE,
        "metadata": {**TEMPLATE["metadata"], "annotations": {"kubelite.io/cluster": "https://api", "a": "b"}},
    }
    async with running(tmp_path, owner, controllers=CONTROLLERS) as kit:
        await kit.settled(lambda: len(kit.pods()) == 1)
        assert kit.pods()[0].doc["metadata"]["annotations"] == {"a": "b"}
