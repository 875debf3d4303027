"""PersistentVolumes: which one a claim gets, what becomes of it, what a pod waits for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kubelite.claims import Claims
from kubelite.manifest_plan import created, merged
from kubelite.node import env, volumes
from kubelite.node.config import NodeConfig
from kubelite.node.container_spec import Device, device_rules
from kubelite.node.faults import ConfigError, MountError
from kubelite.node.node_facts import NodeState
from kubelite.node.persistent_volumes import NONE_THERE, Shelf, Verdict, bind, by_name, unbound
from kubelite.node.scheduling import NodeFacts, Unbound
from kubelite.node.volumes import Kind
from kubelite.objects import SOURCE
from kubelite.persistent_volumes import Volumes
from kubelite.telemetry.events import EventRecorder
from manifests.core import Pod
from manifests.loader import load_text
from state.store import Store

Doc = dict[str, Any]
NODE = NodeFacts("node-1", labels={"disk": "ssd"})


def claim(name: str = "c", size: str = "2Gi", **spec: Any) -> Doc:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    metadata = {"name": name, "namespace": "default", "uid": f"u-{name}"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": wanted}


def volume(name: str, size: str = "2Gi", **spec: Any) -> Doc:
    wanted = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": size},
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "manual",
        "volumeMode": "Filesystem",
        "hostPath": {"path": f"/srv/{name}", "type": ""},
        **spec,
    }
    metadata = {"name": name, "uid": f"u-{name}", "annotations": {SOURCE: "/m/v.yaml"}}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": wanted}


def storage_class(name: str, provisioner: str = "example.com/x", **more: Any) -> Doc:
    return {"kind": "StorageClass", "metadata": {"name": name}, "provisioner": provisioner, **more}


def ref(name: str, uid: str = "") -> Doc:
    return {"namespace": "default", "name": name, **({"uid": uid} if uid else {})}


BOUND = {"status": {"phase": "Bound"}}
MANUAL = claim(storageClassName="manual")
MODES = '"ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"'
UNMATCHED = 'Cannot bind to requested volume "a": '
MISBOUND = "Two claims are bound to the same volume, this one is bound incorrectly"


def on_disk(kind: str) -> Doc:
    found = {"key": "disk", "operator": "In", "values": [kind]}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [found]}]}}


ON_SSD, ON_HDD = on_disk("ssd"), on_disk("hdd")


@pytest.mark.parametrize(
    ("what", "wants", "there", "gets"),
    [
        ("none asked for, none there: one is made", claim(), [], ""),
        ("one of its class", MANUAL, [volume("a")], "a"),
        (
            "the smallest that will do",
            MANUAL,
            [volume("a", "9Gi"), volume("b", "3Gi"), volume("c", "1Gi")],
            "b",
        ),
        (
            "the fewest access modes first",
            MANUAL,
            [volume("a", accessModes=["ReadWriteOnce", "ReadOnlyMany"]), volume("b", "9Gi")],
            "b",
        ),
        ("by name where nothing else tells", MANUAL, [volume("b"), volume("a")], "a"),
        (
            "every access mode of the claim",
            claim(storageClassName="manual", accessModes=["ReadWriteMany"]),
            [volume("a"), volume("b", accessModes=["ReadWriteOnce", "ReadWriteMany"])],
            "b",
        ),
        (
            "a selector",
            claim(storageClassName="manual", selector={"matchLabels": {"k": "v"}}),
            [volume("a"), {**volume("b"), "metadata": {"name": "b", "labels": {"k": "v"}}}],
            "b",
        ),
        ("no other class", claim(), [volume("a")], ""),
        ("the default class", claim(), [volume("a", storageClassName="kubelite")], "a"),
        ("no class", claim(storageClassName=""), [volume("a", storageClassName=""), volume("b")], "a"),
        (
            "the mode",
            claim(storageClassName="manual", volumeMode="Block"),
            [volume("a"), volume("b", volumeMode="Block")],
            "b",
        ),
        ("on this node", MANUAL, [volume("a", nodeAffinity=ON_HDD), volume("b", nodeAffinity=ON_SSD)], "b"),
        ("one that is kept for it", MANUAL, [volume("a"), volume("b", "9Gi", claimRef=ref("c"))], "b"),
        ("whatever the class of one that is kept for it", claim(), [volume("b", claimRef=ref("c"))], "b"),
        ("but large enough", MANUAL, [volume("a"), volume("b", "1Gi", claimRef=ref("c"))], "a"),
        ("none of another's", MANUAL, [volume("a", claimRef=ref("other")), volume("b", "9Gi")], "b"),
        ("ours: the one that it had before", MANUAL, [volume("a", claimRef=ref("c", "an older uid"))], "a"),
        (
            "the one that it names",
            claim(storageClassName="manual", volumeName="b"),
            [volume("a"), volume("b", "9Gi")],
            "b",
        ),
        ("what was made for it", claim(volumeName="pvc-u-c"), [volume("a", storageClassName="kubelite")], ""),
    ],
)
def test_what_a_claim_gets(what: str, wants: Doc, there: list[Doc], gets: str) -> None:
    assert bind(wants, Shelf(NODE, by_name(there))) == Verdict("Bound", gets), what


def test_what_it_had_is_remembered() -> None:
    shelf = Shelf(NODE, by_name([volume("a"), volume("b")]))
    assert bind(MANUAL, shelf, remembered="b").volume == "b"
    assert bind(MANUAL, shelf, remembered="gone").volume == "a"


NAMED = claim(storageClassName="manual", volumeName="a")


@pytest.mark.parametrize(
    ("wants", "there", "phase", "reason", "message"),
    [
        (
            claim(storageClassName=""),
            [],
            "Pending",
            "FailedBinding",
            f"{NONE_THERE} and no storage class is set",
        ),
        (
            MANUAL,
            [volume("a", "1Gi")],
            "Pending",
            "FailedBinding",
            f"{NONE_THERE}, and class manual makes none",
        ),
        (
            claim(storageClassName="none"),
            [],
            "Pending",
            "FailedBinding",
            f"{NONE_THERE}, and class none makes none",
        ),
        (
            claim(storageClassName="later"),
            [],
            "Pending",
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        (
            claim(selector={"matchLabels": {"a": "b"}}),
            [],
            "Pending",
            "ProvisioningFailed",
            "spec.selector: volumes are made empty here, one for each claim",
        ),
        (
            claim(dataSource={"kind": "PersistentVolumeClaim", "name": "x"}),
            [],
            "Pending",
            "ProvisioningFailed",
            "spec.dataSource: volumes are made empty here, one for each claim",
        ),
        (NAMED, [], "Pending", "FailedBinding", 'volume "a" not found'),
        (
            NAMED,
            [volume("a", claimRef=ref("other"))],
            "Pending",
            "FailedBinding",
            'volume "a" already bound to a different claim.',
        ),
        (NAMED, [volume("a", "1Gi")], "Pending", "VolumeMismatch", UNMATCHED + "requested PV is too small"),
        (
            NAMED,
            [volume("a", storageClassName="x")],
            "Pending",
            "VolumeMismatch",
            UNMATCHED + "storageClassName does not match",
        ),
        (
            NAMED,
            [volume("a", volumeMode="Block")],
            "Pending",
            "VolumeMismatch",
            UNMATCHED + "incompatible volumeMode",
        ),
        (
            NAMED,
            [volume("a", accessModes=["ReadOnlyMany"])],
            "Pending",
            "VolumeMismatch",
            UNMATCHED + "incompatible accessMode",
        ),
        (
            {**NAMED, **BOUND},
            [],
            "Lost",
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        ),
        ({**NAMED, **BOUND}, [volume("a", claimRef=ref("other"))], "Lost", "ClaimMisbound", MISBOUND),
        ({**NAMED, "status": {"phase": "Lost"}}, [volume("a")], "Bound", "", ""),
        ({**NAMED, **BOUND}, [volume("a", "1Gi", claimRef=ref("c", "u-c"))], "Bound", "", ""),
    ],
)
def test_why_it_waits(wants: Doc, there: list[Doc], phase: str, reason: str, message: str) -> None:
    classes = [
        storage_class("none", "kubernetes.io/no-provisioner"),
        storage_class("later", volumeBindingMode="WaitForFirstConsumer"),
    ]
    found = bind(wants, Shelf(NODE, by_name(there), by_name(classes)), used=lambda: False)
    assert (found.phase, found.reason, found.message) == (phase, reason, message)


def test_a_class_that_waits_for_a_pod_makes_one_for_it() -> None:
    classes = by_name([storage_class("later", volumeBindingMode="WaitForFirstConsumer")])
    assert bind(claim(storageClassName="later"), Shelf(NODE, {}, classes)) == Verdict("Bound")


def test_the_default_is_the_manifests_newest() -> None:
    marked = {"storageclass.kubernetes.io/is-default-class": "true"}
    classes = [
        {
            "metadata": {
                "name": "kubelite",
                "annotations": marked,
                "creationTimestamp": "2026-03-01T00:00:00Z",
            }
        },
        {"metadata": {"name": "old", "annotations": marked, "creationTimestamp": "2026-01-01T00:00:00Z"}},
        {"metadata": {"name": "new", "annotations": marked, "creationTimestamp": "2026-02-01T00:00:00Z"}},
    ]
    there = by_name([volume("a", storageClassName="new"), volume("b", storageClassName="old")])
    assert bind(claim(), Shelf(NODE, there, by_name(classes))).volume == "a"


@pytest.mark.parametrize(
    ("spec", "problems"),
    [
        ({}, []),
        ({"accessModes": []}, ["spec.accessModes: Required value"]),
        (
            {"accessModes": ["Some"]},
            [f'spec.accessModes[0]: Unsupported value: "Some": supported values: {MODES}'],
        ),
        ({"capacity": {}}, ["spec.capacity: Required value"]),
        (
            {"capacity": {"cpu": "1"}},
            ['spec.capacity: Unsupported value: "cpu": supported values: "storage"'],
        ),
        (
            {"capacity": {"storage": "0"}},
            ['spec.capacity.storage: Invalid value: "0": must be greater than zero'],
        ),
        ({"hostPath": None}, ["spec: Required value: must specify a volume type"]),
        (
            {"nfs": {"server": "s", "path": "/x"}},
            ["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            {"hostPath": {"path": "/a/../b"}},
            ["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
        ),
        (
            {"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"},
            [
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"
            ],
        ),
        (
            {"hostPath": None, "local": {"path": "/x"}},
            ["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
        ({"hostPath": None, "local": {"path": "/x"}, "nodeAffinity": ON_SSD}, []),
        ({"claimRef": {"name": "c"}}, ["spec.claimRef.namespace: Required value"]),
        ({"hostPath": None, "csi": {"driver": "d", "volumeHandle": "h"}}, []),
    ],
)
def test_which_manifests_are_valid(spec: Doc, problems: list[str]) -> None:
    doc = volume("a", **spec)
    doc["spec"] = {key: value for key, value in doc["spec"].items() if value is not None}
    found = load_text(json.dumps(doc), file="v.json")
    assert [f"{e.field}: {e.message}" for e in found.errors] == problems


def test_what_binding_wrote_is_no_edit_and_an_edit_keeps_it() -> None:
    wanted = volume("a")
    recorded = created(wanted, "/m/v.yaml", uid="u-a", now=0.0)
    recorded["spec"] = {**recorded["spec"], "claimRef": ref("c", "u-c")}
    recorded["status"] = {"phase": "Bound"}
    assert merged(recorded, wanted, "/m/v.yaml") is None
    larger = merged(recorded, volume("a", "9Gi"), "/m/v.yaml")
    assert larger is not None and larger["spec"]["claimRef"] == ref("c", "u-c")
    kept = merged(recorded, volume("a", claimRef=ref("other")), "/m/v.yaml")
    assert kept is not None and kept["spec"]["claimRef"] == ref("other")


def pod(name: str = "p", claim_name: str = "c") -> Pod:
    source = {"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}
    mounts = [{"name": "v", "mountPath": "/v"}]
    spec = {"containers": [{"name": "a", "image": "i", "volumeMounts": mounts}], "volumes": [source]}
    return Pod.parse({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec})


@pytest.mark.parametrize(
    ("wants", "there", "said"),
    [
        (None, None, Unbound('persistentvolumeclaim "c" not found')),
        (claim(), None, Unbound("pod has unbound immediate PersistentVolumeClaims")),
        (
            {**claim(volumeName="a"), "status": {"phase": "Lost"}},
            None,
            Unbound('persistentvolumeclaim "c" bound to non-existent persistentvolume "a"'),
        ),
        (
            claim(storageClassName="later"),
            None,
            Unbound("node(s) didn't find available persistent volumes to bind", here=True),
        ),
        (
            {**claim(volumeName="a"), **BOUND},
            volume("a", nodeAffinity=ON_HDD),
            Unbound("node(s) didn't match PersistentVolume's node affinity", here=True),
        ),
        ({**claim(volumeName="a"), **BOUND}, volume("a"), None),
        ({**claim(volumeName="pvc-u-c"), **BOUND}, None, None),
    ],
)
def test_what_a_pod_waits_for(wants: Doc | None, there: Doc | None, said: Unbound | None) -> None:
    later = storage_class("later", volumeBindingMode="WaitForFirstConsumer")

    def find(kind: str, _: str, name: str) -> Doc | None:
        if kind == "StorageClass":
            return later if name == "later" else None
        return there if kind == "PersistentVolume" else wants

    assert unbound(pod(), find, NODE) == said


class Disk:
    """Claims and volumes over a store of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store.open(str(root / "state.db"))
        self.config = NodeConfig("node-1", "192.0.2.1", str(root), str(root / "logs"))
        events = EventRecorder(self.store, "node-1")
        self.volumes = Volumes(self.store, self.config, events, NodeState(self.config, lambda: None))
        self.claims = Claims(self.store, self.config, events, self.volumes, "Retain")

    async def put(self, *docs: Doc) -> None:
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

    def plan(self, wants: Pod) -> volumes.VolumePlan:
        def find(kind: str, namespace: str, name: str) -> Any:
            record = self.store.get(kind, namespace, name)
            return record.doc if record is not None else None

        return volumes.plan_volumes(wants, ["v"], env.Sources(find, self.config, ()))[0]


def run(tmp_path: Path, story: Callable[[Disk], Awaitable[None]]) -> None:
    async def told() -> None:
        disk = Disk(tmp_path)
        try:
            await story(disk)
        finally:
            await disk.store.close()

    asyncio.run(told())


def test_a_volume_is_bound_released_and_had_again(tmp_path: Path) -> None:
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


def test_what_was_bound_is_so_again_when_the_state_is_lost(tmp_path: Path) -> None:
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


def test_delete_is_for_what_is_below_tmp(tmp_path: Path) -> None:
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


def test_a_volume_that_is_made_has_an_object_too(tmp_path: Path) -> None:
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


def test_what_a_container_may_do_with_its_device() -> None:
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
