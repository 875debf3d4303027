"""compute_pod_actions: a row for each branch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.decide.disk_limits import limited_volumes
from kubelite.node.model.actions import Facts, PodActions, PullPhase, PullStatus, SandboxFailure, StartFailure
from kubelite.node.model.cri import ContainerState, ObservedContainer, ObservedPod, ObservedSandbox
from kubelite.node.model.probe_results import Health, Kind
from kubelite.node.model.resources import container_resources
from kubelite.node.spec.hashes import container_hash, resources_hash, sandbox_hash
from kubelite.node.storage.usage import bytes_below
from manifests.types.core import Pod, PodStatus
from tests.unit.node.decide.pod_worlds import CONFIG, UID, World, container, deleted, edited, make_pod

NOW = 1_700_000_000.0
RUNNING, EXITED, CREATED, UNKNOWN = (
    ContainerState.RUNNING,
    ContainerState.EXITED,
    ContainerState.CREATED,
    ContainerState.UNKNOWN,
)


def sandbox(pod: Pod, **more: Any) -> ObservedSandbox:
    return replace(
        ObservedSandbox("s1", True, 100, NOW - 100, "10.88.0.2", spec_hash=sandbox_hash(pod)), **more
    )


def instance(
    pod: Pod, name: str, state: ContainerState = RUNNING, *, attempt: int = 0, **more: Any
) -> ObservedContainer:
    spec = next(c for c in [*pod.spec.init_containers, *pod.spec.containers] if c.name == name)
    made = ObservedContainer(
        id=f"{name}-{attempt}",
        name=name,
        attempt=attempt,
        state=state,
        image="app:1",
        started_at=NOW - 50,
        finished_at=NOW if state is EXITED else 0.0,
        exit_code=0 if state is EXITED else -1,
        spec_hash=container_hash(pod, spec),
        resources_hash=resources_hash(container_resources(spec)),
    )
    return replace(made, **more)


def decide(
    pod: Pod, *containers: ObservedContainer, box: ObservedSandbox | None = None, **facts: Any
) -> PodActions:
    """Decide with the pod's sandbox ready, unless another one (or `box=NONE`) is given, and with its images present."""
    world = World(pod)
    images = {"app:1": world.fake.image("app:1")}
    chosen = sandbox(pod) if box is None else None if box is NONE else box
    return compute_pod_actions(
        pod, ObservedPod(UID, chosen, containers), Facts(NOW, **{"images": images, **facts}), CONFIG
    )


NONE = ObservedSandbox("none", False, 0, 0.0)


def status(pod: Pod, **fields: Any) -> Pod:
    return pod.model_copy(update={"status": PodStatus.parse(fields)})


def starts(actions: PodActions) -> list[tuple[str, int]]:
    return [(start.name, start.attempt) for start in actions.start]


def waits(actions: PodActions) -> dict[str, str]:
    return {name: waiting.reason for name, waiting in actions.waiting.items()}


# -- the beginning ----------------------------------------------------------------------------------------------


def test_a_new_pod_gets_a_sandbox_and_all_its_containers_at_once() -> None:
    actions = decide(make_pod("a", "b"), box=NONE)
    assert actions.create_sandbox == "the pod is new" or actions.kill_sandbox
    assert starts(actions) == [("a", 0), ("b", 0)]


def test_with_init_containers_only_the_first_is_started() -> None:
    pod = make_pod("a", initContainers=[container("i"), container("j")])
    actions = compute_pod_actions(pod, ObservedPod(UID), Facts(NOW, images=World(pod).facts().images), CONFIG)
    assert actions.create_sandbox == "the pod is new"
    assert not actions.kill_sandbox
    assert starts(actions) == [("i", 0)]
    assert actions.start[0].init
    assert waits(actions) == {"i": "PodInitializing", "j": "PodInitializing", "a": "PodInitializing"}


def test_a_converged_pod_is_left_alone() -> None:
    pod = make_pod("a")
    actions = decide(pod, instance(pod, "a"))
    assert not actions.effects
    assert actions.next_look is None
    assert actions.describe() == ["nothing to do"]


