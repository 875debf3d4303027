"""autoscaling/v1: HorizontalPodAutoscaler, which knows only cpu. The node stores it as autoscaling/v2."""

from typing import Literal

from pydantic import Field

from manifests.types.meta import Int32, Int64, Model, Object, ObjectMeta, Time
from manifests.types.workloads import autoscaler as v2


class HorizontalPodAutoscalerSpecV1(Model):
    max_replicas: Int32
    scale_target_ref: v2.CrossVersionObjectReference
    min_replicas: Int32 | None = None
    target_cpu_utilization_percentage: Int32 | None = Field(None, alias="targetCPUUtilizationPercentage")


class HorizontalPodAutoscalerStatusV1(Model):
    current_cpu_utilization_percentage: Int32 | None = Field(None, alias="currentCPUUtilizationPercentage")
    current_replicas: Int32 | None = None
    desired_replicas: Int32 | None = None
    last_scale_time: Time | None = None
    observed_generation: Int64 | None = None


class HorizontalPodAutoscaler(Object):
    api_version: Literal["autoscaling/v1"] = "autoscaling/v1"
    kind: Literal["HorizontalPodAutoscaler"] = "HorizontalPodAutoscaler"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: HorizontalPodAutoscalerSpecV1
    status: HorizontalPodAutoscalerStatusV1 = Field(default_factory=HorizontalPodAutoscalerStatusV1)

    def as_stored(self) -> Object:
        """Convert it to autoscaling/v2, without the status (pkg/apis/autoscaling/v1/conversion.go).

        The annotations in which old versions of Kubernetes kept other metrics have no effect.
        """
        spec, percent = self.spec, self.spec.target_cpu_utilization_percentage
        return v2.HorizontalPodAutoscaler(
            metadata=self.metadata,
            spec=v2.HorizontalPodAutoscalerSpec(
                max_replicas=spec.max_replicas,
                min_replicas=spec.min_replicas,
                scale_target_ref=spec.scale_target_ref,
                metrics=[v2.cpu_utilization(percent)] if percent is not None else [],
            ),
        )
