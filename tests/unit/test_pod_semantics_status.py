"""The rules of Kubernetes' pod semantics, C4 and C5, a row for each, named after it: what our own functions answer.

C4 probes · C5 phase, conditions, status

What takes a node or a kernel to see has a row in tests/e2e and tests/kernel; here is what can be decided on paper.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.actions import Facts, PullPhase, PullSeen
from kubelite.node.cri import ContainerSeen, ContainerState, ExecResult, PodSeen
from kubelite.node.faults import ConfigError, CreateError, MountError
from kubelite.node.grpc_health import serving_status
from kubelite.node.http_get import Response, is_complete, redirect
from kubelite.node.pod_actions import compute_pod_actions
from kubelite.node.pod_files import termination_message
from kubelite.node.pod_status import terminated_of
from kubelite.node.prober import http_get, http_result
from kubelite.node.probes import Health, Kind, Outcome, Tally, exec_command, fold, health, remembered, slot
from kubelite.node.termination import log_tail
from manifests.core import ContainerStatus, Pod
from runtime.errors import RuntimeFault, StartError
from tests.unit.pod_rows import Row, box, defaulted, probe
from tests.unit.pod_worlds import CONFIG, UID, World, container, make_pod
from tests.unit.test_pod_actions import EXITED, NOW, RUNNING, UNKNOWN, decide, instance, starts, status
from tests.unit.test_pod_status import IMAGE, report
from tests.unit.test_prober import Probed
from tests.unit.validation_kit import problems

# -- C4 -----------------------------------------------------------------------------------------------------------


def _folded(*outcomes: Outcome, **fields: int) -> bool | None:
    tally = Tally()
    for outcome in outcomes:
        tally = fold(tally, outcome, probe(**fields))
    return tally.good


def _defaults() -> object:
    pod = defaulted(container("app", livenessProbe={"tcpSocket": {"port": 80}}))
    found = pod.spec.containers[0].liveness_probe
    assert found is not None
    return found.timeout_seconds, found.period_seconds, found.success_threshold, found.failure_threshold


def _answer(status: int) -> object:
    return http_result(Response(status, "", b"")).outcome


def _url(**action: Any) -> str:
    """What an httpGet probe of a pod at 10.88.0.2 asks for."""
    found = probe(httpGet={"port": 80, **action}).http_get
    assert found is not None
    return http_get(box(ports=[{"name": "web", "containerPort": 8080}]), found, "10.88.0.2").url


def _redirected(location: str) -> str:
    return redirect(Response(302, location, b""), "http://10.88.0.2:80/a", "10.88.0.2")


def _tried(
    kind: Kind, result: ExecResult | RuntimeFault, *, times: int = 1, **fields: Any
) -> tuple[object, ...]:
    """(what its health says, the events, how often the program ran) after so many tries of an exec probe."""

    async def story() -> tuple[object, ...]:
        one = {"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1, **fields}
        node = Probed(**{f"{kind}Probe": one})
        node.fake.exec_result = result
        await node.tries(times)
        found = node.follow(), node.events.seen, len(node.fake.calls)
        await node.prober.close()
        return found

    return asyncio.run(story())


def _on_hold() -> object:
    """What is asked of an instance that failed, and is being stopped for it."""
    pod = make_pod(container("app", livenessProbe={"tcpSocket": {"port": 80}}))
    ill = {"app-0": Health(failed=Kind.LIVENESS)}
    first = decide(pod, instance(pod, "app"), health=ill)
    dying = instance(pod, "app", stop_deadline=NOW + 9, killed_for="liveness")
    return [stop.message for stop in first.stop], decide(pod, dying, health=ill).stop


def _known_before() -> object:
    """What a daemon that has just begun takes for granted of an instance that the last one knew."""
    known = ContainerStatus(
        name="app",
        image="",
        image_id="",
        container_id="kubelite://c1",
        ready=True,
        started=True,
        restart_count=0,
    )
    return sorted(remembered(known, "c1")), remembered(known, "c2")


ONCE = {"successThreshold": 2, "tcpSocket": {"port": 1}}
S, W, F, U = Outcome.SUCCESS, Outcome.WARNING, Outcome.FAILURE, Outcome.UNKNOWN
C4 = [
    Row("C4", "timeout 1, period 10, success 1, failure 3", _defaults, (1, 10, 1, 3)),
    Row("C4", "three failures in a row", lambda: (_folded(F, F), _folded(F, F, F)), (None, False)),
    Row("C4", "a success between them begins anew", lambda: _folded(F, F, S, F, F)),
    Row("C4", "what could not be tried counts for nothing", lambda: _folded(F, U, F, U, F), False),
    Row(
        "C4",
        "not ready before the first try, alive all the same",
        lambda: (
            health(box(readinessProbe={"tcpSocket": {"port": 1}}), {}).ready,
            health(box(livenessProbe={"tcpSocket": {"port": 1}}), {}).failed,
        ),
        (False, None),
    ),
    Row(
        "C4",
        "not started before the startup probe has succeeded",
        lambda: health(box(startupProbe={"tcpSocket": {"port": 1}}), {}),
        Health(started=False, ready=False),
    ),
    Row(
        "C4",
        "the first try after initialDelaySeconds",
        lambda: slot(100.0, probe(initialDelaySeconds=5), 100.0),
        105.0,
    ),
    Row(
        "C4",
        "200 to 399 is success, a redirect with a warning",
        lambda: [_answer(c) for c in (199, 200, 299, 399, 400, 500)],
        [F, S, S, W, F, F],
    ),
    Row(
        "C4",
        "successThreshold is 1 for liveness and startup",
        lambda: [len(problems(**{f"{kind}Probe": ONCE})) for kind in ("liveness", "startup", "readiness")],
        [1, 1, 0],
    ),
    Row(
        "C4",
        "http asks the pod's address; a port by its name",
        lambda: [_url(), _url(port="web", path="/x?y"), _url(host="db", scheme="HTTPS")],
        ["http://10.88.0.2:80/", "http://10.88.0.2:8080/x?y", "https://db:80/"],
    ),
    Row(
        "C4",
        "a redirect is followed on the same host alone",
        lambda: [bool(_redirected(to)) for to in ("/b", "http://10.88.0.2:81/", "http://elsewhere.test/")],
        [True, True, False],
    ),
    Row(
        "C4",
        "10 KiB of an answer are read",
        lambda: is_complete(bytearray(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10240)),
    ),
    Row("C4", "grpc: SERVING (1) alone is healthy", lambda: serving_status(b"\0\0\0\0\2\x08\x01"), 1),
    Row(
        "C4",
        "exec: $(VAR) of what the manifest itself says",
        lambda: exec_command(
            box(
                env=[
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ]
            ),
            ["$(A)", "$(B)"],
        ),
        ["1", "$(B)"],
    ),
    Row(
        "C4",
        "exec: a timeout is a failure, in the event's words",
        lambda: _tried(Kind.LIVENESS, ExecResult(137, "", timed_out=True)),
        (
            Health(failed=Kind.LIVENESS),
            [("a", "Unhealthy", 'Liveness probe failed: command timed out: "check" timed out after 1s')],
            1,
        ),
    ),
    Row(
        "C4",
        "a try that could not be made is made three times, then counts for nothing",
        lambda: _tried(Kind.LIVENESS, StartError("no shell"))[::2],
        (Health(), 3),
    ),
    Row(
        "C4",
        "a container that failed is killed once, and asked no more until it is another",
        _on_hold,
        (["Container app failed liveness probe, will be restarted"], ()),
    ),
    Row(
        "C4",
        "a new daemon goes by what is recorded of the very instance",
        _known_before,
        ([Kind.READINESS, Kind.STARTUP], {}),
    ),
    Row(
        "C4",
        "readiness means nothing before the startup probe has succeeded",
        lambda: (
            health(
                box(startupProbe={"tcpSocket": {"port": 1}}, readinessProbe={"tcpSocket": {"port": 1}}),
                {Kind.READINESS: Tally(good=True)},
            ).ready
        ),
        False,
    ),
]

# -- C5 -----------------------------------------------------------------------------------------------------------


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


def _of(kind: str, pod: Pod, *seen: ContainerSeen) -> tuple[str, str, str]:
    return _conditions(report(pod, *seen))[kind]


def _inits(state: ContainerState | None = None, policy: str = "Always", **fields: Any) -> dict[str, Any]:
    """The status of a pod whose init container is in this state."""
    pod = make_pod("app", restartPolicy=policy, initContainers=[container("init")])
    return report(pod, *([instance(pod, "init", state, **fields)] if state else []))


def _waiting(spec: dict[str, Any] | None = None, **facts: Any) -> tuple[str, str]:
    """Why the container of a pod waits, in status' words."""
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