def test_a_sandbox_that_failed_waits_unless_its_settings_changed() -> None:
    pod = make_pod("a")
    failure = SandboxFailure("no address", sandbox_hash(pod), NOW + 4)
    waiting = compute_pod_actions(pod, ObservedPod(UID), Facts(NOW, sandbox_failure=failure), CONFIG)
    assert not waiting.effects
    assert waiting.next_look == NOW + 4
    changed = edited(pod, {"hostNetwork": True})
    assert compute_pod_actions(
        changed, ObservedPod(UID), Facts(NOW, sandbox_failure=failure), CONFIG
    ).create_sandbox


# -- restarts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 0, False),
        ("Never", 1, False),
    ],
)
def test_restart_policy(policy: str, code: int, again: bool) -> None:
    pod = make_pod("a", "b", restartPolicy=policy)
    actions = decide(pod, instance(pod, "a", EXITED, exit_code=code), instance(pod, "b"))
    assert starts(actions) == ([("a", 1)] if again else [])
    assert ("a" in actions.finished) is not again
    assert not actions.done


@pytest.mark.parametrize(
    ("crashes", "wait", "shown"),
    [
        (0, 0, ""),
        (1, 10, "10s"),
        (2, 20, "20s"),
        (3, 40, "40s"),
        (4, 80, "1m20s"),
        (6, 300, "5m0s"),
        (60, 300, "5m0s"),
    ],
)
def test_crash_back_off_doubles_to_five_minutes(crashes: int, wait: int, shown: str) -> None:
    pod = make_pod("a")
    dead = instance(pod, "a", EXITED, attempt=7, exit_code=1, crash_count=crashes)
    actions = decide(pod, dead)
    if not wait:
        assert actions.start[0].crash_count == 1
        return
    assert not actions.start
    assert actions.next_look == NOW + wait
    message = f"back-off {shown} restarting failed container=a pod=web_default({UID})"
    assert actions.waiting["a"].message == message
    later = decide(pod, replace(dead, finished_at=NOW - wait))
    assert later.start[0].crash_count == crashes + 1
    assert later.start[0].attempt == 8


@pytest.mark.parametrize(
    "change",
    [
        {"started_at": NOW - 601, "finished_at": NOW},  # it ran for more than ten minutes
        {"spec_hash": "other"},  # it was edited
        {"resources_hash": "other"},
        {"stop_deadline": NOW + 5},  # kubelite stopped it
        {"finished_at": NOW + 999},  # the clock was set back: it does not wait forever
    ],
)
def test_what_resets_the_back_off(change: dict[str, Any]) -> None:
    pod = make_pod("a")
    dead = instance(pod, "a", EXITED, attempt=4, exit_code=1, crash_count=5)
    assert not decide(pod, dead).start
    assert starts(decide(pod, replace(dead, **change))) == [("a", 5)]


def test_an_instance_that_never_ran_is_forgotten_and_does_not_count() -> None:
    pod = make_pod("a", restartPolicy="Never")
    made = decide(pod, instance(pod, "a", CREATED, started_at=0.0))
    assert [(stop.signal, stop.grace) for stop in made.stop] == [(9, 0.0)]
    gone = decide(pod, instance(pod, "a", EXITED, started_at=0.0, exit_code=137))
    assert starts(gone) == [("a", 0)]
    assert gone.start[0].discard == "a-0"


def test_of_instances_with_the_same_attempt_the_running_one_counts() -> None:
    """The daemon died during two starts: the store still has the record of the first instance, and the second was never
    started."""
    pod = make_pod("a")
    gone = instance(pod, "a", EXITED, id="first", started_at=0.0, exit_code=137, created_at=NOW - 9)
    made = instance(pod, "a", CREATED, id="second", started_at=0.0, created_at=NOW - 5)
    for observed in ((gone, made), (made, gone)):
        actions = decide(pod, *observed)
        assert [stop.id for stop in actions.stop] == ["second"] and not actions.start
    ended = replace(made, state=EXITED, exit_code=137, finished_at=NOW)
    ran = instance(pod, "a", id="third", created_at=NOW - 3)
    for three in ((gone, ended, ran), (ran, ended, gone)):
        actions = decide(pod, *three)
        assert not actions.stop and not actions.start
    over = replace(ran, state=EXITED, exit_code=1, finished_at=NOW - 400)
    for observed in ((ended, over), (over, replace(ended, created_at=NOW))):
        assert starts(decide(pod, *observed)) == [("a", 1)], (
            "one that ran counts, whenever the other was made"
        )


