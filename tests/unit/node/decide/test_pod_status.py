"""compute_pod_status: phase, conditions and container states as kubelet writes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubelite.api.kube.printers import summarize_pod
from kubelite.diagnosis.advice import advice
from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.decide.pod_status import compute_pod_status
from kubelite.node.model.actions import Facts
from kubelite.node.model.cri import ContainerState, ObservedContainer, ObservedImage, ObservedPod
from kubelite.node.model.probe_results import Health
from kubelite.node.spec import lsm
from manifests.types.core import Pod, PodStatus
from tests.unit.node.decide.pod_worlds import CONFIG, UID, World, container, deleted, edited, make_pod
from tests.unit.node.decide.test_pod_actions import CREATED, EXITED, NOW, RUNNING, UNKNOWN, instance, sandbox

IMAGE = ObservedImage("sha256:abc", "docker.io/library/app:1", ("docker.io/library/app@sha256:dd",))


def report(
    pod: Pod, *containers: ObservedContainer, standing: bool = True, health: dict[str, Health] | None = None
) -> dict[str, Any]:
    observed = ObservedPod(UID, sandbox(pod) if standing else None, containers)
    facts = Facts(NOW, images={"app:1": IMAGE}, health=health or {})
    actions = compute_pod_actions(pod, observed, facts, CONFIG)
    return compute_pod_status(pod, observed, actions, facts, CONFIG).to_json()


def then(pod: Pod, status: dict[str, Any]) -> Pod:
    return pod.model_copy(update={"status": PodStatus.parse(status)})


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c.get("reason", "")) for c in status["conditions"]}


@pytest.mark.parametrize(
    ("policy", "states", "phase"),
    [
        ("Always", [(RUNNING, 0)], "Running"),
        ("Always", [(RUNNING, 0), (RUNNING, 0)], "Running"),
        ("Always", [(RUNNING, 0), (EXITED, 1)], "Running"),
        ("Always", [(EXITED, 1)], "Running"),
        ("Always", [(RUNNING, 0), None], "Pending"),
        ("Never", [(EXITED, 0), (EXITED, 0)], "Succeeded"),
        ("Never", [(EXITED, 0), (EXITED, 1)], "Failed"),
        ("Never", [(EXITED, 0), (RUNNING, 0)], "Running"),
        ("OnFailure", [(EXITED, 0)], "Succeeded"),
        ("OnFailure", [(EXITED, 0), (EXITED, 1)], "Running"),
    ],
)
def test_phase(policy: str, states: list[tuple[ContainerState, int] | None], phase: str) -> None:
    names = "abc"[: len(states)]
    pod = make_pod(*names, restartPolicy=policy)
    observed = [
        instance(pod, name, state[0], exit_code=state[1])
        for name, state in zip(names, states, strict=True)
        if state is not None
    ]
    assert report(pod, *observed)["phase"] == phase


def test_a_new_pod_is_pending_with_every_condition() -> None:
    status = report(make_pod("a"), standing=False)
    assert status["phase"] == "Pending"
    assert conditions(status) == {
        "PodReadyToStartContainers": ("False", ""),
        "Initialized": ("True", ""),
        "Ready": ("False", "ContainersNotReady"),
        "ContainersReady": ("False", "ContainersNotReady"),
        "PodScheduled": ("True", ""),
    }
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"
    assert (status["qosClass"], status["hostIP"], "podIP" in status) == ("BestEffort", "192.0.2.1", False)


def test_a_running_container_is_ready_and_described() -> None:
    pod = make_pod("b", "a")
    status = report(pod, instance(pod, "a", image_id="sha256:abc"), instance(pod, "b"))
    assert [c["name"] for c in status["containerStatuses"]] == ["a", "b"], "sorted by name"
    first = status["containerStatuses"][0]
    assert first["containerID"] == "kubelite://a-0"
    assert first["image"] == "docker.io/library/app:1"
    assert first["imageID"] == "docker.io/library/app@sha256:dd"
    assert (first["ready"], first["started"], first["restartCount"]) == (True, True, 0)
    assert first["state"] == {"running": {"startedAt": "2023-11-14T22:12:30Z"}}
    assert conditions(status)["Ready"] == ("True", "")
    assert status["podIPs"] == [{"ip": "10.88.0.2"}]


@pytest.mark.parametrize(
    ("change", "reason", "code"),
    [
        ({"exit_code": 0}, "Completed", 0),
        ({"exit_code": 2}, "Error", 2),
        ({"exit_code": 137, "oom_killed": True}, "OOMKilled", 137),
        ({"exit_code": 128, "reason": "StartError", "message": "no such file"}, "StartError", 128),
        ({"state": UNKNOWN, "exit_code": 137}, "ContainerStatusUnknown", 137),
    ],
)
def test_how_a_container_ended(change: dict[str, Any], reason: str, code: int) -> None:
    pod = make_pod("a", restartPolicy="Never")
    dead = replace(instance(pod, "a", EXITED), **change)
    if dead.state is UNKNOWN:
        dead = replace(dead, sandbox_id="gone")
    status = report(pod, dead, standing=dead.state is not UNKNOWN)
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == (reason, code)
    assert ended["containerID"] == "kubelite://a-0"
    assert ended.get("message", "") == (dead.message or ended.get("message", ""))


def test_back_off_shows_the_wait_and_the_last_end() -> None:
    pod = make_pod("a")
    status = report(pod, instance(pod, "a", EXITED, attempt=2, exit_code=1, crash_count=2))
    one = status["containerStatuses"][0]
    assert one["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert one["lastState"]["terminated"]["exitCode"] == 1
    assert one["restartCount"] == 2
    assert status["phase"] == "Running"
    ready = next(c for c in status["conditions"] if c["type"] == "ContainersReady")
    assert ready["message"] == "containers with unready status: [a]"


def test_a_crash_about_to_be_restarted_is_terminated_not_waiting() -> None:
    pod = make_pod("a")
    one = report(pod, instance(pod, "a", EXITED, exit_code=1))["containerStatuses"][0]
    assert one["state"]["terminated"]["exitCode"] == 1
    assert "lastState" not in one


def test_last_state_is_remembered_when_its_record_is_gone() -> None:
    pod = make_pod("a")
    first = report(pod, instance(pod, "a", EXITED, attempt=0, exit_code=9))
    running = report(then(pod, first), instance(pod, "a", attempt=1))
    assert running["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 9
    again = report(then(pod, running), instance(pod, "a", attempt=1))
    assert again == running


def test_transition_times_are_kept_until_the_status_changes() -> None:
    pod = make_pod("a")
    old = report(pod, instance(pod, "a"))
    for condition in old["conditions"]:
        condition["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    new = report(then(pod, old), instance(pod, "a", EXITED, attempt=1, exit_code=1, crash_count=1))
    moved = {c["type"] for c in new["conditions"] if c["lastTransitionTime"] != "2020-01-01T00:00:00Z"}
    assert moved == {"Ready", "ContainersReady"}
    assert new["startTime"] == old["startTime"]


def test_foreign_conditions_stay_and_readiness_gates_count() -> None:
    pod = make_pod("a", readinessGates=[{"conditionType": "example.com/ready"}])
    status = report(pod, instance(pod, "a"))
    assert conditions(status)["Ready"] == ("False", "ReadinessGatesNotReady")
    status["conditions"].append({"type": "example.com/ready", "status": "True"})
    after = report(then(pod, status), instance(pod, "a"))
    assert conditions(after)["Ready"] == ("True", "")
    assert conditions(after)["example.com/ready"] == ("True", "")


def test_terminal_phases_never_change() -> None:
    pod = make_pod("a", restartPolicy="Never")
    over = report(pod, instance(pod, "a", EXITED, exit_code=0))
    assert over["phase"] == "Succeeded"
    assert conditions(over)["ContainersReady"] == ("False", "PodCompleted")
    assert conditions(over)["Initialized"] == ("True", "PodCompleted")
    later = report(then(pod, over), standing=False)
    assert later["phase"] == "Succeeded"
    assert later["containerStatuses"] == over["containerStatuses"]
    assert later["podIP"] == over["podIP"]


def test_init_containers() -> None:
    pod = make_pod("a", initContainers=[container("j"), container("i")])
    status = report(pod, instance(pod, "j", EXITED), instance(pod, "i"))
    assert status["phase"] == "Pending"
    assert [c["name"] for c in status["initContainerStatuses"]] == ["j", "i"], "in the order of the spec"
    assert [c["ready"] for c in status["initContainerStatuses"]] == [True, False]
    assert conditions(status)["Initialized"] == ("False", "ContainersNotInitialized")
    initialized = next(c for c in status["conditions"] if c["type"] == "Initialized")
    assert initialized["message"] == "containers with incomplete status: [i]"
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"


def test_an_init_container_that_may_not_restart_fails_the_pod() -> None:
    pod = make_pod("a", restartPolicy="Never", initContainers=[container("i")])
    status = report(pod, instance(pod, "i", EXITED, exit_code=4))
    assert status["phase"] == "Failed"
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4


def test_an_init_container_in_back_off_is_pending() -> None:
    pod = make_pod("a", initContainers=[container("i")])
    status = report(pod, instance(pod, "i", EXITED, attempt=1, exit_code=4, crash_count=1))
    assert status["phase"] == "Pending"
    assert status["initContainerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"


def test_a_sidecar_counts_for_readiness_not_for_the_phase() -> None:
    pod = make_pod("a", restartPolicy="Never", initContainers=[container("s", restartPolicy="Always")])
    both = report(pod, instance(pod, "s"), instance(pod, "a"))
    assert both["phase"] == "Running"
    assert conditions(both)["Ready"] == ("True", "")
    down = report(pod, instance(pod, "s", EXITED, attempt=1, exit_code=1, crash_count=1), instance(pod, "a"))
    ready = next(c for c in down["conditions"] if c["type"] == "ContainersReady")
    assert ready["message"] == "containers with unready status: [s]"


def test_an_exceeded_deadline_is_reported() -> None:
    pod = then(make_pod("a", activeDeadlineSeconds=1), {"startTime": "2023-11-14T22:00:00Z"})
    status = report(pod, instance(pod, "a"))
    assert (status["phase"], status["reason"]) == ("Pending", "DeadlineExceeded"), "something of it runs"
    assert status["message"] == "Pod was active on the node longer than the specified deadline"
    kept = report(then(pod, status), instance(pod, "a", EXITED, exit_code=143))
    assert (kept["phase"], kept["reason"]) == ("Failed", "DeadlineExceeded")


def test_a_deleted_pod_keeps_its_phase_until_its_containers_have_ended() -> None:
    pod = deleted(make_pod("a"))
    assert report(pod, instance(pod, "a"))["phase"] == "Running"
    assert report(pod, instance(pod, "a", EXITED, exit_code=0, stop_deadline=NOW))["phase"] == "Succeeded"


def test_a_created_instance_is_not_running() -> None:
    pod = make_pod("a")
    one = report(pod, instance(pod, "a", CREATED, started_at=0.0))["containerStatuses"][0]
    assert one["state"]["waiting"]["reason"] == "ContainerCreating"
    assert not one["ready"]


# -- probes -----------------------------------------------------------------------------------------------------

TCP = {"tcpSocket": {"port": 80}}


@pytest.mark.parametrize(
    ("probe", "health", "started", "ready"),
    [
        ("livenessProbe", None, True, True),
        ("readinessProbe", None, True, False),  # not before the probe has succeeded
        ("startupProbe", None, False, False),
        ("readinessProbe", Health(ready=False), True, False),
        ("readinessProbe", Health(), True, True),
        ("startupProbe", Health(), True, True),
    ],
)
def test_ready_and_started_follow_the_probes(
    probe: str, health: Health | None, started: bool, ready: bool
) -> None:
    pod = make_pod(container("a", **{probe: TCP}), "b")
    known = {"a-0": health} if health else {}
    status = report(pod, instance(pod, "a"), instance(pod, "b"), health=known)
    one = status["containerStatuses"][0]
    assert (one["started"], one["ready"]) == (started, ready)
    assert status["phase"] == "Running"
    found = {c["type"]: c for c in status["conditions"]}
    if ready:
        assert found["Ready"]["status"] == found["ContainersReady"]["status"] == "True"
    else:
        assert found["Ready"]["reason"] == found["ContainersReady"]["reason"] == "ContainersNotReady"
        assert found["Ready"]["message"] == "containers with unready status: [a]"


def test_a_sidecar_that_has_not_started_keeps_the_pod_pending() -> None:
    sidecar = container("s", restartPolicy="Always", startupProbe=TCP)
    pod = make_pod("a", initContainers=[sidecar])
    status = report(pod, instance(pod, "s"))
    assert status["phase"] == "Pending"
    assert conditions(status)["Initialized"] == ("False", "ContainersNotInitialized")
    started = report(pod, instance(pod, "s"), instance(pod, "a"), health={"s-0": Health()})
    assert started["phase"] == "Running"
    assert conditions(started)["Ready"] == ("True", "")


def test_a_pod_keeps_its_qos_class() -> None:
    pod = make_pod(container("a", resources={"requests": {"cpu": "100m"}}))
    for cgroup, qos in (("/kubelite/besteffort/pod1", "BestEffort"), ("", "Burstable")):
        observed = ObservedPod(UID, sandbox(pod, cgroup=cgroup), (instance(pod, "a"),))
        facts = Facts(now=NOW)
        actions = compute_pod_actions(pod, observed, facts, CONFIG)
        assert compute_pod_status(pod, observed, actions, facts, CONFIG).qos_class == qos


def test_resources_before_and_during_a_resize() -> None:
    one = {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}
    world = World(make_pod(container("app", resources=one), "bare"))
    world.settle()
    app, bare = world.pod.status.container_statuses
    assert app.to_json()["resources"] == one
    assert app.to_json()["allocatedResources"] == {"cpu": "100m"}
    assert bare.resources is None and not bare.allocated_resources
    two = {"requests": {"cpu": "200m"}, "limits": {"memory": "64Mi"}}
    world.pod = edited(world.pod, {"containers": [container("app", resources=two), container("bare")]})
    decided = world.decide()
    assert decided.update
    world.write_status(decided)
    app = world.pod.status.container_statuses[0]
    assert (app.to_json()["resources"], app.to_json()["allocatedResources"]) == (one, {"cpu": "200m"})
    world.settle()
    assert world.pod.status.container_statuses[0].to_json()["resources"] == two


def test_an_init_container_added_by_an_edit_is_shown_as_completed_until_the_next_sandbox() -> None:
    """Kubernetes pkg/kubelet/kubelet_pods.go, convertToAPIContainerStatuses and HasAnyRegularContainerCreated."""
    world = World(make_pod("a"))
    world.settle()
    world.pod = edited(
        world.pod, {"initContainers": [container("i"), container("s", restartPolicy="Always")]}
    )
    world.settle()
    status = world.pod.status.to_json()
    late, sidecar = status["initContainerStatuses"]
    assert late["state"]["terminated"] == {
        "exitCode": 0,
        "reason": "Completed",
        "message": "Unable to get init container status from container runtime and pod has been initialized, "
        "treat it as exited normally",
    }
    assert (late["ready"], late["restartCount"]) == (True, 0)
    assert "running" in sidecar["state"]
    assert status["phase"] == "Running"
    assert conditions(status)["Ready"] == ("True", "")
    assert summarize_pod(world.pod.to_json(), NOW).status == "Running"
    assert world.started == [("a", 0), ("s", 0)]
    world.fake.lose_sandbox(UID)  # it has never run: it runs first in the next sandbox
    world.settle()
    assert ("i", 0) in world.started
    assert world.pod.status.init_container_statuses[0].restart_count == 0


@pytest.mark.parametrize("where", ["pod", "container", "init"])
def test_a_pod_with_a_profile_waits_on_a_host_without_apparmor(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Kubernetes pkg/kubelet/kubelet.go, SyncPod, and pkg/security/apparmor/validate.go."""
    monkeypatch.setattr(lsm, "apparmor", lambda: False)
    profile = {"appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}}
    of = {
        place: {"securityContext": profile} if place == where else {}
        for place in ("pod", "container", "init")
    }
    pod = make_pod(
        container("app", **of["container"]), initContainers=[container("first", **of["init"])], **of["pod"]
    )
    observed = ObservedPod(UID)
    actions = compute_pod_actions(pod, observed, Facts(NOW, images={"app:1": IMAGE}), CONFIG)
    assert not actions.effects and actions.next_look is None
    status = report(pod, standing=False)
    assert (status["phase"], status["reason"]) == ("Pending", "AppArmor")
    assert status["message"] == "Cannot enforce AppArmor: AppArmor is not enabled on the host"
    for key in ("initContainerStatuses", "containerStatuses"):
        assert [c["state"] for c in status[key]] == [{"waiting": {"reason": "Blocked"}}]
    doc = {"metadata": {"name": "p"}, "spec": pod.spec.to_json(), "status": status}
    assert [text.partition(":")[0] for text in advice(doc)] == [
        "the kernel does not have this AppArmor profile"
    ]


def test_a_pod_with_a_profile_runs_where_apparmor_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lsm, "apparmor", lambda: True)
    profile = {"appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}}
    pod = make_pod(container("app", securityContext=profile))
    actions = compute_pod_actions(pod, ObservedPod(UID), Facts(NOW, images={"app:1": IMAGE}), CONFIG)
    assert actions.create_sandbox and actions.blocked is None


def test_addresses_of_both_families_are_listed_in_order() -> None:
    """Kubernetes pkg/kubelet/kubelet_pods.go, generateAPIPodStatus."""
    config = replace(CONFIG, host_ip="192.0.2.1", host_ip6="2001:db8::1")
    for host_network, expected in (
        (False, ["10.88.0.2", "fd00:88::a58:2"]),
        (True, ["192.0.2.1", "2001:db8::1"]),
    ):
        pod = make_pod(hostNetwork=host_network)
        box = sandbox(pod, ip6="fd00:88::a58:2", host_network=host_network)
        observed = ObservedPod(UID, box, ())
        facts = Facts(now=NOW, images={}, pulls={}, start_failures={}, sandbox_failure=None)
        actions = compute_pod_actions(pod, observed, facts, config)
        status = compute_pod_status(pod, observed, actions, facts, config)
        assert [ip.ip for ip in status.pod_ips] == expected and status.pod_ip == expected[0]
        assert [ip.ip for ip in status.host_ips] == ["192.0.2.1", "2001:db8::1"]
