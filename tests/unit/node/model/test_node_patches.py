"""What clients may change of the node, from the patches that they send."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kubelite.kube.json import Json
from kubelite.node.model.node_facts import (
    PRESSURE_TAINTS,
    ForbiddenPatch,
    StalePatch,
    changes,
    patched,
)
from kubelite.node.model.schedule import UNSCHEDULABLE_TAINT

TAINT = {"key": "team", "value": "blue", "effect": "NoSchedule"}
SHOWN: Json = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {
        "name": "here", "uid": "here", "creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "7",
        "labels": {"kubernetes.io/hostname": "here"},
    },
    "spec": {"podCIDR": "10.88.0.0/16", "taints": [{"key": UNSCHEDULABLE_TAINT, "effect": "NoSchedule"}, TAINT]},
    "status": {"conditions": [{"type": "Ready", "lastHeartbeatTime": "2026-01-01T00:05:00Z"}]},
}  # fmt: skip
STORED: Json = {"metadata": {"name": "here", "uid": "node:here"}, "spec": {"taints": [TAINT]}}


def whole(**changed: Any) -> Json:
    """The node as a client has read it, with other values of some fields of its spec."""
    found = copy.deepcopy(SHOWN)
    found["spec"] |= changed
    found["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-01T00:00:00Z"  # read a while ago
    return found


def test_a_client_may_send_the_whole_node() -> None:
    """As pykube's cordon() does. What the node has already is no change."""
    given = changes(whole(unschedulable=True), SHOWN)
    assert given["spec"] == {"unschedulable": True} and given["metadata"] == {}
    assert patched(STORED, given) == {**STORED, "spec": {"taints": [TAINT], "unschedulable": True}}


def test_what_only_the_node_sets_cannot_be_changed() -> None:
    for patch, field in (
        ({"spec": {"podCIDR": "10.0.0.0/8"}}, "spec.podCIDR"),
        ({"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}}, "metadata.creationTimestamp"),
        ({"metadata": {"name": "there"}}, "metadata.name"),
    ):
        with pytest.raises(ForbiddenPatch, match=f"{field} is set by the node"):
            patched(STORED, changes(patch, SHOWN))


def test_a_patch_of_another_version_is_refused() -> None:
    for metadata in ({"resourceVersion": "6"}, {"uid": "there"}):
        with pytest.raises(StalePatch):
            patched(STORED, changes({"metadata": metadata}, SHOWN))
    assert patched(STORED, changes({"metadata": {"resourceVersion": "7", "uid": "here"}}, SHOWN)) == STORED


def test_taints_that_the_node_sets_itself_are_not_stored() -> None:
    """A client that adds a taint sends those of the cordon and of conditions along. They end with their causes."""
    own = [{"key": key, "effect": "NoSchedule"} for key in (UNSCHEDULABLE_TAINT, *PRESSURE_TAINTS.values())]
    other = {"key": "gpu", "effect": "NoSchedule"}
    assert patched(STORED, changes({"spec": {"taints": [*own, other, TAINT]}}, SHOWN))["spec"] == {
        "taints": [other, TAINT]
    }