@pytest.mark.parametrize("state", [RUNNING, CREATED])
def test_older_running_instances_are_stopped(state: ContainerState) -> None:
    pod = make_pod("a", "b")
    old = instance(pod, "a", state, id="old", created_at=NOW - 5)
    new = instance(pod, "a", id="new", created_at=NOW - 3)
    actions = decide(pod, new, old, instance(pod, "b"))
    assert [stop.id for stop in actions.stop] == ["old"] and not actions.start
    assert "container a runs twice: the older one is stopped" in actions.reasons


def test_a_start_error_is_a_crash() -> None:
    pod = make_pod("a")
    dead = instance(
        pod,
        "a",
        EXITED,
        started_at=0.0,
        finished_at=NOW - 2,
        exit_code=128,
        reason="StartError",
        crash_count=1,
    )
    assert waits(decide(pod, dead)) == {"a": "CrashLoopBackOff"}


@pytest.mark.parametrize(
    ("fields", "reason", "message"),
    [
        (
            {"reason": "StartError", "message": "no such file", "exit_code": 128},
            "RunContainerError",
            "no such file",
        ),
        (
            {
                "killed_for": "postStart",
                "post_start_error": "it said no",
                "exit_code": 137,
                "stop_deadline": NOW,
            },
            "PostStartHookError",
            "it said no",
        ),
    ],
)
def test_a_failed_start_is_shown_before_its_back_off(
    fields: dict[str, Any], reason: str, message: str
) -> None:
    pod = make_pod("a")
    dead = instance(pod, "a", EXITED, started_at=NOW - 1, finished_at=NOW - 0.5, crash_count=1, **fields)
    actions = decide(pod, dead)
    waiting = actions.waiting["a"]
    assert (waiting.reason, waiting.message) == (reason, message)
    assert actions.next_look == NOW + 0.5
    later = replace(dead, finished_at=NOW - 1.5)
    assert waits(decide(pod, later)) == {"a": "CrashLoopBackOff"}


def test_a_failed_start_is_retried_after_its_delay_or_an_edit() -> None:
    pod = make_pod("a")
    failure = StartFailure(
        "CreateContainerError", "no room", container_hash(pod, pod.spec.containers[0]), NOW + 10
    )
    actions = decide(pod, start_failures={"a": failure})
    assert waits(actions) == {"a": "CreateContainerError"}
    assert actions.next_look == NOW + 10
    assert decide(pod, start_failures={"a": replace(failure, retry_at=NOW)}).start
    assert decide(pod, start_failures={"a": replace(failure, spec_hash="before")}).start


def test_nothing_waits_for_a_clock_that_was_set_back() -> None:
    pod, later = make_pod("a"), NOW + 86400
    failure = StartFailure("CreateContainerError", "no", container_hash(pod, pod.spec.containers[0]), later)
    assert decide(pod, start_failures={"a": failure}).start
    pull = PullStatus(PullPhase.FAILED, "ErrImagePull", "no", later - 10, later)
    assert decide(pod, images={"app:1": None}, pulls={("a", 0): pull}).pull
    box = SandboxFailure("no address", sandbox_hash(pod), later)
    facts = Facts(NOW, sandbox_failure=box)
    assert compute_pod_actions(pod, ObservedPod(UID), facts, CONFIG).create_sandbox


def test_only_the_newest_ended_instance_is_retained() -> None:
    pod = make_pod("a")
    dead = [instance(pod, "a", EXITED, attempt=n) for n in range(3)]
    actions = decide(pod, *dead, instance(pod, "a", attempt=3))
    assert [removal.attempt for removal in actions.remove] == [0, 1]


