"""Binding of PersistentVolumes: which volume a claim gets, what persists, and what a pod waits for."""

from __future__ import annotations

import json

import pytest

from kubelite.kube.json import Json
from kubelite.node.model.schedule import Unbound
from kubelite.node.scheduling.volume_binding import (
    CLASS_ANNOTATION,
    NONE_THERE,
    Shelf,
    Verdict,
    bind,
    by_name,
    unbound,
)
from kubelite.node.storage.claims import bound
from kubelite.sources.plan import created, merged
from manifests.yaml.loader import load_text
from tests.unit.node.storage.volume_kit import (
    BOUND,
    MANUAL,
    MISBOUND,
    MODES,
    NODE,
    ON_HDD,
    ON_SSD,
    UNMATCHED,
    claim,
    pod,
    ref,
    storage_class,
    volume,
)


def annotated(doc: Json) -> Json:
    """Return the object with its storage class in an annotation, as before Kubernetes 1.6; examples still have that."""
    return {**doc, "metadata": {**doc["metadata"], "annotations": {CLASS_ANNOTATION: "fast"}}}


def test_a_claim_with_the_annotation_gets_its_class() -> None:
    doc = annotated(claim())
    assert bound(doc, {})["spec"]["storageClassName"] == "fast"


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
        ("the class of an annotation", annotated(claim()), [volume("a"), annotated(volume("b"))], "b"),
        ("an annotation before the spec", annotated(MANUAL), [volume("a"), annotated(volume("b"))], "b"),
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
def test_the_volume_of_a_claim(what: str, wants: Json, there: list[Json], gets: str) -> None:
    assert bind(wants, Shelf(NODE, by_name(there))) == Verdict("Bound", gets), what


def test_an_existing_binding_is_retained() -> None:
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
            f"{NONE_THERE}, and class manual provisions none",
        ),
        (
            claim(storageClassName="none"),
            [],
            "Pending",
            "FailedBinding",
            f"{NONE_THERE}, and class none provisions none",
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
            "spec.selector: kubelite provisions every volume empty and for one claim only",
        ),
        (
            claim(dataSource={"kind": "PersistentVolumeClaim", "name": "x"}),
            [],
            "Pending",
            "ProvisioningFailed",
            "spec.dataSource: kubelite provisions every volume empty and for one claim only",
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
def test_why_a_claim_waits(wants: Json, there: list[Json], phase: str, reason: str, message: str) -> None:
    classes = [
        storage_class("none", "kubernetes.io/no-provisioner"),
        storage_class("later", volumeBindingMode="WaitForFirstConsumer"),
    ]
    found = bind(wants, Shelf(NODE, by_name(there), by_name(classes)), used=lambda: False)
    assert (found.phase, found.reason, found.message) == (phase, reason, message)


def test_wait_for_first_consumer_provisions_for_the_pod() -> None:
    classes = by_name([storage_class("later", volumeBindingMode="WaitForFirstConsumer")])
    assert bind(claim(storageClassName="later"), Shelf(NODE, {}, classes)) == Verdict("Bound")


def test_the_newest_default_class_counts() -> None:
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
def test_validation_of_volumes_and_classes(spec: Json, problems: list[str]) -> None:
    doc = volume("a", **spec)
    doc["spec"] = {key: value for key, value in doc["spec"].items() if value is not None}
    found = load_text(json.dumps(doc), file="v.json")
    assert [f"{e.field}: {e.message}" for e in found.errors] == problems


def test_fields_that_binding_set_survive_an_edit() -> None:
    wanted = volume("a")
    recorded = created(wanted, "/m/v.yaml", uid="u-a", now=0.0)
    recorded["spec"] = {**recorded["spec"], "claimRef": ref("c", "u-c")}
    recorded["status"] = {"phase": "Bound"}
    assert merged(recorded, wanted, "/m/v.yaml") is None
    larger = merged(recorded, volume("a", "9Gi"), "/m/v.yaml")
    assert larger is not None and larger["spec"]["claimRef"] == ref("c", "u-c")
    kept = merged(recorded, volume("a", claimRef=ref("other")), "/m/v.yaml")
    assert kept is not None and kept["spec"]["claimRef"] == ref("other")


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
def test_what_a_pod_waits_for(wants: Json | None, there: Json | None, said: Unbound | None) -> None:
    later = storage_class("later", volumeBindingMode="WaitForFirstConsumer")

    def find(kind: str, _: str, name: str) -> Json | None:
        if kind == "StorageClass":
            return later if name == "later" else None
        return there if kind == "PersistentVolume" else wants

    assert unbound(pod(), find, NODE) == said
