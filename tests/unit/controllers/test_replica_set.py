"""pkg/controller/replicaset/replica_set_test.go and replica_set_utils_test.go; the property of convergence."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from kubelite.controllers.decide import pods, replica_set
from kubelite.controllers.decide.jobs.back_off import finished_at
from kubelite.controllers.model import Create, Delete, Event, Plan, Rewrite, SetStatus
from kubelite.controllers.references import controller_of, is_terminating, owner_reference
from kubelite.kube.json import Json
from manifests.types.annotations import DELETION_COST
from tests.unit.controllers.world import START, WORLDS, World

LABELS = {"app": "web"}


def replica_set_doc(replicas: int, *, labels: Json | None = None, name: str = "web", **spec: Any) -> Json:
    """`labels`: of the template, more than the selector wants."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "minReadySeconds": 0,
            "selector": {"matchLabels": LABELS},
            "template": {
                "metadata": {"labels": {**LABELS, **(labels or {})}},
                "spec": {"containers": [{"name": "c", "image": "nginx"}]},
            },
            **spec,
        },
    }


def controller_doc(replicas: int) -> Json:
    doc = replica_set_doc(replicas)
    spec = {**doc["spec"], "selector": LABELS}
    return {**doc, "apiVersion": "v1", "kind": "ReplicationController", "spec": spec}


def world_of(doc: Json, seed: int = 0) -> tuple[World, Json]:
    world = World(seed)
    world.use("ReplicaSet", replica_set.decide, "Pod")
    world.use("ReplicationController", replica_set.decide, "Pod")
    return world, world.add(doc)


def put_pod(world: World, owner: Json | None, phase: str = "Running", *, labels: Json | None = None) -> Json:
    metadata: Json = {"generateName": "p-", "labels": LABELS if labels is None else labels}
    if owner is not None:
        metadata["ownerReferences"] = [owner_reference(owner)]
    pod = world.add({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}})
    if phase == "Running":
        world.start(pod)
    elif phase != "Pending":
        world.set_status(pod, phase=phase)
    return world.named("Pod", pod["metadata"]["name"])


def terminating_pod(world: World, owner: Json) -> Json:
    pod = put_pod(world, owner)
    world.delete(pod["metadata"]["uid"])
    return world.named("Pod", pod["metadata"]["name"])


def status_of(world: World, owner: Json) -> Json:
    found = world.get(owner["metadata"]["uid"])
    assert found is not None
    status: Json = found["status"]
    return status


def effects(plan: Plan, kind: type) -> list[Any]:
    return [effect for effect in plan.effects if isinstance(effect, kind)]


@pytest.mark.parametrize("doc", [replica_set_doc(3), controller_doc(3)], ids=lambda doc: str(doc["kind"]))
def test_a_new_set_creates_its_pods(doc: Json) -> None:
    world, web = world_of(doc)
    plan = world.sync(web)
    assert len(effects(plan, Create)) == 3
    made = world.owned(web, "Pod")
    assert len(made) == 3
    for pod in made:
        assert pod["metadata"]["name"].startswith("web-") and pod["metadata"]["labels"] == LABELS
        assert controller_of(pod) == owner_reference(web)
        assert pod["spec"]["containers"] == [{"name": "c", "image": "nginx"}]
    assert {event.reason for event in world.events} == {"SuccessfulCreate"}
    world.settle()
    terminating = {"terminatingReplicas": 0} if doc["kind"] == "ReplicaSet" else {}
    assert status_of(world, web) == {
        "replicas": 3,
        "fullyLabeledReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        **terminating,
        "observedGeneration": 1,
    }


def test_nothing_is_done_at_rest() -> None:
    """With as many pods as it shall have, it plans nothing (TestSyncReplicaSetDoesNothing)."""
    world, web = world_of(replica_set_doc(2))
    world.settle()
    assert world.decide(web) == Plan([])


