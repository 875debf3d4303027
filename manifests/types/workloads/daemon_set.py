"""apps/v1: DaemonSet (Kubernetes 1.36), with Kubernetes' defaults."""

from typing import Literal

from pydantic import Field

from manifests.types.defaults import default_template
from manifests.types.meta import (
    Int32,
    Int64,
    IntOrString,
    LabelSelector,
    Model,
    Object,
    ObjectMeta,
    StatusCondition,
    Str,
    empty_list,
)
from manifests.types.pod import PodTemplateSpec


class RollingUpdateDaemonSet(Model):
    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None


class DaemonSetUpdateStrategy(Model):
    rolling_update: RollingUpdateDaemonSet | None = None
    type: Str | None = None


class DaemonSetSpec(Model):
    selector: LabelSelector
    template: PodTemplateSpec
    min_ready_seconds: Int32 | None = None
    revision_history_limit: Int32 | None = None
    update_strategy: DaemonSetUpdateStrategy = Field(default_factory=DaemonSetUpdateStrategy)


class DaemonSetCondition(StatusCondition):
    pass


class DaemonSetStatus(Model):
    collision_count: Int32 | None = None
    conditions: list[DaemonSetCondition] = Field(default_factory=empty_list)
    current_number_scheduled: Int32 | None = None
    desired_number_scheduled: Int32 | None = None
    number_available: Int32 | None = None
    number_misscheduled: Int32 | None = None
    number_ready: Int32 | None = None
    number_unavailable: Int32 | None = None
    observed_generation: Int64 | None = None
    updated_number_scheduled: Int32 | None = None


class DaemonSet(Object):
    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["DaemonSet"] = "DaemonSet"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: DaemonSetSpec
    status: DaemonSetStatus = Field(default_factory=DaemonSetStatus)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_DaemonSet (pkg/apis/apps/v1/defaults.go)."""
        spec, strategy = self.spec, self.spec.update_strategy
        strategy.type = strategy.type or "RollingUpdate"
        if strategy.type == "RollingUpdate":
            rolling = strategy.rolling_update = strategy.rolling_update or RollingUpdateDaemonSet()
            if rolling.max_unavailable is None:
                rolling.max_unavailable = 1
            if rolling.max_surge is None:
                rolling.max_surge = 0
        if spec.revision_history_limit is None:
            spec.revision_history_limit = 10
        default_template(spec.template.spec)
