"""The rules of Kubernetes' pod semantics, C4 (probes), a row for each, named after it: what our own functions answer.

What takes a node or a kernel to see has a row in tests/e2e and tests/kernel; here is what can be decided on paper.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubelite.node.cri.commands import MAX_OUTPUT
from kubelite.node.model.cri import ExecResult
from kubelite.node.model.probe_results import (
    Health,
    Kind,
    Outcome,
    Tally,
    exec_command,
    fold,
    health,
    remembered,
    slot,
)
from kubelite.node.probing.grpc_health import serving_status
from kubelite.node.probing.http_get import Response, is_complete, redirect, request_of
from kubelite.node.probing.prober import EAGER, http_get, http_result
from manifests.types.core import ContainerStatus
from runtime.errors import RuntimeFault, StartError
from tests.unit.manifests.validation_kit import problems
from tests.unit.node.decide.pod_worlds import container, make_pod
from tests.unit.node.decide.test_pod_actions import NOW, decide, instance
from tests.unit.node.probing.test_prober import Probed
from tests.unit.node.semantics.pod_rows import Row, box, defaulted, probe

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


def _asked(**action: Any) -> list[str]:
    """The request of an httpGet probe, but for its first line."""
    found = probe(httpGet={"port": 80, **action}).http_get
    assert found is not None
    get = http_get(box(), found, "10.88.0.2")
    return request_of(get.url, get).decode().rstrip().split("\r\n")[1:]


def _between() -> list[int]:
    """How often the readiness of what is not ready was asked: at first, at a look at once after, a second later."""

    async def story() -> list[int]:
        node = Probed(readinessProbe={"exec": {"command": ["check"]}, "periodSeconds": 100})
        node.fake.exec_result, found = ExecResult(1, ""), []
        for later in (0.0, EAGER / 2, EAGER):
            node.fake.now += later
            node.follow()
            for _ in range(20):  # turns of the loop: a try on the fake node takes a few
                await asyncio.sleep(0)
            found.append(len(node.tried))
        await node.prober.close()
        return found

    return asyncio.run(story())


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
    Row(
        "C4",
        "http: kubelet's headers, the manifest's in their place; no connection is kept",
        lambda: [
            _asked(),
            _asked(httpHeaders=[{"name": n, "value": "x"} for n in ("Host", "user-agent", "Accept")]),
        ],
        [
            ["Host: 10.88.0.2:80", "User-Agent: kube-probe/1.36", "Accept: */*", "Connection: close"],
            ["Host: x", "user-agent: x", "Accept: x", "Connection: close"],
        ],
    ),
    Row("C4", "exec: 10 KiB of the output are kept", lambda: MAX_OUTPUT, 10240),
    Row("C4", "readiness of what is not ready is asked between its times, too", _between, [1, 1, 2]),
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

ROWS = C4


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted
