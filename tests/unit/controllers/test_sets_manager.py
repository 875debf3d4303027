"""StatefulSets and DaemonSets with the manager and a store: what the decisions rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kubelite.controllers.model import Controller
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from tests.unit.controllers.manager_kit import SELECTOR, Kit, pod, running

_MODULE = "kubelite.controllers.decide"
SETS = (
    Controller("StatefulSet", "apps/v1", ("Pod", "ControllerRevision", "PersistentVolumeClaim"),
               f"{_MODULE}.stateful_set", shares=("PersistentVolumeClaim",)),
)  # fmt: skip
CLAIM: Json = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def stateful(image: str = "busybox", **spec: Any) -> Json:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": image}]},
    }
    given = {"replicas": 1, "selector": SELECTOR, "template": template, **spec}
    metadata = {"name": "web", "namespace": "default", "uid": "uid-web", "generation": 1}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": given}


async def ready(kit: Kit, name: str) -> None:
    record = kit.store.get("Pod", "default", name)
    assert record is not None
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(0)}]
    status = {"phase": "Running", "conditions": conditions}
    await kit.store.modify(record.uid, lambda doc: {**doc, "status": status})


def names(kit: Kit, kind: str = "Pod") -> list[str]:
    return [record.name for record in kit.store.list(kind) if not record.deleting]


async def change(kit: Kit, **spec: Any) -> None:
    """Edit the set, as its manifest does."""

    def edited(doc: Json) -> Json:
        metadata = {**doc["metadata"], "generation": doc["metadata"]["generation"] + 1}
        return {**doc, "metadata": metadata, "spec": {**doc["spec"], **spec}}

    await kit.store.modify("uid-web", edited)


async def test_pods_and_claims_one_after_the_other(tmp_path: Path) -> None:
    doc = stateful(replicas=2, volumeClaimTemplates=[CLAIM])
    async with running(tmp_path, doc, controllers=SETS) as kit:
        await kit.settled(lambda: names(kit) == ["web-0"])
        assert names(kit, "PersistentVolumeClaim") == ["data-web-0"]
        await ready(kit, "web-0")
        await kit.settled(lambda: names(kit) == ["web-0", "web-1"])
        claim = kit.store.list("PersistentVolumeClaim")[0]
        assert claim.metadata["finalizers"] == ["kubernetes.io/pvc-protection"]
        assert ("SuccessfulCreate", "Create Pod web-1 in StatefulSet web successful") in await kit.said()


async def test_a_rollback_renumbers_a_revision(tmp_path: Path) -> None:
    """The manager writes `revision`, which is neither metadata nor spec."""

    def numbers() -> list[int]:
        return sorted(record.doc["revision"] for record in kit.store.list("ControllerRevision"))

    async with running(tmp_path, stateful(replicas=0), controllers=SETS) as kit:
        await kit.settled(lambda: numbers() == [1])
        await change(kit, template=stateful("other")["spec"]["template"])
        await kit.settled(lambda: numbers() == [1, 2])
        await change(kit, template=stateful()["spec"]["template"])
        await kit.settled(lambda: numbers() == [2, 3])


async def test_a_claim_is_deleted_with_the_pod_that_is_scaled_down(tmp_path: Path) -> None:
    """The garbage collector deletes it when its pod is gone."""
    policy = {"whenScaled": "Delete", "whenDeleted": "Retain"}
    doc = stateful(volumeClaimTemplates=[CLAIM], persistentVolumeClaimRetentionPolicy=policy)
    async with running(tmp_path, doc, controllers=SETS) as kit:
        await kit.settled(lambda: names(kit) == ["web-0"])
        (record,) = kit.pods()
        await change(kit, replicas=0)
        await kit.settled(lambda: not names(kit))
        (claim,) = kit.store.list("PersistentVolumeClaim")
        assert claim.metadata["ownerReferences"][0]["uid"] == record.uid and not claim.deleting
        await kit.store.delete(record.uid)
        await kit.settled(lambda: not names(kit, "PersistentVolumeClaim"))


async def test_a_name_that_a_manifest_has_is_not_fought_for(tmp_path: Path) -> None:
    docs = (pod("web-0", app="other", source="web.yaml"), stateful())
    async with running(tmp_path, *docs, controllers=SETS) as kit:
        said = 'Create Pod web-0 in StatefulSet web failed error: pods "web-0" already exists'
        await kit.settled(lambda: bool(kit.store.list("ControllerRevision")))
        assert ("FailedCreate", said) in await kit.said()
        assert not [event for event in await kit.said() if event[0] == "FailedSync"]
