"""pkg/controller/deployment/deployment_controller_test.go, recreate_test.go, and what a person sees of a rollout."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.controllers.decide.deployments.owned import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    REVISION,
    REVISION_HISTORY,
)
from kubelite.controllers.model import Create, Event, Plan, SetStatus
from kubelite.controllers.references import controller_of, owner_reference
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from manifests.types.defaults import default_template
from manifests.types.pod import PodTemplateSpec
from tests.unit.controllers.deployment_worlds import (
    LABELS,
    active_pods,
    condition,
    deployment_doc,
    image_of,
    set_image,
    set_spec,
    sizes,
    template_of,
    world_of,
)
from tests.unit.controllers.world import World


def by_image(world: World, image: str) -> Json:
    return next(found for found in world.of("ReplicaSet") if image_of(found) == image)


def web(world: World) -> Json:
    return world.named("Deployment", "web")


def revision(doc: Json) -> str:
    found: str = doc["metadata"]["annotations"][REVISION]
    return found


def messages(world: World, reason: str) -> list[str]:
    return [event.message for event in world.events if event.reason == reason]


def never_ready(world: World) -> bool:
    return False


def recreate_doc(replicas: int = 3) -> Json:
    return deployment_doc(replicas, strategy={"type": "Recreate"})


def test_a_new_deployment_creates_its_replica_set() -> None:
    """The first plan creates a ReplicaSet of the template (TestSyncDeploymentCreatesReplicaSet)."""
    world, doc = world_of(deployment_doc(3))
    world.edit(doc, lambda new: new["metadata"].update(annotations={"team": "a", SOURCE: "web.yaml"}))
    plan = world.sync(doc)
    assert [type(effect) for effect in plan.effects][:2] == [Create, Event]
    (made,) = world.of("ReplicaSet")
    digest = made["metadata"]["name"].removeprefix("web-")
    assert made["metadata"]["labels"] == {**LABELS, "pod-template-hash": digest}
    assert made["metadata"]["ownerReferences"] == [owner_reference(doc)]
    assert made["metadata"]["annotations"] == {
        "team": "a",
        REVISION: "1",
        DESIRED_REPLICAS: "3",
        MAX_REPLICAS: "4",
    }, "the file that defines the Deployment does not define its ReplicaSet"
    assert made["spec"]["replicas"] == 3
    assert made["spec"]["selector"] == {"matchLabels": {**LABELS, "pod-template-hash": digest}}
    assert made["spec"]["template"]["metadata"]["labels"] == {**LABELS, "pod-template-hash": digest}
    assert revision(web(world)) == "1"
    assert condition(world, "Progressing") == ("True", "NewReplicaSetCreated")
    assert condition(world, "Available") == ("False", "MinimumReplicasUnavailable")
    name = made["metadata"]["name"]
    assert messages(world, "ScalingReplicaSet") == [f"Scaled up replica set {name} from 0 to 3"]


def test_a_deployment_at_rest() -> None:
    world, doc = world_of(deployment_doc(3))
    world.settle()
    status = web(world)["status"]
    at, name = status["conditions"][0]["lastTransitionTime"], world.of("ReplicaSet")[0]["metadata"]["name"]
    assert {key: value for key, value in status.items() if key != "conditions"} == {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "terminatingReplicas": 0,
    }
    assert [found["type"] for found in status["conditions"]] == ["Available", "Progressing"]
    assert status["conditions"][1]["message"] == f'ReplicaSet "{name}" has successfully progressed.'
    assert status["conditions"][0]["message"] == "Deployment has minimum availability."
    assert at >= status["conditions"][1]["lastTransitionTime"]
    assert world.decide(doc) == Plan([]), "an idle Deployment does nothing, and asks for no time"


def test_an_update_makes_a_revision() -> None:
    world, doc = world_of(deployment_doc(3))
    world.settle()
    set_image(world, doc, "v2")
    world.settle()
    assert sizes(world) == {"v1": 0, "v2": 3}
    assert {image_of(pod) for pod in active_pods(world)} == {"v2"}
    assert revision(by_image(world, "v2")) == revision(web(world)) == "2"
    assert condition(world, "Progressing") == ("True", "NewReplicaSetAvailable")


def test_a_rollback_finds_the_old_replica_set() -> None:
    """`rollout undo` edits the manifest back; the ReplicaSet of the old template gets the next revision."""
    world, doc = world_of(deployment_doc(3))
    for image in ("v2", "v1"):
        world.settle()
        set_image(world, doc, image)
    world.settle()
    assert sizes(world) == {"v1": 3, "v2": 0}
    old = by_image(world, "v1")
    assert revision(old) == revision(web(world)) == "3"
    assert old["metadata"]["annotations"][REVISION_HISTORY] == "1"
    assert revision(by_image(world, "v2")) == "2"


def test_old_replica_sets_beyond_the_limit_are_deleted() -> None:
    world, doc = world_of(deployment_doc(2, revisionHistoryLimit=2))
    for number in range(2, 7):
        world.settle()
        world.now += 10
        set_image(world, doc, f"v{number}")
    world.settle()
    assert set(sizes(world)) == {"v4", "v5", "v6"}


@pytest.mark.parametrize("replicas", [7, 1, 0])
def test_scaling(replicas: int) -> None:
    world, doc = world_of(deployment_doc(3))
    world.settle()
    set_spec(world, doc, replicas=replicas)
    world.settle()
    assert sizes(world) == {"v1": replicas} and len(active_pods(world)) == replicas
    assert revision(web(world)) == "1", "scaling is no revision"
    name = world.of("ReplicaSet")[0]["metadata"]["name"]
    direction = "up" if replicas > 3 else "down"
    assert (
        messages(world, "ScalingReplicaSet")[-1]
        == f"Scaled {direction} replica set {name} from 3 to {replicas}"
    )


def test_scaling_during_a_rollout_keeps_proportions() -> None:
    """The example of the documentation: 10 replicas with maxSurge 3 and maxUnavailable 2, a template that does not
    become ready, then 15 replicas: 3 of the 5 go to the ReplicaSet with 8, 2 to the one with 5."""
    world, doc = world_of(deployment_doc(10, surge=3, unavailable=2))
    world.settle()
    set_image(world, doc, "broken")
    world.run_controllers()
    assert sizes(world) == {"v1": 8, "broken": 5}
    set_spec(world, doc, replicas=15)
    world.run_controllers()
    assert sizes(world) == {"v1": 11, "broken": 7}


def test_a_paused_deployment_does_not_roll_out() -> None:
    world, doc = world_of(deployment_doc(3))
    world.settle()
    set_spec(world, doc, paused=True)
    set_image(world, doc, "v2")
    world.settle()
    assert sizes(world) == {"v1": 3}
    assert condition(world, "Progressing") == ("Unknown", "DeploymentPaused")
    set_spec(world, doc, replicas=5)
    world.settle()
    assert sizes(world) == {"v1": 5}, "scaling works in a pause"
    world.now += 5000
    set_spec(world, doc, paused=False)
    world.sync(doc)
    assert condition(world, "Progressing")[1] != "ProgressDeadlineExceeded", "a pause is no lack of progress"
    world.settle()
    assert sizes(world) == {"v1": 0, "v2": 5}


def test_a_rollout_without_progress_times_out() -> None:
    world, doc = world_of(deployment_doc(3, progressDeadlineSeconds=60))
    world.settle()
    set_image(world, doc, "broken")
    before = world.now
    world.settle(never_ready)
    assert condition(world, "Progressing") == ("False", "ProgressDeadlineExceeded")
    assert condition(world, "Available") == ("True", "MinimumReplicasAvailable")
    assert 60 < world.now - before < 70
    assert sizes(world) == {"v1": 3, "broken": 1}, "the old pods go on"
    assert world.decide(doc).again is None
    set_image(world, doc, "v1")
    world.settle()
    assert sizes(world) == {"v1": 3, "broken": 0}
    assert condition(world, "Progressing") == ("True", "NewReplicaSetAvailable")


def test_without_a_deadline_there_is_no_progressing_condition() -> None:
    for seconds in (None, 2**31 - 1):
        world, _ = world_of(deployment_doc(1, progressDeadlineSeconds=seconds))
        world.settle()
        assert condition(world, "Progressing") == ("", "")
        assert condition(world, "Available")[0] == "True"


def test_min_ready_seconds_slow_a_rollout_down() -> None:
    world, doc = world_of(deployment_doc(2, surge=1, unavailable=0, minReadySeconds=30))
    world.settle()
    set_image(world, doc, "v2")
    before = world.now
    world.settle()
    assert world.now - before >= 60, "one pod after another, each available after 30 s"
    set_spec(world, doc, minReadySeconds=5)
    world.settle()
    assert by_image(world, "v2")["spec"]["minReadySeconds"] == 5
    assert len(world.of("ReplicaSet")) == 2, "minReadySeconds are no part of the template"


def test_a_refusal_is_shown_by_the_deployment() -> None:
    world, doc = world_of(deployment_doc(2, progressDeadlineSeconds=60))
    world.refuse = lambda _pod: 'pods "web-" is forbidden'
    world.run_controllers()
    assert condition(world, "ReplicaFailure") == ("True", "FailedCreate")
    world.now += 62
    world.run_controllers()
    assert condition(world, "Progressing") == ("False", "ProgressDeadlineExceeded")
    world.refuse = lambda _pod: ""
    world.settle()
    assert condition(world, "ReplicaFailure") == ("", "")
    assert condition(world, "Progressing") == ("True", "NewReplicaSetAvailable")
    assert web(world)["status"]["availableReplicas"] == 2
    assert world.decide(doc) == Plan([])


def test_a_recreation_waits_for_the_last_old_pod() -> None:
    """recreate_test.go TestOldPodsRunning: a pod that still terminates is a running one."""
    world, doc = world_of(recreate_doc())
    world.settle()
    set_image(world, doc, "v2")
    world.run_controllers()
    assert sizes(world) == {"v1": 0} and not active_pods(world)
    first, *others = world.of("Pod")
    for pod in others:
        world.vanish(pod["metadata"]["uid"])
    world.run_controllers()
    assert sizes(world) == {"v1": 0}
    assert web(world)["status"]["terminatingReplicas"] == 1
    assert condition(world, "Available") == ("False", "MinimumReplicasUnavailable")
    world.fail(first)  # its containers have stopped; the pod is still there
    world.run_controllers()
    assert sizes(world) == {"v1": 0, "v2": 3}
    world.settle()
    assert {image_of(pod) for pod in active_pods(world)} == {"v2"}
    assert condition(world, "Progressing") == ("True", "NewReplicaSetAvailable")


def test_a_change_to_recreate_in_a_rollout_with_another_size() -> None:
    """Two ReplicaSets with pods, another size, and no proportions to scale by: the old pods stop first."""
    world, doc = world_of(deployment_doc(3))
    world.settle()
    set_image(world, doc, "broken")
    world.run_controllers()
    set_spec(world, doc, replicas=5, strategy={"type": "Recreate"})
    world.settle()
    assert sizes(world) == {"v1": 0, "broken": 5}


def test_a_terminating_deployment_only_counts() -> None:
    """During its deletion only the status changes (TestSyncDeploymentDontDoAnythingDuringDeletion)."""
    world, doc = world_of(deployment_doc(3))
    world.settle()
    ends = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    world.edit(doc, lambda new: new["metadata"].update(ends))
    set_image(world, doc, "v2")
    plan = world.sync(doc)
    assert [type(effect) for effect in plan.effects] == [SetStatus]
    assert sizes(world) == {"v1": 3}


@pytest.mark.parametrize("selector", [{}, None, {"matchLabels": {}}])
def test_an_empty_selector_selects_nothing(selector: Json | None) -> None:
    """An empty selector makes an event and no ReplicaSet (TestDontSyncDeploymentsWithEmptyPodSelector)."""
    world, doc = world_of(deployment_doc(3, selector=selector))
    world.settle()
    assert not world.of("ReplicaSet")
    assert messages(world, "SelectingAll") == [
        "This deployment is selecting all pods. A non-empty selector is required."
    ]
    assert world.decide(doc) == Plan()


def orphan_set(world: World, name: str, image: str, labels: Json, **metadata: Any) -> Json:
    template = {**template_of(image), "metadata": {"labels": labels}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    kind = {"apiVersion": "apps/v1", "kind": "ReplicaSet"}
    return world.add({**kind, "metadata": {"name": name, "labels": labels, **metadata}, "spec": spec})


def test_adoption_and_release() -> None:
    """A ReplicaSet that the selector matches is adopted, one that it does not match is released
    (TestGetReplicaSetsForDeploymentAdoptRelease)."""
    world, doc = world_of(deployment_doc(1))
    adopted = orphan_set(world, "adopted", "v1", LABELS)
    released = orphan_set(world, "released", "v2", {"app": "x"}, ownerReferences=[owner_reference(doc)])
    world.sync(doc)
    assert controller_of(world.named("ReplicaSet", "adopted")) == owner_reference(doc)
    assert controller_of(world.named("ReplicaSet", released["metadata"]["name"])) is None
    assert revision(world.named("ReplicaSet", adopted["metadata"]["name"])) == "1"
    assert condition(world, "Progressing") == ("True", "FoundNewReplicaSet")
    world.settle()
    assert len(world.owned(doc, "ReplicaSet")) == 1, "an adopted ReplicaSet of the template is the new one"


def test_a_taken_name_is_a_collision() -> None:
    """sync.go getNewReplicaSet: another object has the name that the hash gives."""
    world, doc = world_of(deployment_doc(1))
    world.sync(doc)
    (first,) = world.of("ReplicaSet")
    world.vanish(first["metadata"]["uid"])
    other = orphan_set(world, first["metadata"]["name"], "other", {"app": "other"})
    world.settle()
    (made,) = world.owned(doc, "ReplicaSet")
    assert made["metadata"]["name"] != other["metadata"]["name"]
    assert web(world)["status"]["collisionCount"] == 1
    assert web(world)["status"]["availableReplicas"] == 1


def test_a_replica_set_that_was_scaled_by_hand_is_scaled_back() -> None:
    world, doc = world_of(deployment_doc(3))
    world.settle()
    set_spec(world, world.of("ReplicaSet")[0], replicas=7)
    world.settle()
    assert sizes(world) == {"v1": 3} and len(active_pods(world)) == 3
    assert world.decide(doc) == Plan([])


def test_annotations_reach_the_new_replica_set() -> None:
    world, doc = world_of(deployment_doc(1))
    world.settle()
    cause = {"kubernetes.io/change-cause": "a note", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    world.edit(doc, lambda new: new["metadata"]["annotations"].update(cause))
    world.settle()
    found = world.of("ReplicaSet")[0]["metadata"]["annotations"]
    assert found["kubernetes.io/change-cause"] == "a note"
    assert "kubectl.kubernetes.io/last-applied-configuration" not in found


def test_a_template_that_gets_a_new_default_is_not_rolled_out() -> None:
    """A new version of kubelite fills in a field that the one before left out."""
    world, doc = world_of(deployment_doc(2))
    world.settle()
    before = {pod["metadata"]["uid"] for pod in active_pods(world)}
    defaulted = PodTemplateSpec.parse(template_of("v1"))
    default_template(defaulted.spec)
    template = defaulted.to_json()
    assert template != template_of("v1")
    set_spec(world, doc, template=template)
    world.settle()
    (found,) = world.of("ReplicaSet")
    assert found["spec"]["template"]["spec"] == template["spec"], "the next comparison is a plain one again"
    assert found["spec"]["template"]["metadata"]["labels"].keys() == {"app", "pod-template-hash"}
    assert {pod["metadata"]["uid"] for pod in active_pods(world)} == before
    assert world.decide(doc) == Plan([])
    set_spec(world, doc, template={**template, "spec": {**template["spec"], "dnsPolicy": "Default"}})
    world.settle()
    assert len(world.of("ReplicaSet")) == 2, "a value that is no default is an update"
