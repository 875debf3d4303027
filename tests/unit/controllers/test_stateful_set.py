"""StatefulSets: the cases of pkg/controller/statefulset/stateful_set_control_test.go and stateful_set_utils_test.go."""

from __future__ import annotations

import pytest

from kubelite.controllers.decide import revisions, stateful_set
from kubelite.controllers.model import Create, Event, Plan, Rewrite, SetStatus
from kubelite.controllers.references import owner_reference
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of
from kubelite.kube.times import rfc3339
from manifests.types.defaults import default_template
from manifests.types.pod import PodTemplateSpec
from tests.unit.controllers.sets import LABELS, pod, ready, reasons
from tests.unit.controllers.stateful import (
    CLAIM,
    ON_DELETE,
    PARALLEL,
    TEMPLATE,
    course,
    edit,
    images,
    rolling,
    status,
    sync,
    world_of,
)


def test_the_pods_of_a_set() -> None:
    """TestStatefulSetControl CreatePods; newStatefulSetPod, initIdentity, updateStorage."""
    world, web = world_of(2, volumeClaimTemplates=[TEMPLATE])
    course(world, web)
    (first, second) = world.owned(web, "Pod")
    (revision,) = world.of(revisions.KIND)
    assert second["metadata"]["labels"] == {
        **LABELS,
        "statefulset.kubernetes.io/pod-name": "web-1",
        "apps.kubernetes.io/pod-index": "1",
        "controller-revision-hash": revision["metadata"]["name"],
    }
    assert (second["spec"]["hostname"], second["spec"]["subdomain"]) == ("web-1", "db")
    assert first["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}
    ]
    assert [one["metadata"]["name"] for one in world.of(CLAIM)] == ["data-web-0", "data-web-1"]
    assert revision["metadata"]["labels"]["controller.kubernetes.io/hash"]
    assert status(world) == {
        "observedGeneration": 1,
        "replicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "currentReplicas": 2,
        "updatedReplicas": 2,
        "currentRevision": revision["metadata"]["name"],
        "updateRevision": revision["metadata"]["name"],
        "collisionCount": 0,
    }
    assert [event.message for event in world.events[:2]] == [
        "Create Claim data-web-0 Pod web-0 in StatefulSet web success",
        "Create Pod web-0 in StatefulSet web successful",
    ]


def test_a_claim_is_created_before_its_pod() -> None:
    world, web = world_of(3, volumeClaimTemplates=[TEMPLATE], **PARALLEL)
    kinds = [
        type(one).__name__ + (one.doc["kind"] if isinstance(one, Create) else "")
        for one in world.decide(web).effects
    ]
    assert kinds == [
        *["CreateControllerRevision"],
        *["CreatePersistentVolumeClaim"] * 3,
        *["Event"] * 3,
        *["CreatePod"] * 3,
        *["Event"] * 3,
        "SetStatus",
    ]


@pytest.mark.parametrize(
    ("spec", "up", "down"),
    [({}, ["+0", "+1", "+2"], ["-2", "-1", "-0"]), (PARALLEL, ["+0 +1 +2"], ["-2 -1 -0"])],
)
def test_scaling(spec: Json, up: list[str], down: list[str]) -> None:
    """TestStatefulSetControl ScalesUp, ScalesDown."""
    world, web = world_of(3, **spec)
    assert course(world, web) == up
    edit(world, web, replicas=0)
    assert course(world, web) == down
    assert status(world)["replicas"] == 0


def test_ordinals_begin_at_the_start() -> None:
    """TestStatefulSetControlWithStartOrdinal: pods below it are condemned."""
    world, web = world_of(2, ordinals={"start": 2})
    assert course(world, web) == ["+2", "+3"]
    edit(world, web, ordinals={"start": 0})
    assert course(world, web) == ["+0", "+1", "-3", "-2"]
    edit(world, web, ordinals={"start": 1})
    assert course(world, web) == ["+2", "-0"]


