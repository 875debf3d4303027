"""DaemonSets: the cases of pkg/controller/daemon/daemon_controller_test.go and update_test.go, for one node."""

from __future__ import annotations

import pytest

from kubelite.controllers.decide import daemon_set, revisions
from kubelite.controllers.decide.node_fit import target_of
from kubelite.controllers.model import Plan
from kubelite.controllers.references import is_terminating
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of
from kubelite.kube.times import rfc3339
from manifests.types.defaults import default_template
from manifests.types.pod import PodTemplateSpec
from tests.unit.controllers.daemon import (
    ON_DELETE,
    STRATEGIES,
    TAINT,
    current_hash,
    node,
    set_image,
    settled,
    surge,
    unavailable,
    world_of,
)
from tests.unit.controllers.sets import LABELS, counts, pod, ready, reasons, template
from tests.unit.controllers.world import NODE, START


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_pod_is_created_on_the_node(strategy: Json) -> None:
    """TestSimpleDaemonSetScheduleDaemonSetPodsLaunchesPods, TestSimpleDaemonSetUpdatesStatusAfterLaunchingPods."""
    world, ds = world_of(strategy)
    plan = world.sync(ds)
    assert counts(plan) == (1, 0) and reasons(plan) == []
    (made,) = world.owned(ds, "Pod")
    (message,) = [event.message for event in world.events]
    assert message == f"Created pod: {made['metadata']['name']}"
    assert made["metadata"]["name"].startswith("web-")
    assert made["metadata"]["labels"] == {**LABELS, revisions.POD_LABEL: current_hash(world)}
    assert target_of({"spec": {**made["spec"], "nodeName": ""}}) == "node"
    assert len(made["spec"]["tolerations"]) == 6
    assert counts(world.decide(ds)) == (0, 0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_deleted_daemon_set_does_nothing(strategy: Json) -> None:
    """A daemon set that is being deleted plans nothing (TestDontDoAnythingIfBeingDeleted)."""
    world, ds = world_of(strategy)
    world.edit(ds, lambda new: new["metadata"].update(deletionTimestamp=rfc3339(world.now)))
    assert world.decide(ds) == Plan()


def test_an_empty_selector_does_nothing() -> None:
    """No pod is created or deleted, and an event says why (TestPodIsNotDeletedByDaemonsetWithEmptyLabelSelector)."""
    world, ds = world_of(ON_DELETE, selector={})
    plan = world.decide(ds)
    assert counts(plan) == (0, 0) and reasons(plan) == ["SelectingAll"]


def test_a_pod_that_is_not_admitted() -> None:
    """A refused pod is reported as FailedCreate and tried again (TestSimpleDaemonSetPodCreateErrors)."""
    world, ds = world_of(ON_DELETE)
    world.refuse = lambda made: f'pods "{made["metadata"]["generateName"]}x" is forbidden: exceeded quota: q'
    plan = world.sync(ds)
    assert counts(plan) == (0, 0) and reasons(plan) == ["FailedCreate"] and plan.again == daemon_set.RETRY
    assert world.events[0].message.startswith('Error creating: pods "web-')
    world.refuse = lambda made: ""
    assert counts(world.decide(ds)) == (1, 0)


@pytest.mark.parametrize("strategy", [ON_DELETE, unavailable()])
@pytest.mark.parametrize(("there", "expected"), [(0, (1, 0)), (1, (0, 0)), (2, (0, 1)), (5, (0, 4))])
def test_existing_pods(strategy: Json, there: int, expected: tuple[int, int]) -> None:
    """TestDealsWithExistingPods: all but the oldest pod are deleted."""
    world, ds = world_of(strategy)
    world.sync(ds, most=1)  # the revision
    labels = {revisions.POD_LABEL: current_hash(world)}
    for number in range(there):
        created = rfc3339(world.now - 100 + number)
        pod(world, ds, f"p{number}", labels=labels, creationTimestamp=created)
    plan = world.decide(ds)
    assert counts(plan) == expected
    world.apply(plan)
    assert there == 0 or not is_terminating(world.named("Pod", "p0"))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("there", "expected"), [(0, (0, 0)), (1, (0, 1)), (3, (0, 3))])
def test_pods_on_a_node_that_is_not_selected(strategy: Json, there: int, expected: tuple[int, int]) -> None:
    """TestSelectorDaemonDeletesUnselectedPods, TestBadSelectorDaemonDoesNothing."""
    world, ds = world_of(strategy, template=template(nodeSelector={"disk": "ssd"}))
    for number in range(there):
        pod(world, ds, f"p{number}")
    plan = world.sync(ds)
    assert counts(plan) == expected
    status = world.named("DaemonSet", "web")["status"]
    assert status["desiredNumberScheduled"] == 0 and status["numberMisscheduled"] == int(there > 0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_daemon_set_follows_the_labels_of_the_node(strategy: Json) -> None:
    """TestUpdateNode: "Node labels changed"."""
    world, ds = world_of(strategy, template=template(nodeSelector={"disk": "ssd"}))
    world.settle()
    assert not world.of("Pod")
    world.node = node(disk="ssd")
    settled(world, ds)
    world.node = node(disk="hdd")
    world.settle()
    assert not world.of("Pod")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("effect", "stays"), [("NoSchedule", True), ("NoExecute", False)])
