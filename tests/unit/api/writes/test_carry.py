"""What a client's change is in the words of a manifest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelite.api.kube.writes.carry import carried
from kubelite.sources.manifest_part import stripped

VALUES = st.recursive(
    st.none() | st.integers(0, 3) | st.sampled_from(["a", "b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "env", "containers", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("mine", "old", "new", "expected"),
    [
        ({"a": 1}, {"a": 1, "default": 2}, {"a": 3, "default": 2}, {"a": 3}),
        ({"a": 1}, {"a": 1, "b": 2}, {"b": 2}, {}),
        ({}, {"replicas": 1}, {"replicas": 2}, {"replicas": 2}),
        ({"cpu": "1"}, {"cpu": "1000m"}, {"cpu": "1000m", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}),
        ({"l": [1, 2]}, {"l": [1, 2]}, {"l": [2]}, {"l": [2]}),
        (
            {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]},
            {"containers": [{"name": "a", "image": "1", "tty": False}, {"name": "b", "tty": False}]},
            {
                "containers": [
                    {"name": "b", "tty": False},
                    {"name": "c"},
                    {"name": "a", "image": "2", "tty": False},
                ]
            },
            {"containers": [{"name": "b"}, {"name": "c"}, {"name": "a", "image": "2"}]},
        ),
        (
            {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]},
            {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
            {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP", "name": "dns"}]},
            {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "name": "dns"}]},
        ),
    ],
)
def test_the_manifest_gets_the_difference(mine: Any, old: Any, new: Any, expected: Any) -> None:
    assert carried(mine, old, new) == expected


@given(VALUES, VALUES)
def test_a_manifest_that_says_what_the_client_saw_says_then_what_it_sent(old: Any, new: Any) -> None:
    assert carried(old, old, new) == new
    assert carried(new, old, old) == new


def test_what_only_the_node_sets_is_left_out() -> None:
    metadata = {"name": "a", "uid": "u", "labels": None, "annotations": {"kubelite.io/source": "/m/a.yaml"}}
    doc = {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"a": None, "b": [{"c": None}]},
        "status": {"phase": "x"},
    }
    assert stripped(doc) == {"kind": "Pod", "metadata": {"name": "a"}, "spec": {"b": [{}]}}
