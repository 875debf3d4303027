"""Rules of HorizontalPodAutoscalers (Kubernetes pkg/apis/autoscaling/validation/validation.go)."""

from collections.abc import Iterator

from manifests.names import dns_label, path_segment
from manifests.problems import Path, Problem, forbidden, invalid, not_supported, required
from manifests.types.meta import Quantity
from manifests.types.workloads.autoscaler import (
    ContainerResourceMetricSource,
    CrossVersionObjectReference,
    ExternalMetricSource,
    HorizontalPodAutoscaler,
    HPAScalingPolicy,
    HPAScalingRules,
    MetricIdentifier,
    MetricSpec,
    MetricTarget,
    ObjectMetricSource,
    ResourceMetricSource,
)
from manifests.validation.meta import validate_meta
from manifests.validation.rules import formatted
from manifests.validation.workloads.limits import resource_name_problems

SOURCES = ("ContainerResource", "External", "Object", "Pods", "Resource")
_MAX_WINDOW, _MAX_PERIOD = 3600, 1800  # seconds


def horizontal_pod_autoscaler_problems(found: HorizontalPodAutoscaler) -> Iterator[Problem]:
    spec, path = found.spec, ("spec",)
    least, most = spec.min_replicas, spec.max_replicas
    yield from validate_meta(found.metadata)
    if least is not None and least < 1:  # 0 needs the feature gate HPAScaleToZero, which is off
        yield invalid((*path, "minReplicas"), least, "must be greater than or equal to 1")
    if most == 0:
        yield required((*path, "maxReplicas"), "must be set and greater than 0")
    elif most < 0:
        yield invalid((*path, "maxReplicas"), most, "must be greater than or equal to 1")
    elif least is not None and most < least:
        yield invalid((*path, "maxReplicas"), most, "must be greater than or equal to `minReplicas`")
    target = spec.scale_target_ref
    core = target.kind == "ReplicationController"
    yield from _reference(target, (*path, "scaleTargetRef"), no_group=core)
    for index, metric in enumerate(spec.metrics):
        yield from _metric(metric, (*path, "metrics", index))
    if spec.behavior is not None:
        for alias, rules in (("scaleUp", spec.behavior.scale_up), ("scaleDown", spec.behavior.scale_down)):
            if rules is not None:
                yield from _rules(rules, (*path, "behavior", alias))


def _reference(found: CrossVersionObjectReference, path: Path, *, no_group: bool) -> Iterator[Problem]:
    for alias, value in (("kind", found.kind), ("name", found.name)):
        if not value:
            yield required((*path, alias))
        else:
            yield from formatted((*path, alias), value, path_segment)
    version = found.api_version or ""
    here = (*path, "apiVersion")
    if version.count("/") > 1:
        yield invalid(here, version, f"unexpected GroupVersion string: {version}")
    elif "/" not in version.strip("/") and not no_group:
        yield invalid(here, version, "apiVersion must specify API group")


def _rules(rules: HPAScalingRules, path: Path) -> Iterator[Problem]:
    window, here = rules.stabilization_window_seconds, (*path, "stabilizationWindowSeconds")
    if window is not None and window < 0:
        yield invalid(here, window, "must be greater than or equal to zero")
    if window is not None and window > _MAX_WINDOW:
        yield invalid(here, window, f"must be less than or equal to {_MAX_WINDOW}")
    if rules.select_policy not in (None, "Disabled", "Max", "Min"):
        yield not_supported((*path, "selectPolicy"), rules.select_policy or "", ("Disabled", "Max", "Min"))
    if not rules.policies:
        yield required((*path, "policies"), "must specify at least one Policy")
    for index, policy in enumerate(rules.policies or ()):
        yield from _policy(policy, (*path, "policies", index))
    if rules.tolerance is not None and rules.tolerance < Quantity(0):
        yield invalid((*path, "tolerance"), str(rules.tolerance), "must be greater than or equal to 0")


def _policy(policy: HPAScalingPolicy, path: Path) -> Iterator[Problem]:
    if policy.type not in ("Percent", "Pods"):
        yield not_supported((*path, "type"), policy.type, ("Percent", "Pods"))
    if policy.value <= 0:
        yield invalid((*path, "value"), policy.value, "must be greater than zero")
    if policy.period_seconds <= 0:
        yield invalid((*path, "periodSeconds"), policy.period_seconds, "must be greater than zero")
    if policy.period_seconds > _MAX_PERIOD:
        sentence = f"must be less than or equal to {_MAX_PERIOD}"
        yield invalid((*path, "periodSeconds"), policy.period_seconds, sentence)


