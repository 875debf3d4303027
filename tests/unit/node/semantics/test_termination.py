"""The rules of termination in docs/explanation/pod-semantics.md, a row for each.

Each row is named after its rule and checks what kubelite's pure functions return. Rules that need a node or a kernel
have their rows in tests/e2e and tests/kernel.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from kubelite.node.decide.pod_rules import grace_period
from kubelite.node.decide.stopping import MIN_GRACE
from kubelite.node.model.actions import Hook, HookPhase
from kubelite.node.model.cri import ObservedImage, ObservedPod
from kubelite.node.model.probe_results import Kind, kill_grace
from kubelite.node.model.recorder import PodEvents
from kubelite.node.worker.hooks import HookRun, Hooks
from manifests.types.core import Pod
from tests.unit.node.decide.pod_worlds import CONFIG, UID, World, container, deleted, make_pod
from tests.unit.node.decide.test_pod_actions import EXITED, NOW, decide, instance
from tests.unit.node.fake_cri import FakeCri
from tests.unit.node.probing.test_prober import Probed
from tests.unit.node.semantics.pod_rows import Row, box
from tests.unit.node.worker.worker_kit import Events
from tests.waiting import until_async

# -- termination --------------------------------------------------------------------------------------------------


def _stop_order() -> list[list[str]]:
    """The containers that are stopped together when a pod with two sidecars is deleted."""
    inits = [container(name, restartPolicy="Always") for name in ("one", "two")]
    world = World(make_pod("a", "b", initContainers=inits))
    world.well = True
    world.converge()
    world.pod = deleted(world.pod)
    order = []
    while world.exists:
        actions = world.step()
        if actions.stop:
            order.append(sorted(stop.name for stop in actions.stop))
            for stop in actions.stop:
                world.fake.exit(world.pod.metadata.uid or "", stop.name, 0)
    return order


def _killed(gone: Pod, hooks: dict[tuple[str, Hook], HookPhase] | None = None, **observed: Any) -> object:
    """(signal, grace period, seconds for the hook) of the stop of a terminating pod."""
    made = decide(gone, instance(gone, "app", **observed), hooks=hooks or {})
    return [(stop.signal, stop.grace, stop.pre_stop) for stop in made.stop]


def _with_hook(grace: int) -> Pod:
    hooked = container("app", lifecycle={"preStop": {"exec": {"command": ["x"]}}})
    return deleted(make_pod(hooked), grace=grace)


def _stop_signals() -> object:
    """The stop signals: from the spec, otherwise from the image, otherwise SIGTERM."""
    found = []
    for own, image in (("SIGUSR1", "SIGQUIT"), ("", "SIGQUIT"), ("", "")):
        lifecycle = {"lifecycle": {"stopSignal": own}} if own else {}
        pod = make_pod(container("app", **lifecycle), os={"name": "linux"})
        config = {"StopSignal": image} if image else {}
        images = {"app:1": ObservedImage("sha256:1", "app:1", config=config)}
        stops = decide(deleted(pod), instance(pod, "app"), images=images).stop
        found.append(signal.Signals(stops[0].signal).name)
    return found


def _post_start_failed() -> object:
    hooked = container("app", lifecycle={"postStart": {"exec": {"command": ["x"]}}})
    pod = make_pod(hooked)
    failed = {("app-0", Hook.POST_START): HookPhase.FAILED}
    made = decide(pod, instance(pod, "app", post_start="pending"), hooks=failed)
    return [(stop.message, stop.killed_for) for stop in made.stop]


def _asked_of_one_that_goes() -> object:
    """The probes that still run for a container of a terminating pod."""

    async def story() -> object:
        one = {"exec": {"command": ["check"]}}
        node = Probed(livenessProbe=one, readinessProbe=one)
        node.follow(deleted(node.pod))
        found = [
            k for f in node.prober._pods[UID].values() for k, w in f.watches.items() if w.timer is not None
        ]
        await node.prober.close()
        return found

    return asyncio.run(story())


def _hook(**handler: Any) -> object:
    """The end of a preStop hook of this kind that takes longer than the grace period."""

    async def story() -> object:
        pod, ended = make_pod(container("app", lifecycle={"preStop": handler})), list[str]()
        hooks, observed = (
            Hooks(FakeCri(), CONFIG, wake=ended.append),
            ObservedPod(UID, None, (instance(pod, "app"),)),
        )
        run = HookRun(pod, pod.spec.containers[0], "app-0", Hook.PRE_STOP, "", PodEvents(Events(), pod), 0.05)
        hooks.begin(run)
        first = hooks.states(UID, observed)[run.key]
        await until_async(lambda: ended)
        found = first, hooks.states(UID, observed)[run.key]
        await hooks.close()
        return found

    return asyncio.run(story())


TERMINATION = [
    Row("termination", "30 s by default", lambda: grace_period(make_pod("app")), 30.0),
    Row(
        "termination",
        "the pod's own",
        lambda: grace_period(make_pod("app", terminationGracePeriodSeconds=5)),
        5.0,
    ),
    Row(
        "termination",
        "the deletion's, one second at least",
        lambda: grace_period(deleted(make_pod("app"), grace=0)),
        1.0,
    ),
    Row(
        "termination",
        "a probe's own grace for the kills that it asks for",
        lambda: kill_grace(
            box(livenessProbe={"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 7}),
            Kind.LIVENESS,
            30.0,
        ),
        7.0,
    ),
    Row(
        "termination",
        "mains together, then sidecars from the last",
        _stop_order,
        [["a", "b"], ["two"], ["one"]],
    ),
    Row(
        "termination",
        "the grace can only shrink",
        lambda: [_killed(deleted(make_pod("app"), grace=g), stop_deadline=NOW + 20) for g in (60, 5)],
        [[], [(15, 5.0, 0.0)]],
    ),
    Row(
        "termination",
        "a preStop hook runs before any signal, for as long as the grace",
        lambda: _killed(_with_hook(30)),
        [(0, 32.0, 30.0)],
    ),
    Row(
        "termination",
        "the signal after it has what is left of the grace, two seconds at least",
        lambda: [
            _killed(
                _with_hook(30), {("app-0", Hook.PRE_STOP): HookPhase.DONE}, stop_deadline=NOW + MIN_GRACE + s
            )
            for s in (10, 0)
        ],
        [[(15, 10.0, 0.0)], [(15, 2.0, 0.0)]],
    ),
    Row(
        "termination",
        "the stop signal: the manifest's, the image's, SIGTERM",
        _stop_signals,
        ["SIGUSR1", "SIGQUIT", "SIGTERM"],
    ),
    Row(
        "termination",
        "a postStart hook that fails kills its container",
        _post_start_failed,
        [("FailedPostStartHook", "postStart")],
    ),
    Row(
        "termination",
        "once a pod goes, readiness alone is asked of it",
        _asked_of_one_that_goes,
        [Kind.READINESS],
    ),
    Row(
        "termination",
        "a sleep as preStop hook, which the grace ends",
        lambda: _hook(sleep={"seconds": 60}),
        ("running", "failed"),
    ),
    Row(
        "termination",
        "the sandbox goes last, and then every trace",
        lambda: [
            (bool(made.kill_sandbox), made.finish)
            for gone in [deleted(make_pod("app"))]
            for made in (decide(gone, instance(gone, "app")), decide(gone, instance(gone, "app", EXITED)))
        ],
        [(False, False), (True, True)],
    ),
    Row(
        "termination",
        "a deletion that was forced leaves a preStop hook one second",
        lambda: _killed(_with_hook(0)),
        [(0, 3.0, 1.0)],
    ),
]

ROWS = TERMINATION


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted
