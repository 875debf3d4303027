"""The garbage collector: cascades in the background and foreground, orphans, owners of the same name."""

from __future__ import annotations

from pathlib import Path

from kubelite.controllers.deletion import delete
from kubelite.controllers.references import owner_reference
from kubelite.kube.json import Json
from tests.unit.controllers.manager_kit import pod, replica_set, running


def _owned(name: str, *owners: Json, source: str = "") -> Json:
    return pod(name, owners=[owner_reference(owner) for owner in owners], source=source)


async def test_what_has_lost_its_only_owner_is_deleted(tmp_path: Path) -> None:
    web = replica_set(replicas=1)
    async with running(tmp_path, web, _owned("a", web)) as kit:
        await kit.settled(lambda: len(kit.pods()) == 1)
        await kit.store.delete("uid-web")
        await kit.settled(lambda: kit.pods()[0].deleting)


async def test_of_two_owners_the_last_one_counts(tmp_path: Path) -> None:
    one, other = replica_set("one", 0), replica_set("other", 0)
    other["spec"]["selector"] = one["spec"]["selector"] = {"matchLabels": {"app": "none"}}
    both = _owned("a", one, other)
    both["metadata"]["ownerReferences"] = [
        {**ref, "controller": False} for ref in both["metadata"]["ownerReferences"]
    ]
    async with running(tmp_path, one, other, both) as kit:
        await kit.store.delete("uid-one")
        await kit.settled(lambda: len(kit.pods()[0].metadata["ownerReferences"]) == 1)
        assert not kit.pods()[0].deleting
        await kit.store.delete("uid-other")
        await kit.settled(lambda: kit.pods()[0].deleting)


async def test_an_owner_of_the_same_name_with_another_uid_is_not_the_owner(tmp_path: Path) -> None:
    before = replica_set(uid="before")
    async with running(tmp_path, replica_set(replicas=0), _owned("a", before)) as kit:
        await kit.settled(lambda: kit.pods()[0].deleting)


async def test_an_object_from_a_manifest_is_not_collected(tmp_path: Path) -> None:
    lost = _owned("a", replica_set("gone"), source="/manifests/a.yaml")
    async with running(tmp_path, replica_set(replicas=0), lost) as kit:
        await kit.queue.idle()
        assert not kit.pods()[0].deleting


async def test_an_owner_of_an_unknown_kind_may_exist(tmp_path: Path) -> None:
    strange = {**replica_set("gone"), "kind": "Widget"}
    async with running(tmp_path, replica_set(replicas=0), _owned("a", strange)) as kit:
        await kit.queue.idle()
        assert not kit.pods()[0].deleting


async def test_orphans_lose_their_owner_and_stay(tmp_path: Path) -> None:
    async with running(tmp_path, replica_set(replicas=2)) as kit:
        await kit.settled(lambda: len(kit.pods()) == 2)
        await delete(kit.store, "uid-web", now=0.0, orphan=True)
        await kit.settled(lambda: kit.store.get_uid("uid-web") is None)
        assert [record.metadata.get("ownerReferences") for record in kit.pods()] == [None, None]
        assert not any(record.deleting for record in kit.pods())


async def test_in_the_foreground_the_owner_goes_last(tmp_path: Path) -> None:
    async with running(tmp_path, replica_set(replicas=2)) as kit:
        await kit.settled(lambda: len(kit.pods()) == 2)
        await delete(kit.store, "uid-web", now=0.0, foreground=True)
        await kit.settled(lambda: all(record.deleting for record in kit.pods()))
        assert kit.store.get_uid("uid-web") is not None
        for record in kit.pods():
            await kit.store.delete(record.uid)
        await kit.settled(lambda: kit.store.get_uid("uid-web") is None)
        assert kit.pods() == []


async def test_a_deletion_in_the_foreground_goes_on_after_a_restart(tmp_path: Path) -> None:
    ends = replica_set(
        replicas=0, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["foregroundDeletion"]
    )
    async with running(tmp_path, ends) as kit:
        await kit.settled(lambda: kit.store.get_uid("uid-web") is None)