def test_a_taint_on_the_node(strategy: Json, effect: str, stays: bool) -> None:
    """TestNoScheduleTaintedDoesntEvicitRunningIntolerantPod, TestNoExecuteTaintedDoesEvicitRunningIntolerantPod."""
    world, ds = world_of(strategy)
    settled(world, ds)
    world.node = node({**TAINT, "effect": effect})
    world.settle()
    assert len(world.of("Pod")) == int(stays)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("failed", "normal", "expected", "found"),
    [(0, 1, (0, 0), 0), (0, 0, (1, 0), 0), (1, 0, (0, 1), 1), (1, 3, (0, 3), 1)],
)
def test_failed_pods_are_deleted(
    strategy: Json, failed: int, normal: int, expected: tuple[int, int], found: int
) -> None:
    """TestDaemonKillFailedPods. With maxSurge, the next pod does not wait for the end of the failed one."""
    world, ds = world_of(strategy)
    world.sync(ds, most=1)  # the revision
    labels = {revisions.POD_LABEL: current_hash(world)}
    for number in range(failed):
        pod(world, ds, f"failed{number}", {"phase": "Failed"}, labels=labels)
    for number in range(normal):
        pod(world, ds, f"p{number}", labels=labels)
    plan = world.decide(ds)
    replaced = int(strategy == surge() and failed > normal)
    assert counts(plan) == (expected[0] + replaced, expected[1])
    assert reasons(plan).count("FailedDaemonPod") == found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_failed_pods_back_off(strategy: Json) -> None:
    """TestDaemonKillFailedPodsBackoff, over several failures and restarts of the daemon: nothing is remembered."""
    world, ds = world_of(strategy)
    waits = []
    for _ in range(4):
        world.run_controllers()
        (only,) = world.owned(ds, "Pod")
        world.fail(only)
        plan = world.sync(ds)
        waits.append(plan.again)
        assert counts(plan) == ((int(strategy == surge()), 1) if plan.again is None else (0, 0))
        world.now += plan.again or 0.0
        world.run_controllers()
        assert counts(world.decide(ds)) == (0, 0)
    assert waits == [None, 1.0, 2.0, 4.0]
    set_image(world, ds, "web:2")
    world.run_controllers()
    for only in world.owned(ds, "Pod"):
        world.vanish(only["metadata"]["uid"])
    world.run_controllers()
    (only,) = world.owned(ds, "Pod")
    world.fail(only)
    assert world.sync(ds).again is None, "another template has a back-off of its own"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_succeeded_pod_is_recreated(strategy: Json) -> None:
    """podsShouldBeOnNode: v1.PodSucceeded."""
    world, ds = world_of(strategy)
    world.succeed(settled(world, ds))
    plan = world.sync(ds)
    assert counts(plan) == (int(strategy == surge()), 1) and reasons(plan)[0] == "SucceededDaemonPod"
    settled(world, ds)


@pytest.mark.parametrize(("strategy", "creates"), [(ON_DELETE, 0), (unavailable(), 0), (surge(), 1)])
def test_a_terminating_pod_is_waited_for(strategy: Json, creates: int) -> None:
    """TestDaemonSetRespectsTermination; with maxSurge, TestSurgeCreatesNewPodWhenAtMaxSurgeAndOldPodDeleted."""
    world, ds = world_of(strategy)
    pod(world, ds, "p0", ready(world.now), deletionTimestamp=rfc3339(world.now))
    assert counts(world.decide(ds)) == (creates, 0)


def test_a_terminating_pod_that_has_ended_is_not_waited_for() -> None:
    """A pod that is terminating and has failed is replaced at once (TestGetNodesToDaemonPods)."""
    world, ds = world_of(unavailable())
    pod(world, ds, "p0", {"phase": "Failed"}, deletionTimestamp=rfc3339(world.now))
    assert counts(world.decide(ds)) == (1, 0)


def test_pods_for_another_node_are_deleted() -> None:
    """TestDeleteUnscheduledPodForNotExistingNode; here also after the machine was renamed."""
    world, ds = world_of(unavailable())
    old = settled(world, ds)
    world.node = {**NODE, "metadata": {**NODE["metadata"], "name": "renamed"}}
    assert counts(world.sync(ds)) == (1, 1)
    world.start_and_vanish()
    assert settled(world, ds)["metadata"]["name"] != old["metadata"]["name"]


