"""Generic ephemeral volumes: a claim that is created from the pod's template, is removed with the pod, and never
belongs to another pod."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubelite.kube.events import EventRecorder
from kubelite.node.model.claim_names import claim_names, followed, own_claims, owner_of
from kubelite.node.model.errors import MountError
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.node_facts import NodeState
from kubelite.node.spec import env, volume_plans
from kubelite.node.storage.claims import Claims
from kubelite.node.storage.volume_objects import Volumes
from kubelite.sources.plan import ManifestState, created, plan
from manifests.types.core import Pod
from manifests.yaml.loader import load_text
from state.store import Store

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"kind": "scratch"}},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def pod_doc(uid: str = "u-1", name: str = "web", size: str = "1Gi") -> dict[str, Any]:
    spec = {**TEMPLATE["spec"], "resources": {"requests": {"storage": size}}}
    volume = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {**TEMPLATE, "spec": spec}}}
    mount = {"name": "scratch", "mountPath": "/scratch"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": [mount]}], "volumes": [volume]},
    }


class Disk:
    """Claims with their own store. `again()` returns the same after the daemon was killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = NodeConfig("node-1", "192.0.2.1", str(root), str(root / "logs"))
        self.again()

    def again(self) -> None:
        self.store = Store.open(str(self.root / "state.db"))
        events = EventRecorder(self.store, "node-1")
        held = Volumes(self.store, self.config, events, NodeState(self.config, lambda: None))
        self.claims = Claims(self.store, self.config, events, held, "Retain")

    @property
    def directory(self) -> Path:
        return self.root / "claims/default/web-scratch"

    async def pod(self, doc: dict[str, Any]) -> Pod:
        """Store the pod and provide its claims."""
        if self.store.get_uid(doc["metadata"]["uid"]) is None:
            await self.store.create("Pod", doc)
        pod = Pod.parse(doc)
        await self.claims.provide(pod)
        return pod

    def path(self, pod: Pod) -> str:
        def find(kind: str, namespace: str, name: str) -> Any:
            record = self.store.get(kind, namespace, name)
            return record.doc if record is not None else None

        return volume_plans.plan_volumes(pod, ["scratch"], env.Sources(find, self.config, ()))[0].path