def test_scaling_down_deletes_by_rank() -> None:
    world, web = world_of(replica_set_doc(4))
    world.settle()
    unready = world.of("Pod")[2]
    cheap = world.of("Pod")[1]
    world.unready(unready)
    annotations = {DELETION_COST: "-1"}
    world.edit(cheap, lambda new: new["metadata"].update(annotations=annotations))
    world.edit(web, lambda new: new["spec"].update(replicas=2))
    plan = world.sync(web)
    assert {effect.uid for effect in effects(plan, Delete)} == {
        unready["metadata"]["uid"],
        cheap["metadata"]["uid"],
    }
    said = [event.message for event in effects(plan, Event)]
    assert said == [f"Deleted pod: {pod['metadata']['name']}" for pod in (unready, cheap)]
    assert status_of(world, web)["replicas"] == 2
    assert status_of(world, web)["terminatingReplicas"] == 2
    assert status_of(world, web)["observedGeneration"] == 2
    world.settle()
    assert status_of(world, web)["terminatingReplicas"] == 0


@pytest.mark.parametrize(
    ("labels", "found", "seconds", "expected"),
    [
        # TestCalculateStatus: pods by (phase, ready for seconds, has the template's labels), terminating ones last
        ({}, [("Running", 0, True)], 0, (1, 1, 1, 1, 0)),
        ({"x": "1"}, [("Running", 0, False)], 0, (1, 0, 1, 1, 0)),
        ({}, [("Running", 0, True)] * 2, 0, (2, 2, 2, 2, 0)),
        ({"x": "1"}, [("Running", 0, False)] * 2, 0, (2, 0, 2, 2, 0)),
        ({"x": "1"}, [("Running", 0, False), ("Running", 0, True)], 0, (2, 1, 2, 2, 0)),
        ({}, [("Pending", 0, True)], 0, (1, 1, 0, 0, 0)),
        ({}, [("Running", 0, True)], 3600, (1, 1, 1, 0, 0)),
        ({}, [("Running", 3600, True)], 3600, (1, 1, 1, 1, 0)),
        ({}, [("Running", 7200, True)], 3600, (1, 1, 1, 1, 0)),
        ({}, [("Running", 0, True), ("Terminating", 0, True)], 0, (1, 1, 1, 1, 1)),
        ({}, [("Running", 0, True), ("Terminating", 0, True), ("Terminating", 0, True)], 0, (1, 1, 1, 1, 2)),
        ({}, [("Running", 0, True), ("Failed", 0, True), ("Succeeded", 0, True)], 0, (1, 1, 1, 1, 0)),
    ],
)
def test_counts(
    labels: Json, found: list[tuple[str, int, bool]], seconds: int, expected: tuple[int, ...]
) -> None:
    world, web = world_of(replica_set_doc(0, labels=labels, minReadySeconds=seconds))
    for phase, ready, full in found:
        world.now = START - ready
        own = {**LABELS, **(labels if full else {})}
        pod = put_pod(world, web, "Running" if phase == "Terminating" else phase, labels=own)
        if phase == "Terminating":
            world.delete(pod["metadata"]["uid"])
    world.now = START
    active = expected[0]
    world.edit(web, lambda new: new["spec"].update(replicas=active))
    plan = world.sync(web)
    assert not effects(plan, Create) and not effects(plan, Delete)
    status = status_of(world, web)
    keys = ("replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "terminatingReplicas")
    assert tuple(status.get(key, 0) for key in keys) == expected
    assert (plan.again is None) is (expected[2] == expected[3])


def test_min_ready_seconds_are_waited_for() -> None:
    """TestReplicaSetAvailabilityCheck: the earliest pod decides when to look again."""
    world, web = world_of(replica_set_doc(3, minReadySeconds=300))
    world.sync(web)
    first, second, _ = world.of("Pod")
    world.start(first)
    world.now += 40
    world.start(second)
    world.now += 10
    assert world.sync(web).again == 250
    assert "availableReplicas" not in status_of(world, web)
    world.now += 250
    assert world.sync(web).again == 40
    assert status_of(world, web)["availableReplicas"] == 1


def test_adoption_and_release() -> None:
    """TestPodControllerRefManager; claimPods gets active pods alone."""
    world, web = world_of(replica_set_doc(2))
    other = world.add(replica_set_doc(0, name="other"))
    orphan = put_pod(world, None)
    put_pod(world, None, "Failed")  # an ended pod is not adopted
    relabelled = put_pod(world, web, labels={"app": "other"})
    foreign = put_pod(world, other)
    plan = world.sync(web)
    assert {effect.doc["metadata"]["name"] for effect in effects(plan, Rewrite)} == {
        orphan["metadata"]["name"],
        relabelled["metadata"]["name"],
    }
    assert len(effects(plan, Create)) == 1
    released = world.named("Pod", relabelled["metadata"]["name"])
    assert controller_of(released) is None
    assert controller_of(world.named("Pod", foreign["metadata"]["name"])) == owner_reference(other)
    assert status_of(world, web)["replicas"] == 2


def test_a_terminating_set_only_counts() -> None:
    """During its deletion it neither adopts nor creates pods (TestDoNotAdoptOrCreateIfBeingDeleted)."""
    world, web = world_of(replica_set_doc(5))
    put_pod(world, web)
    put_pod(world, None)
    world.edit(web, lambda new: new["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"))
    plan = world.sync(web)
    assert [type(effect) for effect in plan.effects] == [SetStatus]
    assert status_of(world, web)["replicas"] == 1


def test_a_refused_pod_is_a_replica_failure() -> None:
    """TestControllerUpdateStatusWithFailure, TestCalculateStatusConditions."""
    world, web = world_of(replica_set_doc(2))
    world.refuse = lambda _pod: 'pods "web-" is forbidden: violates PodSecurity "restricted"'
    plan = world.sync(web)
    assert not effects(plan, Create) and plan.again == replica_set.RETRY_MIN
    condition = status_of(world, web)["conditions"][0]
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "ReplicaFailure",
        "True",
        "FailedCreate",
    )
    assert [event.message for event in world.events] == [f"Error creating: {condition['message']}"]
    world.now += 20
    plan = world.sync(web)
    assert (plan.effects, plan.again) == ([], 20), "told once, tried ever more rarely"
    world.now += 1000
    assert world.sync(web).again == replica_set.RETRY_MAX
    world.refuse = lambda _pod: ""
    world.settle()
    assert "conditions" not in status_of(world, web)
    assert status_of(world, web)["availableReplicas"] == 2


