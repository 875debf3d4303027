"""The rules of phase, conditions and status in docs/explanation/pod-semantics.md, a row for each.

Each row is named after its rule and checks what kubelite's pure functions return. Rules that need a node or a kernel
have their rows in tests/e2e and tests/kernel.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.cri.pod_files import termination_message
from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.decide.pod_status import compute_pod_status, terminated_of
from kubelite.node.model.actions import Facts, PodActions, PullPhase, PullStatus
from kubelite.node.model.cri import ContainerState, ObservedContainer, ObservedPod
from kubelite.node.model.errors import ConfigError, CreateError, MountError
from kubelite.node.model.schedule import Resize
from kubelite.node.worker.termination import log_tail, with_messages
from manifests.types.core import Pod, PodStatus
from tests.unit.node.decide.pod_worlds import CONFIG, UID, World, container, make_pod
from tests.unit.node.decide.test_pod_actions import (
    EXITED,
    NOW,
    RUNNING,
    UNKNOWN,
    decide,
    instance,
    sandbox,
    starts,
    status,
)
from tests.unit.node.decide.test_pod_status import IMAGE, report
from tests.unit.node.semantics.pod_rows import Row

# -- status -----------------------------------------------------------------------------------------------------------


def _end(state: ContainerState, **fields: Any) -> tuple[str | None, int]:
    pod = make_pod("app")
    found = terminated_of(replace(instance(pod, "app", state), **fields))
    return found.reason, found.exit_code


def _phase_of(policy: str, *codes: int) -> str | None:
    names = [f"c{n}" for n in range(len(codes))]
    world = World(make_pod(*names, restartPolicy=policy))
    world.converge()
    for name, code in zip(names, codes, strict=True):
        world.fake.exit(world.pod.metadata.uid or "", name, code)
    world.settle()
    return world.pod.status.phase


def _new() -> World:
    world = World(make_pod("b", "a"))
    world.settle()
    return world


def _conditions(status: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    return {c["type"]: (c["status"], c.get("reason", ""), c.get("message", "")) for c in status["conditions"]}


def _of(kind: str, pod: Pod, *observed: ObservedContainer) -> tuple[str, str, str]:
    return _conditions(report(pod, *observed))[kind]


def _inits(state: ContainerState | None = None, policy: str = "Always", **fields: Any) -> dict[str, Any]:
    """The status of a pod whose init container is in this state."""
    pod = make_pod("app", restartPolicy=policy, initContainers=[container("init")])
    return report(pod, *([instance(pod, "init", state, **fields)] if state else []))


def _waiting(spec: dict[str, Any] | None = None, **facts: Any) -> tuple[str, str]:
    """Why the container of a pod waits, as its status shows it."""
    made = decide(make_pod(spec or "app"), **facts).waiting["app"]
    return made.reason, made.message


def _sidecar_starts() -> str:
    sidecar = container("side", restartPolicy="Always", startupProbe={"tcpSocket": {"port": 1}})
    pod = make_pod("app", initContainers=[sidecar])
    return str(report(pod, instance(pod, "side"))["phase"])


def _gated(*conditions: dict[str, str]) -> tuple[str, str, str]:
    pod = make_pod("app", readinessGates=[{"conditionType": "lb"}])
    return _of("Ready", status(pod, conditions=list(conditions)), instance(pod, "app"))


def _terminal() -> object:
    pod = status(make_pod("app"), phase="Failed", reason="Evicted", message="no room")
    found = report(pod, instance(pod, "app"))
    return found["phase"], found["reason"], found["message"]


def _message(wrote: bytes) -> str:
    with tempfile.NamedTemporaryFile() as file:
        file.write(wrote)
        file.flush()
        return termination_message(file.name)


def _all_messages(containers: int, message: str) -> list[int]:
    """The lengths, in bytes, of the messages in the status if so many containers have the same message."""
    pod = make_pod(*(f"c{n}" for n in range(containers - 1)), initContainers=[container("init")])
    ended = [replace(instance(pod, c.name, EXITED), message=message) for c in pod.spec.containers]
    return [
        len(c.message.encode()) for c in with_messages(pod, ObservedPod(UID, None, tuple(ended))).containers
    ]


def _ended_early(*inits: dict[str, Any], observed: dict[str, int] | None = None) -> object:
    """(phase, state and reason of each container, why it is not initialized) of a pod whose deadline passes after these
    containers have ended in this way."""
    pod = make_pod("app", initContainers=list(inits), restartPolicy="Never", activeDeadlineSeconds=1)
    old = status(pod, startTime="2023-11-14T22:00:00Z", phase="Pending")
    found = report(
        old, *(instance(pod, name, EXITED, exit_code=code) for name, code in (observed or {}).items())
    )
    states = [c["state"] for c in [*found.get("initContainerStatuses", []), *found["containerStatuses"]]]
    return (
        found["phase"],
        [next(iter(state)) + " " + next(iter(state.values()))["reason"] for state in states],
        _conditions(found)["Initialized"][:2],
    )


def _going_over() -> object:
    """Phase and reason of a pod whose deadline has passed, while it runs and after it has ended; its readiness in
    between."""
    pod = status(make_pod("app", activeDeadlineSeconds=1), startTime="2023-11-14T22:00:00Z", phase="Running")
    first = report(pod, instance(pod, "app"))
    then = pod.model_copy(update={"status": PodStatus.parse(first), "spec": make_pod("app").spec})
    last = report(then, instance(pod, "app", EXITED, exit_code=143))
    return [(s["phase"], s["reason"]) for s in (first, last)], _conditions(first)["Ready"][:2]


def _resizing(*, written: bool = True, **facts: Any) -> object:
    pod = make_pod("app")
    observed, actions = (
        ObservedPod(UID, sandbox(pod), (instance(pod, "app"),)),
        PodActions(update_sandbox=not written),
    )
    made = compute_pod_status(pod, observed, actions, Facts(NOW, **facts), CONFIG)
    return [(c.type, c.reason, c.message) for c in made.conditions if "Resize" in c.type]


def _tail(lines: int, width: int) -> object:
    with tempfile.NamedTemporaryFile("w", suffix=".log") as file:
        file.writelines(f"2026-01-01T00:00:00.000000000Z stdout F {n:0{width}}\n" for n in range(lines))
        file.flush()
        found = log_tail(file.name)
        return len(found.splitlines()), len(found)


PULL = {"images": {"app:1": None}}
FAILED = PullStatus(PullPhase.FAILED, "ErrImagePull", "no route", NOW, NOW + 10)
STATUS = [
    Row("status", "Completed", lambda: _end(EXITED, exit_code=0), ("Completed", 0)),
    Row("status", "Error", lambda: _end(EXITED, exit_code=3), ("Error", 3)),
    Row("status", "OOMKilled", lambda: _end(EXITED, exit_code=137, oom_killed=True), ("OOMKilled", 137)),
    Row(
        "status",
        "128 and the signal, and the signal itself",
        lambda: terminated_of(
            replace(instance(make_pod("app"), "app", EXITED), exit_code=137, signal=9)
        ).to_json()["signal"],
        9,
    ),
    Row("status", "a lost container", lambda: _end(UNKNOWN), ("ContainerStatusUnknown", 137)),
    Row("status", "all ended well: Succeeded", lambda: _phase_of("Never", 0, 0), "Succeeded"),
    Row("status", "one did not: Failed", lambda: _phase_of("Never", 0, 1), "Failed"),
    Row("status", "one may restart: Running", lambda: _phase_of("Always", 0, 1), "Running"),
    Row(
        "status",
        "statuses by name",
        lambda: [s.name for s in _new().pod.status.container_statuses],
        ["a", "b"],
    ),
    Row(
        "status",
        "the conditions",
        lambda: sorted(c.type for c in _new().pod.status.conditions),
        ["ContainersReady", "Initialized", "PodReadyToStartContainers", "PodScheduled", "Ready"],
    ),
    Row(
        "status",
        "each condition names the generation",
        lambda: {c.observed_generation for c in _new().pod.status.conditions},
        {1},
    ),
    Row(
        "status",
        "podIP and podIPs, hostIP and hostIPs",
        lambda: (
            [ip.ip for ip in _new().pod.status.pod_ips] == [_new().pod.status.pod_ip],
            [ip.ip for ip in _new().pod.status.host_ips] == [_new().pod.status.host_ip],
        ),
        (True, True),
    ),
    Row(
        "status",
        "Pending while an init container waits or runs",
        lambda: [_inits(state)["phase"] for state in (None, RUNNING)],
        ["Pending", "Pending"],
    ),
    Row("status", "Pending before a sidecar has started", _sidecar_starts, "Pending"),
    Row(
        "status",
        "Pending while a container waits for its first run, Running once it has run",
        lambda: [
            report(pod, *observed)["phase"]
            for pod in [make_pod("a", "b")]
            for observed in (
                (instance(pod, "a"),),
                (instance(pod, "a"), instance(pod, "b", EXITED, exit_code=1, crash_count=3)),
            )
        ],
        ["Pending", "Running"],
    ),
    Row(
        "status",
        "an init container that may not restart fails the pod",
        lambda: _inits(EXITED, "Never", exit_code=1)["phase"],
        "Failed",
    ),
    Row("status", "terminal phases never change", _terminal, ("Failed", "Evicted", "no room")),
    Row(
        "status",
        "a container that has no other reason to wait",
        lambda: [
            found["containerStatuses"][0]["state"]["waiting"]["reason"]
            for found in (report(make_pod("app")), _inits())
        ],
        ["ContainerCreating", "PodInitializing"],
    ),
    Row(
        "status",
        "ContainersNotReady, with their names",
        lambda: _of("Ready", make_pod("b", "a")),
        ("False", "ContainersNotReady", "containers with unready status: [b a]"),
    ),
    Row(
        "status",
        "ContainersNotInitialized, with their names",
        lambda: _conditions(_inits())["Initialized"],
        ("False", "ContainersNotInitialized", "containers with incomplete status: [init]"),
    ),
    Row(
        "status",
        "PodCompleted and PodFailed",
        lambda: [
            _of("ContainersReady", pod, instance(pod, "app", EXITED, exit_code=code))[:2]
            for pod in [make_pod("app", restartPolicy="Never")]
            for code in (0, 1)
        ],
        [("False", "PodCompleted"), ("False", "PodFailed")],
    ),
    Row(
        "status",
        "ReadinessGatesNotReady",
        lambda: [_gated()[1:], _gated({"type": "lb", "status": "True"})],
        [
            (
                "ReadinessGatesNotReady",
                'corresponding condition of pod readiness gate "lb" does not exist.',
            ),
            ("True", "", ""),
        ],
    ),
    Row(
        "status",
        "StartError, 128",
        lambda: _end(EXITED, exit_code=128, reason="StartError"),
        ("StartError", 128),
    ),
    Row(
        "status",
        "ErrImagePull, then ImagePullBackOff with the last error",
        lambda: [
            _waiting(pulls={("app", 0): pull}, **PULL)
            for pull in (FAILED, replace(FAILED, failed_at=NOW - 5))
        ],
        [
            ("ErrImagePull", "no route"),
            ("ImagePullBackOff", 'Back-off pulling image "app:1": ErrImagePull: no route'),
        ],
    ),
    Row(
        "status",
        "ErrImageNeverPull",
        lambda: _waiting(container("app", imagePullPolicy="Never"), **PULL),
        ("ErrImageNeverPull", 'Container image "app:1" is not present with pull policy of Never'),
    ),
    Row(
        "status",
        "InvalidImageName",
        lambda: _waiting(container("app", image="A B", imagePullPolicy="Never"))[0],
        "InvalidImageName",
    ),
    Row(
        "status",
        "what is missing, what cannot be made; a volume that is missing holds them in creation",
        lambda: (ConfigError("x").reason, CreateError("x").reason, MountError("x").reason),
        ("CreateContainerConfigError", "CreateContainerError", "ContainerCreating"),
    ),
    Row(
        "status",
        "restartCount from the logs, where nothing else remembers",
        lambda: starts(
            compute_pod_actions(
                make_pod("app"),
                ObservedPod(UID, None, (), {"app": 4}),
                Facts(NOW, images={"app:1": IMAGE}),
                CONFIG,
            )
        ),
        [("app", 5)],
    ),
    Row(
        "status",
        "of a termination message the last 4096 bytes",
        lambda: _message(b"x" * 5000 + b"end")[-5:],
        "xxend",
    ),
    Row("status", "of a termination message 4096 bytes at most", lambda: len(_message(b"x" * 5000)), 4096),
    Row(
        "status",
        "12 KiB for the messages of all containers, in equal parts and whole characters",
        lambda: [_all_messages(n, "\u20ac" * 1365) for n in (3, 4, 25)],
        [[4095] * 2, [3072] * 3, [489] * 24],
    ),
    Row(
        "status",
        "a pod is over when nothing of it runs, though its reason is known, and it is not ready, before",
        _going_over,
        ([("Running", "DeadlineExceeded"), ("Failed", "DeadlineExceeded")], ("False", "PodFailed")),
    ),
    Row(
        "status",
        "where init containers failed, the others go on waiting, and the pod is not initialized",
        lambda: _ended_early(
            container("one"), container("two"), container("three"), observed={"one": 0, "two": 1}
        ),
        (
            "Failed",
            [
                "terminated Completed",
                "terminated Error",
                "waiting PodInitializing",
                "waiting PodInitializing",
            ],
            ("False", "ContainersNotInitialized"),
        ),
    ),
    Row(
        "status",
        "what should have run and did not is not known of",
        lambda: [
            _ended_early(),
            _ended_early(container("one")),
            _ended_early(container("one"), observed={"one": 0}),
        ],
        [
            ("Failed", ["terminated ContainerStatusUnknown"], ("True", "")),
            (
                "Failed",
                ["terminated ContainerStatusUnknown", "waiting PodInitializing"],
                ("False", "ContainersNotInitialized"),
            ),
            ("Failed", ["terminated Completed", "terminated ContainerStatusUnknown"], ("True", "")),
        ],
    ),
    Row(
        "status",
        "PodResizePending and PodResizeInProgress",
        lambda: [
            _resizing(resize=Resize("Deferred", "no room")),
            _resizing(written=False),
            _resizing(written=False, resize_error="busy"),
        ],
        [
            [("PodResizePending", "Deferred", "no room")],
            [("PodResizeInProgress", None, None)],
            [("PodResizeInProgress", "Error", "busy")],
        ],
    ),
    Row(
        "status",
        "FallbackToLogsOnError: 80 lines, 2048 bytes",
        lambda: [_tail(100, 3), _tail(10, 1000)],
        [(80, 320), (3, 2048)],
    ),
]

ROWS = STATUS


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted
