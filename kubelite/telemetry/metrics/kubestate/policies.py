"""kube_poddisruptionbudget_*, kube_horizontalpodautoscaler_*, kube_resourcequota and kube_limitrange of the stored
objects, as in kube-state-metrics (internal/store/poddisruptionbudget.go, horizontalpodautoscaler.go, resourcequota.go
and limitrange.go)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubelite.kube.json import Json
from kubelite.telemetry.metrics.kubestate.fields import (
    CREATED,
    DELETED,
    Field,
    Kind,
    add_truth,
    conditions_of,
)
from kubelite.telemetry.metrics.kubestate.page import Table, amount, label

#: The field of a metric that has its source, by type. A resource's name is a field of the source itself.
SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
CONSTRAINTS = ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio")  # of a LimitRange
TARGETS = (("value", "value"), ("utilization", "averageUtilization"), ("average", "averageValue"))

BUDGET_FIELDS = (
    CREATED,
    Field("status_current_healthy", "Current number of healthy pods", "status.currentHealthy"),
    Field("status_desired_healthy", "Minimum desired number of healthy pods", "status.desiredHealthy"),
    Field(
        "status_pod_disruptions_allowed",
        "Number of pod disruptions that are currently allowed",
        "status.disruptionsAllowed",
    ),
    Field(
        "status_expected_pods",
        "Total number of pods counted by this disruption budget",
        "status.expectedPods",
    ),
    Field(
        "status_observed_generation",
        "Most recent generation observed when updating this PDB status",
        "status.observedGeneration",
    ),
    DELETED,
)

AUTOSCALER_FIELDS = (
    CREATED,
    DELETED,
    Field(
        "metadata_generation",
        "The generation observed by the HorizontalPodAutoscaler controller.",
        "metadata.generation",
    ),
    Field(
        "spec_max_replicas",
        "Upper limit for the number of pods that can be set by the autoscaler; cannot be smaller than MinReplicas.",
        "spec.maxReplicas",
    ),
    Field(
        "spec_min_replicas",
        "Lower limit for the number of pods that can be set by the autoscaler, default 1.",
        "spec.minReplicas",
        1.0,
    ),
    Field(
        "status_current_replicas",
        "Current number of replicas of pods managed by this autoscaler.",
        "status.currentReplicas",
    ),
    Field(
        "status_desired_replicas",
        "Desired number of replicas of pods managed by this autoscaler.",
        "status.desiredReplicas",
    ),
)


def write_budgets(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("poddisruptionbudget")
    kind.write_labels(t, docs)
    kind.write(t, docs, *BUDGET_FIELDS)


def write_autoscalers(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("horizontalpodautoscaler")
    info = kind.gauge(t, "info", "Information about this autoscaler.")
    for doc in docs:
        target = doc["spec"]["scaleTargetRef"]
        words = label("scaletargetref_api_version", target["apiVersion"]) if target.get("apiVersion") else ""
        words += label("scaletargetref_kind", target["kind"]) + label("scaletargetref_name", target["name"])
        t.add(info, kind.head(doc) + words, 1)
    kind.write(t, docs, *AUTOSCALER_FIELDS)
    _metrics(t, kind, docs)
    _tolerances(t, kind, docs)
    kind.write_labels(t, docs)
    family = kind.gauge(t, "status_condition", "The condition of this autoscaler.")
    for doc in docs:
        for found in conditions_of(doc):
            head = kind.head(doc) + label("condition", found["type"])
            add_truth(t, family, head, found["status"], "status")


def write_quotas(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("resourcequota")
    kind.write(t, docs, CREATED)
    family = t.gauge("kube_resourcequota", "Information about resource quota.")
    for doc in docs:
        status = doc.get("status") or {}
        for type_ in ("hard", "used"):
            for name, value in (status.get(type_) or {}).items():
                words = f'{label("resource", name)},type="{type_}"'
                t.add(family, kind.head(doc) + words, amount("cpu", value))  # exact to thousandths
    kind.write_labels(t, docs)


def write_limit_ranges(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("limitrange")
    kind.write(t, docs, CREATED)
    family = t.gauge("kube_limitrange", "Information about limit range.")
    for doc in docs:
        for limit in doc["spec"].get("limits") or ():
            for constraint in CONSTRAINTS:
                for name, value in (limit.get(constraint) or {}).items():
                    words = label("resource", name) + label("type", limit["type"])
                    words += label("constraint", constraint)
                    t.add(family, kind.head(doc) + words, amount("cpu", value))  # exact to thousandths


def _metrics(t: Table, kind: Kind, docs: Sequence[Json]) -> None:
    wanted = kind.gauge(
        t,
        "spec_target_metric",
        "The metric specifications used by this autoscaler when calculating the desired replica count.",
    )
    current = kind.gauge(
        t,
        "status_target_metric",
        "The current metric status used by this autoscaler when calculating the desired replica count.",
    )
    for doc in docs:
        spec, status = doc["spec"].get("metrics") or (), (doc.get("status") or {}).get("currentMetrics") or ()
        for family, metrics, field in ((wanted, spec, "target"), (current, status, "current")):
            samples = {words: value for one in metrics for words, value in _values(one, field)}
            for words, value in samples.items():
                t.add(family, kind.head(doc) + words, value)


def _values(metric: Json, field: str) -> Iterator[tuple[str, float]]:
    """Yield labels and value of each value that a metric has. `field`: target or current."""
    source: Json = metric.get(SOURCES.get(metric.get("type", ""), "")) or {}
    name = source.get("name") or (source.get("metric") or {}).get("name", "")
    for type_, key in TARGETS if source else ():
        value = (source.get(field) or {}).get(key)
        if value is not None:
            words = label("metric_name", name) + label("metric_target_type", type_)
            yield words + label("container", source.get("container", "")), amount("cpu", value)


def _tolerances(t: Table, kind: Kind, docs: Sequence[Json]) -> None:
    below = "The tolerance on the ratio between the current and desired metric value below which no scale"
    for direction in ("down", "up"):
        family = kind.gauge(t, f"spec_behavior_scale_{direction}_tolerance", f"{below} {direction} occurs.")
        for doc in docs:
            rules = (doc["spec"].get("behavior") or {}).get(f"scale{direction.capitalize()}") or {}
            if rules.get("tolerance") is not None:
                t.add(family, kind.head(doc), amount("cpu", rules["tolerance"]))
