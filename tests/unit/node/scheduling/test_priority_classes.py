"""PriorityClasses: validation, their effect on pods, and edits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubelite.node.model.priority import Classes, Rank, admitted, classes_of
from kubelite.node.scheduling.priority_classes import keep_classes
from kubelite.sources.directory import Sources
from manifests.yaml.loader import load_text
from state.store import Store
from tests.unit.sources.kit import directory, pod, sources, web

__all__ = ["directory", "sources"]

HIGH = """apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
"""


def document(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HIGH, ""),
        (HIGH + "globalDefault: true\npreemptionPolicy: Never\ndescription: first\n", ""),
        (HIGH.replace("1000", "1000000000"), ""),
        (
            HIGH.replace("1000", "1000000001"),
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
        (HIGH.replace("value: 1000\n", ""), "value: Required value"),
        (
            HIGH + "preemptionPolicy: Sometimes\n",
            'preemptionPolicy: Unsupported value: "Sometimes": supported values: "Never", "PreemptLowerPriority"',
        ),
        (
            HIGH.replace("name: high", "name: high, namespace: x"),
            "metadata.namespace: Forbidden: not allowed on this type",
        ),
        (
            HIGH.replace("high", "system-mine"),
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. "
            "error: system-mine is not a known system priority class",
        ),
        (
            HIGH.replace("high", "system-node-critical"),
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. "
            "error: value of system-node-critical PriorityClass must be 2000001000",
        ),
        (HIGH.replace("high", "system-node-critical").replace("1000", "2000001000"), ""),
        (
            HIGH.replace("scheduling.k8s.io/v1", "scheduling.k8s.io/v1beta1"),
            'apiVersion: PriorityClass is served in "scheduling.k8s.io/v1", not in "scheduling.k8s.io/v1beta1"',
        ),
    ],
)
def test_validation(text: str, said: str) -> None:
    found = load_text(text, file="f.yaml")
    assert [f"{e.field}: {e.message}" for e in found.errors] == ([said] if said else [])
    assert [document.key for document in found.documents] == (
        [] if said else [("PriorityClass", "", found.documents[0].name)]
    )


CLASSES = Classes(
    {"high": Rank(1000, "Never"), "low": Rank(-5), "system-node-critical": Rank(2_000_001_000)}, default="low"
)


@pytest.mark.parametrize(
    ("spec", "classes", "given"),
    [
        (
            {"priorityClassName": "high"},
            CLASSES,
            {"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"},
        ),
        (
            {"priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"},
            CLASSES,
            {"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "PreemptLowerPriority"},
        ),
        ({}, CLASSES, {"priorityClassName": "low", "priority": -5}),
        ({"priority": 7}, CLASSES, {"priority": 7}),
        (
            {"priority": 7, "priorityClassName": "high"},
            CLASSES,
            {"priority": 7, "priorityClassName": "high", "preemptionPolicy": "Never"},
        ),
        ({}, Classes({"high": Rank(1000)}), {}),
        ({"priorityClassName": "nobody"}, CLASSES, {"priorityClassName": "nobody"}),
    ],
)
def test_a_pod_gets_priority_and_policy_of_its_class(
    spec: dict[str, Any], classes: Classes, given: dict[str, Any]
) -> None:
    assert admitted(document(**spec), classes)["spec"] == given


def test_manifests_precede_settings_and_the_lowest_default_counts() -> None:
    docs = [
        {"metadata": {"name": "a"}, "value": 5, "globalDefault": True},
        {"metadata": {"name": "b"}, "value": 3, "globalDefault": True},
    ]
    found = classes_of(docs, {"a": 1, "c": 2})
    assert found.default == "b"
    assert {name: rank.value for name, rank in found.ranks.items()} == {
        "system-node-critical": 2_000_001_000,
        "system-cluster-critical": 2_000_000_000,
        "a": 5,
        "b": 3,
        "c": 2,
    }


def spec_of(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = web(store).doc["spec"]
    return {key: found.get(key) for key in ("priority", "priorityClassName", "preemptionPolicy")}


async def test_an_edited_class_changes_its_pods(directory: Path, store: Store, sources: Sources) -> None:
    wants = pod().replace("spec:", "spec:\n  priorityClassName: high")
    (directory / "a.yaml").write_text(wants)
    await sources.scan()
    assert spec_of(store)["priority"] is None, "its class is not there"
    (directory / "b.yaml").write_text(HIGH)
    await sources.scan()
    rank = {"priority": 1000, "priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"}
    assert spec_of(store) == rank, "the class came after the pod"
    uid = web(store).uid
    (directory / "b.yaml").write_text(HIGH.replace("1000", "77") + "preemptionPolicy: Never\n")
    await sources.scan()
    assert spec_of(store) == {**rank, "priority": 77, "preemptionPolicy": "Never"}
    assert web(store).uid == uid and not web(store).deleting
    (directory / "b.yaml").unlink()
    await sources.scan(settle=0)
    assert store.get("PriorityClass", "", "high") is None
    assert spec_of(store)["priority"] == 77, "a pod whose class is gone keeps what it gave"
    (directory / "a.yaml").write_text(wants.replace("high", "system-node-critical"))
    await sources.scan()
    assert spec_of(store)["priority"] == 2_000_001_000


async def test_the_default_class_applies_without_recreating_pods(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "a.yaml").write_text(pod() + "---\n" + pod("done"))
    await sources.scan()
    done = store.get("Pod", "default", "done")
    assert done is not None
    await store.update_status(done.uid, {"phase": "Succeeded"})
    (directory / "b.yaml").write_text(HIGH + "globalDefault: true\n")
    await sources.scan()
    assert spec_of(store)["priority"] == 1000 and spec_of(store)["priorityClassName"] == "high"
    again = store.get("Pod", "default", "done")
    assert again is not None and again.uid == done.uid and not again.deleting
    assert "priority" not in again.doc["spec"], "a pod that has ended stays as it was"
    (directory / "b.yaml").write_text("not: [yaml")
    await sources.scan()
    assert spec_of(store)["priority"] == 1000, "the last good version of the class stays"


async def test_classes_of_the_settings_are_objects(directory: Path, store: Store, sources: Sources) -> None:
    await keep_classes(store, {"high": 10, "old": 1})
    (directory / "b.yaml").write_text(HIGH)
    await sources.scan()
    await keep_classes(store, {"high": 10, "low": 2})
    found = {record.name: record.doc["value"] for record in store.list("PriorityClass")}
    assert found == {
        "system-node-critical": 2_000_001_000,
        "system-cluster-critical": 2_000_000_000,
        "high": 1000,
        "low": 2,
    }
    await keep_classes(store, {"low": 3})
    low = store.get("PriorityClass", "", "low")
    assert low is not None and low.doc["value"] == 3
