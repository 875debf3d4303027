"""How many replicas a metric asks for. Pure.

Source: Kubernetes pkg/controller/podautoscaler/replica_calculator.go and metrics/utilization.go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kubelite.autoscaling.model import Sample, Timing, Usage
from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.policies.amounts import pod_requests, requests_of

Metrics = dict[str, Usage]
NO_METRICS = "no metrics returned from resource metrics API"


class MetricError(Exception):
    """A metric cannot be computed. The message is Kubernetes'."""


class Tolerances(NamedTuple):
    down: float = 0.1
    up: float = 0.1

    def within(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


class Proposal(NamedTuple):
    """`average`: what a pod uses on average; `utilization`: the same in percent of the requests."""

    replicas: int
    average: int
    utilization: int | None = None


class Groups(NamedTuple):
    """Names of pods by what their metrics are worth (groupPods)."""

    ready: int
    unready: frozenset[str]
    missing: frozenset[str]
    ignored: frozenset[str]


def metrics_of(samples: Mapping[str, Sample], resource: str, container: str = "") -> Metrics:
    """Return what each pod uses of a resource, in one container or in all (getPodMetrics, getContainerMetrics). Raises
    MetricError."""
    if not samples:
        raise MetricError(f"unable to get metrics for resource {resource}: {NO_METRICS}")
    found: Metrics = {}
    for name, sample in samples.items():
        parts = [used.get(resource) for one, used in sample.containers.items() if container in ("", one)]
        values = [value for value in parts if value is not None]
        if parts and len(values) == len(parts):
            found[name] = Usage(sum(values), sample.at, sample.window)
    return found


def by_utilization(
    current: int,
    target: int,
    resource: str,
    pods: Sequence[Json],
    metrics: Metrics,
    *,
    container: str = "",
    tolerances: Tolerances,
    now: float,
    timing: Timing,
) -> Proposal:
    """Return the replicas with which the pods use `target` percent of their requests (GetResourceReplicas). Raises
    MetricError."""
    groups, left = _counted(pods, metrics, resource, now, timing)
    requests = requests_for(pods, resource, container)
    ratio, utilization, average = _utilization(left, requests, target)
    fallback = max(100, target)

    def again(completed: Metrics) -> float:
        return _utilization(completed, requests, target)[0]

    replicas = _replicas(
        current,
        ratio,
        groups,
        left,
        tolerances=tolerances,
        fallback=lambda name: requests[name] * fallback // 100,
        again=again,
    )
    return Proposal(replicas, average, utilization)


def by_average(
    current: int,
    target: int,
    resource: str,
    pods: Sequence[Json],
    metrics: Metrics,
    *,
    tolerances: Tolerances,
    now: float,
    timing: Timing,
) -> Proposal:
    """Return the replicas with which a pod uses `target` on average (calcPlainMetricReplicas). Raises MetricError."""
    groups, left = _counted(pods, metrics, resource, now, timing)
    ratio, average = _plain(left, target)
    replicas = _replicas(
        current,
        ratio,
        groups,
        left,
        tolerances=tolerances,
        fallback=lambda _name: target,
        again=lambda full: _plain(full, target)[0],
    )
    return Proposal(replicas, average)


def _counted(
    pods: Sequence[Json], metrics: Metrics, resource: str, now: float, timing: Timing
) -> tuple[Groups, Metrics]:
    """Return the groups of the pods, and the metrics that count at first."""
    if not pods:
        raise MetricError("no pods returned by selector while calculating replica count")
    groups = grouped(pods, metrics, resource, now, timing)
    left = {name: one for name, one in metrics.items() if name not in groups.ignored | groups.unready}
    if not left:
        raise MetricError("did not receive metrics for targeted pods (pods might be unready)")
    return groups, left


def _replicas(
    current: int,
    ratio: float,
    groups: Groups,
    metrics: Metrics,
    *,
    tolerances: Tolerances,
    fallback: Callable[[str], int],
    again: Callable[[Metrics], float],
) -> int:
    """Return the number of replicas. Pods without metrics count as much as is on the safe side: everything if the pods
    are to become fewer (`fallback`), nothing if they are to become more."""
    with_unready = bool(groups.unready) and ratio > 1.0
    if not with_unready and not groups.missing:
        return current if tolerances.within(ratio) else math.ceil(ratio * groups.ready)
    completed = dict(metrics)
    if ratio < 1.0:
        completed |= {name: Usage(fallback(name)) for name in groups.missing}
    elif ratio > 1.0:
        completed |= {name: Usage(0) for name in groups.missing}
    if with_unready:
        completed |= {name: Usage(0) for name in groups.unready}
    new = again(completed)
    turned = (ratio < 1.0 < new) or (new < 1.0 < ratio)
    if tolerances.within(new) or turned:
        return current
    replicas = math.ceil(new * len(completed))
    if (new < 1.0 and replicas > current) or (new > 1.0 and replicas < current):
        return current
    return replicas


def grouped(pods: Sequence[Json], metrics: Metrics, resource: str, now: float, timing: Timing) -> Groups:
    """Sort pods by what their metrics are worth (groupPods)."""
    ready, unready, missing, ignored = 0, set[str](), set[str](), set[str]()
    for pod in pods:
        name, phase = pod["metadata"]["name"], (pod.get("status") or {}).get("phase") or "Pending"
        if pod["metadata"].get("deletionTimestamp") or phase == "Failed":
            ignored.add(name)
        elif phase == "Pending":
            unready.add(name)
        elif name not in metrics:
            missing.add(name)
        elif resource == "cpu" and _is_unready(pod, metrics[name], now, timing):
            unready.add(name)
        else:
            ready += 1
    return Groups(ready, frozenset(unready), frozenset(missing), frozenset(ignored))


def _is_unready(pod: Json, metric: Usage, now: float, timing: Timing) -> bool:
    """Whether the CPU time of a pod says nothing yet: it starts, or has never been ready."""
    status = pod.get("status") or {}
    condition = next((one for one in status.get("conditions") or () if one["type"] == "Ready"), None)
    started = parse_time(status.get("startTime"))
    if condition is None or started is None:
        return True
    changed, is_false = parse_time(condition.get("lastTransitionTime")) or 0.0, condition["status"] == "False"
    if started + timing.cpu_initialization > now:
        return is_false or metric.at < changed + metric.window
    return is_false and started + timing.initial_readiness_delay > changed


def requests_for(pods: Sequence[Json], resource: str, container: str = "") -> dict[str, int]:
    """Return what each pod requests (calculateRequests). Raises MetricError."""
    return {pod["metadata"]["name"]: _request(pod, resource, container) for pod in pods}


def _request(pod: Json, resource: str, container: str) -> int:
    name, spec = pod["metadata"]["name"], pod["spec"]
    own = spec.get("resources") or {}
    if not container and (own.get("requests") or own.get("limits")):
        if resource not in (total := pod_requests(spec)):
            raise MetricError(f"missing pod-level request for {resource} in Pod {name}")
        return total[resource].milli()
    sidecars = (one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always")
    chosen = [one for one in (*spec["containers"], *sidecars) if container in ("", one["name"])]
    if not chosen:
        raise MetricError(f"container {container} not found in Pod {name}")
    total_request = 0
    for one in chosen:
        if resource not in (asked := requests_of(one)):
            raise MetricError(f"missing request for {resource} in container {one['name']} of Pod {name}")
        total_request += asked[resource].milli()
    return total_request


def _utilization(metrics: Metrics, requests: Mapping[str, int], target: int) -> tuple[float, int, int]:
    """Return the ratio to the target, the percentage of the requests, and the average
    (GetResourceUtilizationRatio)."""
    known = [name for name in metrics if name in requests]
    used, asked = sum(metrics[name].value for name in known), sum(requests[name] for name in known)
    if not asked:
        raise MetricError("no metrics returned matched known pods")
    percent = used * 100 // asked
    return percent / target, percent, used // len(known)


def _plain(metrics: Metrics, target: int) -> tuple[float, int]:
    """GetMetricUsageRatio."""
    average = sum(one.value for one in metrics.values()) // len(metrics)
    return average / target, average
