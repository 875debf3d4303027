"""apps/v1 ReplicaSet and core/v1 ReplicationController (Kubernetes 1.36), with Kubernetes' defaults."""

from typing import Literal

from pydantic import Field

from manifests.types.defaults import default_template
from manifests.types.meta import (
    Int32,
    Int64,
    LabelSelector,
    Model,
    Object,
    ObjectMeta,
    StatusCondition,
    StrMap,
    empty_dict,
    empty_list,
)
from manifests.types.pod import PodTemplateSpec


class ReplicaSetCondition(StatusCondition):
    pass


class ReplicaSetSpec(Model):
    selector: LabelSelector
    template: PodTemplateSpec
    min_ready_seconds: Int32 | None = None
    replicas: Int32 | None = None


class ReplicaSetStatus(Model):
    available_replicas: Int32 | None = None
    conditions: list[ReplicaSetCondition] = Field(default_factory=empty_list)
    fully_labeled_replicas: Int32 | None = None
    observed_generation: Int64 | None = None
    ready_replicas: Int32 | None = None
    replicas: Int32 | None = None
    terminating_replicas: Int32 | None = None


class ReplicaSet(Object):
    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["ReplicaSet"] = "ReplicaSet"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: ReplicaSetSpec
    status: ReplicaSetStatus = Field(default_factory=ReplicaSetStatus)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_ReplicaSet (pkg/apis/apps/v1/defaults.go)."""
        if self.spec.replicas is None:
            self.spec.replicas = 1
        default_template(self.spec.template.spec)


class ReplicationControllerCondition(StatusCondition):
    pass


class ReplicationControllerSpec(Model):
    template: PodTemplateSpec
    min_ready_seconds: Int32 | None = None
    replicas: Int32 | None = None
    selector: StrMap = Field(default_factory=empty_dict)


class ReplicationControllerStatus(Model):
    available_replicas: Int32 | None = None
    conditions: list[ReplicationControllerCondition] = Field(default_factory=empty_list)
    fully_labeled_replicas: Int32 | None = None
    observed_generation: Int64 | None = None
    ready_replicas: Int32 | None = None
    replicas: Int32 | None = None


class ReplicationController(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["ReplicationController"] = "ReplicationController"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: ReplicationControllerSpec
    status: ReplicationControllerStatus = Field(default_factory=ReplicationControllerStatus)

    def set_defaults(self) -> None:
        """Without a selector or labels of its own, the object has those of the template.

        Kubernetes: SetDefaults_ReplicationController (pkg/apis/core/v1/defaults.go).
        """
        labels = self.spec.template.metadata.labels
        self.spec.selector = self.spec.selector or dict(labels)
        self.metadata.labels = self.metadata.labels or dict(labels)
        if self.spec.replicas is None:
            self.spec.replicas = 1
        default_template(self.spec.template.spec)
