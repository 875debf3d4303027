"""What kubectl prints of the node's objects: a row for each rule, named after it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kubelite.api.kube.printers import EVENT_COLUMNS, POD_COLUMNS, pod_cells, summarize_pod, table
from kubelite.kube.durations import age_of, human_duration
from tests.unit.node.semantics.pod_rows import Row

# -- kubectl ------------------------------------------------------------------------------------------------------


def _shown(status: dict[str, Any], **spec: Any) -> tuple[str, ...]:
    doc = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}], **spec}, "status": status}
    return tuple(summarize_pod(doc, 0.0))


def _ended(**fields: Any) -> dict[str, Any]:
    return {
        "name": "a",
        "restartCount": 0,
        "ready": False,
        "state": {"terminated": {"exitCode": 0, **fields}},
    }


def _runs(name: str = "b", **fields: Any) -> dict[str, Any]:
    return {"name": name, "restartCount": 0, "ready": True, "state": {"running": {}}, **fields}


def _status_of(*containers: dict[str, Any], phase: str = "Running", ready: bool | None = None) -> str:
    conditions = [] if ready is None else [{"type": "Ready", "status": str(ready)}]
    return _shown({"phase": phase, "containerStatuses": list(containers), "conditions": conditions})[1]


def _init(**state: Any) -> str:
    """STATUS of a pod whose init container is in this state."""
    return _shown(
        {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]},
        initContainers=[{"name": "i"}],
    )[1]


def _sidecar(**fields: Any) -> tuple[str, ...]:
    return _shown(
        {
            "phase": "Running",
            "initContainerStatuses": [_runs("s", started=True, **fields)],
            "containerStatuses": [_runs("a", restartCount=1, **_crashed(300))],
        },
        initContainers=[{"name": "s", "restartPolicy": "Always"}],
    )


def _crashed(seconds: int) -> dict[str, Any]:
    stamp = datetime.fromtimestamp(-seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"lastState": {"terminated": {"exitCode": 1, "finishedAt": stamp}}}


def _going(**status: Any) -> str:
    doc = {
        "metadata": {"name": "web", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "a"}]},
        "status": status,
    }
    return summarize_pod(doc, 0.0).status


def _waits(reason: str) -> dict[str, Any]:
    return {"name": "a", "restartCount": 0, "ready": False, "state": {"waiting": {"reason": reason}}}


WIDE = {
    "metadata": {"name": "web"},
    "spec": {"containers": [], "nodeName": "n", "readinessGates": [{"conditionType": g} for g in ("a", "b")]},
    "status": {
        "podIP": "10.88.0.2",
        "podIPs": [{"ip": "10.88.0.2"}],
        "nominatedNodeName": "m",
        "conditions": [{"type": "a", "status": "True"}, {"type": "b", "status": "False"}],
    },
}
KUBECTL = [
    Row(
        "kubectl",
        "ages",
        lambda: [human_duration(s) for s in (5, 119, 120, 599, 3600, 10800, 90000, 8 * 86400)],
        ["5s", "119s", "2m", "9m59s", "60m", "3h", "25h", "8d"],
    ),
    Row(
        "kubectl",
        "READY, STATUS, RESTARTS of a pod that waits",
        lambda: _shown({"phase": "Pending", "containerStatuses": [_waits("ImagePullBackOff")]}),
        ("0/1", "ImagePullBackOff", "0"),
    ),
    Row(
        "kubectl",
        "Init:N/M",
        lambda: _shown(
            {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]},
            initContainers=[{"name": "i"}],
        )[1],
        "Init:0/1",
    ),
    Row(
        "kubectl",
        "SchedulingGated",
        lambda: _shown(
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}],
            }
        )[1],
        "SchedulingGated",
    ),
    Row(
        "kubectl",
        "a pod's own reason",
        lambda: _shown({"phase": "Failed", "reason": "OutOfcpu"})[1],
        "OutOfcpu",
    ),
    Row(
        "kubectl",
        "wide: <none> where there is nothing",
        lambda: list(pod_cells({"metadata": {"name": "web"}, "spec": {"containers": []}, "status": {}}, 0.0))[
            -2:
        ],
        ["<none>", "<none>"],
    ),
    Row(
        "kubectl",
        "ages: two parts where the first is small",
        lambda: [
            human_duration(s)
            for s in (12_600, 28_799, 172_799, 200_000, 691_199, 864_000, 94_608_000 + 86_400)
        ],
        ["3h30m", "7h59m", "47h", "2d7h", "7d23h", "10d", "3y1d"],
    ),
    Row("kubectl", "the age of what has no time", lambda: age_of(None, 0.0), "<unknown>"),
    Row(
        "kubectl",
        "RESTARTS are those of init containers until these are done",
        lambda: _shown(
            {
                "phase": "Pending",
                "initContainerStatuses": [{"name": "i", "restartCount": 4, "state": {"running": {}}}],
                "containerStatuses": [_waits("PodInitializing")],
            },
            initContainers=[{"name": "i"}],
        )[2],
        "4",
    ),
    Row(
        "kubectl",
        "wide: address, node, nominated node, how many readiness gates are open",
        lambda: list(pod_cells(WIDE, 0.0))[-4:],
        ["10.88.0.2", "n", "m", "1/2"],
    ),
    Row(
        "kubectl",
        "ages: zero parts dropped, what is in the future",
        lambda: [human_duration(s) for s in (-2, 600, 28800, 172800, 63072000, 8 * 31536000)],
        ["<invalid>", "10m", "8h", "2d", "2y", "8y"],
    ),
    Row(
        "kubectl",
        "Init:<Reason>, Init:ExitCode:N, Init:Signal:N",
        lambda: [
            _init(waiting={"reason": "ImagePullBackOff"}),
            _init(terminated={"exitCode": 3}),
            _init(terminated={"exitCode": 137, "signal": 9}),
            _init(waiting={"reason": "PodInitializing"}),
        ],
        ["Init:ImagePullBackOff", "Init:ExitCode:3", "Init:Signal:9", "Init:0/1"],
    ),
    Row(
        "kubectl",
        "ExitCode:N, Signal:N where there is no reason",
        lambda: [_status_of(_ended(exitCode=3)), _status_of(_ended(exitCode=137, signal=9))],
        ["ExitCode:3", "Signal:9"],
    ),
    Row(
        "kubectl",
        "the first container by name has the word",
        lambda: _status_of(_waits("ErrImagePull"), {**_waits("CrashLoopBackOff"), "name": "b"}),
        "ErrImagePull",
    ),
    Row(
        "kubectl",
        "Completed beside one that runs: Running while the pod is Ready, else the error, else NotReady",
        lambda: [
            _status_of(_ended(reason="Completed"), _runs(), ready=True),
            _status_of(
                _ended(reason="Completed"),
                {**_ended(reason="Error", exitCode=1), "name": "b"},
                _runs("c"),
                ready=False,
            ),
            _status_of(_ended(reason="Completed"), _runs(), ready=False),
        ],
        ["Running", "Error", "NotReady"],
    ),
    Row(
        "kubectl",
        "sidecars count: READY of all, restarts together, and when the last was",
        lambda: [_sidecar(), _sidecar(ready=False, restartCount=2, **_crashed(60))],
        [("2/2", "Running", "1 (5m ago)"), ("1/2", "Running", "3 (60s ago)")],
    ),
    Row(
        "kubectl",
        "Terminating, but not of a pod that has ended; Unknown with NodeLost",
        lambda: [
            _going(phase="Running"),
            _going(phase="Succeeded"),
            _going(phase="Running", reason="NodeLost"),
        ],
        ["Terminating", "Succeeded", "Unknown"],
    ),
    Row(
        "kubectl",
        "the columns of pods and of events",
        lambda: [[c.name for c in columns if not c.priority] for columns in (POD_COLUMNS, EVENT_COLUMNS)],
        [
            ["Name", "Ready", "Status", "Restarts", "Age"],
            ["Last Seen", "Type", "Reason", "Object", "Message"],
        ],
    ),
    Row(
        "kubectl",
        "a Table, with the objects' metadata",
        lambda: [
            made[key]
            for made in [table("Pod", [], now=0.0, resource_version=1)]
            for key in ("kind", "apiVersion")
        ],
        ["Table", "meta.k8s.io/v1"],
    ),
]

ROWS = KUBECTL


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted
