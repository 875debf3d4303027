"""The numbers of a rollout: cases of kube-controller-manager's own tests (pkg/controller/deployment)."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.controllers.decide.deployments import revisions, rolling, scaling
from kubelite.controllers.decide.deployments.limits import Limits
from kubelite.controllers.decide.deployments.owned import (
    MAX_REPLICAS,
    REVISION,
    REVISION_HISTORY,
    OwnedSet,
    active,
)
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

NOW = 1_790_000_000.0
UNLIMITED = 2**31 - 1


def owned(name: str, size: int, age: float = 0, **status: int) -> OwnedSet:
    metadata = {"name": name, "uid": name, "creationTimestamp": rfc3339(NOW - age)}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": name}]}}
    spec = {"replicas": size, "template": template}
    return OwnedSet({"kind": "ReplicaSet", "metadata": metadata, "spec": spec, "status": status})


def limits(replicas: int, surge: int | str = 0, unavailable: int | str = 0) -> Limits:
    rolling_update = {"maxSurge": surge, "maxUnavailable": unavailable}
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling_update}
    return Limits.of({"spec": {"replicas": replicas, "strategy": strategy}})


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        # util/deployment_util_test.go TestResolveFenceposts, TestMaxUnavailable, TestMinAvailable
        (0, "0%", "0%", (0, 0)),
        (10, "39%", "39%", (4, 3)),
        (10, 0, "39%", (0, 3)),
        (10, "39%", 0, (4, 0)),
        (10, 0, 0, (0, 1)),
        (10, 1, 5, (1, 5)),
        (10, 1, 10, (1, 10)),
        (5, 1, 10, (1, 5)),
        (0, 1, 10, (1, 0)),
        (10, 1, "50%", (1, 5)),
        (10, 1, "60%", (1, 6)),
        (5, 1, "100%", (1, 5)),
        # the comment at ResolveFenceposts
        (2, 0, "1%", (0, 1)),
        (1, "1%", "25%", (1, 0)),
    ],
)
def test_limits(replicas: int, surge: int | str, unavailable: int | str, expected: tuple[int, int]) -> None:
    found = limits(replicas, surge, unavailable)
    assert (found.surge, found.unavailable) == expected
    assert (found.most, found.least_available) == (replicas + expected[0], replicas - expected[1])


def test_limits_of_a_recreation() -> None:
    found = Limits.of({"spec": {"replicas": 3, "strategy": {"type": "Recreate"}}})
    assert found == Limits(3, 0, 0, rolling=False)


@pytest.mark.parametrize(
    ("replicas", "surge", "old", "new", "expected"),
    [
        # rolling_test.go TestDeploymentController_reconcileNewReplicaSet
        (10, 0, 10, 0, 0),
        (10, 2, 10, 0, 2),
        (10, 2, 5, 0, 7),
        (10, 2, 10, 2, 2),
        (10, 2, 2, 11, 10),
        # util/deployment_util_test.go TestNewRSNewReplicas
        (1, 1, 5, 5, 1),
        (6, 10, 5, 2, 6),
    ],
)
def test_the_new_set_grows(replicas: int, surge: int, old: int, new: int, expected: int) -> None:
    found = owned("new", new)
    changed = rolling.resize_new(limits(replicas, surge), found, [owned("old", old)])
    assert (found.replicas, changed) == (expected, expected != new)


@pytest.mark.parametrize(
    ("unavailable", "old", "new", "ready", "expected"),
    [
        # rolling_test.go TestDeploymentController_reconcileOldReplicaSets: ready pods of old and new
        (0, 10, 0, (10, 0), 9),
        (2, 10, 0, (10, 0), 8),
        (2, 10, 0, (8, 0), 8),
        (2, 10, 0, (9, 0), 8),
        (2, 8, 2, (8, 0), 8),
    ],
)
def test_old_sets_shrink(unavailable: int, old: int, new: int, ready: tuple[int, int], expected: int) -> None:
    before = owned("old", old, availableReplicas=ready[0])
    after = owned("new", new, availableReplicas=ready[1])
    changed = rolling.shrink_old(limits(10, 0, unavailable), after, [before])
    assert (before.replicas, changed) == (expected, expected != old)


@pytest.mark.parametrize(
    ("ready", "most", "expected"),
    [(8, 1, 1), (8, 3, 2), (8, 0, 0), (10, 3, 0)],  # TestDeploymentController_cleanupUnhealthyReplicas
)
def test_unhealthy_pods_go_first(ready: int, most: int, expected: int) -> None:
    old = owned("old", 10, availableReplicas=ready)
    assert rolling.shrink_unhealthy([old], most) == expected
    assert old.replicas == 10 - expected


@pytest.mark.parametrize(
    ("unavailable", "ready", "old", "expected"),
    [
        # TestDeploymentController_scaleDownOldReplicaSetsForRollingUpdate
        (0, 10, 10, 9),
        (2, 10, 10, 8),
        (2, 8, 10, 10),
        (2, 10, 0, 0),
        (2, 1, 10, 10),
    ],
)
def test_available_pods_beyond_the_minimum_go(unavailable: int, ready: int, old: int, expected: int) -> None:
    found = owned("old", old, availableReplicas=ready)
    rolling.shrink_available(limits(10, 0, unavailable), [found], [found])
    assert found.replicas == expected


#: sync_test.go TestScale: (before, after) as (replicas, surge, unavailable); sizes from new to old; "new" has the
#: Deployment's template.
SCALES: list[tuple[str, tuple[int, int, int], tuple[int, int, int], list[int], list[int], bool]] = [
    ("normal scaling event: 10 -> 12", (10, 0, 0), (12, 0, 0), [10], [12], True),
    ("normal scaling event: 10 -> 5", (10, 0, 0), (5, 0, 0), [10], [5], True),
    ("proportional scaling: 5 -> 10", (5, 0, 0), (10, 0, 0), [2, 3], [4, 6], True),
    ("proportional scaling: 5 -> 3", (5, 0, 0), (3, 0, 0), [2, 3], [1, 2], True),
    ("proportional scaling: 9 -> 4", (9, 0, 0), (4, 0, 0), [8, 1], [4, 0], True),
    ("proportional scaling: 7 -> 10", (7, 0, 0), (10, 0, 0), [2, 3, 2], [3, 4, 3], True),
    ("proportional scaling: 13 -> 8", (13, 0, 0), (8, 0, 0), [2, 8, 3], [1, 5, 2], True),
    ("leftover distribution: 3 -> 4", (3, 0, 0), (4, 0, 0), [1, 1, 1], [2, 1, 1], True),
    ("leftover distribution: 3 -> 2", (3, 0, 0), (2, 0, 0), [1, 1, 1], [1, 1, 0], True),
    ("proportional scaling (no new rs): 4 -> 5", (4, 0, 0), (5, 0, 0), [2, 2], [3, 2], False),
    ("proportional scaling: 6 -> 0", (6, 0, 0), (0, 0, 0), [3, 2, 1], [0, 0, 0], True),
    ("proportional scaling: 0 -> 6", (6, 0, 0), (6, 0, 0), [0, 0, 0], [6, 0, 0], True),
    ("deployment with surge pods", (10, 2, 0), (20, 2, 0), [6, 6], [11, 11], True),
    ("change both surge and size", (10, 3, 0), (50, 6, 0), [5, 8], [22, 34], True),
    ("change both size and template", (10, 0, 0), (14, 0, 0), [7, 3], [10, 4], False),
    ("saturated but broken new replica set", (2, 1, 1), (2, 1, 1), [2, 1], [2, 1], True),
]


@pytest.mark.parametrize(
    ("before", "after", "sizes", "expected", "has_new"),
    [row[1:] for row in SCALES],
    ids=[row[0] for row in SCALES],
)
def test_scaling(
    before: tuple[int, int, int],
    after: tuple[int, int, int],
    sizes: list[int],
    expected: list[int],
    has_new: bool,
) -> None:
    sets = [owned(f"foo-v{9 - age}", size, age * 3600) for age, size in enumerate(sizes)]
    for found in sets:
        found.note_sizes(before[0], limits(*before).most)
    new, old = (sets[0], sets[1:]) if has_new else (None, sets)
    scaling.scale(limits(*after), new, old, current=0)
    assert [found.replicas for found in sets] == expected


def test_scaling_that_was_interrupted_is_finished() -> None:
    """sync_test.go TestScale, "failed rs update": foo-v2 still has the sizes from before."""
    sets = [owned("foo-v3", 2, 0), owned("foo-v2", 1, 10), owned("foo-v1", 1, 20)]
    for found, desired in zip(sets, (5, 3, 5), strict=True):
        found.note_sizes(desired, desired)
    assert scaling.is_scaling(limits(5), sets)
    scaling.scale(limits(5), sets[0], sets[1:], current=0)
    assert [found.replicas for found in sets] == [2, 2, 1]
    assert not scaling.is_scaling(limits(5), sets)


@pytest.mark.parametrize(
    ("sizes", "current", "size", "most", "expected"),
    [
        # util/deployment_util_test.go TestGetReplicaSetFraction: (replicas, surge)
        ((0, 0), 0, 10, None, -10),
        ((10, 0), 0, 5, None, 0),
        ((10, 0), 0, 5, "0", 0),
        ((120, 0), 100, 50, None, 10),
        ((120, 0), 100, 50, "0", 10),
        ((120, 0), 0, 50, "100", 10),
        ((120, 10), 0, 50, "110", 9),
        ((10, 0), 0, 6, "12", -1),
        ((100, 10), 0, 50, "130", -8),
    ],
)
def test_fractions(sizes: tuple[int, int], current: int, size: int, most: str | None, expected: int) -> None:
    found = owned("web", size)
    if most is not None:
        found.annotations[MAX_REPLICAS] = most
    assert scaling.fraction(limits(*sizes, 1), found, current) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("2147483647", UNLIMITED), ("2147483648", None), ("-1", None), ("", None), ("1.5", None)],
)
def test_numbers_of_annotations(text: str, expected: int | None) -> None:
    """util/deployment_util_test.go TestGetNonNegativeInt32FromAnnotation."""
    found = owned("web", 1)
    found.annotations[MAX_REPLICAS] = text
    assert found.number(MAX_REPLICAS) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # util/deployment_util_test.go TestEqualIgnoreHash: labels and a field of the spec
        (({"pod-template-hash": "1", "x": "y"}, "a"), ({"pod-template-hash": "1", "x": "y"}, "a"), True),
        (({"pod-template-hash": "1", "x": "y"}, "a"), ({"pod-template-hash": "2", "x": "y"}, "a"), True),
        (({"x": "y"}, "a"), ({"pod-template-hash": "2", "x": "y"}, "a"), True),
        (({"x": "y"}, "a"), ({"pod-template-hash": "2"}, "a"), False),
        (({"pod-template-hash": "1"}, "a"), ({"pod-template-hash": "1", "x": "y"}, "a"), False),
        (({"pod-template-hash": "1", "x": "y"}, "a"), ({"pod-template-hash": "1", "x": "y"}, "b"), False),
        (({"x": "y"}, "a"), ({"pod-template-hash": "2", "x": "y"}, "b"), False),
        (({"x": "y"}, "a"), ({"z": "y"}, "b"), False),
        (({}, "a"), ({"pod-template-hash": "2"}, "a"), True),
    ],
)
def test_templates_are_compared_without_their_hash(
    one: tuple[Json, str], other: tuple[Json, str], expected: bool
) -> None:
    first, second = (
        {"metadata": {"labels": labels}, "spec": {"nodeName": node}} for labels, node in (one, other)
    )
    assert revisions.same_template(first, second) is expected
    assert revisions.same_template(second, first) is expected


def test_the_oldest_of_equal_sets_is_the_new_one() -> None:
    """util/deployment_util_test.go TestFindNewReplicaSet, TestFindOldReplicaSets."""
    sets = [owned("web", 1), owned("old", 1, 99)]
    sets.append(OwnedSet({**sets[0].doc, "metadata": {**sets[0].doc["metadata"], "name": "dup"}}))
    sets[2].doc["metadata"]["creationTimestamp"] = rfc3339(NOW - 60)
    deployment: Json = {"spec": {"template": sets[0].template}}
    assert revisions.find_new(deployment, sets) is sets[2]
    assert revisions.find_new(deployment, sets[1:2]) is None


def test_revisions_of_a_rollback_are_kept() -> None:
    """util/deployment_util_test.go TestAnnotationUtils."""
    new, history = owned("web", 1), ""
    new.annotations[REVISION] = "10"
    deployment: Json = {"metadata": {"annotations": {"a": "b", REVISION: "1", MAX_REPLICAS: "7"}}}
    for revision in range(10, 20):
        other = owned("old", 0)
        other.annotations[REVISION] = str(revision)
        revisions.annotate_new(deployment, new, [other])
        assert new.annotations[REVISION] == str(revision + 1)
        history = revisions.shortened_history(history, str(revision), 5)
        assert revision < 12 or history == f"{revision - 1},{revision}"
    assert new.annotations[REVISION_HISTORY] == ",".join(map(str, range(10, 20)))
    assert new.annotations["a"] == "b" and MAX_REPLICAS not in new.annotations
    unchanged = dict(new.annotations)
    revisions.annotate_new(deployment, new, [owned("old", 0)])
    assert new.annotations == unchanged, "a revision never decreases"


@pytest.mark.parametrize("length", [5, 242, 250])
def test_names_of_sets(length: int) -> None:
    """sync_test.go TestGenerateReplicaSetName."""
    found = revisions.set_name("a" * length, "abcde12345")
    assert found == "a" * min(length, 242) + "-abcde12345" and len(found) <= 253


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        # sync_test.go TestDeploymentController_cleanupDeployment: (spec.replicas, status.replicas)
        ([(0, 0), (0, 0), (0, 0)], 1, 2),
        ([(0, 0), (0, 1), (1, 0), (1, 1)], 0, 1),
        ([(0, 0), (0, 0)], 0, 2),
        ([(1, 1), (1, 1)], 0, 0),
        ([(0, 0), (0, 0), (0, 0)], UNLIMITED, 0),
    ],
)
def test_old_sets_are_cleaned_up(sizes: list[tuple[int, int]], limit: int, expected: int) -> None:
    sets = [owned(f"foo-{index}", spec, replicas=status) for index, (spec, status) in enumerate(sizes)]
    deployment: Json = {"spec": {"revisionHistoryLimit": limit}}
    assert len(revisions.cleanup(deployment, sets)) == expected
    for found in sets:
        found.doc["metadata"]["deletionTimestamp"] = rfc3339(NOW)
    assert revisions.cleanup(deployment, sets) == []


@pytest.mark.parametrize(
    ("found", "limit", "expected"),
    [
        # sync_test.go TestDeploymentController_cleanupDeploymentOrder: (replicas, revision) from old to new
        ([(0, "1"), (0, "2")], 1, {"foo-1"}),
        ([(0, "2"), (0, "1")], 1, {"foo-2"}),
        ([(0, "1"), (0, "")], 1, {"foo-2"}),
        ([(0, ""), (0, "2")], 1, {"foo-1"}),
        ([(1, "1"), (0, "2"), (0, "3")], 1, {"foo-2"}),
        ([(1, "1"), (1, "2"), (0, "3")], 1, set()),
        ([(0, "3"), (0, "1"), (0, "4"), (0, "2")], 2, {"foo-2", "foo-4"}),
    ],
)
def test_the_oldest_revisions_are_cleaned_up(
    found: list[tuple[int, str]], limit: int, expected: set[str]
) -> None:
    sets = []
    for index, (replicas, revision) in enumerate(found, 1):
        sets.append(owned(f"foo-{index}", replicas, 600 - 60 * index, replicas=replicas))
        if revision:
            sets[-1].annotations[REVISION] = revision
    deleted = {effect.uid for effect in revisions.cleanup({"spec": {"revisionHistoryLimit": limit}}, sets)}
    assert deleted == expected


def test_sets_without_pods_are_not_active() -> None:
    sets: list[Any] = [owned("a", 0), None, owned("b", 2)]
    assert active(sets) == [sets[2]]
