"""compute_pod_actions: a row for each branch, on worlds of a few words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.actions import (
    Facts,
    Hook,
    HookPhase,
    PodActions,
    PullPhase,
    PullSeen,
    SandboxFailure,
    StartFailure,
    signal_number,
)
from kubelite.node.config import BackOff
from kubelite.node.cri import ContainerSeen, ContainerState, PodSeen, SandboxSeen
from kubelite.node.hashes import container_hash, resources_hash, sandbox_hash
from kubelite.node.pod_actions import compute_pod_actions
from kubelite.node.probes import Health, Kind
from kubelite.node.resources import container_resources
from kubelite.node.times import go_duration
from kubelite.node.usage import bytes_below, limited_volumes
from manifests.core import Pod, PodStatus
from tests.unit.pod_worlds import CONFIG, UID, World, container, deleted, edited, make_pod

NOW = 1_700_000_000.0
RUNNING, EXITED, CREATED, UNKNOWN = (
    ContainerState.RUNNING,
    ContainerState.EXITED,
    ContainerState.CREATED,
    ContainerState.UNKNOWN,
)


def sandbox(pod: Pod, **more: Any) -> SandboxSeen:
    return replace(SandboxSeen("s1", True, 100, NOW - 100, "10.88.0.2", spec_hash=sandbox_hash(pod)), **more)


def instance(
    pod: Pod, name: str, state: ContainerState = RUNNING, *, attempt: int = 0, **more: Any
) -> ContainerSeen:
    spec = next(c for c in [*pod.spec.init_containers, *pod.spec.containers] if c.name == name)
    made = ContainerSeen(
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


def decide(pod: Pod, *containers: ContainerSeen, box: SandboxSeen | None = None, **facts: Any) -> PodActions:
    """With the pod's own sandbox standing, unless another (or `box=NONE`) is given, and its images present."""
    world = World(pod)
    images = {"app:1": world.fake.image("app:1")}
    chosen = sandbox(pod) if box is None else None if box is NONE else box
    return compute_pod_actions(
        pod, PodSeen(UID, chosen, containers), Facts(NOW, **{"images": images, **facts}), CONFIG
    )


