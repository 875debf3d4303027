"""Claims of StatefulSets: the cases of pkg/controller/statefulset/stateful_set_utils_test.go."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from kubelite.controllers.decide import pods
from kubelite.controllers.decide import stateful_claims as claims
from kubelite.controllers.model import Delete, Rewrite
from kubelite.controllers.references import is_terminating, owner_reference
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from tests.unit.controllers.sets import LABELS, owner, reasons
from tests.unit.controllers.stateful import CLAIM, PARALLEL, TEMPLATE, course, edit, retention, sync, world_of

OTHERS = [
    {"apiVersion": "v1", "kind": "Pod", "name": "rand1", "uid": "rand1-uid"},
    {"apiVersion": "v1", "kind": "Pod", "name": "rand2", "uid": "rand2-uid"},
]
UNKNOWN = {"apiVersion": "custom/v1", "kind": "Unknown", "name": "unknown", "uid": "x", "controller": True}
POD: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "uid": "pod-123"}}


def stateful(scaled: str = "Retain", deleted: str = "Retain", **spec: Any) -> Json:
    given = {"whenScaled": scaled, "whenDeleted": deleted}
    return owner("StatefulSet", "web", {"persistentVolumeClaimRetentionPolicy": given, **spec}, uid="ss-456")


def claim(*references: Json) -> Json:
    metadata: Json = {"name": "data-web-1", "uid": "claim", "labels": {"a": "b"}}
    return {
        "kind": claims.KIND,
        "metadata": {**metadata, **({"ownerReferences": [*references]} if references else {})},
    }


def owners(doc: Json) -> list[Json]:
    found: list[Json] = doc["metadata"].get("ownerReferences") or []
    return found


# The policy, whether the pod is scaled down, and whether its claim belongs to the set and to the pod.
POLICIES = [
    ("Retain", "Retain", False, False, False),
    ("Retain", "Retain", True, False, False),
    ("Retain", "Delete", False, True, False),
    ("Retain", "Delete", True, True, False),
    ("Delete", "Retain", True, False, True),
    ("Delete", "Retain", False, False, False),
    ("Delete", "Delete", True, False, True),
    ("Delete", "Delete", False, True, False),
]


@pytest.mark.parametrize(("scaled", "deleted", "condemned", "of_set", "of_pod"), POLICIES)
def test_who_owns_a_claim(scaled: str, deleted: str, condemned: bool, of_set: bool, of_pod: bool) -> None:
    """TestIsClaimOwnerUpToDate, TestUpdateClaimOwnerRefForSetAndPod: from each set of owners to the right one."""
    of = stateful(scaled, deleted)
    by_set, by_pod = owner_reference(of), owner_reference(POD)
    for has_set, has_pod, others in itertools.product((False, True), repeat=3):
        given = claim(*[by_pod] * has_pod, *[by_set] * has_set, *OTHERS * others)
        right = (has_set, has_pod) == (of_set, of_pod)
        assert claims.has_right_owners(given, of, POD, condemned) == right
        changed = claims.with_owners(given, of, POD, condemned)
        assert owners(changed) == [*OTHERS * others, *[by_set] * of_set, *[by_pod] * of_pod]
        assert claims.has_right_owners(changed, of, POD, condemned)
        assert changed["metadata"]["labels"] == {"a": "b"}


def _ref(of: Json, **changes: Any) -> Json:
    found = {**owner_reference(of), **changes}
    return {key: value for key, value in found.items() if value is not None}


SET = stateful()


@pytest.mark.parametrize(
    ("scaled", "references", "right"),
    [
        ("Delete", [_ref(POD)], True),  # normal controller, pod
        ("Delete", [_ref(POD, controller=None)], False),  # non-controller causes policy mismatch, pod
        ("Delete", [_ref(POD, uid="pod-stale")], True),  # stale controller does not affect policy, pod
        ("Delete", [_ref(POD), {**OTHERS[0], "controller": True}], False),  # unexpected controller, pod
        ("Retain", [_ref(SET)], True),  # normal controller, set
        ("Retain", [_ref(SET, controller=None)], False),
        ("Retain", [_ref(SET, uid="set-stale")], True),
        ("Retain", [_ref(SET), UNKNOWN], False),
        ("Retain", [UNKNOWN], True),  # nothing is added to what another controller has
    ],
)
def test_unusual_owners(scaled: str, references: list[Json], right: bool) -> None:
    """A claim's owners fit the policy or not, for a pod that is scaled down (TestClaimOwnerUpToDateEdgeCases)."""
    found = claims.has_right_owners(claim(*references), stateful(scaled, "Delete"), POD, True)
    assert found == right