def _message(wrote: bytes) -> int:
    with tempfile.NamedTemporaryFile() as file:
        file.write(wrote)
        file.flush()
        return len(termination_message(file.name))


def _tail(lines: int, width: int) -> object:
    with tempfile.NamedTemporaryFile("w", suffix=".log") as file:
        file.writelines(f"2026-01-01T00:00:00.000000000Z stdout F {n:0{width}}\n" for n in range(lines))
        file.flush()
        found = log_tail(file.name)
        return len(found.splitlines()), len(found)


PULL = {"images": {"app:1": None}}
FAILED = PullSeen(PullPhase.FAILED, "ErrImagePull", "no route", NOW, NOW + 10)
C5 = [
    Row("C5", "Completed", lambda: _end(EXITED, exit_code=0), ("Completed", 0)),
    Row("C5", "Error", lambda: _end(EXITED, exit_code=3), ("Error", 3)),
    Row("C5", "OOMKilled", lambda: _end(EXITED, exit_code=137, oom_killed=True), ("OOMKilled", 137)),
    Row(
        "C5",
        "128 and the signal, and the signal itself",
        lambda: terminated_of(
            replace(instance(make_pod("app"), "app", EXITED), exit_code=137, signal=9)
        ).to_json()["signal"],
        9,
    ),
    Row("C5", "a lost container", lambda: _end(UNKNOWN), ("ContainerStatusUnknown", 137)),
    Row("C5", "all ended well: Succeeded", lambda: _phase_of("Never", 0, 0), "Succeeded"),
    Row("C5", "one did not: Failed", lambda: _phase_of("Never", 0, 1), "Failed"),
    Row("C5", "one may restart: Running", lambda: _phase_of("Always", 0, 1), "Running"),
    Row("C5", "statuses by name", lambda: [s.name for s in _new().pod.status.container_statuses], ["a", "b"]),
    Row(
        "C5",
        "the conditions",
        lambda: sorted(c.type for c in _new().pod.status.conditions),
        ["ContainersReady", "Initialized", "PodReadyToStartContainers", "PodScheduled", "Ready"],
    ),
    Row(
        "C5",
        "each condition names the generation",
        lambda: {c.observed_generation for c in _new().pod.status.conditions},
        {1},
    ),
    Row(
        "C5",
        "podIP and podIPs, hostIP and hostIPs",
        lambda: (
            [ip.ip for ip in _new().pod.status.pod_ips] == [_new().pod.status.pod_ip],
            [ip.ip for ip in _new().pod.status.host_ips] == [_new().pod.status.host_ip],
        ),
        (True, True),
    ),
    Row(
        "C5",
        "Pending while an init container waits or runs",
        lambda: [_inits(state)["phase"] for state in (None, RUNNING)],
        ["Pending", "Pending"],
    ),
    Row("C5", "Pending before a sidecar has started", _sidecar_starts, "Pending"),
    Row(
        "C5",
        "Pending while a container waits for its first run, Running once it has run",
        lambda: [
            report(pod, *seen)["phase"]
            for pod in [make_pod("a", "b")]
            for seen in (
                (instance(pod, "a"),),
                (instance(pod, "a"), instance(pod, "b", EXITED, exit_code=1, crash_count=3)),
            )
        ],
        ["Pending", "Running"],
    ),
    Row(
        "C5",
        "an init container that may not restart fails the pod",
        lambda: _inits(EXITED, "Never", exit_code=1)["phase"],
        "Failed",
    ),
    Row("C5", "terminal phases never change", _terminal, ("Failed", "Evicted", "no room")),
    Row(
        "C5",
        "a container that has no other reason to wait",
        lambda: [
            found["containerStatuses"][0]["state"]["waiting"]["reason"]
            for found in (report(make_pod("app")), _inits())
        ],
        ["ContainerCreating", "PodInitializing"],
    ),
    Row(
        "C5",
        "ContainersNotReady, with their names",
        lambda: _of("Ready", make_pod("b", "a")),
        ("False", "ContainersNotReady", "containers with unready status: [b a]"),
    ),
    Row(
        "C5",
        "ContainersNotInitialized, with their names",
        lambda: _conditions(_inits())["Initialized"],
        ("False", "ContainersNotInitialized", "containers with incomplete status: [init]"),
    ),
    Row(
        "C5",
        "PodCompleted and PodFailed",
        lambda: [
            _of("ContainersReady", pod, instance(pod, "app", EXITED, exit_code=code))[:2]
            for pod in [make_pod("app", restartPolicy="Never")]
            for code in (0, 1)
        ],
        [("False", "PodCompleted"), ("False", "PodFailed")],
    ),
    Row(
        "C5",
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
        "C5", "StartError, 128", lambda: _end(EXITED, exit_code=128, reason="StartError"), ("StartError", 128)
    ),
    Row(
        "C5",
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
        "C5",
        "ErrImageNeverPull",
        lambda: _waiting(container("app", imagePullPolicy="Never"), **PULL),
        ("ErrImageNeverPull", 'Container image "app:1" is not present with pull policy of Never'),
    ),
    Row(
        "C5",
        "InvalidImageName",
        lambda: _waiting(container("app", image="A B", imagePullPolicy="Never"))[0],
        "InvalidImageName",
    ),
    Row(
        "C5",
        "what is missing, what cannot be made; a volume that is missing holds them in creation",
        lambda: (ConfigError("x").reason, CreateError("x").reason, MountError("x").reason),
        ("CreateContainerConfigError", "CreateContainerError", "ContainerCreating"),
    ),
    Row(
        "C5",
        "restartCount from the logs, where nothing else remembers",
        lambda: starts(
            compute_pod_actions(
                make_pod("app"),
                PodSeen(UID, None, (), {"app": 4}),
                Facts(NOW, images={"app:1": IMAGE}),
                CONFIG,
            )
        ),
        [("app", 5)],
    ),
    Row("C5", "a termination message has 4096 bytes at most", lambda: _message(b"x" * 5000), 4096),
    Row(
        "C5",
        "FallbackToLogsOnError: 80 lines, 2048 bytes",
        lambda: [_tail(100, 3), _tail(10, 1000)],
        [(80, 320), (3, 2048)],
    ),
]

ROWS = [*C4, *C5]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted


def test_every_rule_has_a_row() -> None:
    assert list(dict.fromkeys(row.rule for row in ROWS)) == ["C4", "C5"]