NONE = SandboxSeen("none", False, 0, 0.0)


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
    actions = compute_pod_actions(pod, PodSeen(UID), Facts(NOW, images=World(pod).facts().images), CONFIG)
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
    waiting = compute_pod_actions(pod, PodSeen(UID), Facts(NOW, sandbox_failure=failure), CONFIG)
    assert not waiting.effects
    assert waiting.next_look == NOW + 4
    changed = edited(pod, {"hostNetwork": True})
    assert compute_pod_actions(
        changed, PodSeen(UID), Facts(NOW, sandbox_failure=failure), CONFIG
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
        {"stop_deadline": NOW + 5},  # we stopped it
        {"finished_at": NOW + 999},  # the clock was set back: no endless wait
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


def test_a_start_error_is_a_crash() -> None:
    pod = make_pod("a")
    dead = instance(pod, "a", EXITED, started_at=0.0, exit_code=128, reason="StartError", crash_count=1)
    assert waits(decide(pod, dead)) == {"a": "CrashLoopBackOff"}


def test_a_failed_start_waits_until_its_time_or_an_edit() -> None:
    pod = make_pod("a")
    failure = StartFailure(
        "CreateContainerError", "no room", container_hash(pod, pod.spec.containers[0]), NOW + 10
    )
    actions = decide(pod, start_failures={"a": failure})
    assert waits(actions) == {"a": "CreateContainerError"}
    assert actions.next_look == NOW + 10
    assert decide(pod, start_failures={"a": replace(failure, retry_at=NOW)}).start
    assert decide(pod, start_failures={"a": replace(failure, spec_hash="before")}).start


def test_a_clock_that_is_set_back_makes_nothing_wait_for_it() -> None:
    pod, later = make_pod("a"), NOW + 86400
    failure = StartFailure("CreateContainerError", "no", container_hash(pod, pod.spec.containers[0]), later)
    assert decide(pod, start_failures={"a": failure}).start
    pull = PullSeen(PullPhase.FAILED, "ErrImagePull", "no", later - 10, later)
    assert decide(pod, images={"app:1": None}, pulls={("a", 0): pull}).pull
    box = SandboxFailure("no address", sandbox_hash(pod), later)
    facts = Facts(NOW, sandbox_failure=box)
    assert compute_pod_actions(pod, PodSeen(UID), facts, CONFIG).create_sandbox


def test_the_newest_dead_instance_is_kept_older_ones_go() -> None:
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
def test_init_containers_go_on_only_from_success(
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


def test_an_initialised_pod_does_not_run_its_init_containers_again() -> None:
    pod = make_pod("a", initContainers=[container("i")])
    changed = edited(pod, {"initContainers": [container("i", args=["new"])]})
    done = instance(pod, "i", EXITED)
    assert not decide(changed, done, instance(changed, "a"), box=sandbox(changed)).effects
    assert starts(decide(pod, instance(pod, "a", EXITED))) == [("a", 1)]


def test_a_sidecar_lets_the_next_one_start_when_it_runs_and_ends_after_the_others() -> None:
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


def test_a_sidecar_with_a_startup_probe_lets_nobody_start_before_that_succeeded() -> None:
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
def test_a_container_that_fails_its_probe_is_killed_and_its_policy_decides(
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


def test_an_unhealthy_container_is_left_alone_while_it_is_stopped_for_something_else() -> None:
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
        ("Always", [("In", [9])], 3, True),  # no rule fits: the policy decides
    ],
)
def test_a_container_s_own_rules_come_before_its_policy(
    policy: str, rules: list[tuple[str, list[int]]], code: int, again: bool
) -> None:
    made = [{"action": "Restart", "exitCodes": {"operator": op, "values": values}} for op, values in rules]
    pod = make_pod(container("a", restartPolicy=policy, restartPolicyRules=made), restartPolicy="Never")
    actions = decide(pod, instance(pod, "a", EXITED, exit_code=code))
    assert starts(actions) == ([("a", 1)] if again else [])
    assert actions.done is not again


def test_what_is_no_image_s_name_is_said_whatever_the_pull_policy() -> None:
    pod = make_pod(container("a", image="Not A Name", imagePullPolicy="Never"))
    actions = decide(pod)
    assert waits(actions) == {"a": "InvalidImageName"}
    assert actions.waiting["a"].message.startswith('Failed to apply default image tag "Not A Name": ')


def test_restarts_are_counted_from_the_logs_when_nothing_else_is_left() -> None:
    pod = make_pod("a", restartPolicy="Never")
    seen = PodSeen(UID, None, (), {"a": 4})
    actions = compute_pod_actions(pod, seen, Facts(NOW, images=World(pod).facts().images), CONFIG)
    assert starts(actions) == [("a", 5)]


def test_a_pod_that_outgrows_an_empty_dir_is_evicted() -> None:
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


def test_what_a_tree_takes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "link").symlink_to("/")
    (tmp_path / "hard").hardlink_to(tmp_path / "d" / "file")
    assert 100_000 <= bytes_below(str(tmp_path)) < 140_000
    assert bytes_below(str(tmp_path / "none")) == 0


# -- hooks ------------------------------------------------------------------------------------------------------

HOOKED = {"postStart": {"exec": {"command": ["x"]}}, "preStop": {"exec": {"command": ["y"]}}}
POST, PRE = Hook.POST_START, Hook.PRE_STOP


def test_a_post_start_hook_runs_once_and_holds_up_the_containers_behind_it() -> None:
    pod = make_pod("first", container("a", lifecycle=HOOKED), "b")
    new = decide(pod, box=NONE)
    assert starts(new) == [("first", 0), ("a", 0)]
    first, fresh = instance(pod, "first"), instance(pod, "a", post_start="pending")
    begin = decide(pod, first, fresh)
    assert [(hook.id, hook.name) for hook in begin.post_start] == [("a-0", "a")]
    assert not begin.start
    assert waits(begin) == {"a": "ContainerCreating", "b": "ContainerCreating"}
    running = decide(pod, first, fresh, hooks={("a-0", POST): HookPhase.RUNNING})
    assert not running.effects
    assert starts(decide(pod, first, instance(pod, "a", post_start="done"))) == [("b", 0)]
    assert (
        decide(pod, first, instance(pod, "a", EXITED, post_start="pending", exit_code=1)).start[-1].name
        == "a"
    )


def test_a_post_start_hook_that_fails_ends_its_container_as_failed() -> None:
    pod = make_pod(container("a", lifecycle={"postStart": HOOKED["postStart"]}), restartPolicy="Never")
    fresh = instance(pod, "a", post_start="pending")
    failed = decide(pod, fresh, hooks={("a-0", POST): HookPhase.FAILED})
    assert [(s.message, s.killed_for, s.signal) for s in failed.stop] == [
        ("FailedPostStartHook", "postStart", 15)
    ]
    dead = instance(
        pod, "a", EXITED, post_start="pending", exit_code=143, stop_deadline=NOW, killed_for="postStart"
    )
    assert decide(pod, dead).done


