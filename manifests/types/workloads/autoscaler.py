"""autoscaling/v2: HorizontalPodAutoscaler (Kubernetes 1.36), with Kubernetes' defaults."""

from typing import Literal

from pydantic import Field

from manifests.types.meta import (
    Int32,
    Int64,
    LabelSelector,
    Model,
    Object,
    ObjectMeta,
    Quantity,
    StatusCondition,
    Str,
    Time,
    empty_list,
)

DEFAULT_CPU_UTILIZATION = 80  # percent of the requests


class CrossVersionObjectReference(Model):
    kind: Str
    name: Str
    api_version: Str | None = None


class MetricTarget(Model):
    type: Str
    average_utilization: Int32 | None = None
    average_value: Quantity | None = None
    value: Quantity | None = None


class MetricIdentifier(Model):
    name: Str
    selector: LabelSelector | None = None


class ObjectMetricSource(Model):
    described_object: CrossVersionObjectReference
    metric: MetricIdentifier
    target: MetricTarget


class PodsMetricSource(Model):
    metric: MetricIdentifier
    target: MetricTarget


class ResourceMetricSource(Model):
    name: Str
    target: MetricTarget


class ContainerResourceMetricSource(Model):
    container: Str
    name: Str
    target: MetricTarget


class ExternalMetricSource(Model):
    metric: MetricIdentifier
    target: MetricTarget


class MetricSpec(Model):
    type: Str
    container_resource: ContainerResourceMetricSource | None = None
    external: ExternalMetricSource | None = None
    object: ObjectMetricSource | None = None
    pods: PodsMetricSource | None = None
    resource: ResourceMetricSource | None = None


class HPAScalingPolicy(Model):
    period_seconds: Int32
    type: Str
    value: Int32


class HPAScalingRules(Model):
    policies: list[HPAScalingPolicy] | None = None
    select_policy: Str | None = None
    stabilization_window_seconds: Int32 | None = None
    tolerance: Quantity | None = None


class HorizontalPodAutoscalerBehavior(Model):
    scale_down: HPAScalingRules | None = None
    scale_up: HPAScalingRules | None = None


class HorizontalPodAutoscalerSpec(Model):
    max_replicas: Int32
    scale_target_ref: CrossVersionObjectReference
    behavior: HorizontalPodAutoscalerBehavior | None = None
    metrics: list[MetricSpec] = Field(default_factory=empty_list)
    min_replicas: Int32 | None = None


class MetricValueStatus(Model):
    average_utilization: Int32 | None = None
    average_value: Quantity | None = None
    value: Quantity | None = None


class ObjectMetricStatus(Model):
    current: MetricValueStatus
    described_object: CrossVersionObjectReference
    metric: MetricIdentifier


class PodsMetricStatus(Model):
    current: MetricValueStatus
    metric: MetricIdentifier


class ResourceMetricStatus(Model):
    current: MetricValueStatus
    name: Str


class ContainerResourceMetricStatus(Model):
    container: Str
    current: MetricValueStatus
    name: Str


class ExternalMetricStatus(Model):
    current: MetricValueStatus
    metric: MetricIdentifier


class MetricStatus(Model):
    type: Str
    container_resource: ContainerResourceMetricStatus | None = None
    external: ExternalMetricStatus | None = None
    object: ObjectMetricStatus | None = None
    pods: PodsMetricStatus | None = None
    resource: ResourceMetricStatus | None = None


class HorizontalPodAutoscalerCondition(StatusCondition):
    pass


class HorizontalPodAutoscalerStatus(Model):
    conditions: list[HorizontalPodAutoscalerCondition] = Field(default_factory=empty_list)
    current_metrics: list[MetricStatus] = Field(default_factory=empty_list)
    current_replicas: Int32 | None = None
    desired_replicas: Int32 | None = None
    last_scale_time: Time | None = None
    observed_generation: Int64 | None = None


class HorizontalPodAutoscaler(Object):
    api_version: Literal["autoscaling/v2"] = "autoscaling/v2"
    kind: Literal["HorizontalPodAutoscaler"] = "HorizontalPodAutoscaler"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: HorizontalPodAutoscalerSpec
    status: HorizontalPodAutoscalerStatus = Field(default_factory=HorizontalPodAutoscalerStatus)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_HorizontalPodAutoscaler (pkg/apis/autoscaling/v2/defaults.go).

        The window of scaleDown has no default: without it, the node's own applies.
        """
        spec = self.spec
        if spec.min_replicas is None:
            spec.min_replicas = 1
        spec.metrics = spec.metrics or [cpu_utilization(DEFAULT_CPU_UTILIZATION)]
        if spec.behavior is not None:
            percent = HPAScalingPolicy(type="Percent", value=100, period_seconds=15)
            pods = HPAScalingPolicy(type="Pods", value=4, period_seconds=15)
            up = spec.behavior.scale_up = _rules(spec.behavior.scale_up, pods, percent)
            if up.stabilization_window_seconds is None:
                up.stabilization_window_seconds = 0
            spec.behavior.scale_down = _rules(spec.behavior.scale_down, percent)


def cpu_utilization(percent: int) -> MetricSpec:
    """Return the metric: so many percent of the cpu that the pods requested."""
    target = MetricTarget(type="Utilization", average_utilization=percent)
    return MetricSpec(type="Resource", resource=ResourceMetricSource(name="cpu", target=target))


def _rules(rules: HPAScalingRules | None, *policies: HPAScalingPolicy) -> HPAScalingRules:
    rules = rules or HPAScalingRules()
    rules.select_policy = "Max" if rules.select_policy is None else rules.select_policy
    if rules.policies is None:
        rules.policies = [policy.model_copy() for policy in policies]
    return rules
