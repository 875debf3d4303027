"""PersistentVolumes on disk: binding, release, reclaim, and recovery of lost objects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.node.model.errors import ConfigError, MountError
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.node_facts import NodeState
from kubelite.node.spec import env, volume_plans
from kubelite.node.spec.container_spec import Device, device_rules
from kubelite.node.spec.volume_plans import Kind
from kubelite.node.storage.claims import Claims
from kubelite.node.storage.volume_objects import Volumes
from manifests.types.core import Pod
from state.store import Store
from tests.unit.node.storage.volume_kit import MANUAL, ON_SSD, claim, pod, volume
from tests.unit.state.store_kit import full_disk
from tests.waiting import until_async


class Disk:
    """Claims and volumes with their own store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store.open(str(root / "state.db"))
        self.config = NodeConfig("node-1", "192.0.2.1", str(root), str(root / "logs"))
        self.events = EventRecorder(self.store, "node-1")
        self.volumes = Volumes(self.store, self.config, self.events, NodeState(self.config, lambda: None))
        self.claims = Claims(self.store, self.config, self.events, self.volumes, "Retain")

    async def put(self, *docs: Json) -> None:
        for doc in docs:
            await self.store.create(doc["kind"], doc)
        await self.claims.look()

    def phase(self, name: str, kind: str = "PersistentVolume") -> str:
        record = self.store.get(kind, "" if kind == "PersistentVolume" else "default", name)
        return str((record.doc.get("status") or {}).get("phase")) if record is not None else "gone"

    async def end(self, name: str, kind: str = "PersistentVolumeClaim") -> None:
        record = self.store.get(kind, "" if kind == "PersistentVolume" else "default", name)
        assert record is not None
        await self.store.delete(record.uid)
        await self.claims.look()

    def plan(self, wants: Pod) -> volume_plans.VolumePlan:
        def find(kind: str, namespace: str, name: str) -> Any:
            record = self.store.get(kind, namespace, name)
            return record.doc if record is not None else None

        return volume_plans.plan_volumes(wants, ["v"], env.Sources(find, self.config, ()))[0]


def run(tmp_path: Path, story: Callable[[Disk], Awaitable[None]]) -> None:
    async def told() -> None:
        disk = Disk(tmp_path)
        try:
            await story(disk)
        finally:
            await disk.store.close()

    asyncio.run(told())


def test_a_volume_is_bound_released_and_bound_again(tmp_path: Path) -> None:
    async def story(disk: Disk) -> None:
        await disk.put(volume("a"))
        assert disk.phase("a") == "Available"
        await disk.put(MANUAL)
        assert (disk.phase("a"), disk.phase("c", "PersistentVolumeClaim")) == ("Bound", "Bound")
        record = disk.store.get("PersistentVolumeClaim", "default", "c")
        assert record is not None and record.doc["spec"]["volumeName"] == "a"
        assert record.doc["status"]["capacity"] == {"storage": "2Gi"}
        plan = disk.plan(pod())
        assert (plan.kind, plan.path) == (Kind.HOST, "/srv/a")
        version = disk.store.resource_version
        await disk.claims.look()
        assert disk.store.resource_version == version, "looked at again, nothing changes"
        await disk.put({**claim("d", storageClassName="manual")})
        assert disk.phase("d", "PersistentVolumeClaim") == "Pending"
        await disk.end("c")
        assert disk.phase("a") == "Released"
        assert disk.phase("d", "PersistentVolumeClaim") == "Pending", "what was in it is nobody else's"
        again = claim(storageClassName="manual")
        again["metadata"]["uid"] = "u-later"
        await disk.put(again)
        assert (disk.phase("a"), disk.phase("c", "PersistentVolumeClaim")) == ("Bound", "Bound")
        await disk.end("a", "PersistentVolume")
        assert disk.phase("c", "PersistentVolumeClaim") == "Lost"
        with pytest.raises(MountError, match="is not bound"):
            disk.plan(pod())
        await disk.put(volume("a"))
        assert (disk.phase("a"), disk.phase("c", "PersistentVolumeClaim")) == ("Bound", "Bound")

    run(tmp_path, story)


def test_bindings_survive_the_loss_of_the_state(tmp_path: Path) -> None:
    async def first(disk: Disk) -> None:
        await disk.put(volume("b"), MANUAL)
        await disk.put(volume("a"))

    async def then(disk: Disk) -> None:
        await disk.store.create("PersistentVolume", volume("a"))
        await disk.store.create("PersistentVolume", volume("b"))
        await disk.put(MANUAL)
        assert (disk.phase("a"), disk.phase("b")) == ("Available", "Bound")

    run(tmp_path, first)
    for file in tmp_path.glob("state.db*"):
        file.unlink()
    run(tmp_path, then)