def test_an_ordered_set_waits_for_the_predecessor() -> None:
    """processReplica: until it is running, ready and available."""
    world, web = world_of(2, minReadySeconds=5)
    assert sync(world, web) == "+0" and sync(world, web) == ""
    world.start(world.named("Pod", "web-0"), ready=False)
    assert sync(world, web) == ""
    world.start(world.named("Pod", "web-0"))
    plan = world.sync(web)
    assert (
        plan.again == 5.0 and status(world)["readyReplicas"] == 1 and status(world)["availableReplicas"] == 0
    )
    world.now += 5
    assert sync(world, web) == "+1"


@pytest.mark.parametrize(("spec", "expected"), [({}, ["+1", "+3"]), (PARALLEL, ["+1 +3"])])
def test_missing_pods_are_replaced(spec: Json, expected: list[str]) -> None:
    """TestStatefulSetControl ReplacesPods."""
    world, web = world_of(5, **spec)
    course(world, web)
    for name in ("web-1", "web-3"):
        world.vanish(world.named("Pod", name)["metadata"]["uid"])
    assert course(world, web) == expected


@pytest.mark.parametrize("spec", [{}, PARALLEL])
@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_pod_that_has_ended_is_recreated(spec: Json, phase: str) -> None:
    """TestStatefulSetControl RecreatesFailedPod, RecreatesSucceededPod."""
    world, web = world_of(3, **spec)
    course(world, web)
    world.set_status(world.named("Pod", "web-1"), phase=phase)
    assert sync(world, web) == "-1" and sync(world, web) == "+1"
    world.settle()
    assert status(world)["readyReplicas"] == 3


def test_failing_pods_back_off() -> None:
    """kubelite's own rule: a pod that the node rejects is not recreated all the time."""
    world, web = world_of(1)
    waits = []
    for _ in range(4):
        world.run_controllers()
        world.fail(world.named("Pod", "web-0"))
        plan = world.sync(web)
        waits.append(plan.again)
        world.now += plan.again or 0.0
    assert waits == [None, 1.0, 2.0, 4.0]


@pytest.mark.parametrize(("spec", "expected"), [({}, []), (PARALLEL, ["+1"])])
def test_a_terminating_pod_is_waited_for(spec: Json, expected: list[str]) -> None:
    """processReplica: isTerminating."""
    world, web = world_of(2, **spec)
    course(world, web)
    world.delete(world.named("Pod", "web-0")["metadata"]["uid"])
    world.vanish(world.named("Pod", "web-1")["metadata"]["uid"])
    assert [done for _ in range(2) if (done := sync(world, web))] == expected


def test_a_pod_that_is_not_admitted() -> None:
    """TestStatefulSetControl CreatePodFailure; recordPodEvent."""
    world, web = world_of(1, volumeClaimTemplates=[TEMPLATE])
    world.refuse = lambda made: f'pods "{made["metadata"]["name"]}" is forbidden: exceeded quota: q'
    plan = world.sync(web)
    assert plan.again == stateful_set.RETRY and not world.of("Pod") and len(world.of(CLAIM)) == 1
    why = 'pods "web-0" is forbidden: exceeded quota: q'
    assert world.events[-1].message == f"Create Pod web-0 in StatefulSet web failed error: {why}"
    assert (world.events[-1].type, world.events[-1].reason) == ("Warning", "FailedCreate")
    world.refuse = lambda made: ""
    assert sync(world, web) == "+0"


def test_a_name_that_another_pod_has() -> None:
    world, web = world_of(1)
    pod(world, {**web, "metadata": {**web["metadata"], "uid": "earlier"}}, "web-0")
    plan = world.sync(web)
    assert plan.again == stateful_set.RETRY_TAKEN and reasons(plan) == ["FailedCreate"]


def test_a_missing_claim_of_a_pending_pod_is_created() -> None:
    """TestStatefulSetControl RecreatesPVCForPendingPod."""
    world, web = world_of(1, volumeClaimTemplates=[TEMPLATE])
    world.sync(web)
    world.vanish(world.named(CLAIM, "data-web-0")["metadata"]["uid"])
    world.sync(web)
    assert [one["metadata"]["name"] for one in world.of(CLAIM)] == ["data-web-0"]