# -- init containers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "code", "expected"),
    [
        ("Always", 0, [("j", 0)]),
        ("Always", 1, [("i", 1)]),
        ("OnFailure", 1, [("i", 1)]),
        ("Never", 0, [("j", 0)]),
        ("Never", 1, []),
    ],
)
def test_the_next_init_container_starts_only_after_success(
    policy: str, code: int, expected: list[tuple[str, int]]
) -> None:
    pod = make_pod("a", restartPolicy=policy, initContainers=[container("i"), container("j")])
    actions = decide(pod, instance(pod, "i", EXITED, exit_code=code))
    assert starts(actions) == expected
    assert actions.done is (not expected)
    assert actions.init_failed == ("" if expected else "i")


def test_nothing_else_starts_while_an_init_container_runs() -> None:
    pod = make_pod("a", initContainers=[container("i"), container("j")])
    assert not decide(pod, instance(pod, "i")).effects


def test_an_initialized_pod_does_not_rerun_its_init_containers() -> None:
    pod = make_pod("a", initContainers=[container("i")])
    changed = edited(pod, {"initContainers": [container("i", args=["new"])]})
    done = instance(pod, "i", EXITED)
    assert not decide(changed, done, instance(changed, "a"), box=sandbox(changed)).effects
    assert starts(decide(pod, instance(pod, "a", EXITED))) == [("a", 1)]


def test_a_running_sidecar_lets_the_next_container_start_and_ends_last() -> None:
    sidecar = container("s", restartPolicy="Always")
    pod = make_pod("a", restartPolicy="Never", initContainers=[sidecar, container("i")])
    assert starts(decide(pod, instance(pod, "s"))) == [("i", 0)]
    both = (instance(pod, "s"), instance(pod, "i", EXITED))
    assert starts(decide(pod, *both)) == [("a", 0)]
    over = decide(pod, *both, instance(pod, "a", EXITED))
    assert [stop.name for stop in over.stop] == ["s"]
    assert not over.done
    stopped = instance(pod, "s", EXITED, stop_deadline=NOW)
    assert decide(pod, stopped, both[1], instance(pod, "a", EXITED)).done
    crashed = decide(pod, instance(pod, "s", EXITED, exit_code=1), both[1], instance(pod, "a"))
    assert starts(crashed) == [("s", 1)]


def test_a_sidecar_with_a_startup_probe_delays_the_others_until_success() -> None:
    probed = container("s", restartPolicy="Always", startupProbe=TCP)
    pod = make_pod("a", initContainers=[probed])
    sidecar = instance(pod, "s")
    assert not decide(pod, sidecar).effects
    assert not decide(pod, sidecar, health={"s-0": Health(started=False, ready=False)}).effects
    assert starts(decide(pod, sidecar, health={"s-0": Health()})) == [("a", 0)]
    assert starts(decide(pod, sidecar, health={"s-0": Health(ready=False)})) == [("a", 0)]


# -- probes -----------------------------------------------------------------------------------------------------

TCP = {"tcpSocket": {"port": 80}}


@pytest.mark.parametrize(
    ("policy", "kind", "message"),
    [
        ("Always", Kind.LIVENESS, "Container a failed liveness probe, will be restarted"),
        ("OnFailure", Kind.STARTUP, "Container a failed startup probe, will be restarted"),
        ("Never", Kind.LIVENESS, "Container a failed liveness probe"),
    ],
)
def test_a_container_that_fails_its_probe_is_killed_and_restarted_by_policy(
    policy: str, kind: Kind, message: str
) -> None:
    probed = container("a", livenessProbe=TCP, startupProbe={**TCP, "terminationGracePeriodSeconds": 3})
    pod = make_pod(probed, restartPolicy=policy)
    actions = decide(pod, instance(pod, "a"), health={"a-0": Health(failed=kind)})
    assert [(s.id, s.grace, s.message, s.killed_for) for s in actions.stop] == [
        ("a-0", 3 if kind is Kind.STARTUP else 30, message, kind)
    ]
    dying = instance(pod, "a", stop_deadline=NOW + 3, killed_for=kind)
    again = decide(pod, dying, health={"a-0": Health(failed=kind)})
    assert not again.effects
    dead = instance(pod, "a", EXITED, exit_code=137, stop_deadline=NOW, killed_for=kind, started_at=NOW - 5)
    after = decide(pod, dead)
    assert starts(after) == ([] if policy == "Never" else [("a", 1)])
    assert after.done is (policy == "Never")
    second = instance(
        pod, "a", EXITED, attempt=1, exit_code=137, stop_deadline=NOW, killed_for=kind, crash_count=1
    )
    waiting = decide(pod, second)
    assert waits(waiting) == ({} if policy == "Never" else {"a": "CrashLoopBackOff"})


