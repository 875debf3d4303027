"""`kubelite why`: what a pod lacks although there is nothing to do for it."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.diagnosis.advice import advice
from kubelite.diagnosis.unready import unready, with_unready

START, LATER, BEFORE = "2026-05-01T12:00:00Z", "2026-05-01T12:00:09Z", "2026-05-01T11:59:59Z"
RUNNING = {"running": {"startedAt": START}}
PROBE = {"httpGet": {"path": "/healthz", "port": 80}}


def pod(*statuses: dict[str, Any], probes: tuple[str, ...] = (), **status: Any) -> dict[str, Any]:
    containers = [
        {"name": one["name"], "image": "a", **{f"{kind}Probe": PROBE for kind in probes}} for one in statuses
    ]
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": containers},
        "status": {"phase": "Running", "containerStatuses": list(statuses), **status},
    }


def seen(name: str, *, ready: bool = False, started: bool = True, state: Any = None) -> dict[str, Any]:
    return {"name": name, "ready": ready, "started": started, "state": state or RUNNING}


def event(reason: str, message: str, container: str = "a", at: str = LATER, **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{reason}.{container}.{at}"},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
        "involvedObject": {"fieldPath": f"spec.containers{{{container}}}"},
        **fields,
    }


@pytest.mark.parametrize(
    ("container", "probes", "events", "sentence"),
    [
        (seen("a"), ("readiness",), [], "its readiness probe (HTTP GET :80/healthz) has not succeeded yet"),
        (seen("a", started=False), ("readiness", "startup"),
         [event("Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 503")],
         "its startup probe (HTTP GET :80/healthz) fails: HTTP probe failed with statuscode: 503"),
        (seen("a"), ("readiness",), [event("Unhealthy", "Readiness probe failed: no\nmore"),
                                     event("Unhealthy", "Liveness probe failed: other")],
         "its readiness probe (HTTP GET :80/healthz) fails: no"),
        (seen("a"), ("readiness",), [event("Unhealthy", "Readiness probe failed: no", at=BEFORE)],
         "its readiness probe (HTTP GET :80/healthz) has not succeeded yet"),
        (seen("a"), (), [], "it is about to be ready"),
        (seen("a", state={"waiting": {"reason": "ContainerCreating"}}), (), [], "it has not started yet"),
        (seen("a", state={"waiting": {"reason": "ErrImagePull", "message": "no such image"}}), (), [],
         "ErrImagePull: no such image"),
        (seen("a", state={"terminated": {"exitCode": 1, "reason": "Error"}}), (), [],
         "it ended with exit code 1"),
        (seen("a", state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), (), [],
         "it ended with exit code 137 (OOMKilled)"),
    ],
)  # fmt: skip
def test_each_unready_container_has_its_reason(
    container: dict[str, Any], probes: tuple[str, ...], events: list[Any], sentence: str
) -> None:
    assert unready(pod(container, probes=probes), events) == [f"container a is not ready: {sentence}"]


def test_all_unready_containers_are_named_and_no_other() -> None:
    document = pod(seen("a"), seen("b", ready=True), seen("c"), probes=("readiness",))
    assert [sentence.split()[1] for sentence in unready(document)] == ["a", "c"]
    assert unready(pod(seen("a", ready=True))) == []
    assert unready(pod(seen("a"), phase="Failed")) == []


def test_a_sidecar_counts_and_a_gate_is_named() -> None:
    document = pod(seen("a", ready=True))
    document["spec"]["initContainers"] = [{"name": "log", "restartPolicy": "Always", "readinessProbe": PROBE}]
    document["status"]["initContainerStatuses"] = [seen("log")]
    gate = {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": "no balancer"}
    document["status"]["conditions"] = [gate]
    first, second = unready(document)
    assert first.startswith("container log is not ready: its readiness probe")
    assert second == "the pod is not ready: no balancer"


def test_a_process_that_the_kernel_killed_is_named_while_its_container_runs_on() -> None:
    words = "Process worker (pid 7) of container a was killed: the container's memory limit was reached"
    killed = event("OOMKilling", words, count=2)
    assert unready(pod(seen("a", ready=True)), [killed]) == [
        f"{words}, at {LATER}, 2 times so far; the container runs on"
    ]
    assert unready(pod(seen("a", ready=True)), [{**killed, "lastTimestamp": BEFORE}]) == [], (
        "an older instance"
    )
    assert unready(pod(seen("b", ready=True)), [killed]) == []


def test_advice_names_every_failing_probe() -> None:
    failing = [event("Unhealthy", "Readiness probe failed: x", container) for container in ("a", "b", "c")]
    found = advice(pod(seen("a"), seen("b", ready=True), seen("c")), failing)
    assert [sentence.split(":")[0] for sentence in found] == ["c", "a"]


def test_a_reason_is_told_once() -> None:
    pull = "ErrImagePull: not found"
    reasons = [f"container a waits: {pull}", "other"]
    found = with_unready(reasons, [f"container a is not ready: {pull}", "container b is not ready: x"])
    assert found == [*reasons, "container b is not ready: x"]


LIVENESS = [
    event("Killing", "Container a failed liveness probe, will be restarted", at=BEFORE),
    event("Unhealthy", "Liveness probe failed: connection refused\nmore", at=LATER),
]
ENDED = {"terminated": {"exitCode": 0, "startedAt": "2026-05-01T11:00:00Z"}}


def test_a_restart_because_of_a_probe_is_told() -> None:
    document = pod({**seen("a", ready=True), "lastState": ENDED}, probes=("liveness",))
    assert unready(document, LIVENESS) == [
        f"container a was restarted at {START} because its liveness probe (HTTP GET :80/healthz) failed: "
        "connection refused"
    ]
    assert unready(document, LIVENESS[1:]) == [], "it ended by itself"
    assert unready(pod(seen("a", ready=True), probes=("liveness",)), LIVENESS) == [], "the first instance"
    older = {**LIVENESS[0], "lastTimestamp": "2026-05-01T10:59:59Z"}
    assert unready(document, [older, LIVENESS[1]]) == [], "an instance before the last one was killed"


def test_a_missing_image_of_this_node_is_no_problem_of_a_registry() -> None:
    waits = {"waiting": {"reason": "RegistryUnavailable", "message": "connection refused"}}
    document = pod(seen("a", state=waits))
    document["spec"]["containers"][0]["image"] = "localhost/web:1"
    (sentence,) = advice(document)
    assert "this one does not exist" in sentence and "kubelite build -t localhost/web:1" in sentence
    document["spec"]["containers"][0]["image"] = "localhost:5000/web:1"
    assert "the registry does not answer" in advice(document)[0]
