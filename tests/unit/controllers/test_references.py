"""pkg/controller/controller_ref_manager_test.go: TestClaimPods."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.controllers.model import Rewrite, View
from kubelite.controllers.references import controller_of, managed, owner_reference
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels

OWNER: Json = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "uid": "u1"}}
OTHER: Json = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "other", "uid": "u2"}}


def pod(name: str, app: str, owner: Json | None = None, **metadata: Any) -> Json:
    references = {"ownerReferences": [owner_reference(owner)]} if owner else {}
    return {"kind": "Pod", "metadata": {"name": name, "labels": {"app": app}, **references, **metadata}}


def look(*pods: Json, owner: Json = OWNER) -> tuple[list[str], list[str]]:
    """Return the names of the managed pods, and of the released ones."""
    view = View(owner, 0.0, {"Pod": pods})
    found, effects = managed(view, "Pod", lambda doc: labels_of(doc).get("app") == "web")
    changed = [effect.doc for effect in effects if isinstance(effect, Rewrite)]
    assert all(controller_of(doc) is not None for doc in found)
    released = [doc["metadata"]["name"] for doc in changed if "ownerReferences" not in doc["metadata"]]
    return [doc["metadata"]["name"] for doc in found], released


ENDING: Json = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("pods", "found", "released"),
    [
        ((pod("a", "web"), pod("b", "other")), ["a"], []),  # an orphan that matches is adopted
        ((pod("a", "web", OTHER),), [], []),  # it has another controller
        ((pod("a", "web", OWNER), pod("b", "other", OWNER)), ["a"], ["b"]),
        ((pod("a", "web", **ENDING), pod("b", "web", OWNER, **ENDING)), ["b"], []),
    ],
)
def test_managed(pods: tuple[Json, ...], found: list[str], released: list[str]) -> None:
    assert look(*pods) == (found, released)


def test_a_terminating_owner_neither_adopts_nor_releases() -> None:
    owner = {**OWNER, "metadata": {**OWNER["metadata"], **ENDING}}
    assert look(pod("a", "web"), pod("b", "web", OWNER), pod("c", "other", OWNER), owner=owner) == (["b"], [])


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        (None, {"a": "1"}, False),
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
    ],
)
def test_label_selectors(selector: Json | None, labels: dict[str, str], expected: bool) -> None:
    assert matches_labels(selector, labels) is expected
