"""LimitRanges, ResourceQuotas and HorizontalPodAutoscalers: the output of kubelite equals that of kubectl."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from kubelite.autoscaling.decide import decide
from kubelite.kube.json import Json
from tests.unit.api.server import Served
from tests.unit.api.test_kubectl import _ageless, kubectl
from tests.unit.autoscaling.kit import autoscaler, deployment, pod, samples, view
from tests.unit.cli.kit import kubelite as command
from tests.unit.policies.kit import compute, limit_range, quota

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl (kubernetes-client)")

BEHAVIOR = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}],
    },
    "scaleDown": {"selectPolicy": "Min", "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]},
}


def external(type_: str, value: str) -> Json:
    field = "averageValue" if type_ == "AverageValue" else "value"
    return {
        "type": "External",
        "external": {"metric": {"name": "queue"}, "target": {"type": type_, field: value}},
    }


def autoscalers() -> Iterator[Json]:
    cpu = autoscaler()["spec"]["metrics"][0]
    memory = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "64Mi"}},
    }
    percent = {"type": "Utilization", "averageUtilization": 70}
    source = {"name": "cpu", "container": "container1", "target": percent}
    container = {"type": "ContainerResource", "containerResource": source}
    for name, metrics in (
        ("plain", [cpu]),
        ("several", [cpu, memory, container, external("Value", "5"), external("AverageValue", "5")]),
    ):
        hpa = autoscaler(2, 6, metrics=metrics, behavior=BEHAVIOR)
        hpa["metadata"] |= {"name": name, "namespace": "default", "uid": f"uid-{name}"}
        hpa["metadata"]["creationTimestamp"] = "2026-11-24T14:00:00Z"
        pods = [pod(n) for n in range(3)]
        hpa["status"] = decide(view(hpa, deployment(), pods, samples(300, 500, 700))).status
        yield hpa


def quotas() -> Iterator[Json]:
    hard = {"pods": "2", "requests__cpu": "1", "limits__memory": "1Gi"}
    for name, scopes, used in (
        ("busy", ["NotTerminating"], {"pods": "1", "requests.cpu": "250m", "limits.memory": "64Mi"}),
        ("idle", None, {"pods": "0", "requests.cpu": "0", "limits.memory": "0"}),
    ):
        found = quota(name, scopes, given=hard)
        found["metadata"] |= {"namespace": "default", "creationTimestamp": "2026-11-24T14:00:00Z"}
        yield {**found, "status": {"hard": found["spec"]["hard"], "used": used}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    limits = limit_range("Container", "limits", default=compute("1", "64Mi"), max=compute("2"))
    limits["metadata"] |= {
        "namespace": "default",
        "uid": "uid-limits",
        "creationTimestamp": "2026-11-24T14:00:00Z",
    }
    with Served.at(tmp_path) as served:
        for doc in (limits, *quotas(), *autoscalers()):
            served.run(served.node.store.create(doc["kind"], doc))
        yield served


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "limits"),
        ("get", "hpa"),
        ("get", "quota"),
        ("get", "resourcequotas", "busy", "-o", "yaml"),
        ("describe", "quota"),
        ("describe", "quota", "idle"),
        ("get", "hpa", "several", "-o", "json"),
        ("describe", "hpa"),
        ("describe", "hpa", "plain"),
        ("get", "horizontalpodautoscalers.v1.autoscaling", "plain", "-o", "name"),
    ],
)
def test_same_output(server: Served, arguments: tuple[str, ...]) -> None:
    theirs = kubectl(server, *arguments)
    assert theirs.returncode == 0, theirs.stderr
    if "v1" in arguments[1]:
        assert theirs.stdout == "horizontalpodautoscaler.autoscaling/plain\n"
        return
    ours = command(server, *arguments)
    assert _ageless(ours.stdout) == _ageless(theirs.stdout)


def test_describe_limits(server: Served) -> None:
    """kubectl prints the resources of a LimitRange in any order."""
    for what in (("limits", "limits"), ("namespace", "default")):
        theirs, ours = (run(server, "describe", *what).stdout for run in (kubectl, command))
        assert sorted(ours.splitlines()) == sorted(theirs.splitlines())


def test_version_1_shows_the_cpu(server: Served) -> None:
    path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers/plain"
    found = httpx.get(f"http://127.0.0.1:{server.port}{path}").json()
    assert found["apiVersion"] == "autoscaling/v1"
    assert found["spec"]["targetCPUUtilizationPercentage"] == 30 and "metrics" not in found["spec"]
    assert found["status"]["currentCPUUtilizationPercentage"] == 50
