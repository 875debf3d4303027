"""HorizontalPodAutoscalers as autoscaling/v1 shows them: with the CPU alone. The node stores autoscaling/v2.

Source: Kubernetes pkg/apis/autoscaling/v1/conversion.go. The annotations in which Kubernetes keeps everything else for
old clients are left out.
"""

from __future__ import annotations

from kubelite.kube.json import Json


def as_v1(doc: Json) -> Json:
    spec, status = doc["spec"], doc.get("status") or {}
    shown = {key: spec[key] for key in ("scaleTargetRef", "minReplicas", "maxReplicas") if key in spec}
    if (percent := _cpu(spec.get("metrics"), "target")) is not None:
        shown["targetCPUUtilizationPercentage"] = percent
    state = {
        key: status[key] for key in ("lastScaleTime", "currentReplicas", "desiredReplicas") if key in status
    }
    if (percent := _cpu(status.get("currentMetrics"), "current")) is not None:
        state["currentCPUUtilizationPercentage"] = percent
    return {**doc, "apiVersion": "autoscaling/v1", "spec": shown, "status": state}


def _cpu(metrics: list[Json] | None, what: str) -> int | None:
    """Return the percentage of the metric for the CPU of whole pods."""
    for metric in metrics or ():
        found = metric.get("resource") or {}
        if found.get("name") == "cpu":
            percent: int | None = found[what].get("averageUtilization")
            return percent
    return None