def test_a_terminating_claim_is_waited_for() -> None:
    """createPersistentVolumeClaims: "pvc … is being deleted"."""
    world, web = world_of(1, volumeClaimTemplates=[TEMPLATE])
    metadata = {"name": "data-web-0", "deletionTimestamp": rfc3339(world.now)}
    claim = world.add({"apiVersion": "v1", "kind": CLAIM, "metadata": metadata, "spec": {}})
    assert sync(world, web) == "" and world.events[-1].reason == "FailedCreate"
    assert world.events[-1].message.endswith("failed error: pvc data-web-0 is being deleted")
    world.vanish(claim["metadata"]["uid"])
    assert sync(world, web) == "+0"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ["-2", "+2", "-1", "+1", "-0", "+0"]),  # monotonic image update
        (PARALLEL, ["-2", "+2", "-1", "+1", "-0", "+0"]),  # burst image update
        (rolling(partition=2), ["-2", "+2"]),
        (rolling(partition=7), []),
        (rolling(maxUnavailable=2), ["-2 -1", "+1", "+2", "-0", "+0"]),
        ({**PARALLEL, **rolling(maxUnavailable=2)}, ["-2 -1", "+1 +2", "-0", "+0"]),
        ({**PARALLEL, **rolling(maxUnavailable="100%")}, ["-2 -1 -0", "+0 +1 +2"]),
        ({**PARALLEL, **rolling(maxUnavailable="30%")}, ["-2", "+2", "-1", "+1", "-0", "+0"]),
        (ON_DELETE, []),
    ],
)
def test_rolling_updates(spec: Json, expected: list[str]) -> None:
    """TestStatefulSetControlRollingUpdate, …WithPartition, …WithMaxUnavailable, …OnDeleteUpdate;
    TestGetStatefulSetMaxUnavailable: rounded down, but at least 1."""
    world, web = world_of(3, **spec)
    course(world, web)
    edit(world, web, "web:2")
    assert course(world, web) == expected
    partition = (spec.get("updateStrategy") or {}).get("rollingUpdate", {}).get("partition", 0)
    new = [] if spec == ON_DELETE else [one for one in range(3) if one >= partition]
    assert images(world) == {f"web-{one}": f"web:{1 + (one in new)}" for one in range(3)}
    found = status(world)
    assert found.get("updatedReplicas", 0) == len(new) and found["updateRevision"] != ""
    assert (found["currentRevision"] == found["updateRevision"]) == (len(new) == 3)


@pytest.mark.parametrize(
    ("spec", "replicas", "expected"),
    [
        ({}, 5, ["+3", "+4", "-2", "+2", "-1", "+1", "-0", "+0"]),  # monotonic image update and scale up
        ({}, 1, ["-2", "-1", "-0", "+0"]),  # monotonic image update and scale down
        (PARALLEL, 5, ["+3 +4", "-2", "+2", "-1", "+1", "-0", "+0"]),
        (PARALLEL, 1, ["-2 -1 -0", "+0"]),
    ],
)
def test_an_update_while_scaling(spec: Json, replicas: int, expected: list[str]) -> None:
    """TestStatefulSetControlRollingUpdate: scaling precedes the update; a parallel set does both at once."""
    world, web = world_of(3, **spec)
    course(world, web)
    edit(world, web, "web:2", replicas=replicas)
    assert course(world, web) == expected
    assert set(images(world).values()) == {"web:2"} and len(images(world)) == replicas


def test_pods_below_the_partition_are_recreated_from_the_old_revision() -> None:
    """newVersionedStatefulSetPod; TestStatefulSetControlRollingUpdateWithPartition with ordinals.start."""
    world, web = world_of(3, ordinals={"start": 5}, **rolling(partition=1))
    course(world, web)
    edit(world, web, "web:2")
    course(world, web)
    world.vanish(world.named("Pod", "web-5")["metadata"]["uid"])
    course(world, web)
    assert images(world) == {"web-5": "web:1", "web-6": "web:2", "web-7": "web:2"}


