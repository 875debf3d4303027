"""pkg/controller/controller_utils_test.go and pkg/api/v1/pod/util_test.go."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from kubelite.controllers.decide import hashes, pods
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from manifests.types.annotations import DELETION_COST
from manifests.yaml.object_names import ALPHABET

NOW = 1_790_000_000.0


def pod(
    name: str = "a", phase: str = "Running", ready: float | None = None, *, age: float = 100, **spec: Any
) -> Json:
    """`ready`: for how many seconds it has been ready. `age`: seconds since it was created."""
    conditions: list[Json] = []
    if ready is not None:
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(NOW - ready)}]
    metadata = {"name": name, "uid": name, "creationTimestamp": rfc3339(NOW - age)}
    status = {"phase": phase, "conditions": conditions}
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": "node", **spec}, "status": status}


def restarted(name: str, count: int, sidecar: int = 0) -> Json:
    found = pod(name)
    found["spec"]["initContainers"] = [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]
    found["status"]["containerStatuses"] = [{"name": "c", "restartCount": count}]
    found["status"]["initContainerStatuses"] = [
        {"name": "s", "restartCount": sidecar},
        {"name": "i", "restartCount": 9},
    ]
    return found


def costing(name: str, cost: str, **options: Any) -> Json:
    found = pod(name, **options)
    found["metadata"]["annotations"] = {DELETION_COST: cost}
    return found


@pytest.mark.parametrize(
    ("found", "active", "ended", "terminates"),
    [
        (pod(), True, False, False),
        (pod(phase="Pending"), True, False, False),
        ({"kind": "Pod", "metadata": {}, "spec": {}}, True, False, False),
        (pod(phase="Failed"), False, True, False),
        (pod(phase="Succeeded"), False, True, False),
    ],
)
def test_activity(found: Json, active: bool, ended: bool, terminates: bool) -> None:
    answers = (pods.is_active(found), pods.has_ended(found), pods.still_terminates(found))
    assert answers == (active, ended, terminates)
    going = {**found, "metadata": {**found["metadata"], "deletionTimestamp": rfc3339(NOW)}}
    assert not pods.is_active(going)
    assert pods.still_terminates(going) is not ended


@pytest.mark.parametrize(
    ("ready", "min_ready", "available", "again"),
    [
        # TestIsPodAvailable: ready seconds ago, minReadySeconds
        (None, 0, False, None),
        (0, 0, True, None),
        (0, 1, False, 1.0),
        (51, 50, True, None),
        (50, 50, True, None),
        (10, 50, False, 40.0),
    ],
)
def test_availability(ready: float | None, min_ready: int, available: bool, again: float | None) -> None:
    found = pod(ready=ready)
    assert pods.is_available(found, min_ready, NOW) is available
    assert pods.next_availability([pod(), found], min_ready, NOW) == again
    if again is not None:
        assert pods.is_available(found, min_ready, NOW + again)


def test_a_ready_pod_without_a_time_is_available_only_without_min_ready_seconds() -> None:
    found = pod(ready=1)
    del found["status"]["conditions"][0]["lastTransitionTime"]
    assert pods.is_available(found, 0, NOW)
    assert not pods.is_available(found, 1, NOW)


#: Deleted first to last: one difference in each row, by the rules of ActivePodsWithRanks.
ORDER = [
    pod("unassigned", "Pending", nodeName=""),
    pod("pending", "Pending"),
    pod("unknown", "Unknown"),
    costing("unready-cheap", "-1"),
    restarted("unready-restarts", 7),
    restarted("unready-sidecar", 2, 1),
    restarted("unready-fewer", 2),
    pod("unready-young", age=10),
    pod("unready", age=100),
    costing("ready-cheap", "-5", ready=90),
    pod("ready-young", ready=10),
    pod("ready-old", ready=1000),
    costing("ready-dear", "10", ready=10),
]


def test_deletion_order() -> None:
    names = [found["metadata"]["name"] for found in ORDER]
    for rotation in range(len(ORDER)):
        turned = [*ORDER[rotation:], *ORDER[:rotation]]
        for given in (turned, turned[::-1]):
            assert [found["metadata"]["name"] for found in pods.deletion_order(given, NOW)] == names


def test_ages_that_are_close_count_as_equal() -> None:
    """TestSortingActivePodsWithRanks: times are compared in a logarithmic scale, then uids."""
    close = [pod("b", ready=100), pod("a", ready=101)]
    assert [found["metadata"]["name"] for found in pods.deletion_order(close, NOW)] == ["a", "b"]


def test_a_pod_that_is_not_available_yet_comes_before_an_available_one() -> None:
    given = [costing("available", "-1", ready=20), costing("not yet", "5", ready=19)]
    order = [found["metadata"]["name"] for found in pods.deletion_order(given, NOW, 20)]
    assert order == ["not yet", "available"]
    assert pods.deletion_order(given, NOW)[0] is given[0]


@pytest.mark.parametrize("cost", ["+10", "007", "", "1.5", "99999999999", "ten"])
def test_an_invalid_deletion_cost_counts_as_zero(cost: str) -> None:
    """pkg/apis/core/v1/helper TestGetDeletionCostFromPodAnnotations."""
    given = [costing("a", cost), costing("b", "-1"), costing("c", "1")]
    assert [found["metadata"]["name"] for found in pods.deletion_order(given, NOW)] == ["b", "a", "c"]


def test_a_pod_of_a_template() -> None:
    template: Json = {
        "metadata": {"labels": {"app": "web"}, "annotations": {"a": "b"}},
        "spec": {"containers": []},
    }
    owner: Json = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "u"},
    }
    made = pods.pod_from_template(template, owner)
    assert made["metadata"] == {
        "generateName": "web-1-",
        "namespace": "shop",
        "labels": {"app": "web"},
        "annotations": {"a": "b"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "web-1",
                "uid": "u",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    assert made["spec"] == template["spec"]


def test_a_hash_depends_on_the_content_alone() -> None:
    template = {"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"x": [1, 2]}}
    turned = {"spec": {"x": [1, 2]}, "metadata": {"labels": {"b": "2", "a": "1"}}}
    found = hashes.template_hash(template)
    assert found == hashes.template_hash(turned)
    assert len(found) == hashes.LENGTH and set(found) <= set(ALPHABET)
    others = {hashes.template_hash(template, count) for count in range(100)}
    others |= {hashes.template_hash({"n": number}) for number in range(1000)}
    assert len(others) == 1100 and found in others


def test_the_order_is_total_for_pods_that_differ() -> None:
    for one, other in itertools.combinations(ORDER, 2):
        assert pods.deletion_order([other, one], NOW)[0] is one
