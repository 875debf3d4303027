"""Claims and volumes in use are retained when their manifests are removed (Kubernetes
pkg/controller/volume/pvcprotection and pvprotection)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubelite.api.kube.printers import claim_cells, volume_cells
from kubelite.kube.json import Json
from kubelite.node.scheduling.volume_binding import Shelf, find_volume, unbound
from kubelite.node.storage.protection import FINALIZERS, terminating
from kubelite.sources.plan import ManifestState, created, plan
from manifests.types.core import Pod
from state.store import Record
from tests.unit.node.storage.test_volume_objects import Disk, run
from tests.unit.node.storage.volume_kit import MANUAL, NODE, claim, pod, volume

CLAIM, VOLUME = "PersistentVolumeClaim", "PersistentVolume"
PLACED = {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}
WAITS = {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False"}]}


async def take_away(disk: Disk, kind: str, name: str) -> None:
    record = disk.store.get(kind, "" if kind == VOLUME else "default", name)
    assert record is not None
    await disk.store.modify(record.uid, lambda doc: terminating(doc, kind, 1.0))
    await disk.claims.look()


async def use(disk: Disk, name: str, status: Json) -> None:
    doc = {"apiVersion": "v1", **pod(name).to_json(), "status": status}
    await disk.store.create("Pod", {**doc, "metadata": {**doc["metadata"], "uid": f"u-{name}"}})


async def said(disk: Disk) -> list[str]:
    await disk.events.flush()
    return [e.doc["message"] for e in disk.store.list("Event") if e.doc["reason"] == "Terminating"]


@pytest.mark.parametrize(("status", "stays"), [(PLACED, True), ({"phase": "Failed"}, True), (WAITS, False)])
def test_a_claim_is_retained_while_a_pod_uses_it(tmp_path: Path, status: Json, stays: bool) -> None:
    async def story(disk: Disk) -> None:
        await disk.put(claim())
        await use(disk, "p", status)
        await take_away(disk, CLAIM, "c")
        assert disk.phase("c", CLAIM) == ("Bound" if stays else "gone")
        assert (
            await said(disk)
            == ["its manifest was removed; it stays until pod default/p no longer uses it"] * stays
        )
        await disk.claims.look()
        assert len(await said(disk)) == stays, "said once"
        if stays:
            await disk.end("p", "Pod")
        assert disk.phase("c", CLAIM) == "gone"

    run(tmp_path, story)


def test_a_volume_is_retained_while_a_claim_is_bound_to_it(tmp_path: Path) -> None:
    async def story(disk: Disk) -> None:
        await disk.put(volume("a"), MANUAL)
        await use(disk, "p", PLACED)
        await take_away(disk, VOLUME, "a")
        assert (disk.phase("a"), disk.phase("c", CLAIM)) == ("Bound", "Bound"), "the claim is not lost"
        assert await said(disk) == [
            "its manifest was removed; it stays until claim default/c no longer uses it"
        ]
        await take_away(disk, CLAIM, "c")
        assert (disk.phase("a"), disk.phase("c", CLAIM)) == ("Bound", "Bound")
        await disk.end("p", "Pod")
        assert (disk.phase("a"), disk.phase("c", CLAIM)) == ("gone", "gone")

    run(tmp_path, story)


def test_an_unused_volume_is_removed_at_once(tmp_path: Path) -> None:
    async def story(disk: Disk) -> None:
        await disk.put(volume("a"))
        await take_away(disk, VOLUME, "a")
        assert disk.phase("a") == "gone"

    run(tmp_path, story)


def test_a_terminating_claim_is_not_for_new_pods() -> None:
    going = terminating(claim(volumeName="pvc-u-c"), CLAIM, 1.0)
    assert going is not None and terminating(going, CLAIM, 2.0) is None
    waits = unbound(pod(), lambda kind, *_: going if kind == CLAIM else None, NODE)
    assert waits is not None and waits.words == 'persistentvolumeclaim "c" is being deleted'
    gone = terminating(volume("a"), VOLUME, 1.0)
    assert gone is not None
    assert find_volume(MANUAL, Shelf(NODE, {"a": volume("a")})) is not None
    assert find_volume(MANUAL, Shelf(NODE, {"a": gone})) is None
    assert claim_cells(going, 2.0)[1] == "Terminating" and volume_cells(gone, 2.0)[4] == "Terminating"


@pytest.mark.parametrize(("kind", "doc"), [(CLAIM, claim()), (VOLUME, volume("c"))])
def test_a_restored_manifest_cancels_the_deletion(kind: str, doc: Json) -> None:
    namespace = "" if kind == VOLUME else "default"
    bare = {**doc, "metadata": {k: v for k, v in doc["metadata"].items() if k in ("name", "namespace")}}
    made = created(bare, "/m/c.yaml", uid="u", now=1.0)
    assert made["metadata"]["finalizers"] == [FINALIZERS[kind]]
    stands = ManifestState("/m/c.yaml", (1,), {(kind, namespace, "c"): bare})

    def changes(stored: Json, *files: ManifestState) -> Any:
        found = plan(files, [Record(kind, namespace, "c", "u", 1, stored)])
        return found.update, found.remove

    assert changes(made, stands) == ((), ())
    assert changes(made) == ((), ((kind, namespace, "c"),))
    going = terminating(made, kind, 2.0)
    assert going is not None
    assert changes(going) == ((), ()), "once"
    ((_, back, _),), _ = changes(going, stands)
    assert back["metadata"] == made["metadata"]


def test_the_claim_of_an_ephemeral_volume_is_removed_with_its_pod(tmp_path: Path) -> None:
    spec: Json = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    volumes = [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}]
    metadata = {"name": "p", "namespace": "default", "uid": "u-p"}
    wants = Pod.parse({"metadata": metadata, "spec": {"containers": [], "volumes": volumes}})

    async def story(disk: Disk) -> None:
        doc = {"apiVersion": "v1", "kind": "Pod", **wants.to_json(), "status": PLACED}
        await disk.store.create("Pod", doc)
        await disk.claims.provide(wants)
        found = disk.store.get(CLAIM, "default", "p-v")
        assert found is not None and found.metadata["finalizers"] == [FINALIZERS[CLAIM]]
        await disk.end("p", "Pod")
        assert disk.phase("p-v", CLAIM) == "gone"

    run(tmp_path, story)