def test_on_delete_updates_a_pod_that_is_deleted() -> None:
    """With OnDelete, only a pod that the user deletes gets the new image (TestStatefulSetControlOnDeleteUpdate)."""
    world, web = world_of(2, **ON_DELETE)
    course(world, web)
    edit(world, web, "web:2")
    course(world, web)
    world.delete(world.named("Pod", "web-0")["metadata"]["uid"])
    world.settle()
    assert images(world) == {"web-0": "web:2", "web-1": "web:1"}


@pytest.mark.parametrize(
    ("away", "deleted"), [((), 2), ((5,), 1), ((3,), 1), ((5, 4), 0), ((4, 3), 0), ((5, 4, 3), 0), ((2,), 1)]
)
def test_unavailable_pods_count_for_the_update(away: tuple[int, ...], deleted: int) -> None:
    """TestStatefulSetControlRollingUpdateWithMaxUnavailableInOrderedModeVerifyInvariant, in parallel: an ordered set
    waits for terminating pods before it comes to the update."""
    world, web = world_of(6, **PARALLEL, **rolling(partition=3, maxUnavailable=2))
    course(world, web)
    for ordinal in away:
        world.delete(world.named("Pod", f"web-{ordinal}")["metadata"]["uid"])
    edit(world, web, "web:2")
    assert len(sync(world, web).split()) == deleted


def test_min_ready_seconds_slow_an_update_down() -> None:
    """TestStatefulSetRollingUpdateRespectsMinReadySeconds, TestStatefulSetScaleDownRespectsMinReadySeconds."""
    world, web = world_of(3, minReadySeconds=30)
    world.settle()
    edit(world, web, "web:2")
    assert sync(world, web) == "-2"
    world.start_and_vanish()
    assert sync(world, web) == "+2"
    world.start_and_vanish()
    edit(world, web, replicas=2)
    plan = world.decide(web)
    assert plan.again == 30.0 and sync(world, web) == "-2", (
        "the first unavailable pod is condemned: it may go"
    )
    world.start_and_vanish()
    assert sync(world, web) == "-1"
    world.start_and_vanish()
    assert sync(world, web) == "+1"
    world.start_and_vanish()
    world.now += 29
    assert sync(world, web) == ""
    world.now += 1
    assert sync(world, web) == "-0"


def test_only_the_first_unhealthy_pod_is_deleted_when_scaling_down() -> None:
    """processCondemned: "the condemned target is not the first unhealthy Pod"."""
    world, web = world_of(3)
    course(world, web)
    world.unready(world.named("Pod", "web-1"))
    world.unready(world.named("Pod", "web-2"))
    edit(world, web, replicas=1)
    assert sync(world, web) == "", "web-1 is the first unhealthy one, and web-2 comes first"
    world.start(world.named("Pod", "web-2"))
    assert course(world, web) == ["-2", "-1"]


def test_ended_pods_do_not_block_scaling_down() -> None:
    """kubelite's own rule: Kubernetes waits for ever."""
    world, web = world_of(3)
    course(world, web)
    for name in ("web-1", "web-2"):
        world.fail(world.named("Pod", name))
    edit(world, web, replicas=1)
    assert course(world, web) == ["-2", "-1"]


def test_revisions() -> None:
    """TestStatefulSetControl_getSetRevisions, TestStatefulSetControlRollback."""
    world, web = world_of(1)
    course(world, web)
    for image in ("web:2", "web:3", "web:2"):
        edit(world, web, image)
        course(world, web)
    found = {
        revisions.template_of(one)["spec"]["containers"][0]["image"]: one["revision"]
        for one in world.of(revisions.KIND)
    }
    assert found == {"web:1": 1, "web:3": 3, "web:2": 4}
    assert not any(isinstance(one, Create | Rewrite) for one in world.decide(web).effects)


def test_a_default_that_is_new_replaces_no_pod() -> None:
    """A template that differs only by filled-in defaults replaces no pod (TestStatefulSetCompatibility)."""
    world, web = world_of(2)
    course(world, web)
    given = PodTemplateSpec.parse(web["spec"]["template"])
    default_template(given.spec)
    edit(world, web, template=given.to_json())
    assert course(world, web) == [] and len(world.of(revisions.KIND)) == 1


