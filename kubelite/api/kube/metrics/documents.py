"""NodeMetrics and PodMetrics of metrics.k8s.io/v1beta1, from two samples of the node's counters. Pure.

Source: metrics/pkg/apis/metrics/v1beta1/types.go; metrics-server pkg/storage (a pod of which some container has no rate
yet is left out).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

GROUP_VERSION = "metrics.k8s.io/v1beta1"


class Usage(NamedTuple):
    """Nanoseconds of CPU time per second, and bytes of the working set."""

    cpu: int
    memory: int


class Measured(NamedTuple):
    """What was used in `window` seconds before `at` (Unix seconds). `pods`: by uid and name of the container; None is a
    container that was not there at the window's start."""

    at: float
    window: float
    node: Usage
    pods: Mapping[str, Mapping[str, Usage | None]]


def measured(before: Json, after: Json) -> Measured:
    """Compare two answers of NodeApi.usage()."""
    seconds = max(after["now"] - before["now"], 0.001)  # the clock may have been set
    earlier = {one["id"]: one["cpu"] for one in before["containers"]}
    pods: dict[str, dict[str, Usage | None]] = {}
    for one in after["containers"]:
        since = earlier.get(one["id"])
        usage = None if since is None else _usage(since, one, seconds)
        pods.setdefault(one["uid"], {})[one["container"]] = usage
    node = _usage(before["node"]["cpu"], after["node"], seconds)
    return Measured(after["now"], seconds, node, pods)


def _usage(before: int, after: Json, seconds: float) -> Usage:
    return Usage(int(max(0, after["cpu"] - before) / seconds), after["memory"])


def pod_metrics(found: Measured, pods: Iterable[Json]) -> list[Json]:
    """Return the PodMetrics of those pods that all have rates."""
    return [
        _document(
            "PodMetrics", pod, found, {"containers": [_container(*one) for one in sorted(usages.items())]}
        )
        for pod in pods
        if (usages := _known(found.pods.get(pod["metadata"]["uid"], {})))
    ]


def node_metrics(found: Measured, node: Json) -> Json:
    return _document("NodeMetrics", node, found, {"usage": _amounts(found.node)})


def list_of(kind: str, items: list[Json]) -> Json:
    return {"kind": f"{kind}List", "apiVersion": GROUP_VERSION, "metadata": {}, "items": items}


def _known(usages: Mapping[str, Usage | None]) -> dict[str, Usage]:
    """Return the usages, or nothing if one is not known."""
    known = {name: usage for name, usage in usages.items() if usage is not None}
    return known if len(known) == len(usages) else {}


def _document(kind: str, of: Json, found: Measured, fields: Json) -> Json:
    metadata = {
        key: of["metadata"][key] for key in ("name", "namespace", "labels") if of["metadata"].get(key)
    }
    return {
        "kind": kind,
        "apiVersion": GROUP_VERSION,
        "metadata": {**metadata, "creationTimestamp": rfc3339(found.at)},
        "timestamp": rfc3339(found.at),
        "window": f"{found.window:.3f}s",
        **fields,
    }


def _container(name: str, usage: Usage) -> Json:
    return {"name": name, "usage": _amounts(usage)}


def _amounts(usage: Usage) -> Json:
    return {"cpu": f"{usage.cpu}n", "memory": f"{usage.memory // 1024}Ki"}