def test_a_pre_stop_hook_comes_before_the_signal_and_eats_the_grace() -> None:
    pod = make_pod(container("a", lifecycle=HOOKED), "b")
    gone = deleted(pod, grace=30)
    alive = (instance(pod, "a", post_start="done"), instance(pod, "b"))
    begin = decide(gone, *alive)
    assert [(s.name, s.signal, s.grace, s.pre_stop, s.message) for s in begin.stop] == [
        ("a", 0, 32, 30, "Stopping container a"),
        ("b", 15, 30, 0, "Stopping container b"),
    ]
    waiting = replace(alive[0], stop_deadline=NOW + 32)
    rest = replace(alive[1], stop_deadline=NOW + 30, stop_signal=15)
    assert not decide(gone, waiting, rest, hooks={("a-0", PRE): HookPhase.RUNNING}).stop
    later = replace(waiting, stop_deadline=NOW + 12)  # twenty seconds on
    for phase in (HookPhase.DONE, HookPhase.FAILED):
        signal = decide(gone, later, rest, hooks={("a-0", PRE): phase})
        assert [(s.signal, s.grace, s.message) for s in signal.stop] == [(15, 10, "")]
    late = decide(gone, replace(waiting, stop_deadline=NOW + 2), hooks={("a-0", PRE): HookPhase.FAILED})
    assert [(s.signal, s.grace) for s in late.stop] == [(15, 2)], "two seconds at least"
    told = replace(later, stop_signal=15, stop_deadline=NOW + 10)
    assert not decide(gone, told, rest, hooks={("a-0", PRE): HookPhase.DONE}).stop


def test_a_pre_stop_hook_and_a_new_daemon_or_a_shorter_grace() -> None:
    pod = make_pod(container("a", lifecycle=HOOKED))
    waiting = instance(pod, "a", post_start="done", stop_deadline=NOW + 12)
    again = decide(deleted(pod, grace=30), waiting)
    assert [(s.signal, s.pre_stop, s.grace, s.message) for s in again.stop] == [(0, 10, 12, "")]
    shorter = decide(deleted(pod, grace=1), waiting, hooks={("a-0", PRE): HookPhase.RUNNING})
    assert [(s.signal, s.pre_stop, s.grace) for s in shorter.stop] == [(0, 1, 3)]
    changed = edited(pod, {"containers": [container("a", args=["new"], lifecycle=HOOKED)]})
    for hooks in ({}, {("a-0", PRE): HookPhase.DONE}):
        going = decide(changed, waiting, hooks=hooks)
        assert [bool(s.signal) for s in going.stop] == [bool(hooks)], "an edit's stop goes on the same way"


# -- edits ------------------------------------------------------------------------------------------------------


def test_only_the_container_that_changed_is_restarted() -> None:
    pod = make_pod("a", "b")
    changed = edited(pod, {"containers": [container("a", image="app:1", args=["x"]), container("b")]})
    actions = decide(changed, instance(pod, "a"), instance(pod, "b"))
    assert [stop.message for stop in actions.stop] == ["Container a definition changed, will be restarted"]
    ended = instance(pod, "a", EXITED, exit_code=0, stop_deadline=NOW + 9)
    assert starts(decide(changed, ended, instance(pod, "b"))) == [("a", 1)]


def test_a_container_stopped_for_an_edit_runs_again_whatever_the_policy() -> None:
    pod = make_pod("a", restartPolicy="Never")
    changed = edited(pod, {"containers": [container("a", args=["x"])]})
    assert starts(decide(changed, instance(pod, "a", EXITED, stop_deadline=NOW + 9))) == [("a", 1)]
    assert not decide(changed, instance(pod, "a", EXITED)).start, "it had ended by itself"