@pytest.mark.parametrize("limit", [0, 2])
def test_old_revisions_beyond_the_limit_are_deleted(limit: int) -> None:
    """TestStatefulSetHonorRevisionHistoryLimit, TestStatefulSetControlLimitsHistory."""
    world, web = world_of(2, revisionHistoryLimit=limit)
    for number in range(1, 6):
        edit(world, web, f"web:{number}")
        world.settle()
    assert [one["revision"] for one in revisions.sort_revisions(world.of(revisions.KIND))] == [
        *range(5 - limit, 6)
    ]


def test_the_status_during_an_update() -> None:
    """TestStatefulSetStatusUpdate; completeRollingUpdate."""
    world, web = world_of(2)
    course(world, web)
    old = status(world)["currentRevision"]
    edit(world, web, "web:2")
    world.sync(web)
    found = status(world)
    assert found["currentReplicas"] == 1 and "updatedReplicas" not in found
    assert found["currentRevision"] == old != found["updateRevision"] and found["observedGeneration"] == 2
    world.start_and_vanish()
    for _ in range(2):
        world.sync(web)
    found = status(world)
    assert (found["replicas"], found["readyReplicas"], found["updatedReplicas"]) == (2, 1, 1)


def test_a_deleted_set_only_counts() -> None:
    """updateStatefulSet: "If the StatefulSet is being deleted, don't do anything other than updating status"."""
    world, web = world_of(2)
    course(world, web)
    world.vanish(world.named("Pod", "web-1")["metadata"]["uid"])
    world.edit(web, lambda new: new["metadata"].update(deletionTimestamp=rfc3339(world.now)))
    plan = world.sync(web)
    assert [type(one) for one in plan.effects] == [SetStatus] and status(world)["replicas"] == 1
    for revision in world.of(revisions.KIND):
        world.vanish(revision["metadata"]["uid"])
    assert world.decide(web) == Plan()


@pytest.mark.parametrize(
    ("name", "adopted"),
    [
        ("web-0", True),
        ("web-7", True),
        ("other-0", False),
        ("web", False),
        ("web-00", False),
        ("web-x-0", False),
    ],
)
def test_only_pods_with_a_name_of_the_set_are_adopted(name: str, adopted: bool) -> None:
    """TestGetParentNameAndOrdinal, TestIsMemberOf."""
    world, web = world_of(1)
    orphan = pod(world, web, name, ready(world.now))
    world.edit(orphan, lambda new: new["metadata"].pop("ownerReferences"))
    world.sync(web)
    assert any(one["metadata"]["name"] == name for one in world.owned(web, "Pod")) == adopted


def test_an_adopted_pod_gets_its_labels() -> None:
    """TestUpdateIdentity, UpdateStatefulPod."""
    world, web = world_of(1)
    orphan = pod(world, web, "web-0", ready(world.now))
    world.edit(orphan, lambda new: new["metadata"].pop("ownerReferences"))
    plan = world.sync(web)
    assert "SuccessfulUpdate" in reasons(plan)
    found = world.named("Pod", "web-0")
    assert (
        labels_of(found)[stateful_set.POD_NAME] == "web-0" and labels_of(found)[stateful_set.POD_INDEX] == "0"
    )
    assert found["metadata"]["ownerReferences"] == [owner_reference(web)]
    world.settle()
    (only,) = world.of("Pod")
    assert labels_of(only)[revisions.POD_LABEL] == status(world)["currentRevision"]


def test_a_pod_without_its_claims_cannot_be_repaired() -> None:
    """TestStatefulSetControl UpdatePodFailure: the API server refuses other volumes."""
    world, web = world_of(2, volumeClaimTemplates=[TEMPLATE])
    pod(world, web, "web-0", ready(world.now))
    plan = world.sync(web)
    (event,) = [one for one in plan.effects if isinstance(one, Event)]
    assert event.reason == "FailedUpdate" and "spec.volumes" in event.message and len(world.of("Pod")) == 1