def test_an_ended_pod_is_replaced_and_stays() -> None:
    world, web = world_of(replica_set_doc(1))
    world.settle()
    world.fail(world.of("Pod")[0], reason="Evicted")
    world.settle()
    assert sorted(map(pods.phase, world.owned(web, "Pod"))) == ["Failed", "Running"]


def fail_at_once(world: World, seconds: float) -> list[float]:
    """Let every pod fail as soon as it is created, as on a node without room. Return when pods were created."""
    until, created = world.now + seconds, []
    while world.now < until:
        again = world.run_controllers()
        if active := [pod for pod in world.of("Pod") if pods.is_active(pod)]:
            created.append(world.now)
            for pod in active:
                world.set_status(pod, phase="Failed", reason="OutOfmemory")
        else:
            assert again is not None, "nobody creates the missing pods"
            world.now += again
        for pod in world.of("Pod"):
            if is_terminating(pod):
                world.terminate(pod)
    return [at - START for at in created]


@pytest.mark.parametrize("replicas", [1, 3])
def test_pods_that_fail_again_and_again_are_replaced_more_and_more_slowly(replicas: int) -> None:
    world, owner = world_of(replica_set_doc(replicas))
    created = fail_at_once(world, 4 * 3600.0)
    assert created[:6] == pytest.approx([0.0, 0.0, 1.0, 3.0, 7.0, 15.0])
    assert min(later - before for before, later in pairwise(created[12:])) > 200.0
    kept = world.of("Pod")
    assert len(kept) == 10 * replicas
    assert max(finished_at(pod) for pod in kept) == int(START + created[-1])  # the newest ones are kept

    world.edit(owner, lambda new: new["spec"].update(replicas=0))
    world.settle()
    assert status_of(world, owner)["replicas"] == 0


