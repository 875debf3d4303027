"""The rules of probes in docs/explanation/pod-semantics.md, a row for each.

Each row is named after its rule and checks what kubelite's pure functions return. Rules that need a node or a kernel
have their rows in tests/e2e and tests/kernel.
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

# -- probes -----------------------------------------------------------------------------------------------------------


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
    """The URL that an httpGet probe of a pod at 10.88.0.2 requests."""
    found = probe(httpGet={"port": 80, **action}).http_get
    assert found is not None
    return http_get(box(ports=[{"name": "web", "containerPort": 8080}]), found, "10.88.0.2").url


def _redirected(location: str) -> str:
    return redirect(Response(302, location, b""), "http://10.88.0.2:80/a", "10.88.0.2")


def _tried(
    kind: Kind, result: ExecResult | RuntimeFault, *, times: int = 1, **fields: Any
) -> tuple[object, ...]:
    """(health, events, number of runs) after so many runs of an exec probe."""

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
    """The probes that run for an instance that is being stopped because it failed one."""
    pod = make_pod(container("app", livenessProbe={"tcpSocket": {"port": 80}}))
    ill = {"app-0": Health(failed=Kind.LIVENESS)}
    first = decide(pod, instance(pod, "app"), health=ill)
    dying = instance(pod, "app", stop_deadline=NOW + 9, killed_for="liveness")
    return [stop.message for stop in first.stop], decide(pod, dying, health=ill).stop


def _known_before() -> object:
    """What a new daemon assumes of an instance that the previous daemon knew."""
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
    """The request of an httpGet probe without its first line."""
    found = probe(httpGet={"port": 80, **action}).http_get
    assert found is not None
    get = http_get(box(), found, "10.88.0.2")
    return request_of(get.url, get).decode().rstrip().split("\r\n")[1:]


def _between() -> list[int]:
    """The number of readiness probes of a container that is not ready: at first, in a round right after, a second
    later."""

    async def story() -> list[int]:
        node = Probed(readinessProbe={"exec": {"command": ["check"]}, "periodSeconds": 100})
        node.fake.exec_result, found = ExecResult(1, ""), []
        for later in (0.0, EAGER / 2, EAGER):
            node.fake.now += later
            node.follow()
            for _ in range(20):  # turns of the event loop: a probe on the fake node takes a few
                await asyncio.sleep(0)
            found.append(len(node.tried))
        await node.prober.close()
        return found

    return asyncio.run(story())


PROBES = [
    Row("probes", "timeout 1, period 10, success 1, failure 3", _defaults, (1, 10, 1, 3)),
    Row("probes", "three failures in a row", lambda: (_folded(F, F), _folded(F, F, F)), (None, False)),
    Row("probes", "a success between them begins anew", lambda: _folded(F, F, S, F, F)),
    Row("probes", "what could not be tried counts for nothing", lambda: _folded(F, U, F, U, F), False),
    Row(
        "probes",
        "not ready before the first try, alive all the same",
        lambda: (
            health(box(readinessProbe={"tcpSocket": {"port": 1}}), {}).ready,
            health(box(livenessProbe={"tcpSocket": {"port": 1}}), {}).failed,
        ),
        (False, None),
    ),
    Row(
        "probes",
        "not started before the startup probe has succeeded",
        lambda: health(box(startupProbe={"tcpSocket": {"port": 1}}), {}),
        Health(started=False, ready=False),
    ),
    Row(
        "probes",
        "the first try after initialDelaySeconds",
        lambda: slot(100.0, probe(initialDelaySeconds=5), 100.0),
        105.0,
    ),
    Row(
        "probes",
        "200 to 399 is success, a redirect with a warning",
        lambda: [_answer(c) for c in (199, 200, 299, 399, 400, 500)],
        [F, S, S, W, F, F],
    ),
    Row(
        "probes",
        "successThreshold is 1 for liveness and startup",
        lambda: [len(problems(**{f"{kind}Probe": ONCE})) for kind in ("liveness", "startup", "readiness")],
        [1, 1, 0],
    ),
    Row(
        "probes",
        "http asks the pod's address; a port by its name",
        lambda: [_url(), _url(port="web", path="/x?y"), _url(host="db", scheme="HTTPS")],
        ["http://10.88.0.2:80/", "http://10.88.0.2:8080/x?y", "https://db:80/"],
    ),
    Row(
        "probes",
        "a redirect is followed on the same host alone",
        lambda: [bool(_redirected(to)) for to in ("/b", "http://10.88.0.2:81/", "http://elsewhere.test/")],
        [True, True, False],
    ),
    Row(
        "probes",
        "10 KiB of an answer are read",
        lambda: is_complete(bytearray(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10240)),
    ),
    Row(
        "probes",
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
    Row("probes", "exec: 10 KiB of the output are kept", lambda: MAX_OUTPUT, 10240),
    Row("probes", "readiness of what is not ready is asked between its times, too", _between, [1, 1, 2]),
    Row("probes", "grpc: SERVING (1) alone is healthy", lambda: serving_status(b"\0\0\0\0\2\x08\x01"), 1),
    Row(
        "probes",
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
        "probes",
        "exec: a timeout is a failure, in the event's words",
        lambda: _tried(Kind.LIVENESS, ExecResult(137, "", timed_out=True)),
        (
            Health(failed=Kind.LIVENESS),
            [("a", "Unhealthy", 'Liveness probe failed: command timed out: "check" timed out after 1s')],
            1,
        ),
    ),
    Row(
        "probes",
        "a try that could not be made is made three times, then counts for nothing",
        lambda: _tried(Kind.LIVENESS, StartError("no shell"))[::2],
        (Health(), 3),
    ),
    Row(
        "probes",
        "a container that failed is killed once, and asked no more until it is another",
        _on_hold,
        (["Container app failed liveness probe, will be restarted"], ()),
    ),
    Row(
        "probes",
        "a new daemon goes by what is recorded of the very instance",
        _known_before,
        ([Kind.READINESS, Kind.STARTUP], {}),
    ),
    Row(
        "probes",
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

ROWS = PROBES


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted
