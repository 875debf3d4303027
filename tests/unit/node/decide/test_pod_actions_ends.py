"""compute_pod_actions, a row for each branch: hooks, edits, lost sandboxes, terminating pods, images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.model.actions import Facts, Hook, HookPhase, PullPhase, PullStatus, signal_number
from kubelite.node.model.cri import ContainerState, ObservedImage, ObservedPod, Rates
from kubelite.node.model.node_config import BackOff
from kubelite.node.spec.bandwidth import EGRESS
from tests.unit.node.decide.pod_worlds import CONFIG, UID, World, container, deleted, edited, make_pod
from tests.unit.node.decide.test_pod_actions import (
    EXITED,
    NONE,
    NOW,
    UNKNOWN,
    decide,
    instance,
    sandbox,
    starts,
    status,
    waits,
)

# -- hooks ------------------------------------------------------------------------------------------------------

HOOKED = {"postStart": {"exec": {"command": ["x"]}}, "preStop": {"exec": {"command": ["y"]}}}
POST, PRE = Hook.POST_START, Hook.PRE_STOP


def test_a_post_start_hook_runs_once_and_delays_later_containers() -> None:
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


def test_a_pre_stop_hook_precedes_the_signal_and_uses_the_grace_period() -> None:
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
    later = replace(waiting, stop_deadline=NOW + 12)  # twenty seconds later
    for phase in (HookPhase.DONE, HookPhase.FAILED):
        signal = decide(gone, later, rest, hooks={("a-0", PRE): phase})
        assert [(s.signal, s.grace, s.message) for s in signal.stop] == [(15, 10, "")]
    late = decide(gone, replace(waiting, stop_deadline=NOW + 2), hooks={("a-0", PRE): HookPhase.FAILED})
    assert [(s.signal, s.grace) for s in late.stop] == [(15, 2)], "two seconds at least"
    told = replace(later, stop_signal=15, stop_deadline=NOW + 10)
    assert not decide(gone, told, rest, hooks={("a-0", PRE): HookPhase.DONE}).stop


def test_a_pre_stop_hook_after_a_restart_or_with_a_shorter_grace_period() -> None:
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
def test_edits_without_effect_on_containers(spec: dict[str, Any]) -> None:
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
def test_edits_that_need_a_new_sandbox(spec: dict[str, Any]) -> None:
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


@pytest.mark.parametrize(
    ("before", "annotation", "limit"),
    [
        ((0, 0), "10M", (0, 10**7)),  # also a pod of a version without limits
        ((0, 10**7), "10M", None),
        ((0, 10**7), "fast", None),
        ((0, 10**7), None, (0, 0)),
    ],
)
def test_limits_of_bandwidth_change_in_place(
    before: Rates, annotation: str | None, limit: Rates | None
) -> None:
    pod = make_pod("a")
    pod.metadata.annotations = {EGRESS: annotation} if annotation else {}
    actions = decide(pod, instance(pod, "a"), box=sandbox(pod, bandwidth=before))
    assert (actions.limit, actions.stop, actions.kill_sandbox) == (limit, (), "")
    assert any("'fast'" in reason for reason in actions.reasons) == (annotation == "fast")


def test_a_container_removed_from_the_manifest_is_stopped_then_removed() -> None:
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


def test_after_a_reboot_restarts_are_counted_from_the_status() -> None:
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


def test_new_connections_end_before_the_first_stop_of_a_deletion() -> None:
    pod = make_pod("a", "b")
    going = deleted(pod)
    both = instance(pod, "a"), instance(pod, "b")
    assert decide(going, *both).withdraw
    stopping = [instance(pod, name, stop_deadline=NOW + 30) for name in "ab"]
    assert not decide(going, *stopping).withdraw
    assert not decide(pod, *both).withdraw
    edit = decide(edited(pod, {"containers": [container("a", command=["other"]), container("b")]}), *both)
    assert edit.stop and not edit.withdraw  # the pod stays


def test_new_connections_end_also_if_a_container_was_stopped_before() -> None:
    """A failed liveness probe leaves an instance with a stop behind, which says nothing about the pod's deletion."""
    pod = make_pod("a", "b")
    killed = instance(pod, "a", EXITED, attempt=0, stop_deadline=NOW - 60)
    for containers in (
        (killed, instance(pod, "a", attempt=1), instance(pod, "b")),  # restarted
        (killed, instance(pod, "b")),  # not restarted yet
        (instance(pod, "a", stop_deadline=NOW + 5), instance(pod, "b")),  # being stopped
    ):
        assert decide(deleted(pod), *containers).withdraw


def test_sidecars_have_the_grace_period_also_if_a_container_was_stopped_before() -> None:
    pod = deleted(make_pod("a", initContainers=[container("s", restartPolicy="Always")]), grace=7)
    long_ago = instance(pod, "a", EXITED, attempt=0, stop_deadline=NOW - 600, finished_at=NOW - 603)
    ended = instance(pod, "a", EXITED, attempt=1, stop_deadline=NOW + 5, finished_at=NOW)
    (stop,) = decide(pod, long_ago, ended, instance(pod, "s")).stop
    assert (stop.name, stop.grace) == ("s", 5.0)


def test_a_stop_that_ended_before_the_deletion_takes_nothing_of_the_grace_period() -> None:
    """A failed liveness probe stopped the newest instance, and it was not restarted yet."""
    pod = deleted(make_pod("a", initContainers=[container("s", restartPolicy="Always")]), grace=7, began=NOW)
    killed = instance(pod, "a", EXITED, stop_deadline=NOW - 3, finished_at=NOW - 4)
    (stop,) = decide(pod, killed, instance(pod, "s")).stop
    assert (stop.name, stop.grace) == ("s", 7.0)


def test_a_running_stop_is_left_alone_or_shortened() -> None:
    pod = make_pod("a")
    stopping = instance(pod, "a", stop_deadline=NOW + 20)
    patient = decide(deleted(pod, grace=30), stopping)
    assert not patient.effects
    assert patient.next_look == NOW + 21
    assert [stop.grace for stop in decide(deleted(pod, grace=0), stopping).stop] == [1.0]


def test_deletion_of_a_pod_without_containers_ends_at_once() -> None:
    actions = decide(deleted(make_pod("a")), box=NONE)
    assert actions.finish


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_ended_never_runs_again(phase: str) -> None:
    pod = status(make_pod("a"), phase=phase)
    running = decide(pod, instance(pod, "a"))
    assert [stop.name for stop in running.stop] == ["a"]
    assert decide(pod, instance(pod, "a", EXITED)).kill_sandbox
    nothing = compute_pod_actions(pod, ObservedPod(UID), Facts(NOW), CONFIG)
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
        ("Always", True, PullStatus(PullPhase.PULLED), "start"),
        ("Always", True, PullStatus(PullPhase.PULLING), "ContainerCreating"),
        ("IfNotPresent", False, PullStatus(PullPhase.PULLED), "pull"),
        ("Never", True, None, "start"),
        ("Never", False, None, "ErrImageNeverPull"),
        ("Always", True, PullStatus(PullPhase.FAILED, "ErrImagePull", "no", NOW, NOW + 10), "ErrImagePull"),
        (
            "Always",
            True,
            PullStatus(PullPhase.FAILED, "ErrImagePull", "no", NOW - 5, NOW + 5),
            "ImagePullBackOff",
        ),
        (
            "Always",
            True,
            PullStatus(PullPhase.FAILED, "InvalidImageName", "?", NOW - 5, NOW + 5),
            "InvalidImageName",
        ),
        ("Always", True, PullStatus(PullPhase.FAILED, "ErrImagePull", "no", NOW - 10, NOW), "pull"),
    ],
)
def test_pull_policy(policy: str, here: bool, pull: PullStatus | None, does: str) -> None:
    pod = make_pod(container("a", imagePullPolicy=policy))
    images = {"app:1": World(pod).fake.image("app:1") if here else None}
    actions = decide(pod, images=images, pulls={("a", 0): pull} if pull else {})
    assert bool(actions.start) is (does == "start")
    assert bool(actions.pull) is (does == "pull")
    if does not in ("start", "pull"):
        assert waits(actions) == {"a": does}


@pytest.mark.parametrize(
    ("name", "registry", "does"),
    [
        ("localhost/web", "localhost/web:latest", "start"),
        ("web", "localhost/web:latest", "start"),  # by an alias
        ("localhost:5000/web", "localhost:5000/web:latest", "pull"),
        ("localhost.example/web", "localhost.example/web:latest", "pull"),
    ],
)
def test_an_image_of_this_node_satisfies_always(name: str, registry: str, does: str) -> None:
    pod = make_pod(container("a", image=name, imagePullPolicy="Always"))
    actions = decide(pod, images={name: ObservedImage("sha256:1", registry)})
    assert bool(actions.start) is (does == "start")
    assert bool(actions.pull) is (does == "pull")
    absent = decide(pod, images={name: None})
    assert absent.pull, "one that is not here may still come from somewhere"


def test_an_unsupported_field_blocks_only_the_containers_it_concerns() -> None:
    needs = container("a", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    pod = make_pod(needs, "b", volumes=[{"name": "v", "glusterfs": {"endpoints": "x", "path": "/y"}}])
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


def test_a_maximum_below_the_initial_back_off_lowers_it() -> None:
    assert [BackOff(10, 4).wait(n) for n in range(4)] == [0, 4, 4, 4]
