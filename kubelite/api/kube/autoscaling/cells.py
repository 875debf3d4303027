"""The Table columns of HorizontalPodAutoscalers, as Kubernetes' API server prints them.

Source: Kubernetes pkg/printers/internalversion/printers.go (printHorizontalPodAutoscaler, formatHPAMetrics).
"""

from __future__ import annotations

from kubelite.api.kube.columns import AGE, NAME, NONE, Cells, Column
from kubelite.kube.durations import age_of
from kubelite.kube.json import Json

COLUMNS = (
    NAME,
    Column("Reference"),
    Column("Targets"),
    Column("MinPods"),
    Column("MaxPods", "integer"),
    Column("Replicas", "integer"),
    AGE,
)
UNKNOWN = "<unknown>"
_SHOWN = 2  # metrics
_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}


def autoscaler_cells(doc: Json, now: float) -> Cells:
    spec, status, metadata = doc["spec"], doc.get("status") or {}, doc["metadata"]
    target = spec["scaleTargetRef"]
    return [
        metadata["name"],
        f"{target['kind']}/{target['name']}",
        targets_text(spec.get("metrics") or [], status.get("currentMetrics") or []),
        str(spec.get("minReplicas", "<unset>")),
        spec["maxReplicas"],
        status.get("currentReplicas", 0),
        age_of(metadata.get("creationTimestamp"), now),
    ]


def targets_text(metrics: list[Json], current: list[Json]) -> str:
    """Return `cpu: 12%/50%`, and how many more metrics there are."""
    if not metrics:
        return NONE
    found = [_target(one, current[n] if n < len(current) else {}) for n, one in enumerate(metrics)]
    more = f" + {len(found) - _SHOWN} more..." if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def parts_of(metric: Json, current: Json) -> tuple[Json, Json, Json]:
    """Return a metric's source, its target, and its current value ({} if unknown)."""
    field = _SOURCES.get(metric["type"], "")
    source = metric.get(field) or {}
    return source, source.get("target") or {}, (current.get(field) or {}).get("current") or {}


def _target(metric: Json, current: Json) -> str:
    source, target, value = parts_of(metric, current)
    if metric["type"] in ("Resource", "ContainerResource"):
        name = source["name"]
        if "averageValue" in target:
            return f"{name}: {value.get('averageValue', UNKNOWN)}/{target['averageValue']}"
        percent = f"{value['averageUtilization']}%" if "averageUtilization" in value else UNKNOWN
        wanted = f"{target['averageUtilization']}%" if "averageUtilization" in target else "<auto>"
        return f"{name}: {percent}/{wanted}"
    if "averageValue" in target:
        average = " (avg)" if metric["type"] != "Pods" else ""
        return f"{value.get('averageValue', UNKNOWN)}/{target['averageValue']}{average}"
    return f"{value.get('value', UNKNOWN)}/{target.get('value', UNKNOWN)}"
