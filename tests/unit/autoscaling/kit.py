"""Pods, samples, workloads and autoscalers for the tests of the autoscaler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kubelite.autoscaling.model import Memory, Recommendation, Sample, Timing, View
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

NOW = 1_800_000_000.0
#: those of replica_calculator_test.go: defaultTestingCPUInitializationPeriod, defaultTestingDelayOfInitialReadiness
TIMING = Timing(cpu_initialization=120.0, initial_readiness_delay=10.0)
HOT, COOL = NOW, NOW - 3 * 60  # start times: hotCPUCreationTime, coolCPUCreationTime
CONTAINERS = 2  # numContainersPerPod


def pod(
    number: int,
    request: str = "1.0",
    *,
    ready: bool = True,
    started: float | None = None,
    phase: str = "Running",
    deleted: bool = False,
    resource: str = "cpu",
) -> Json:
    began = NOW - 2 * 3600 if started is None else started
    condition = {
        "type": "Ready",
        "status": "True" if ready else "False",
        "lastTransitionTime": rfc3339(began + (0 if not ready or started is None else 30)),
    }
    asked = {"resources": {"requests": {resource: request}}} if request else {}
    metadata: Json = {
        "name": f"web-{number}",
        "namespace": "test",
        "uid": f"uid-{number}",
        "labels": {"app": "web"},
    }
    if deleted:
        metadata["deletionTimestamp"] = rfc3339(NOW)
    status = {"phase": phase, "startTime": rfc3339(began), "conditions": [condition]}
    containers = [{"name": f"container{n + 1}", **asked} for n in range(CONTAINERS)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": containers},
        "status": status,
    }


def samples(*levels: int | Sequence[int], resource: str = "cpu") -> dict[str, Sample]:
    """A sample of each pod. A level is what each of its containers uses, or a list of what they use."""
    found = {}
    for number, level in enumerate(levels):
        parts = [level] * CONTAINERS if isinstance(level, int) else level
        used = {f"container{n + 1}": {resource: part} for n, part in enumerate(parts)}
        found[f"web-{number}"] = Sample(NOW, 60.0, used)
    return found


def deployment(replicas: int = 3) -> Json:
    metadata: Json = {"name": "web", "namespace": "test", "uid": "uid-web"}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def autoscaler(
    least: int = 1, most: int = 6, cpu: int = 30, *, metrics: list[Json] | None = None, **spec: Any
) -> Json:
    target = {"type": "Utilization", "averageUtilization": cpu}
    own = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    body = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": least,
        "maxReplicas": most,
        "metrics": own if metrics is None else metrics,
        **spec,
    }
    metadata = {"name": "web", "namespace": "test", "uid": "uid-hpa"}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": body,
    }


def view(hpa: Json, target: Json | None, pods: Sequence[Json], used: dict[str, Sample], **more: Any) -> View:
    given = {"memory": Memory((Recommendation(1, NOW - 1000),)), "timing": TIMING, "sharing": ["web"], **more}
    return View(hpa, NOW, target, pods, used, **given)
