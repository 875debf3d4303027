"""Decides about one HorizontalPodAutoscaler: its status, its events, and how many replicas its target gets. Pure.

Source: Kubernetes pkg/controller/podautoscaler/horizontal.go (reconcileAutoscaler, computeReplicasForMetrics).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

from kubelite.autoscaling.behavior import Bounds, normalized, scaled
from kubelite.autoscaling.calculator import (
    MetricError,
    Proposal,
    Tolerances,
    by_average,
    by_utilization,
    metrics_of,
)
from kubelite.autoscaling.model import Event, Outcome, Recommendation, View
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import selector_of, selector_text
from kubelite.kube.times import rfc3339
from manifests.types.quantity import Form, Quantity

_NO_CUSTOM = "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"
_NO_EXTERNAL = (
    "unable to fetch metrics from external metrics API: the server could not find the requested resource "
    "(get {name}.external.metrics.k8s.io)"
)
_UNABLE = "the HPA was unable to compute the replica count: {}"


class _Metric(NamedTuple):
    """A metric that could be computed."""

    replicas: int
    name: str
    status: Json


class _Failure(Exception):
    """A metric that could not. `reason`: of the condition and of the event; `whole`: the error with its context."""

    def __init__(self, reason: str, message: str, whole: str) -> None:
        super().__init__(message)
        self.reason, self.whole = reason, whole


def decide(view: View) -> Outcome:
    """Return what happens to an autoscaler and its target now."""
    return _Decision(view).outcome()


class _Decision:
    """Lives for one call. `conditions` and `events` are what it has come to."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.spec: Json = view.autoscaler["spec"]
        self.status: Json = view.autoscaler.get("status") or {}
        self.conditions: list[Json] = list(self.status.get("conditions") or ())
        self.events: list[Event] = []
        self.memory = view.memory

    def outcome(self) -> Outcome:
        target = self.view.target
        if target is None:
            return self._without_target()
        message = "the HPA controller was able to get the target's current scale"
        self._set("AbleToScale", True, "SucceededGetScale", message)
        current = int(target["spec"].get("replicas", 1))
        if not self.memory.recommendations:
            self.memory = replace(self.memory, recommendations=(Recommendation(current, self.view.now),))
        least, most = self.spec.get("minReplicas", 1), self.spec["maxReplicas"]
        if current == 0:
            message = "scaling is disabled since the replica count of the target is zero"
            self._set("ScalingActive", False, "ScalingDisabled", message)
            return self._stays(0, [])
        if current > most:
            return self._scale(current, most, "Current number of replicas above Spec.MaxReplicas", [])
        if current < least:
            return self._scale(current, least, "Current number of replicas below Spec.MinReplicas", [])
        return self._by_metrics(target, current, Bounds(least, most))

    # -- conditions and ends ----------------------------------------------------------------------------------------

    def _set(self, type_: str, true: bool, reason: str, message: str) -> None:
        """setConditionInList: a condition keeps its place, and its time while its status stays."""
        status = "True" if true else "False"
        place = next((n for n, one in enumerate(self.conditions) if one["type"] == type_), None)
        known = self.conditions[place] if place is not None else {}
        since = known["lastTransitionTime"] if known.get("status") == status else rfc3339(self.view.now)
        new = {
            "type": type_, "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
        }  # fmt: skip
        if place is None:
            self.conditions.append(new)
        else:
            self.conditions[place] = new

    def _warn(self, reason: str, message: str) -> None:
        self.events.append(Event("Warning", reason, message))

    def _without_target(self) -> Outcome:
        ref = self.spec["scaleTargetRef"]
        plural = f"{ref['kind'].lower()}s"
        group = (ref.get("apiVersion") or "v1").rpartition("/")[0]
        error = f'{plural}{"." * bool(group)}{group} "{ref["name"]}" not found'
        self._warn("FailedGetScale", error)
        message = f"the HPA controller was unable to get the target's current scale: {error}"
        self._set("AbleToScale", False, "FailedGetScale", message)
        return Outcome({**self.status, "conditions": self.conditions}, tuple(self.events), None, self.memory)

    def _ended(self, current: int, desired: int, metrics: list[Json], *, rescaled: bool = False) -> Json:
        """Return the status (setStatus)."""
        found: Json = {"currentReplicas": current, "desiredReplicas": desired}
        if last := rfc3339(self.view.now) if rescaled else self.status.get("lastScaleTime"):
            found["lastScaleTime"] = last
        if metrics:
            found["currentMetrics"] = metrics
        return {**found, "conditions": self.conditions}

    def _stays(self, current: int, metrics: list[Json]) -> Outcome:
        return Outcome(self._ended(current, current, metrics), tuple(self.events), None, self.memory)

    def _scale(self, current: int, desired: int, reason: str, metrics: list[Json]) -> Outcome:
        message = f"the HPA controller was able to update the target scale to {desired}"
        self._set("AbleToScale", True, "SucceededRescale", message)
        self.events.append(Event("Normal", "SuccessfulRescale", f"New size: {desired}; reason: {reason}"))
        memory = scaled(self.memory, self.spec.get("behavior"), current, desired, self.view.now)
        status = self._ended(current, desired, metrics, rescaled=True)
        return Outcome(status, tuple(self.events), desired, memory)

    # -- metrics ----------------------------------------------------------------------------------------------------

    def _by_metrics(self, target: Json, current: int, bounds: Bounds) -> Outcome:
        if (error := self._selector_error(target)) is not None:
            return self._failed(current, [], error)
        found: list[_Metric] = []
        failures: list[_Failure] = []
        statuses: list[Json] = []
        for metric in self.spec["metrics"]:
            try:
                found.append(self._metric(metric, current))
                statuses.append(found[-1].status)
            except _Failure as failure:
                self._warn(failure.reason, str(failure))
                failures.append(failure)
                statuses.append({"type": ""})
        best = max(found, key=lambda one: one.replicas) if found else None
        if best is None or (failures and best.replicas < current):
            first = failures[0]
            self._set("ScalingActive", False, first.reason, _UNABLE.format(first))
            counts = f"{len(failures)} invalid out of {len(statuses)}"
            return self._failed(
                current, statuses, f"invalid metrics ({counts}), first error is: {first.whole}"
            )
        message = f"the HPA was able to successfully calculate a replica count from {best.name}"
        self._set("ScalingActive", True, "ValidMetricFound", message)
        reason = f"{best.name} above target" if best.replicas > current else "All metrics below target"
        behavior, view = self.spec.get("behavior"), self.view
        result = normalized(
            current, best.replicas, bounds, behavior, self.memory, now=view.now, timing=view.timing
        )
        self.memory = result.memory
        self._set("AbleToScale", True, *result.able)
        self._set("ScalingLimited", result.limited, *result.limit)
        if result.replicas == current:
            return self._stays(current, statuses)
        return self._scale(current, result.replicas, reason, statuses)

    def _failed(self, current: int, metrics: list[Json], error: str) -> Outcome:
        self._warn("FailedComputeMetricsReplicas", error)
        status = self._ended(current, self.status.get("desiredReplicas", 0), metrics)
        return Outcome(status, tuple(self.events), None, self.memory)

    def _selector_error(self, target: Json) -> str | None:
        """validateAndParseSelector."""
        selector = selector_text(selector_of(target) or {})
        if not selector:
            self._warn("SelectorRequired", "selector is required")
            message = "the HPA target's scale is missing a selector"
            self._set("ScalingActive", False, "InvalidSelector", message)
            return "selector is required"
        if len(self.view.sharing) > 1:
            namespace = self.view.autoscaler["metadata"].get("namespace", "default")
            names = " ".join(f"{namespace}/{name}" for name in self.view.sharing)
            error = f"pods by selector {selector} are controlled by multiple HPAs: [{names}]"
            self._warn("AmbiguousSelector", error)
            self._set("ScalingActive", False, "AmbiguousSelector", error)
            return error
        return None

    def _metric(self, metric: Json, current: int) -> _Metric:
        """computeReplicasForMetric. Raises _Failure."""
        match metric["type"]:
            case "Resource":
                return self._resource(metric["resource"], "", current)
            case "ContainerResource":
                source = metric["containerResource"]
                return self._resource(source, source["container"], current)
            case "Pods":
                name = metric["pods"]["metric"]["name"]
                error = f"unable to get metric {name}: {_NO_CUSTOM}"
                raise _Failure("FailedGetPodsMetric", error, f"failed to get pods metric value: {error}")
            case "Object":
                source = metric["object"]
                about, name = source["describedObject"], source["metric"]["name"]
                namespace = self.view.autoscaler["metadata"].get("namespace", "default")
                where = f"{about['kind']} {namespace}/{about['name']}"
                error = f"unable to get metric {name}: {_NO_CUSTOM} on {where}"
                raise _Failure("FailedGetObjectMetric", error, f"failed to get object metric value: {error}")
            case "External":
                raise self._external(metric["external"]["metric"])
        error = f'unknown metric source type "{metric["type"]}"'
        raise _Failure("InvalidMetricSourceType", error, error)

    def _external(self, metric: Json) -> _Failure:
        name, namespace = metric["name"], self.view.autoscaler["metadata"].get("namespace", "default")
        selector = selector_text(metric.get("selector") or {})
        error = (
            f"unable to get external metric {namespace}/{name}/{selector}: {_NO_EXTERNAL.format(name=name)}"
        )
        return _Failure(
            "FailedGetExternalMetric", error, f"failed to get {name} external metric value: {error}"
        )

    def _resource(self, source: Json, container: str, current: int) -> _Metric:
        """computeStatusForResourceMetricGeneric. Raises _Failure."""
        resource, target = source["name"], source["target"]
        by_value = target.get("averageValue") is not None
        what = "usage" if by_value else "utilization"
        try:
            found = self._proposal(resource, target, container, current)
        except MetricError as error:
            message = f"failed to get {resource} {what}: {error}"
            if container:
                whole = f"failed to get {container} container metric value: {message}"
                raise _Failure("FailedGetContainerResourceMetric", message, whole) from error
            whole = f"failed to get {resource} resource metric value: {message}"
            raise _Failure("FailedGetResourceMetric", message, whole) from error
        value: Json = {"averageValue": str(amount(resource, found.average))}
        if found.utilization is not None:
            value["averageUtilization"] = found.utilization
        middle = "container resource" if container else "resource"
        name = (
            f"{resource} resource" if by_value else f"{resource} {middle} utilization (percentage of request)"
        )
        if not container:
            status = {"type": "Resource", "resource": {"name": resource, "current": value}}
            return _Metric(found.replicas, name, status)
        about = {"name": resource, "container": container, "current": value}
        return _Metric(found.replicas, name, {"type": "ContainerResource", "containerResource": about})

    def _proposal(self, resource: str, target: Json, container: str, current: int) -> Proposal:
        view = self.view
        metrics = metrics_of(view.samples, resource, container)
        tolerances = self._tolerances()
        if target.get("averageValue") is not None:
            wanted = Quantity(target["averageValue"]).milli()
            return by_average(
                current, wanted, resource, view.pods, metrics,
                tolerances=tolerances, now=view.now, timing=view.timing,
            )  # fmt: skip
        if (percent := target.get("averageUtilization")) is None:
            raise MetricError(
                "invalid resource metric source: neither an average utilization target nor an average value (usage) "
                "target was set"
            )
        return by_utilization(
            current, percent, resource, view.pods, metrics,
            container=container, tolerances=tolerances, now=view.now, timing=view.timing,
        )  # fmt: skip

    def _tolerances(self) -> Tolerances:
        """tolerancesForHpa."""
        behavior, default = self.spec.get("behavior") or {}, self.view.timing.tolerance
        down, up = ((behavior.get(key) or {}).get("tolerance") for key in ("scaleDown", "scaleUp"))
        return Tolerances(*(default if one is None else float(Quantity(one).exact()) for one in (down, up)))


def amount(resource: str, milli: int) -> Quantity:
    """buildQuantity: memory has a binary suffix, everything else a decimal one."""
    form = Form.BINARY_SI if resource == "memory" else Form.DECIMAL_SI
    return Quantity.of(Fraction(milli, 1000), form)