@pytest.mark.parametrize(
    "spec",
    [
        {"terminationGracePeriodSeconds": 5},
        {"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["x"]}]},
        {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.53"]}},
        {"containers": [container("a", livenessProbe={"exec": {"command": ["x"]}})]},
        {"containers": [container("a", ports=[{"containerPort": 80}])]},
        {"containers": [container("a", imagePullPolicy="Always")]},
        {"volumes": [{"name": "unused", "emptyDir": {}}]},
    ],
)
def test_what_changes_without_touching_anything(spec: dict[str, Any]) -> None:
    pod = make_pod("a")
    changed = edited(pod, spec)
    assert not decide(changed, instance(pod, "a"), box=sandbox(pod)).effects


@pytest.mark.parametrize(
    "spec",
    [
        {"hostNetwork": True},
        {"hostPID": True},
        {"hostIPC": True},
        {"hostname": "other"},
        {"setHostnameAsFQDN": True, "subdomain": "sub"},
        {"containers": [container("a", ports=[{"containerPort": 80, "hostPort": 8080}])]},
        {"securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "9"}]}},
    ],
)
def test_what_needs_a_new_sandbox(spec: dict[str, Any]) -> None:
    pod = make_pod("a")
    changed = edited(pod, spec)
    first = decide(changed, instance(pod, "a"), box=sandbox(pod))
    assert [stop.name for stop in first.stop] == ["a"]
    assert not first.kill_sandbox
    then = decide(changed, instance(pod, "a", EXITED, stop_deadline=NOW), box=sandbox(pod))
    assert then.kill_sandbox
    assert then.create_sandbox
    assert starts(then) == [("a", 1)]


def test_limits_change_in_place() -> None:
    pod = make_pod("a")
    changed = edited(pod, {"containers": [container("a", resources={"limits": {"cpu": "250m"}})]})
    actions = decide(changed, instance(pod, "a"), box=sandbox(pod, resources_hash="before"))
    assert actions.update_sandbox
    assert [update.resources["cpu"]["quota"] for update in actions.update] == [25000]
    assert not actions.stop


def test_a_container_that_left_the_manifest_is_stopped_then_forgotten() -> None:
    pod = make_pod("a", "b")
    less = make_pod("a")
    assert [stop.name for stop in decide(less, instance(pod, "a"), instance(pod, "b")).stop] == ["b"]
    gone = decide(less, instance(pod, "a"), instance(pod, "b", EXITED))
    assert [removal.name for removal in gone.remove] == ["b"]


# -- the sandbox is lost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "state", "code", "expected"),
    [
        ("Always", UNKNOWN, 137, [("a", 1)]),
        ("Always", EXITED, 0, [("a", 1)]),
        ("OnFailure", EXITED, 0, []),
        ("OnFailure", EXITED, 1, [("a", 1)]),
        ("OnFailure", UNKNOWN, 137, [("a", 1)]),
        ("Never", UNKNOWN, 137, []),
        ("Never", EXITED, 1, []),
    ],
)
def test_a_lost_sandbox(
    policy: str, state: ContainerState, code: int, expected: list[tuple[str, int]]
) -> None:
    pod = make_pod("a", restartPolicy=policy)
    dead = instance(pod, "a", state, exit_code=code, sandbox_id="gone")
    actions = decide(pod, dead, box=NONE)
    assert starts(actions) == expected
    assert bool(actions.create_sandbox) is bool(expected)
    assert actions.done is (not expected)


def test_a_reboot_leaves_only_the_status_to_count_from() -> None:
    entry = {"name": "a", "image": "app:1", "imageID": "", "ready": True, "restartCount": 3}
    pod = make_pod("a")
    ran = status(
        pod, containerStatuses=[{**entry, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]
    )
    assert starts(decide(ran, box=NONE)) == [("a", 4)]
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    fresh = status(pod, containerStatuses=[{**entry, "restartCount": 0, "state": waiting}])
    assert starts(decide(fresh, box=NONE)) == [("a", 0)]


def test_after_a_lost_sandbox_init_containers_run_again() -> None:
    pod = make_pod("a", initContainers=[container("i")])
    old = (instance(pod, "i", EXITED, sandbox_id="gone"), instance(pod, "a", UNKNOWN, sandbox_id="gone"))
    assert starts(decide(pod, *old, box=NONE)) == [("i", 1)]
    assert starts(decide(pod, *old)) == [("i", 1)], "the new sandbox stands, nothing of it has run yet"
    after = decide(pod, *old, instance(pod, "i", EXITED, attempt=1, sandbox_id="s1"))
    assert starts(after) == [("a", 1)]


# -- the end ----------------------------------------------------------------------------------------------------


def test_deletion_stops_mains_then_sidecars_in_reverse_then_everything() -> None:
    sidecars = [container("s", restartPolicy="Always"), container("t", restartPolicy="Always")]
    pod = deleted(make_pod("a", "b", initContainers=sidecars), grace=7)
    first = decide(pod, *(instance(pod, name) for name in "abst"))
    assert [(stop.name, stop.grace, stop.signal) for stop in first.stop] == [("a", 7.0, 15), ("b", 7.0, 15)]
    ended = [instance(pod, name, EXITED) for name in "ab"]
    assert [stop.name for stop in decide(pod, *ended, instance(pod, "s"), instance(pod, "t")).stop] == ["t"]
    ended.append(instance(pod, "t", EXITED))
    assert [stop.name for stop in decide(pod, *ended, instance(pod, "s")).stop] == ["s"]
    last = decide(pod, *ended, instance(pod, "s", EXITED))
    assert last.kill_sandbox
    assert last.finish


def test_a_stop_under_way_is_left_alone_or_made_shorter() -> None:
    pod = make_pod("a")
    stopping = instance(pod, "a", stop_deadline=NOW + 20)
    patient = decide(deleted(pod, grace=30), stopping)
    assert not patient.effects
    assert patient.next_look == NOW + 21
    assert [stop.grace for stop in decide(deleted(pod, grace=0), stopping).stop] == [1.0]


def test_deletion_with_nothing_there_is_over_at_once() -> None:
    actions = decide(deleted(make_pod("a")), box=NONE)
    assert actions.finish


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_ended_never_runs_again(phase: str) -> None:
    pod = status(make_pod("a"), phase=phase)
    running = decide(pod, instance(pod, "a"))
    assert [stop.name for stop in running.stop] == ["a"]
    assert decide(pod, instance(pod, "a", EXITED)).kill_sandbox
    nothing = compute_pod_actions(pod, PodSeen(UID), Facts(NOW), CONFIG)
    assert not nothing.effects
    assert nothing.done


def test_a_deadline_ends_the_pod() -> None:
    pod = make_pod("a", activeDeadlineSeconds=60)
    early = decide(status(pod, startTime="2023-11-14T22:13:00Z"), instance(pod, "a"))
    assert not early.effects
    assert early.next_look == NOW + 40
    late = decide(status(pod, startTime="2023-11-14T22:12:00Z"), instance(pod, "a"))
    assert late.failed is not None
    assert late.failed.reason == "DeadlineExceeded"
    assert [stop.name for stop in late.stop] == ["a"]


# -- images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "here", "pull", "does"),
    [
        ("IfNotPresent", True, None, "start"),
        ("IfNotPresent", False, None, "pull"),
        ("Always", True, None, "pull"),
        ("Always", True, PullSeen(PullPhase.PULLED), "start"),
        ("Always", True, PullSeen(PullPhase.PULLING), "ContainerCreating"),
        ("IfNotPresent", False, PullSeen(PullPhase.PULLED), "pull"),
        ("Never", True, None, "start"),
        ("Never", False, None, "ErrImageNeverPull"),
        ("Always", True, PullSeen(PullPhase.FAILED, "ErrImagePull", "no", NOW, NOW + 10), "ErrImagePull"),
        (
            "Always",
            True,
            PullSeen(PullPhase.FAILED, "ErrImagePull", "no", NOW - 5, NOW + 5),
            "ImagePullBackOff",
        ),
        (
            "Always",
            True,
            PullSeen(PullPhase.FAILED, "InvalidImageName", "?", NOW - 5, NOW + 5),
            "InvalidImageName",
        ),
        ("Always", True, PullSeen(PullPhase.FAILED, "ErrImagePull", "no", NOW - 10, NOW), "pull"),
    ],
)
def test_pull_policy(policy: str, here: bool, pull: PullSeen | None, does: str) -> None:
    pod = make_pod(container("a", imagePullPolicy=policy))
    images = {"app:1": World(pod).fake.image("app:1") if here else None}
    actions = decide(pod, images=images, pulls={("a", 0): pull} if pull else {})
    assert bool(actions.start) is (does == "start")
    assert bool(actions.pull) is (does == "pull")
    if does not in ("start", "pull"):
        assert waits(actions) == {"a": does}


def test_a_field_that_cannot_work_blocks_only_who_needs_it() -> None:
    needs = container("a", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    pod = make_pod(needs, "b", volumes=[{"name": "v", "nfs": {"server": "x", "path": "/y"}}])
    actions = decide(pod)
    assert starts(actions) == [("b", 0)]
    assert waits(actions)["a"] == "CreateContainerConfigError"


# -- small things -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("TERM", 15), ("9", 9), ("SIGRTMIN+3", 37), (None, 15), ("nonsense", 15)],
)
def test_signal_number(text: str | None, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    ("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3600, "1h0m0s"), (0, "0s")]
)
def test_go_duration(seconds: int, text: str) -> None:
    assert go_duration(seconds) == text


def test_a_maximum_below_the_first_wait_lowers_it() -> None:
    assert [BackOff(10, 4).wait(n) for n in range(4)] == [0, 4, 4, 4]
