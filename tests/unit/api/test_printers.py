"""Tables of the server: a row for each branch of kubectl's rules."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.api.kube.printers import event_cells, node_cells, pod_cells, secret_cells, summarize_pod, table
from kubelite.kube.json import Json

NOW = 1_000_000_000.0
M, H, D, Y = 60, 3600, 86400, 365 * 86400


def ago(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(NOW - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def running(
    name: str = "a", *, ready: bool = True, restarts: int = 0, last: Json | None = None, **more: Any
) -> Json:
    state: Json = {"running": {"startedAt": ago(5)}}
    return {
        "name": name,
        "ready": ready,
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
        **more,
    }


def waiting(reason: str = "", name: str = "a", **more: Any) -> Json:
    state: Json = {"waiting": {"reason": reason} if reason else {}}
    return {"name": name, "ready": False, "restartCount": 0, "state": state, "lastState": {}, **more}


def ended(code: int = 0, reason: str = "", *, name: str = "a", signal: int = 0, restarts: int = 0) -> Json:
    terminated = {"exitCode": code, "finishedAt": ago(60)}
    if reason:
        terminated["reason"] = reason
    if signal:
        terminated["signal"] = signal
    return {
        "name": name,
        "ready": False,
        "restartCount": restarts,
        "state": {"terminated": terminated},
        "lastState": {},
    }


def crashed(seconds: float) -> Json:
    return {"terminated": {"exitCode": 1, "finishedAt": ago(seconds)}}


READY = {"type": "Ready", "status": "True"}
NOT_READY = {"type": "Ready", "status": "False"}
INITIALIZED = {"type": "Initialized", "status": "True"}


def pod(
    phase: str,
    containers: list[Json] | None = None,
    *,
    init: list[Json] | None = None,
    init_spec: list[Json] | None = None,
    conditions: list[Json] | None = None,
    deleting: bool = False,
    **status: Any,
) -> Json:
    names = [c["name"] for c in containers or [{"name": "a"}]]
    metadata: Json = {"name": "web", "namespace": "default", "creationTimestamp": ago(90)}
    if deleting:
        metadata["deletionTimestamp"] = ago(1)
    spec: Json = {"containers": [{"name": n} for n in names], "nodeName": "here"}
    if init_spec is not None:
        spec["initContainers"] = init_spec
    elif init is not None:
        spec["initContainers"] = [{"name": c["name"]} for c in init]
    return {
        "metadata": metadata,
        "spec": spec,
        "status": {
            "phase": phase,
            "containerStatuses": containers or [],
            "initContainerStatuses": init or [],
            "conditions": conditions or [],
            **status,
        },
    }


SIDECAR = [{"name": "s", "restartPolicy": "Always"}]
TWO_INIT = [{"name": "i"}, {"name": "j"}]
GATED = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}


@pytest.mark.parametrize(
    ("doc", "ready", "status", "restarts"),
    [
        (pod("Pending"), "0/1", "Pending", "0"),
        (pod("Running", [running()], conditions=[READY]), "1/1", "Running", "0"),
        (pod("Running", [running(ready=False)]), "0/1", "Running", "0"),
        (pod("Failed", [], reason="Evicted"), "0/1", "Evicted", "0"),
        (pod("Pending", [], conditions=[GATED]), "0/1", "SchedulingGated", "0"),
        (pod("Pending", [waiting("ContainerCreating")]), "0/1", "ContainerCreating", "0"),
        (pod("Pending", [waiting("ImagePullBackOff")]), "0/1", "ImagePullBackOff", "0"),
        (pod("Running", [waiting("CrashLoopBackOff", restartCount=3)]), "0/1", "CrashLoopBackOff", "3"),
        (pod("Succeeded", [ended(0, "Completed")]), "0/1", "Completed", "0"),
        (pod("Failed", [ended(1, "Error")]), "0/1", "Error", "0"),
        (pod("Failed", [ended(137, "OOMKilled")]), "0/1", "OOMKilled", "0"),
        (pod("Failed", [ended(3)]), "0/1", "ExitCode:3", "0"),
        (pod("Failed", [ended(143, signal=15)]), "0/1", "Signal:15", "0"),
        # the first container by name determines the reason
        (
            pod("Running", [waiting("ErrImagePull", "a"), waiting("CrashLoopBackOff", "b")]),
            "0/2", "ErrImagePull", "0",
        ),
        # Completed beside others
        (pod("Running", [ended(0, "Completed"), running("b")], conditions=[READY]), "1/2", "Running", "0"),
        (pod("Running", [ended(0, "Completed"), running("b")], conditions=[NOT_READY]), "1/2", "NotReady", "0"),
        (
            pod("Running", [ended(0, "Completed"), ended(2, "Error", name="b"), running("c")], conditions=[NOT_READY]),
            "1/3", "Error", "0",
        ),
        # init containers
        (pod("Pending", init=[waiting("PodInitializing", "i")]), "0/1", "Init:0/1", "0"),
        (pod("Pending", init=[running("i")]), "0/1", "Init:0/1", "0"),
        (pod("Pending", init=[ended(name="i"), running("j")], init_spec=TWO_INIT), "0/1", "Init:1/2", "0"),
        (pod("Pending", init=[ended(1, "Error", name="i")]), "0/1", "Init:Error", "0"),
        (pod("Pending", init=[ended(7, name="i")]), "0/1", "Init:ExitCode:7", "0"),
        (pod("Pending", init=[ended(137, name="i", signal=9)]), "0/1", "Init:Signal:9", "0"),
        (pod("Pending", init=[waiting("CrashLoopBackOff", "i")]), "0/1", "Init:CrashLoopBackOff", "0"),
        (
            pod("Pending", init=[running("i", restarts=2, last=crashed(300))]),
            "0/1", "Init:0/1", "2 (5m ago)",
        ),
        # initialized: restarts of init containers do not count
        (
            pod("Running", [running()], init=[ended(name="i", restarts=4)], conditions=[READY, INITIALIZED]),
            "1/1", "Running", "0",
        ),
        # sidecars
        (
            pod("Running", [running()], init=[running("s", started=True)], init_spec=SIDECAR, conditions=[READY]),
            "2/2", "Running", "0",
        ),
        (
            pod("Running", [running()], init=[running("s", started=True, ready=False)], init_spec=SIDECAR),
            "1/2", "Running", "0",
        ),
        (pod("Pending", init=[running("s", started=False)], init_spec=SIDECAR), "0/2", "Init:0/1", "0"),
        (
            pod(
                "Running",
                [running(restarts=1, last=crashed(7200))],
                init=[running("s", started=True, restarts=2, last=crashed(60))],
                init_spec=SIDECAR,
            ),
            "2/2", "Running", "3 (60s ago)",
        ),
        # restarts
        (pod("Running", [running(restarts=3, last=crashed(300))]), "1/1", "Running", "3 (5m ago)"),
        (
            pod("Running", [running(restarts=1, last=crashed(300)), running("b", restarts=1, last=crashed(10))]),
            "2/2", "Running", "2 (10s ago)",
        ),
        (pod("Running", [running(restarts=0, last=crashed(300))]), "1/1", "Running", "0"),
        # deletion
        (pod("Running", [running()], deleting=True), "1/1", "Terminating", "0"),
        (pod("Running", [waiting("CrashLoopBackOff")], deleting=True), "0/1", "Terminating", "0"),
        (pod("Succeeded", [ended(0, "Completed")], deleting=True), "0/1", "Completed", "0"),
        (pod("Running", [running()], deleting=True, reason="NodeLost"), "1/1", "Unknown", "0"),
    ],
)  # fmt: skip
def test_pod_summary(doc: Json, ready: str, status: str, restarts: str) -> None:
    assert summarize_pod(doc, NOW) == (ready, status, restarts)


def test_pod_without_a_status() -> None:
    bare = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}]}}
    cells = pod_cells(bare, NOW)
    assert cells == ["web", "0/1", "Pending", "0", "<unknown>", "<none>", "<none>", "<none>", "<none>"]


def test_pod_wide_cells() -> None:
    doc = pod("Running", [running()], conditions=[READY, {"type": "gate/a", "status": "True"}])
    doc["status"]["podIPs"] = [{"ip": "10.88.0.2"}, {"ip": "fd00::2"}]
    doc["spec"]["readinessGates"] = [{"conditionType": "gate/a"}, {"conditionType": "gate/b"}]
    assert pod_cells(doc, NOW)[4:] == ["90s", "10.88.0.2", "here", "<none>", "1/2"]


def test_event_cells() -> None:
    event = {
        "metadata": {"name": "web.1"},
        "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{app}"},
        "type": "Warning",
        "reason": "BackOff",
        "message": " Back-off restarting \n",
        "firstTimestamp": ago(600),
        "lastTimestamp": ago(10),
        "count": 4,
        "source": {"component": "kubelite", "host": "here"},
    }
    assert event_cells(event, NOW) == [
        "10s", "Warning", "BackOff", "pod/web", "spec.containers{app}", "kubelite, here", "Back-off restarting",
        "10m", 4, "web.1",
    ]  # fmt: skip
    newer = {
        "metadata": {"name": "e"},
        "eventTime": ago(30),
        "reportingComponent": "x",
        "involvedObject": {"kind": "Node"},
    }
    assert event_cells(newer, NOW)[:4] == ["30s", "", "", "node"]
    assert event_cells(newer, NOW)[5:] == ["x", "", "30s", 1, "e"]


def test_other_cells() -> None:
    secret = {"metadata": {"name": "s", "creationTimestamp": ago(3)}, "data": {"a": "", "b": ""}}
    assert secret_cells(secret, NOW) == ["s", "Opaque", 2, "3s"]
    node = {"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/edge": ""}}, "status": {}}
    assert node_cells(node, NOW)[:4] == ["n", "NotReady", "edge", "<unknown>"]


def test_a_table_includes_the_requested_part_of_each_object() -> None:
    doc = pod("Running", [running()])
    made = table("Pod", [doc], now=NOW, resource_version=7)
    assert made["kind"] == "Table" and made["metadata"] == {"resourceVersion": "7"}
    assert [c["name"] for c in made["columnDefinitions"] if c["priority"] == 0] == [
        "Name", "Ready", "Status", "Restarts", "Age",
    ]  # fmt: skip
    (row,) = made["rows"]
    assert len(row["cells"]) == len(made["columnDefinitions"])
    assert row["object"] == {
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": doc["metadata"]
    }  # fmt: skip
    whole = table("Pod", [doc], now=NOW, resource_version=7, include="Object")
    assert whole["rows"][0]["object"] is doc
    assert "object" not in table("Pod", [doc], now=NOW, resource_version=7, include="None")["rows"][0]