def test_another_controller_ends_the_policy() -> None:
    """A claim that another controller owns keeps that owner alone (TestUpdateClaimOwnerRefForSetAndPod: "unexpected
    controller"; TestHasUnexpectedController)."""
    of = stateful("Delete", "Delete")
    given = claim(_ref(of), UNKNOWN, _ref(POD))
    assert claims.has_other_controller(given, of, POD)
    assert owners(claims.with_owners(given, of, POD, False)) == [UNKNOWN]
    assert not claims.has_other_controller(given, stateful(), POD), (
        "Retain does not ask who the controller is"
    )
    assert claims.has_other_controller(claim(_ref(of, uid="earlier")), of, POD)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([_ref(SET), OTHERS[0]], [OTHERS[0], _ref(SET)]),
        ([_ref(SET, controller=None)], [_ref(SET)]),
        ([{**_ref(SET), "apiVersion": "someone", "kind": "else", "uid": "456"}], None),
        ([], [_ref(SET)]),
        ([_ref(SET, uid=None)], []),  # a missing uid counts as an earlier set
        ([_ref(SET, uid=None, controller=None)], []),
    ],
)
def test_the_reference_to_the_set(given: list[Json], expected: list[Json] | None) -> None:
    """The reference to the set is added or corrected; a controller of another kind stays alone
    (TestUpdateClaimControllerRef)."""
    found = owners(claims.with_owners(claim(*given), stateful("Delete", "Delete"), POD, False))
    assert found == (given if expected is None else expected)


def test_a_stale_claim() -> None:
    """TestHasStaleOwnerRef, for a pod that is not created yet, too."""
    unborn = {"metadata": {"name": "web-1"}}
    assert claims.is_stale(claim(_ref(POD)), unborn)
    assert not claims.is_stale(claim(_ref(POD)), POD)
    assert claims.is_stale(claim(_ref(POD, uid="x")), POD)
    assert not claims.is_stale(claim(*OTHERS), POD)


TEMPLATES = [
    {"metadata": {"name": "data", "labels": {"t": "1"}, "annotations": {"n": "1"}}, "spec": {"a": 1}},
    {"metadata": {"name": "log"}, "spec": {"b": 1}},
]


def test_new_claims() -> None:
    """TestGetPersistentVolumeClaims: names, labels of the template and the selector."""
    found = claims.new_claims(stateful(volumeClaimTemplates=TEMPLATES), "web-1")
    assert [one["metadata"]["name"] for one in found] == ["data-web-1", "log-web-1"]
    assert found[0]["metadata"]["labels"] == {"t": "1", **LABELS} and found[1]["metadata"]["labels"] == LABELS
    assert found[0]["metadata"]["annotations"] == {"n": "1"} and found[0]["spec"] == {"a": 1}
    assert not owners(found[0])
    of = stateful("Delete", "Delete", volumeClaimTemplates=TEMPLATES)
    (first, _) = claims.new_claims(of, "web-1")
    assert claims.has_right_owners({**first, "uid": "c"}, of, POD, False)


