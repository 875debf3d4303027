"""apps/v1: Deployment (Kubernetes 1.36), with Kubernetes' defaults."""

from typing import Literal

from pydantic import Field

from manifests.types.defaults import default_template
from manifests.types.meta import (
    Bool,
    Int32,
    Int64,
    IntOrString,
    LabelSelector,
    Model,
    Object,
    ObjectMeta,
    StatusCondition,
    Str,
    Time,
    empty_list,
)
from manifests.types.pod import PodTemplateSpec


class RollingUpdateDeployment(Model):
    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None


class DeploymentStrategy(Model):
    rolling_update: RollingUpdateDeployment | None = None
    type: Str | None = None


class DeploymentSpec(Model):
    selector: LabelSelector
    template: PodTemplateSpec
    min_ready_seconds: Int32 | None = None
    paused: Bool | None = None
    progress_deadline_seconds: Int32 | None = None
    replicas: Int32 | None = None
    revision_history_limit: Int32 | None = None
    strategy: DeploymentStrategy = Field(default_factory=DeploymentStrategy)


class DeploymentCondition(StatusCondition):
    last_update_time: Time | None = None


class DeploymentStatus(Model):
    available_replicas: Int32 | None = None
    collision_count: Int32 | None = None
    conditions: list[DeploymentCondition] = Field(default_factory=empty_list)
    observed_generation: Int64 | None = None
    ready_replicas: Int32 | None = None
    replicas: Int32 | None = None
    terminating_replicas: Int32 | None = None
    unavailable_replicas: Int32 | None = None
    updated_replicas: Int32 | None = None


class Deployment(Object):
    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["Deployment"] = "Deployment"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: DeploymentSpec
    status: DeploymentStatus = Field(default_factory=DeploymentStatus)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_Deployment (pkg/apis/apps/v1/defaults.go)."""
        spec, strategy = self.spec, self.spec.strategy
        if spec.replicas is None:
            spec.replicas = 1
        strategy.type = strategy.type or "RollingUpdate"
        if strategy.type == "RollingUpdate":
            rolling = strategy.rolling_update = strategy.rolling_update or RollingUpdateDeployment()
            if rolling.max_unavailable is None:
                rolling.max_unavailable = "25%"
            if rolling.max_surge is None:
                rolling.max_surge = "25%"
        if spec.revision_history_limit is None:
            spec.revision_history_limit = 10
        if spec.progress_deadline_seconds is None:
            spec.progress_deadline_seconds = 600
        default_template(spec.template.spec)