Run = Callable[[Callable[[Disk], Awaitable[None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    disk = Disk(tmp_path)

    def runs(story: Callable[[Disk], Awaitable[None]]) -> None:
        async def told() -> None:
            await story(disk)
            await disk.store.close()

        asyncio.run(told())

    yield runs


def test_the_claim_belongs_to_the_pod_and_is_removed_with_it(run: Run) -> None:
    async def story(disk: Disk) -> None:
        pod = await disk.pod(pod_doc())
        record = disk.store.get("PersistentVolumeClaim", "default", "web-scratch")
        assert record is not None
        assert record.doc["status"]["phase"] == "Bound"
        assert record.metadata["labels"] == {"kind": "scratch"}
        owner = record.metadata["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == (
            "Pod",
            "web",
            "u-1",
            True,
        )
        assert disk.path(pod) == f"{disk.directory}/data"
        version = record.resource_version
        await disk.claims.provide(pod)
        await disk.claims.look()
        assert disk.store.get_uid(record.uid).resource_version == version, "asked again, nothing changes"  # type: ignore[union-attr]
        (disk.directory / "data/f").write_text("mine")
        await disk.store.delete("u-1")
        await disk.claims.look()
        assert disk.store.get_uid(record.uid) is None
        assert list(disk.directory.parent.iterdir()) == [], (
            "whatever the node's policy for claims is (Retain)"
        )

    run(story)


def test_an_unrelated_claim_of_the_same_name_blocks_the_pod(run: Run) -> None:
    async def story(disk: Disk) -> None:
        doc = {**own_claims(Pod.parse(pod_doc()))[0]}
        doc["metadata"] = {"name": "web-scratch", "namespace": "default", "uid": "claim"}
        await disk.store.create("PersistentVolumeClaim", doc)
        await disk.claims.look()
        pod = await disk.pod(pod_doc())
        with pytest.raises(
            MountError, match=r"PVC default/web-scratch was not created for pod default/web \(pod is"
        ):
            disk.path(pod)
        (disk.directory / "data/f").write_text("theirs")
        await disk.store.delete("u-1")
        await disk.claims.look()
        assert (disk.directory / "data/f").read_text() == "theirs"
        await disk.store.delete("claim")  # Retain: its directory stays
        pod = await disk.pod(pod_doc())
        with pytest.raises(MountError, match="is not bound"):
            disk.path(pod)
        events = [r.doc["message"] for r in disk.store.list("Event")]
        assert not any("theirs" in message for message in events)
        assert (disk.directory / "data/f").read_text() == "theirs"

    run(story)


def test_a_new_pod_of_the_same_name_finds_no_old_data(run: Run) -> None:
    """Wherever the daemon was killed during the removal of the old pod."""

    async def story(disk: Disk) -> None:
        await disk.pod(pod_doc("u-1"))
        (disk.directory / "data/secret").write_text("old")
        await disk.store.delete("u-1")
        await disk.store.close()
        disk.again()  # killed before it observed the deletion
        pod = await disk.pod(pod_doc("u-2"))
        assert disk.path(pod) == f"{disk.directory}/data"
        assert list((disk.directory / "data").iterdir()) == []
        assert json.loads((disk.directory / "claim.json").read_text())["owner"] == "u-2"
        await disk.claims.look()
        assert [p.name for p in disk.directory.parent.iterdir()] == ["web-scratch"]
        (disk.directory.parent / ".gone-1" / "data").mkdir(parents=True)  # an interrupted removal
        await disk.claims.look()
        assert [p.name for p in disk.directory.parent.iterdir()] == ["web-scratch"]

    run(story)


@pytest.mark.parametrize("left", ["nothing in it", "claim.json", "its mode", "all but the quota"])
def test_a_half_created_claim_is_completed(run: Run, left: str) -> None:
    async def story(disk: Disk) -> None:
        disk.directory.mkdir(parents=True)
        if left != "nothing in it":
            (disk.directory / "claim.json").write_text('{"policy": "Delete", "owner": "u-1"}')
        if left == "its mode":
            (disk.directory / ".data.new").mkdir(mode=0o700)
        if left == "all but the quota":
            (disk.directory / "data").mkdir()
            (disk.directory / "data").chmod(0o777)
        pod = await disk.pod(pod_doc())
        assert disk.path(pod) == f"{disk.directory}/data"
        assert (disk.directory / "data").stat().st_mode & 0o777 == 0o777
        assert json.loads((disk.directory / "claim.json").read_text())["size"] == 1 << 30

    run(story)


def test_a_claim_stays_while_another_pod_mounts_it(run: Run) -> None:
    async def story(disk: Disk) -> None:
        await disk.pod(pod_doc())
        other = pod_doc("u-9", "other")
        other["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": "web-scratch"}}]
        await disk.store.create("Pod", other)
        await disk.store.delete("u-1")
        await disk.claims.look()
        assert (disk.directory / "data").is_dir()
        pod = await disk.pod(pod_doc("u-2"))
        with pytest.raises(MountError, match="was not created for pod"):
            disk.path(pod)
        await disk.store.delete("u-9")
        await disk.claims.look()
        assert not disk.directory.exists()
        await disk.claims.provide(pod)
        assert disk.path(pod)

    run(story)


def test_an_edited_template_takes_effect() -> None:
    old, new = own_claims(Pod.parse(pod_doc()))[0], own_claims(Pod.parse(pod_doc(size="2Gi")))[0]
    stored = {
        **old,
        "metadata": {**old["metadata"], "uid": "x"},
        "spec": {**old["spec"], "volumeName": "pvc-x"},
    }
    assert followed(stored, old) is None
    changed = followed(stored, new)
    assert changed is not None
    assert changed["spec"]["resources"] == {"requests": {"storage": "2Gi"}}
    assert (changed["spec"]["volumeName"], changed["metadata"]["uid"]) == ("pvc-x", "x")
    assert claim_names(Pod.parse(pod_doc())) == ("web-scratch",)


def test_a_manifest_cannot_take_over_a_pods_claim(run: Run) -> None:
    async def story(disk: Disk) -> None:
        await disk.pod(pod_doc())
        record = disk.store.get("PersistentVolumeClaim", "default", "web-scratch")
        assert record is not None
        doc = {**record.doc, "metadata": {"name": "web-scratch", "namespace": "default"}}
        key = ("PersistentVolumeClaim", "default", "web-scratch")
        found = plan([ManifestState("/m/c.yaml", objects={key: doc})], [record])
        assert not found.update and not found.remove and not found.create
        assert [p.message for p in found.duplicates["/m/c.yaml"]] == [
            "PersistentVolumeClaim default/web-scratch belongs to pod web"
        ]
        assert plan([], [record]).remove == (), "nor does a directory without it end it"
        assert created(doc, "f", uid="x", now=0.0)["metadata"]["uid"] == "x"

    run(story)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}", ""),
        ("{metadata: {name: x}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}",
         "volumeClaimTemplate.metadata.name: Forbidden: this field may not be used"),
        ("{spec: {resources: {requests: {storage: 1Gi}}}}",
         "volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required"),
        ("{spec: {accessModes: [ReadWriteOnce]}}", "volumeClaimTemplate.spec.resources.requests[storage]: Required"),
    ],
)  # fmt: skip
def test_templates_are_validated(template: str, said: str) -> None:
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: i}]\n"
        f"  volumes: [{{name: v, ephemeral: {{volumeClaimTemplate: {template}}}}}]\n"
    )
    errors = [f"{error.field}: {error.message}" for error in load_text(text, file="f").errors]
    assert bool(errors) is bool(said)
    assert all(said in error for error in errors)


@pytest.mark.parametrize(
    ("name", "kind", "owner"),
    [
        ("web-0-scratch", "Pod", "u-1"),
        ("data-web-0", "Pod", ""),  # of a StatefulSet, to be deleted with a pod that is scaled down
        ("web-0-scratch", "StatefulSet", ""),
    ],
)
def test_a_claim_of_a_stateful_set_is_no_ephemeral_volume(name: str, kind: str, owner: str) -> None:
    reference = {"kind": kind, "name": "web-0", "uid": "u-1", "controller": True}
    assert owner_of({"metadata": {"name": name, "ownerReferences": [reference]}}) == owner