@pytest.mark.parametrize("most", [1, 2, "50%", 0])
def test_a_rolling_update_deletes_before_it_creates(most: int | str) -> None:
    """The old pod is deleted, then the new one is created (TestDaemonSetUpdatesPods). maxUnavailable 0 without a surge
    counts as 1 (updatedDesiredNodeCounts)."""
    world, ds = world_of(unavailable(most))
    settled(world, ds)
    set_image(world, ds, "web:2")
    steps = []
    for _ in range(4):
        steps.append(counts(world.sync(ds)))
        world.start_and_vanish()
    assert steps == [(0, 1), (1, 0), (0, 0), (0, 0)]


def test_a_surge_creates_before_it_deletes() -> None:
    """The old pod is deleted once the new one is ready (TestDaemonSetUpdatesPodsWithMaxSurge)."""
    world, ds = world_of(surge())
    settled(world, ds)
    set_image(world, ds, "web:2")
    assert [counts(world.sync(ds)) for _ in range(2)] == [(1, 0), (0, 0)]
    world.start_and_vanish()
    assert counts(world.sync(ds)) == (0, 1)
    assert labels_of(settled(world, ds))[revisions.POD_LABEL] == current_hash(world)


def test_a_surge_on_a_node_that_no_longer_suits() -> None:
    """TestDaemonSetUpdatesPodsNotMatchTainstWithMaxSurge: the old pod is deleted, none is created."""
    tolerant = template(tolerations=[{"key": "k", "operator": "Exists"}])
    world, ds = world_of(surge(), at=node(TAINT), template=tolerant)
    settled(world, ds)
    world.edit(ds, lambda new: new["spec"].update(template=template()))
    assert counts(world.sync(ds)) == (0, 1)
    world.settle()
    assert not world.of("Pod")


def test_an_update_does_not_wait_for_an_unavailable_old_pod() -> None:
    """TestDaemonSetUpdatesAllOldPodsNotReady, TestDaemonSetUpdatesAllOldPodsNotReadyMaxSurge."""
    for strategy, expected in ((unavailable(), (0, 1)), (surge(), (1, 0))):
        world, ds = world_of(strategy)
        world.run_controllers()  # the pod is pending
        set_image(world, ds, "web:2")
        assert counts(world.sync(ds)) == expected
        if strategy == surge():
            assert counts(world.sync(ds)) == (0, 1), "the old pod is not ready: it is deleted at once"


def test_on_delete_leaves_the_pod() -> None:
    world, ds = world_of(ON_DELETE)
    old = settled(world, ds)
    set_image(world, ds, "web:2")
    world.settle()
    assert settled(world, ds)["metadata"]["uid"] == old["metadata"]["uid"]
    assert world.named("DaemonSet", "web")["status"].get("updatedNumberScheduled", 0) == 0
    world.delete(old["metadata"]["uid"])
    assert settled(world, ds)["spec"]["containers"][0]["image"] == "web:2"


def test_an_edit_beside_the_template_changes_no_pod() -> None:
    """A changed update strategy replaces no pod and makes no revision (TestDaemonSetUpdatesNoTemplateChanged)."""
    world, ds = world_of(unavailable())
    settled(world, ds)
    world.edit(ds, lambda new: new["spec"].update(updateStrategy=unavailable(3)))
    assert counts(world.sync(ds)) == (0, 0) and len(world.of(revisions.KIND)) == 1


@pytest.mark.parametrize(
    ("new_status", "min_ready", "deleted"),
    [
        ({"phase": "Running"}, 0, {"extra"}),  # TestSurgePreservesReadyOldPods
        (ready(START - 10), 15, {"extra"}),  # TestSurgePreservesOldReadyWithUnsatisfiedMinReady
        (ready(START - 20), 15, {"extra", "old"}),  # TestSurgeDeletesOldReadyWithUnsatisfiedMinReady
    ],
)
def test_a_surge_keeps_one_old_and_one_new_pod(new_status: Json, min_ready: int, deleted: set[str]) -> None:
    world, ds = world_of(surge(), minReadySeconds=min_ready)
    world.sync(ds, most=1)
    labels = {revisions.POD_LABEL: current_hash(world)}
    long_ready = ready(world.now - 1000)
    pod(world, ds, "new", new_status, labels=labels, creationTimestamp=rfc3339(100))
    pod(world, ds, "old", long_ready, creationTimestamp=rfc3339(50))
    pod(world, ds, "extra", long_ready, creationTimestamp=rfc3339(60))
    assert counts(world.sync(ds)) == (0, len(deleted))
    found = {one["metadata"]["name"] for one in world.of("Pod") if is_terminating(one)}
    assert found == deleted


