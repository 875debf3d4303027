"""PersistentVolumeClaims: validation, binding, and edits of the manifest."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.node.storage.claims import bound, policy_of
from kubelite.sources.plan import merged
from manifests.yaml.loader import load_text


def claim(**spec: Any) -> dict[str, Any]:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}, **spec}
    metadata = {"name": "c", "namespace": "default", "uid": "u-1"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": wanted}


def test_a_claim_is_bound_to_its_own_volume_and_stays_bound() -> None:
    found = bound(claim(), {})
    assert found["status"] == {
        "phase": "Bound",
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "2Gi"},
    }
    assert found["spec"]["volumeName"] == "pvc-u-1"
    assert found["spec"]["storageClassName"] == "kubelite"
    assert bound(found, {}) == found
    assert bound(claim(storageClassName="fast"), {})["spec"]["storageClassName"] == "fast"
    annotated = {**found, "metadata": {**found["metadata"], "annotations": {"kubelite.io/source": "f.yaml"}}}
    assert merged(annotated, claim(), "f.yaml") is None, "a manifest that says nothing new changes nothing"
    larger = merged(annotated, claim(resources={"requests": {"storage": "3Gi"}}), "f.yaml")
    assert larger is not None
    assert bound(larger, {})["status"]["capacity"] == {"storage": "3Gi"}


def test_the_annotation_wins_over_the_node() -> None:
    wanted = {**claim(), "metadata": {"annotations": {"kubelite.io/reclaim-policy": "Delete"}}}
    assert policy_of(wanted, "Retain") == "Delete"
    assert (
        policy_of({"metadata": {"annotations": {"kubelite.io/reclaim-policy": "Burn"}}}, "Retain") == "Retain"
    )
    assert policy_of(claim(), "Delete") == "Delete"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("accessModes: [ReadWriteOnce]\n  resources: {requests: {storage: 1Gi}}", ""),
        ("resources: {requests: {storage: 1Gi}}", "spec.accessModes: Required value"),
        ("accessModes: [Often]\n  resources: {requests: {storage: 1Gi}}", "spec.accessModes[0]"),
        ("accessModes: [ReadWriteOnce]", "spec.resources.requests[storage]: Required value"),
        ("accessModes: [ReadWriteOnce]\n  resources: {requests: {storage: 0}}", "must be greater than zero"),
        (
            "accessModes: [ReadWriteOncePod, ReadOnlyMany]\n  resources: {requests: {storage: 1}}",
            "ReadWriteOncePod",
        ),
    ],
)
def test_claims_are_validated(spec: str, said: str) -> None:
    text = f"apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: c}}\nspec:\n  {spec}\n"
    loaded = load_text(text, file="c.yaml")
    assert bool(loaded.errors) is bool(said)
    if said:
        assert said in str(loaded.errors[0])