def test_a_pod_mounts_its_claims() -> None:
    """TestUpdateStorage, TestStorageMatches: a volume of the template gives way to a claim of this name."""
    of = stateful(volumeClaimTemplates=TEMPLATES)
    spec: Json = {"volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}
    found = claims.with_volumes(of, spec, "web-1")
    assert found["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-1"}},
        {"name": "log", "persistentVolumeClaim": {"claimName": "log-web-1"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    assert len(spec["volumes"]) == 2, "the template is not changed in place"
    assert claims.has_volumes(of, {**POD, "spec": found})
    assert not claims.has_volumes(of, {**POD, "spec": spec})
    assert not claims.has_volumes(of, {**POD, "metadata": {"name": "web-2"}, "spec": found})
    assert claims.with_volumes(stateful(), spec, "web-1") is spec


def test_claims_survive_by_default() -> None:
    world, web = world_of(2, volumeClaimTemplates=[TEMPLATE])
    course(world, web)
    before = {one["metadata"]["uid"] for one in world.of(CLAIM)}
    edit(world, web, replicas=0)
    course(world, web)
    edit(world, web, replicas=2)
    course(world, web)
    world.delete(web["metadata"]["uid"])
    assert {one["metadata"]["uid"] for one in world.of(CLAIM)} == before


@pytest.mark.parametrize("spec", [{}, PARALLEL])
def test_claims_are_deleted_when_scaled_down(spec: Json) -> None:
    """TestStatefulSetControl ScalesDown: a claim belongs to its pod before the pod is deleted."""
    world, web = world_of(3, volumeClaimTemplates=[TEMPLATE], **spec, **retention("Delete", "Retain"))
    course(world, web)
    edit(world, web, replicas=1)
    plan = world.decide(web)
    kinds = [type(one) for one in plan.effects if isinstance(one, Rewrite | Delete)]
    assert kinds == sorted(kinds, key=lambda kind: kind is Delete) and Rewrite in kinds
    course(world, web)
    assert [one["metadata"]["name"] for one in world.of(CLAIM)] == ["data-web-0"]
    world.delete(web["metadata"]["uid"])
    assert len(world.of(CLAIM)) == 1


def test_claims_are_deleted_with_the_set() -> None:
    """A set that is edited takes the claims that it has."""
    world, web = world_of(2, volumeClaimTemplates=[TEMPLATE])
    course(world, web)
    edit(world, web, **retention("Retain", "Delete"))
    course(world, web)
    assert all(one["metadata"]["ownerReferences"] == [owner_reference(web)] for one in world.of(CLAIM))
    world.delete(web["metadata"]["uid"])
    for one in world.of("Pod"):
        world.vanish(one["metadata"]["uid"])
    assert not world.of(CLAIM)


def test_a_claim_that_is_being_deleted_with_an_earlier_pod_is_waited_for() -> None:
    """PodClaimIsStale."""
    world, web = world_of(2, volumeClaimTemplates=[TEMPLATE], **retention("Delete", "Delete"))
    course(world, web)
    gone = owner_reference({**world.named("Pod", "web-1"), "metadata": {"name": "web-1", "uid": "earlier"}})
    claim = world.edit(
        world.named(CLAIM, "data-web-1"), lambda new: new["metadata"].update(ownerReferences=[gone])
    )
    world.vanish(world.named("Pod", "web-1")["metadata"]["uid"])
    assert sync(world, web) == ""
    world.delete(claim["metadata"]["uid"])
    assert sync(world, web) == "+1"
    assert not is_terminating(world.named(CLAIM, "data-web-1"))


def test_a_claim_with_another_controller_is_left_alone() -> None:
    """UpdatePodClaimForRetentionPolicy: ConflictingController."""
    world, web = world_of(1, volumeClaimTemplates=[TEMPLATE], **retention("Delete", "Delete"))
    course(world, web)
    other = {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "o", "controller": True}
    world.edit(world.named(CLAIM, "data-web-0"), lambda new: new["metadata"]["ownerReferences"].append(other))
    plan = world.sync(web)
    assert "ConflictingController" in reasons(plan)
    assert world.named(CLAIM, "data-web-0")["metadata"]["ownerReferences"] == [other]
    assert pods.is_ready(world.named("Pod", "web-0")) and reasons(world.decide(web)) == []


def test_a_claim_from_a_manifest_keeps_its_owners() -> None:
    """The directory is the truth: the claim is deleted with its manifest alone."""
    world, web = world_of(1, volumeClaimTemplates=[TEMPLATE], **retention("Delete", "Delete"))
    metadata = {"name": "data-web-0", "annotations": {SOURCE: "data.yaml"}}
    world.add({"apiVersion": "v1", "kind": CLAIM, "metadata": metadata, "spec": {}})
    course(world, web)
    edit(world, web, replicas=0)
    course(world, web)
    (claim,) = world.of(CLAIM)
    assert "ownerReferences" not in claim["metadata"]