def test_all_replicas_that_are_evicted_together_are_replaced_at_once() -> None:
    world, owner = world_of(replica_set_doc(5))
    world.settle()
    for pod in world.owned(owner, "Pod"):
        world.fail(pod, reason="Evicted")
    plan = world.sync(owner)
    assert len(effects(plan, Create)) == 5


def test_a_deleted_pod_is_replaced_at_once() -> None:
    world, web = world_of(replica_set_doc(1))
    terminating_pod(world, web)
    plan = world.sync(web)
    assert len(effects(plan, Create)) == 1
    assert status_of(world, web)["terminatingReplicas"] == 1


def random_world(seed: int) -> tuple[World, Json]:
    world = World(seed)
    draw = world.random
    make = draw.choice((replica_set_doc, controller_doc))
    world, web = world_of(make(draw.randrange(5)), seed)
    other = world.add(replica_set_doc(draw.randrange(3), name="other"))
    for _ in range(draw.randrange(8)):
        owner = draw.choice((web, web, other, None))
        phase = draw.choice(("Running", "Running", "Pending", "Failed", "Succeeded"))
        pod = put_pod(
            world, owner, phase, labels=draw.choice((LABELS, {**LABELS, "x": "1"}, {"app": "other"}))
        )
        if draw.random() < 0.2:
            world.delete(pod["metadata"]["uid"])
    return world, web


def disturb(world: World, web: Json) -> None:
    """Let something happen: an edit, a pod's fate, a controller that is killed between two effects, time."""
    draw = world.random
    found = world.of("Pod")
    match draw.randrange(7):
        case 0:
            world.edit(web, lambda new: new["spec"].update(replicas=draw.randrange(6)))
        case 1 if found:
            world.fail(draw.choice(found))
        case 2 if found:
            world.delete(draw.choice(found)["metadata"]["uid"])
        case 3 if found:
            pod = draw.choice(found)
            world.edit(
                pod, lambda new: new["metadata"].update(labels=draw.choice((LABELS, {"app": "other"})))
            )
        case 4:
            world.start_and_vanish()
        case _:
            world.sync(web, most=draw.randrange(4))
    world.now += draw.choice((0, 1, 30))


@pytest.mark.parametrize("batch", range(10))
def test_any_world_converges(batch: int) -> None:
    for seed in range(batch, WORLDS, 10):
        world, web = random_world(seed)
        for _ in range(world.random.randrange(12)):
            disturb(world, web)
        world.settle()
        current = world.named(web["kind"], "web")
        wanted = current["spec"]["replicas"]
        active = [pod for pod in world.owned(web, "Pod") if pods.is_active(pod)]
        assert len(active) == wanted, f"seed {seed}"
        status = current["status"]
        assert status.get("availableReplicas", 0) == status["replicas"] == wanted, f"seed {seed}"
        assert status["observedGeneration"] == current["metadata"]["generation"], f"seed {seed}"
        assert all(pod["metadata"]["labels"].items() >= LABELS.items() for pod in active), f"seed {seed}"
        assert world.decide(web) == Plan([]), f"seed {seed}"
        strays = [pod for pod in world.of("Pod") if controller_of(pod) is None and pods.is_active(pod)]
        assert not any(pod["metadata"]["labels"].items() >= LABELS.items() for pod in strays), f"seed {seed}"
