"""Values by the types of the API: fields, differences, merges, removals."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.managed_fields.fields import encoded
from kubelite.managed_fields.schema import of_kind
from kubelite.managed_fields.values import (
    MISSING,
    Misfit,
    difference,
    fields_of,
    merged,
    removed,
    with_structs,
)
from manifests.yaml.loader import KINDS

POD = of_kind(KINDS["v1", "Pod"])
SERVICE = of_kind(KINDS["v1", "Service"])
MAP = of_kind(KINDS["v1", "ConfigMap"])
DEPLOYMENT = of_kind(KINDS["apps/v1", "Deployment"])
VOLUME = of_kind(KINDS["v1", "PersistentVolume"])


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


def containers(*items: dict[str, Any]) -> dict[str, Any]:
    return pod(containers=list(items))


WEB = 'k:{"name":"web"}'

FIELDS: list[tuple[str, Any, Any, Any]] = [
    ("scalars of a struct", POD, pod(hostname="a"), {"f:spec": {"f:hostname": {}}}),
    ("a struct in which nothing is set", POD, {"spec": {}}, {"f:spec": {}}),
    (
        "entries of a map, each with itself",
        MAP,
        {"data": {"a": "1", "b": "2"}},
        {"f:data": {"f:a": {}, "f:b": {}}},
    ),
    ("an empty map", MAP, {"data": {}}, {"f:data": {}}),
    (
        "items of a list with keys",
        POD,
        containers({"name": "web", "image": "x"}),
        {"f:spec": {"f:containers": {WEB: {".": {}, "f:name": {}, "f:image": {}}}}},
    ),
    (
        "a key that is left out has its default",
        POD,
        containers({"name": "web", "ports": [{"containerPort": 80}]}),
        {
            "f:spec": {
                "f:containers": {
                    WEB: {
                        ".": {},
                        "f:name": {},
                        "f:ports": {
                            'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}
                        },
                    }
                }
            }
        },
    ),
    ("a list without keys", POD, containers({"name": "web", "args": ["a", "b"]}),
     {"f:spec": {"f:containers": {WEB: {".": {}, "f:name": {}, "f:args": {}}}}}),
    ("an atomic map", SERVICE, {"spec": {"selector": {"a": "b"}}}, {"f:spec": {"f:selector": {}}}),
    (
        "an atomic struct",
        DEPLOYMENT,
        {"spec": {"selector": {"matchLabels": {"a": "b"}}}},
        {"f:spec": {"f:selector": {}}},
    ),
    (
        "a field that is granular although its type is atomic",
        VOLUME,
        {"spec": {"claimRef": {"name": "a", "namespace": "b"}}},
        {"f:spec": {"f:claimRef": {"f:name": {}, "f:namespace": {}}}},
    ),
    (
        "words of a set",
        POD,
        {"metadata": {"finalizers": ["a/b"]}},
        {"f:metadata": {"f:finalizers": {'v:"a/b"': {}}}},
    ),
    (
        "two items with the same key: only that they are there",
        POD,
        containers({"name": "web", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
        {"f:spec": {"f:containers": {WEB: {".": {}, "f:name": {}, "f:env": {'k:{"name":"A"}': {}}}}}},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("case", "node", "value", "wanted"), FIELDS, ids=[one[0] for one in FIELDS])
def test_fields_of_a_value(case: str, node: Any, value: Any, wanted: Any) -> None:
    assert encoded(fields_of(value, node)) == wanted


DIFFERENCES: list[tuple[str, Any, Any, Any, tuple[Any, Any, Any]]] = [
    ("nothing", MAP, {"data": {"a": "1"}}, {"data": {"a": "1"}}, ({}, {}, {})),
    (
        "removed, modified, added",
        MAP,
        {"data": {"a": "1", "b": "1"}},
        {"data": {"b": "2", "c": "3"}},
        ({"f:data": {"f:a": {}}}, {"f:data": {"f:b": {}}}, {"f:data": {"f:c": {}}}),
    ),
    (
        "an item is moved: order is no field",
        POD,
        containers({"name": "a", "image": "x"}, {"name": "b", "image": "y"}),
        containers({"name": "b", "image": "y"}, {"name": "a", "image": "x"}),
        ({}, {}, {}),
    ),
    (
        "an item is removed with its fields",
        POD,
        containers({"name": "web", "image": "x"}, {"name": "b"}),
        containers({"name": "b"}),
        ({"f:spec": {"f:containers": {WEB: {".": {}, "f:name": {}, "f:image": {}}}}}, {}, {}),
    ),
    (
        "a list without keys changes as a whole",
        POD,
        containers({"name": "web", "args": ["a", "b"]}),
        containers({"name": "web", "args": ["b", "a"]}),
        ({}, {"f:spec": {"f:containers": {WEB: {"f:args": {}}}}}, {}),
    ),
    (
        "an atomic struct changes as a whole",
        DEPLOYMENT,
        {"spec": {"selector": {"matchLabels": {"a": "b"}}}},
        {"spec": {"selector": {"matchLabels": {"a": "c"}}}},
        ({}, {"f:spec": {"f:selector": {}}}, {}),
    ),
    (
        "words of a set",
        POD,
        {"metadata": {"finalizers": ["a/a", "b/b"]}},
        {"metadata": {"finalizers": ["c/c", "a/a"]}},
        (
            {"f:metadata": {"f:finalizers": {'v:"b/b"': {}}}},
            {},
            {"f:metadata": {"f:finalizers": {'v:"c/c"': {}}}},
        ),
    ),
    (
        "a struct that Go always writes is no field of its own, one behind a pointer is",
        DEPLOYMENT,
        MISSING,
        {"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}},
        ({}, {}, {"f:spec": {"f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}}}}),
    ),
    (
        "an item that is there twice is one leaf",
        POD,
        containers({"name": "web", "env": [{"name": "A", "value": "1"}]}),
        containers({"name": "web", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
        (
            {"f:spec": {"f:containers": {WEB: {"f:env": {'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}}}}}},
            {},
            {"f:spec": {"f:containers": {WEB: {"f:env": {'k:{"name":"A"}': {}}}}}},
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "node", "old", "new", "wanted"), DIFFERENCES, ids=[one[0] for one in DIFFERENCES]
)
def test_differences(case: str, node: Any, old: Any, new: Any, wanted: Any) -> None:
    assert tuple(map(encoded, difference(old, new, node))) == wanted


def names(value: dict[str, Any]) -> str:
    return "".join(item["name"] for item in value["spec"]["containers"])


@pytest.mark.parametrize(
    ("live", "applied", "wanted"),
    [
        ("", "ab", "ab"),
        ("ab", "", "ab"),
        ("ab", "c", "abc"),
        ("ab", "ba", "ba"),
        ("as", "ns", "ans"),
        ("asb", "s", "asb"),
        ("abc", "cxa", "bcxa"),
        ("abcd", "bd", "abcd"),
        ("abcd", "db", "acdb"),
    ],
)
def test_items_that_are_applied_keep_their_order_and_others_their_places(
    live: str, applied: str, wanted: str
) -> None:
    left, right = (containers(*({"name": name} for name in word)) for word in (live, applied))
    assert names(merged(left, right, POD)) == wanted


def test_a_merge_changes_what_is_applied_and_nothing_else() -> None:
    live = {
        "metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {
            "nodeSelector": {"disk": "ssd"},
            "containers": [
                {"name": "web", "image": "x", "args": ["1"], "env": [{"name": "A", "value": "1"}]}
            ],
        },
    }
    applied = {
        "metadata": {"labels": {"b": "3"}},
        "spec": {
            "nodeSelector": {"zone": "a"},
            "containers": [{"name": "web", "args": ["2"], "env": [{"name": "B", "value": "2"}]}],
        },
    }
    before = repr((live, applied))
    assert merged(live, applied, POD) == {
        "metadata": {"labels": {"a": "1", "b": "3"}},
        "spec": {
            "nodeSelector": {"zone": "a"},
            "containers": [
                {
                    "name": "web",
                    "image": "x",
                    "args": ["2"],
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                }
            ],
        },
    }
    assert repr((live, applied)) == before


@pytest.mark.parametrize(
    ("applied", "words"),
    [
        ({"spec": []}, ".spec: expected map"),
        ({"spec": {"containers": {}}}, ".spec.containers: expected list"),
        (containers({"image": "x"}), ".spec.containers[0]: an item needs name"),
        (pod(containers=["web"]), ".spec.containers[0]: expected map"),
        (containers({"name": "a"}, {"name": "a"}), '.spec.containers: duplicate entries for key [name="a"]'),
        ({"metadata": {"finalizers": [{}]}}, ".metadata.finalizers[0]: an item of a set must be a scalar"),
    ],
)
@pytest.mark.parametrize("live", [{}, {**containers({"name": "a"}), "metadata": {"finalizers": ["a/b"]}}])
def test_what_does_not_fit_is_refused(live: Any, applied: Any, words: str) -> None:
    with pytest.raises(Misfit) as error:
        fields_of(applied, POD)
        merged(live, applied, POD)
    assert words in str(error.value)


def test_removal_takes_members_with_all_that_is_in_them() -> None:
    value = {**containers({"name": "a", "image": "x"}, {"name": "b"}), "metadata": {"labels": {"l": "1"}}}
    gone = {("f:spec", "f:containers", 'k:{"name":"a"}'), ("f:metadata", "f:labels", "f:l")}
    assert removed(value, frozenset(gone), POD) == {
        "spec": {"containers": [{"name": "b"}]},
        "metadata": {"labels": None},
    }


def test_structs_that_lead_to_members() -> None:
    fields = frozenset({("f:spec", "f:containers", WEB, "f:image"), ("f:metadata", "f:labels", "f:a")})
    assert with_structs(fields, POD) - fields == {
        ("f:spec",),
        ("f:spec", "f:containers"),
        ("f:metadata",),
        ("f:metadata", "f:labels"),
    }