def test_a_surge_deletes_old_pods_that_are_not_ready() -> None:
    """Old pods that are not ready do not wait for the new one (TestSurgeDeletesUnreadyOldPods)."""
    world, ds = world_of(surge())
    world.sync(ds, most=1)
    labels = {revisions.POD_LABEL: current_hash(world)}
    pod(world, ds, "new", {"phase": "Running"}, labels=labels, creationTimestamp=rfc3339(100))
    pod(world, ds, "old", ready(0, is_ready=False), creationTimestamp=rfc3339(50))
    pod(world, ds, "extra", ready(0), creationTimestamp=rfc3339(60))
    world.sync(ds)
    assert [one["metadata"]["name"] for one in world.of("Pod") if not is_terminating(one)] == ["new"]


def test_the_status_of_a_ready_pod() -> None:
    """TestNumberReadyStatus, TestObservedGeneration: numberAvailable follows after minReadySeconds."""
    world, _ = world_of(unavailable(), minReadySeconds=7)
    world.run_controllers()
    status = {"currentNumberScheduled": 1, "desiredNumberScheduled": 1, "numberMisscheduled": 0}
    status |= {"observedGeneration": 1, "updatedNumberScheduled": 1, "numberUnavailable": 1}
    assert world.named("DaemonSet", "web")["status"] == {**status, "numberReady": 0}
    world.start_and_vanish()
    assert world.run_controllers() == 7.0
    assert world.named("DaemonSet", "web")["status"] == {**status, "numberReady": 1}
    world.now += 7.0
    assert world.run_controllers() is None
    del status["numberUnavailable"]
    assert world.named("DaemonSet", "web")["status"] == {**status, "numberReady": 1, "numberAvailable": 1}


def test_old_revisions_beyond_the_limit_are_deleted() -> None:
    """cleanupHistory: those of existing pods stay."""
    world, ds = world_of(ON_DELETE, revisionHistoryLimit=2)
    settled(world, ds)
    for number in range(2, 7):
        set_image(world, ds, f"web:{number}")
        world.settle()
    images = {
        revisions.template_of(one)["spec"]["containers"][0]["image"]: one["revision"]
        for one in world.of(revisions.KIND)
    }
    assert images == {"web:1": 1, "web:5": 5, "web:6": 6}


def test_a_rollback_renumbers_the_revision() -> None:
    """constructHistory: the template of an earlier revision is its newest again."""
    world, ds = world_of(unavailable())
    settled(world, ds)
    first = current_hash(world)
    for image in ("web:2", "web:1"):
        set_image(world, ds, image)
        settled(world, ds)
    assert current_hash(world) == first and len(world.of(revisions.KIND)) == 2
    assert {one["revision"] for one in world.of(revisions.KIND)} == {2, 3}


def with_defaults(doc: Json) -> Json:
    given = PodTemplateSpec.parse(doc)
    default_template(given.spec)
    return given.to_json()


def test_a_default_that_is_new_replaces_no_pod() -> None:
    world, ds = world_of(unavailable())
    settled(world, ds)
    world.edit(ds, lambda new: new["spec"].update(template=with_defaults(template())))
    assert counts(world.sync(ds)) == (0, 0) and len(world.of(revisions.KIND)) == 1
    world.edit(ds, lambda new: new["spec"].update(template=with_defaults(template("web:2"))))
    assert counts(world.sync(ds)) == (0, 1)


def test_duplicate_revisions_become_one() -> None:
    """dedupCurHistories: the pods of a deleted revision get the label of the one that stays."""
    world, ds = world_of(unavailable())
    only = settled(world, ds)
    (first,) = world.of(revisions.KIND)
    labels = {**labels_of(first), revisions.POD_LABEL: "copy"}
    kept = {key: first["metadata"][key] for key in ("namespace", "ownerReferences")}
    world.add({**first, "revision": 5, "metadata": {**kept, "name": "web-copy", "labels": labels}})
    assert settled(world, ds)["metadata"]["uid"] == only["metadata"]["uid"]
    assert [revisions.name_of(one) for one in world.of(revisions.KIND)] == ["web-copy"]
    assert labels_of(world.named("Pod", only["metadata"]["name"]))[revisions.POD_LABEL] == "copy"


def test_orphans_are_adopted_and_other_pods_released() -> None:
    """getDaemonPods; pkg/controller/controller_ref_manager.go."""
    world, ds = world_of(unavailable())
    only = settled(world, ds)
    world.edit(only, lambda new: new["metadata"].update(labels={"app": "other"}))
    world.settle()
    assert "ownerReferences" not in world.named("Pod", only["metadata"]["name"])["metadata"]
    (second,) = world.owned(ds, "Pod")
    world.edit(second, lambda new: new["metadata"].pop("ownerReferences"))
    world.settle()
    assert [one["metadata"]["uid"] for one in world.owned(ds, "Pod")] == [second["metadata"]["uid"]]
