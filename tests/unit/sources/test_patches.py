"""Patches of documents: strategic merge by the merge keys, RFC 7386, RFC 6902."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.kube.json import Json
from kubelite.sources.patches import CannotPatch, patched

A, B = {"name": "a", "image": "i:1", "args": ["x"]}, {"name": "b", "image": "i:1"}
POD: Json = {
    "metadata": {"name": "p", "labels": {"x": "1"}, "finalizers": ["f"]},
    "spec": {"containers": [A, B]},
}


def spec(patch: Json, document: Json = POD) -> Json:
    found: Json = patched(document, {"spec": patch}, "strategic")["spec"]
    return found


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ([{"name": "b", "image": "i:2"}], [A, {**B, "image": "i:2"}]),
        ([{"name": "c", "image": "i"}], [A, B, {"name": "c", "image": "i"}]),
        ([{"name": "a", "$patch": "delete"}], [B]),
        ([{"name": "a", "args": None}], [{"name": "a", "image": "i:1"}, B]),
        ([{"name": "a", "args": ["y", "z"]}], [{**A, "args": ["y", "z"]}, B]),
        ([{"name": "c"}, {"$patch": "replace"}], [{"name": "c"}]),
        ([{"name": "b", "image": "i:3", "$patch": "replace"}], [A, {"name": "b", "image": "i:3"}]),
        ([{"name": "a", "ports": [{"containerPort": 80}]}], [{**A, "ports": [{"containerPort": 80}]}, B]),
    ],
)
def test_a_strategic_patch_merges_lists_by_their_key(patch: list[Json], expected: list[Json]) -> None:
    assert spec({"containers": patch}) == {"containers": expected}
    assert POD["spec"] == {"containers": [A, B]}, "the document itself stays"


def test_directives_of_a_strategic_patch() -> None:
    rolling = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}
    changed = spec({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}, {"spec": rolling})
    assert changed == {"strategy": {"type": "Recreate"}}
    assert spec({"strategy": {"$patch": "delete"}}, {"spec": rolling}) == {"strategy": {}}
    assert spec({"strategy": {"$patch": "replace", "type": "R"}}, {"spec": rolling}) == {
        "strategy": {"type": "R"}
    }
    changed = patched(POD, {"metadata": {"finalizers": ["g"]}}, "strategic")
    assert changed["metadata"]["finalizers"] == ["f", "g"]
    changed = patched(POD, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["f"]}}, "strategic")
    assert changed["metadata"]["finalizers"] == []
    assert spec({"$setElementOrder/containers": [{"name": "b"}]}) == POD["spec"]
    assert spec({"tolerations": [{"key": "b"}]}, {"spec": {"tolerations": [{"key": "a"}]}}) == {
        "tolerations": [{"key": "b"}]
    }


@pytest.mark.parametrize(
    ("patch", "kind", "words"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, "strategic", "an item of containers .* needs its name"),
        ({"spec": {"$patch": "merge!"}}, "strategic", "merge, replace or delete"),
        ({"$unknown": 1}, "strategic", "unknown directive"),
        ([], "strategic", "a strategic patch is a JSON object"),
        ("x", "merge", "a merge patch is a JSON object"),
        ({}, "json", "a list of operations"),
        ([{"op": "set", "path": "/a"}], "json", 'unknown operation "set": add, remove'),
        ([{"op": "add", "path": "a", "value": 1}], "json", "is a pointer such as"),
        ([{"op": "add", "path": "/a"}], "json", 'needs a "value"'),
        ([{"op": "replace", "path": "/spec/replicas", "value": 1}], "json", "no /spec/replicas"),
        ([{"op": "remove", "path": "/spec/containers/7"}], "json", "no /spec/containers/7"),
        ([{"op": "add", "path": "/spec/containers/9", "value": {}}], "json", "no /spec/containers/9"),
        ([{"op": "add", "path": "/no/way", "value": {}}], "json", "no /no/way"),
        (
            [{"op": "test", "path": "/metadata/name", "value": "q"}],
            "json",
            "the test of /metadata/name failed",
        ),
        ([{"op": "copy", "from": "/x", "path": "/y"}], "json", "no /x"),
    ],
)
def test_a_patch_that_cannot_be_applied_is_refused(patch: Any, kind: str, words: str) -> None:
    with pytest.raises(CannotPatch, match=words):
        patched(POD, patch, kind)


def test_a_merge_patch_replaces_lists_and_removes_nulls() -> None:
    changed = patched(
        POD, {"metadata": {"labels": {"x": None, "y": "2"}}, "spec": {"containers": [B]}}, "merge"
    )
    assert changed["metadata"] == {"name": "p", "labels": {"y": "2"}, "finalizers": ["f"]}
    assert changed["spec"] == {"containers": [B]}


def test_a_json_patch_applies_its_operations_in_order() -> None:
    document: Json = {"a": {"b/c": 1}, "list": [1, 2, 3]}
    steps = [
        {"op": "test", "path": "/a/b~1c", "value": 1},
        {"op": "replace", "path": "/a/b~1c", "value": 5},
        {"op": "add", "path": "/list/1", "value": 9},
        {"op": "add", "path": "/list/-", "value": 4},
        {"op": "remove", "path": "/list/0"},
        {"op": "copy", "from": "/list", "path": "/copied"},
        {"op": "move", "from": "/a", "path": "/moved"},
        {"op": "replace", "path": "/list/0", "value": 8},
    ]
    assert patched(document, steps, "json") == {
        "list": [8, 2, 3, 4],
        "copied": [9, 2, 3, 4],
        "moved": {"b/c": 5},
    }
    assert document == {"a": {"b/c": 1}, "list": [1, 2, 3]}
