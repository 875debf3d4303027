"""The manager: what leads to a decision, and how its effects are carried out."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from kubelite.controllers.references import owner_reference
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE, mark_deleting
from tests.unit.controllers import toy
from tests.unit.controllers.manager_kit import pod, replica_set, running
from tests.unit.state.store_kit import commits_of


async def test_a_created_pod_has_what_a_pod_of_the_directory_has(tmp_path: Path) -> None:
    async with running(tmp_path, replica_set(replicas=1)) as kit:
        await kit.settled(lambda: len(kit.pods()) == 1)
        (record,) = kit.pods()
        metadata = record.metadata
        assert re.fullmatch("web-[bcdfghjklmnpqrstvwxz2456789]{5}", record.name)
        assert record.doc["spec"]["nodeName"] == "node"
        assert record.doc["status"] == {"phase": "Pending"}
        assert metadata["generation"] == 1 and metadata["creationTimestamp"]
        assert metadata["ownerReferences"][0]["uid"] == "uid-web"
        assert record.uid in kit.offered, "the worker parses the spec again"
        assert ("SuccessfulCreate", f"Created pod: {record.name}") in await kit.said()


async def test_a_created_object_comes_from_no_manifest(tmp_path: Path) -> None:
    """A controller copies annotations of its owner. An object with this one would outlive its owner."""
    doc = replica_set(replicas=1)
    metadata = {
        **doc["spec"]["template"]["metadata"],
        "annotations": {SOURCE: "/manifests/web.yaml", "a": "b"},
    }
    doc["spec"]["template"] = {**doc["spec"]["template"], "metadata": metadata}
    async with running(tmp_path, doc) as kit:
        await kit.settled(lambda: len(kit.pods()) == 1)
        assert kit.pods()[0].metadata["annotations"] == {"a": "b"}


async def test_a_priority_class_ranks_a_created_pod(tmp_path: Path) -> None:
    doc = replica_set(replicas=1)
    spec = {**doc["spec"]["template"]["spec"], "priorityClassName": "high"}
    doc["spec"]["template"] = {**doc["spec"]["template"], "spec": spec}
    async with running(tmp_path, doc) as kit:
        await kit.settled(lambda: len(kit.pods()) == 1)
        assert kit.pods()[0].doc["spec"]["priority"] == 1000


async def test_a_hundred_pods_cost_a_handful_of_commits(tmp_path: Path) -> None:
    async with running(tmp_path) as kit:
        batches = commits_of(kit.store)
        await kit.store.create("ReplicaSet", replica_set(replicas=100))
        await kit.settled(lambda: len(kit.pods()) == 100)
        assert len(batches) <= 6
        await kit.store.modify("uid-web", lambda doc: {**doc, "spec": {**doc["spec"], "replicas": 0}})
        await kit.settled(lambda: all(record.deleting for record in kit.pods()))
        assert len(batches) <= 12


async def test_a_deleted_pod_is_replaced_and_a_surplus_one_deleted(tmp_path: Path) -> None:
    async with running(tmp_path, replica_set()) as kit:
        await kit.settled(lambda: len(kit.pods()) == 3)
        await kit.store.delete(kit.pods()[0].uid)
        await kit.settled(lambda: len(kit.pods()) == 3)
        going = kit.pods()[0].uid
        await kit.store.modify(going, lambda doc: mark_deleting(doc, now=0.0))
        await kit.settled(lambda: len(kit.pods()) == 4)
        assert sum(not record.deleting for record in kit.pods()) == 3


async def test_a_matching_orphan_is_adopted_unless_a_manifest_defines_it(tmp_path: Path) -> None:
    docs = replica_set(replicas=2), pod("a"), pod("b", source="/manifests/b.yaml"), pod("c", app="other")
    async with running(tmp_path, *docs) as kit:
        await kit.settled(lambda: len(kit.pods()) == 4)
        owners = {record.name: record.metadata.get("ownerReferences") for record in kit.pods()}
        assert owners["a"] is not None and owners["a"][0]["uid"] == "uid-web"
        assert owners["b"] is None and owners["c"] is None
        # One that appears later is seen as well.
        await kit.store.create("Pod", pod("d"))
        await kit.settled(
            lambda: any(r.name == "d" and r.metadata.get("ownerReferences") for r in kit.pods())
        )


async def test_a_released_pod_leads_to_a_decision_of_its_former_owner(tmp_path: Path) -> None:
    async with running(tmp_path, replica_set(replicas=1)) as kit:
        await kit.settled(lambda: len(kit.pods()) == 1)

        def release(doc: Json) -> Json:
            metadata = {k: v for k, v in doc["metadata"].items() if k != "ownerReferences"}
            return {**doc, "metadata": {**metadata, "labels": {"app": "apart"}}}

        await kit.store.modify(kit.pods()[0].uid, release)
        await kit.settled(lambda: len(kit.pods()) == 2)


async def test_a_status_is_written_only_if_it_differs(tmp_path: Path) -> None:
    async with running(tmp_path, replica_set(replicas=1)) as kit:
        await kit.settled(lambda: len(kit.pods()) == 1)
        version = kit.store.resource_version
        kit.queue.add(("ReplicaSet", "uid-web"))
        await kit.queue.idle()
        assert kit.store.resource_version == version
        found = kit.store.get_uid("uid-web")
        assert found is not None and found.doc["status"] == {"replicas": 1, "observedGeneration": 1}


async def test_a_view_has_what_the_last_plan_wrote(tmp_path: Path) -> None:
    """A key that is queued during its own writes decides again before the watch's task has run."""
    async with running(tmp_path) as kit:
        await kit.store.create("ReplicaSet", replica_set(replicas=20))
        for _ in range(50):
            kit.queue.add(("ReplicaSet", "uid-web"))
            await asyncio.sleep(0.001)
        await kit.settled(lambda: len(kit.pods()) >= 20)
        assert len(kit.pods()) == 20


async def test_a_refused_pod_is_an_event_and_is_tried_again(tmp_path: Path) -> None:
    said = ['pods "web" is forbidden: the reason']
    async with running(tmp_path, replica_set(replicas=1), refusal=lambda _pod: said[0]) as kit:
        await kit.settled(lambda: kit.queue.added > 0)
        assert kit.pods() == []
        assert ("FailedCreate", f"Error creating: {said[0]}") in await kit.said()
        said[0] = ""
        await kit.settled(lambda: len(kit.pods()) == 1)


async def test_a_controller_that_raises_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "fail", True)
    async with running(tmp_path, replica_set(replicas=1)) as kit:
        await kit.settled(lambda: kit.queue.retries > 1)
        words = "the ReplicaSet controller failed, will retry: the toy is broken"
        assert ("FailedSync", words) in await kit.said()
        monkeypatch.setattr(toy, "fail", False)
        await kit.settled(lambda: len(kit.pods()) == 1)


async def test_a_restart_finds_what_a_kill_left(tmp_path: Path) -> None:
    owner = replica_set(replicas=2)
    first = pod("web-1", owners=[owner_reference(owner)])
    lost = pod("lost", owners=[owner_reference(replica_set("other"))])
    async with running(tmp_path, owner, first, lost) as kit:
        await kit.settled(lambda: len(kit.pods()) == 3)
        deleting = {record.name for record in kit.pods() if record.deleting}
        assert deleting == {"lost"}


async def test_a_deleted_owner_is_reported_since_its_manifest_may_exist(tmp_path: Path) -> None:
    async with running(tmp_path, replica_set(replicas=0)) as kit:
        await kit.store.delete("uid-web")
        await kit.settled(lambda: [record.uid for record in kit.deleted] == ["uid-web"])