def test_reclaim_policies(tmp_path: Path) -> None:
    async def story(disk: Disk) -> None:
        path = tmp_path / "scrubbed"
        (path / "in").mkdir(parents=True)
        (path / "in/f").write_text("x")
        (path / "link").symlink_to("/etc")
        there = {"path": str(path)}
        away = volume("e", persistentVolumeReclaimPolicy="Delete", hostPath={"path": "/srv/none"})
        local = volume(
            "l", persistentVolumeReclaimPolicy="Delete", local={"path": "/srv/l"}, nodeAffinity=ON_SSD
        )
        del local["spec"]["hostPath"]
        await disk.put(volume("r", persistentVolumeReclaimPolicy="Recycle", hostPath=there), away)
        await disk.put(local)
        for one in ("r", "e"):
            await disk.put(claim(f"c{one}", storageClassName="manual", volumeName=one))
        user = pod("p", "cr")
        await disk.store.create("Pod", {"apiVersion": "v1", **user.to_json()})
        await disk.end("cr")
        assert disk.phase("r") == "Released" and (path / "in/f").exists(), "a pod has it still"
        await disk.end("p", "Pod")
        assert disk.phase("r") == "Available" and list(path.iterdir()) == []
        await disk.end("ce")
        assert disk.phase("e") == "Failed"
        record = disk.store.get("PersistentVolume", "", "e")
        assert record is not None
        said = "host_path deleter only supports /tmp/.+ but received provided /srv/none"
        assert record.doc["status"]["message"] == said
        assert disk.phase("l") == "Available"

    run(tmp_path, story)


def test_only_paths_below_tmp_are_deleted(tmp_path: Path) -> None:
    if not str(tmp_path).startswith("/tmp/"):
        pytest.fail("pytest's directories are expected below /tmp")

    async def story(disk: Disk) -> None:
        path = tmp_path / "doomed"
        path.mkdir()
        (path / "f").write_text("x")
        gone = volume("d", persistentVolumeReclaimPolicy="Delete", hostPath={"path": str(path)})
        await disk.put(gone, MANUAL)
        assert disk.phase("d") == "Bound"
        await disk.end("c")
        assert disk.phase("d") == "Available" and not path.exists()

    run(tmp_path, story)


def test_a_provisioned_volume_has_an_object(tmp_path: Path) -> None:
    async def story(disk: Disk) -> None:
        await disk.volumes.keep_class("Retain")
        await disk.put(claim())
        record = disk.store.get("PersistentVolume", "", "pvc-u-c")
        assert record is not None and record.doc["status"]["phase"] == "Bound"
        spec = record.doc["spec"]
        assert spec["claimRef"]["name"] == "c" and spec["storageClassName"] == "kubelite"
        assert spec["hostPath"]["path"] == f"{tmp_path}/claims/default/c/data"
        await disk.end("c")
        assert disk.phase("pvc-u-c") == "Released"
        again = claim()
        again["metadata"]["uid"] = "later"
        await disk.put(again)
        assert disk.phase("pvc-u-c") == "gone" and disk.phase("pvc-later") == "Bound"
        assert disk.plan(pod()).kind is Kind.CLAIM

    run(tmp_path, story)


def test_a_block_claim_is_a_device(tmp_path: Path) -> None:
    async def story(disk: Disk) -> None:
        device = volume("d", volumeMode="Block", local={"path": "/dev/sdz"}, nodeAffinity=None)
        del device["spec"]["hostPath"]
        await disk.put(device, claim(storageClassName="manual", volumeMode="Block"))
        found = disk.plan(pod())
        assert (found.kind, found.path, found.size) == (Kind.BLOCK, "/dev/sdz", 0)
        await disk.put(claim("own", volumeMode="Block"))
        found = disk.plan(pod("p", "own"))
        assert (found.kind, found.path) == (Kind.BLOCK, f"{tmp_path}/claims/default/own/block")
        assert found.size == 2 << 30
        record = disk.store.get("PersistentVolume", "", "pvc-u-own")
        assert record is not None and record.doc["spec"]["local"]["path"] == found.path

    run(tmp_path, story)


def test_device_permissions_of_a_container() -> None:
    rules = device_rules(privileged=False, block=[Device("/dev/a", 7, 1), Device("/dev/b", 7, 2, True)])
    mine = [(r["type"], r["major"], r["minor"], r["access"]) for r in rules if r.get("major") == 7]
    assert mine == [("b", 7, 1, "mrw"), ("b", 7, 2, "mr")]


def test_other_sources_are_named(tmp_path: Path) -> None:
    async def story(disk: Disk) -> None:
        far = volume("far", csi={"driver": "d", "volumeHandle": "h"})
        del far["spec"]["hostPath"]
        await disk.put(far, MANUAL)
        with pytest.raises(ConfigError, match='persistentvolume "far"'):
            disk.plan(pod())

    run(tmp_path, story)


async def test_claims_go_on_when_a_full_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelite.node.storage.claims.AGAIN", 0.01)
    disk = Disk(tmp_path)
    await disk.volumes.keep_class("Retain")
    ends = claim("data")
    ends["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await disk.store.create("PersistentVolumeClaim", ends)
    with full_disk(disk.store) as failures:
        task = asyncio.create_task(disk.claims.run())
        await until_async(lambda: len(failures) > 1 or task.done())
    try:
        await until_async(lambda: not disk.store.list("PersistentVolumeClaim"))
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await disk.store.close()