def _metric(metric: MetricSpec, path: Path) -> Iterator[Problem]:
    """Check that a metric has one source, which is the one that its type names."""
    given = {
        "object": metric.object,
        "external": metric.external,
        "pods": metric.pods,
        "resource": metric.resource,
        "containerResource": metric.container_resource,
    }
    present = [alias for alias, source in given.items() if source is not None]
    expected = metric.type[:1].lower() + metric.type[1:]
    if not metric.type:
        yield required((*path, "type"), "must specify a metric source type")
    elif metric.type not in SOURCES:
        yield not_supported((*path, "type"), metric.type, SOURCES)
    elif expected not in present:
        yield required((*path, expected), "must populate information for the given metric source")
    if len(present) > 1:
        for alias in present:
            if alias != expected:
                yield forbidden((*path, alias), "must populate the given metric source only")
    if present:
        yield from _source(metric, present[0], (*path, present[0]))


def _source(metric: MetricSpec, alias: str, path: Path) -> Iterator[Problem]:
    match alias:
        case "object" if metric.object is not None:
            yield from _object(metric.object, path)
        case "external" if metric.external is not None:
            yield from _external(metric.external, path)
        case "pods" if metric.pods is not None:
            yield from _identifier(metric.pods.metric, (*path, "metric"))
            yield from _target(metric.pods.target, (*path, "target"))
            if metric.pods.target.average_value is None:
                sentence = "must specify a positive target averageValue"
                yield required((*path, "target", "averageValue"), sentence)
        case "resource" if metric.resource is not None:
            yield from _resource(metric.resource, path)
        case "containerResource" if metric.container_resource is not None:
            source = metric.container_resource
            if source.name:
                yield from resource_name_problems(source.name, (*path, "name"), containers=True)
            if not source.container:
                yield required((*path, "container"), "must specify a container")
            else:
                yield from formatted((*path, "container"), source.container, dns_label)
            yield from _resource(source, path)


def _object(source: ObjectMetricSource, path: Path) -> Iterator[Problem]:
    yield from _reference(source.described_object, (*path, "describedObject"), no_group=True)
    yield from _identifier(source.metric, (*path, "metric"))
    yield from _target(source.target, (*path, "target"))
    if source.target.value is None and source.target.average_value is None:
        sentence = "must set either a target value or averageValue"
        yield required((*path, "target", "averageValue"), sentence)


def _external(source: ExternalMetricSource, path: Path) -> Iterator[Problem]:
    yield from _identifier(source.metric, (*path, "metric"))
    yield from _target(source.target, (*path, "target"))
    total, average = source.target.value, source.target.average_value
    if total is None and average is None:
        sentence = "must set either a target value for metric or a per-pod target"
        yield required((*path, "target", "averageValue"), sentence)
    if total is not None and average is not None:
        sentence = "may not set both a target value for metric and a per-pod target"
        yield forbidden((*path, "target", "value"), sentence)


def _resource(source: ResourceMetricSource | ContainerResourceMetricSource, path: Path) -> Iterator[Problem]:
    if not source.name:
        yield required((*path, "name"), "must specify a resource name")
    yield from _target(source.target, (*path, "target"))
    share, average = source.target.average_utilization, source.target.average_value
    if share is None and average is None:
        sentence = "must set either a target raw value or a target utilization"
        yield required((*path, "target", "averageUtilization"), sentence)
    if share is not None and average is not None:
        sentence = "may not set both a target raw value and a target utilization"
        yield forbidden((*path, "target", "averageValue"), sentence)


def _target(target: MetricTarget, path: Path) -> Iterator[Problem]:
    if not target.type:
        yield required((*path, "type"), "must specify a metric target type")
    elif target.type not in ("Utilization", "Value", "AverageValue"):
        sentence = "must be either Utilization, Value, or AverageValue"
        yield invalid((*path, "type"), target.type, sentence)
    for alias, amount in (("value", target.value), ("averageValue", target.average_value)):
        if amount is not None and amount <= Quantity(0):
            yield invalid((*path, alias), str(amount), "must be positive")
    share = target.average_utilization
    if share is not None and share < 1:
        yield invalid((*path, "averageUtilization"), share, "must be greater than 0")


def _identifier(metric: MetricIdentifier, path: Path) -> Iterator[Problem]:
    if not metric.name:
        yield required((*path, "name"), "must specify a metric name")
    else:
        yield from formatted((*path, "name"), metric.name, path_segment)
