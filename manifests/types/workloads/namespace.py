"""core/v1: Namespace and ServiceAccount (Kubernetes 1.36), with Kubernetes' defaults."""

from typing import ClassVar, Literal

from pydantic import Field

from manifests.types.meta import (
    Bool,
    LocalObjectReference,
    Model,
    Object,
    ObjectMeta,
    ObjectReference,
    StatusCondition,
    Str,
    empty_list,
)

NAME_LABEL = "kubernetes.io/metadata.name"


class NamespaceSpec(Model):
    finalizers: list[Str] = Field(default_factory=empty_list)


class NamespaceCondition(StatusCondition):
    pass


class NamespaceStatus(Model):
    conditions: list[NamespaceCondition] = Field(default_factory=empty_list)
    phase: Str | None = None


class Namespace(Object):
    namespaced: ClassVar[bool] = False
    api_version: Literal["v1"] = "v1"
    kind: Literal["Namespace"] = "Namespace"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: NamespaceSpec = Field(default_factory=NamespaceSpec)
    status: NamespaceStatus = Field(default_factory=NamespaceStatus)

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_Namespace, which sets a label that selectors of namespaces use, and
        SetDefaults_NamespaceStatus (pkg/apis/core/v1/defaults.go)."""
        if self.metadata.name:
            self.metadata.labels = {**self.metadata.labels, NAME_LABEL: self.metadata.name}
        self.status.phase = self.status.phase or "Active"


class ServiceAccount(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["ServiceAccount"] = "ServiceAccount"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    automount_service_account_token: Bool | None = None
    image_pull_secrets: list[LocalObjectReference] = Field(default_factory=empty_list)
    secrets: list[ObjectReference] = Field(default_factory=empty_list)
