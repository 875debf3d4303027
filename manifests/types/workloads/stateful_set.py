"""apps/v1: StatefulSet (Kubernetes 1.36), with Kubernetes' defaults."""

from typing import Literal

from pydantic import Field

from manifests.types.claim import PersistentVolumeClaim
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


class RollingUpdateStatefulSetStrategy(Model):
    max_unavailable: IntOrString | None = None
    partition: Int32 | None = None


class StatefulSetUpdateStrategy(Model):
    rolling_update: RollingUpdateStatefulSetStrategy | None = None
    type: Str | None = None


class StatefulSetPersistentVolumeClaimRetentionPolicy(Model):
    when_deleted: Str | None = None
    when_scaled: Str | None = None


class StatefulSetOrdinals(Model):
    start: Int32 | None = None


class StatefulSetSpec(Model):
    selector: LabelSelector
    template: PodTemplateSpec
    min_ready_seconds: Int32 | None = None
    ordinals: StatefulSetOrdinals | None = None
    persistent_volume_claim_retention_policy: StatefulSetPersistentVolumeClaimRetentionPolicy = Field(
        default_factory=StatefulSetPersistentVolumeClaimRetentionPolicy
    )
    pod_management_policy: Str | None = None
    replicas: Int32 | None = None
    revision_history_limit: Int32 | None = None
    service_name: Str | None = None
    update_strategy: StatefulSetUpdateStrategy = Field(default_factory=StatefulSetUpdateStrategy)
    volume_claim_templates: list[PersistentVolumeClaim] = Field(default_factory=empty_list)


class StatefulSetCondition(StatusCondition):
    pass


class StatefulSetStatus(Model):
    available_replicas: Int32 | None = None
    collision_count: Int32 | None = None
    conditions: list[StatefulSetCondition] = Field(default_factory=empty_list)
    current_replicas: Int32 | None = None
    current_revision: Str | None = None
    observed_generation: Int64 | None = None
    ready_replicas: Int32 | None = None
    replicas: Int32 | None = None
    update_revision: Str | None = None
    updated_replicas: Int32 | None = None


class StatefulSet(Object):
    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["StatefulSet"] = "StatefulSet"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: StatefulSetSpec
    status: StatefulSetStatus = Field(default_factory=StatefulSetStatus)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_StatefulSet (pkg/apis/apps/v1/defaults.go), without the feature gate
        MaxUnavailableStatefulSet, which is off in 1.36: no maxUnavailable means 1."""
        spec, strategy = self.spec, self.spec.update_strategy
        spec.pod_management_policy = spec.pod_management_policy or "OrderedReady"
        if not strategy.type:
            strategy.type = "RollingUpdate"
            strategy.rolling_update = strategy.rolling_update or RollingUpdateStatefulSetStrategy()
        rolling = strategy.rolling_update
        if strategy.type == "RollingUpdate" and rolling is not None and rolling.partition is None:
            rolling.partition = 0
        policy = spec.persistent_volume_claim_retention_policy
        policy.when_deleted = policy.when_deleted or "Retain"
        policy.when_scaled = policy.when_scaled or "Retain"
        if spec.ordinals is not None and spec.ordinals.start is None:
            spec.ordinals.start = 0
        if spec.replicas is None:
            spec.replicas = 1
        if spec.revision_history_limit is None:
            spec.revision_history_limit = 10
        default_template(spec.template.spec)
        for claim in spec.volume_claim_templates:
            claim.spec.volume_mode = claim.spec.volume_mode or "Filesystem"