def test_an_unhealthy_container_that_is_being_stopped_is_left_alone() -> None:
    pod = make_pod(container("a", livenessProbe=TCP))
    ill = {"a-0": Health(failed=Kind.LIVENESS)}
    assert not decide(pod, instance(pod, "a", stop_deadline=NOW + 20), health=ill).effects
    gone = decide(deleted(pod), instance(pod, "a"), health=ill)
    assert [(stop.message, stop.killed_for) for stop in gone.stop] == [("Stopping container a", "")]
    calmer = edited(pod, {"containers": [container("a")]})
    assert not decide(calmer, instance(pod, "a")).effects, "probes are edited in place"


@pytest.mark.parametrize(
    ("policy", "rules", "code", "again"),
    [
        ("Never", [], 3, False),
        ("Never", [("In", [3, 4])], 3, True),
        ("Never", [("In", [3, 4])], 5, False),
        ("Never", [("NotIn", [3])], 5, True),
        ("Never", [("NotIn", [0])], 0, False),
        ("OnFailure", [("In", [0])], 0, True),
        ("Never", [("In", [9]), ("In", [3])], 3, True),
        ("Always", [("In", [9])], 3, True),  # no rule matches: the policy decides
    ],
)
def test_restart_policy_rules_precede_the_policy(
    policy: str, rules: list[tuple[str, list[int]]], code: int, again: bool
) -> None:
    made = [{"action": "Restart", "exitCodes": {"operator": op, "values": values}} for op, values in rules]
    pod = make_pod(container("a", restartPolicy=policy, restartPolicyRules=made), restartPolicy="Never")
    actions = decide(pod, instance(pod, "a", EXITED, exit_code=code))
    assert starts(actions) == ([("a", 1)] if again else [])
    assert actions.done is not again


def test_an_invalid_image_name_is_reported_with_every_pull_policy() -> None:
    pod = make_pod(container("a", image="Not A Name", imagePullPolicy="Never"))
    actions = decide(pod)
    assert waits(actions) == {"a": "InvalidImageName"}
    assert actions.waiting["a"].message.startswith('Failed to apply default image tag "Not A Name": ')


def test_restarts_are_counted_from_the_logs_as_a_last_resort() -> None:
    pod = make_pod("a", restartPolicy="Never")
    observed = ObservedPod(UID, None, (), {"a": 4})
    actions = compute_pod_actions(pod, observed, Facts(NOW, images=World(pod).facts().images), CONFIG)
    assert starts(actions) == [("a", 5)]


def test_a_pod_that_exceeds_an_empty_dir_limit_is_evicted() -> None:
    volumes = [
        {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}},
        {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1"}},
        {"name": "free", "emptyDir": {}},
    ]
    pod = make_pod("a", volumes=volumes)
    mine = instance(pod, "a")
    for used in ({}, {"v": 1 << 20}, {"m": 9, "free": 1 << 40}):
        assert not decide(pod, mine, used=used).effects
    over = decide(pod, mine, used={"v": (1 << 20) + 1})
    assert over.failed is not None
    assert (over.failed.reason, over.failed.message) == (
        "Evicted",
        'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ',
    )
    assert [stop.grace for stop in over.stop] == [1]
    assert limited_volumes(pod, CONFIG) == {
        "v": (f"/var/lib/kubelite/pods/{UID}/volumes/kubernetes.io~empty-dir/v", 1 << 20)
    }


def test_the_size_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/")
    (tmp_path / "hard").hardlink_to(tmp_path / "d" / "file")
    assert 100_000 <= bytes_below(str(tmp_path)) < 140_000
    assert bytes_below(str(tmp_path / "none")) == 0
