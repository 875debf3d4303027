"""rbac.authorization.k8s.io/v1: roles and bindings (Kubernetes 1.36), with Kubernetes' defaults."""

from typing import ClassVar, Literal

from pydantic import Field

from manifests.types.meta import LabelSelector, Model, Object, ObjectMeta, Str, empty_list

GROUP = "rbac.authorization.k8s.io"


class PolicyRule(Model):
    api_groups: list[Str] = Field(default_factory=empty_list)
    non_resource_urls: list[Str] = Field(default_factory=empty_list, alias="nonResourceURLs")
    resource_names: list[Str] = Field(default_factory=empty_list)
    resources: list[Str] = Field(default_factory=empty_list)
    verbs: list[Str] = Field(default_factory=empty_list)


class Subject(Model):
    kind: Str
    name: Str
    api_group: Str | None = None
    namespace: Str | None = None

    def set_defaults(self) -> None:
        """Kubernetes: SetDefaults_Subject (pkg/apis/rbac/v1/defaults.go)."""
        if self.kind in ("User", "Group"):
            self.api_group = self.api_group or GROUP


class RoleRef(Model):
    kind: Str
    name: Str
    api_group: Str | None = None


class AggregationRule(Model):
    cluster_role_selectors: list[LabelSelector] = Field(default_factory=empty_list)


class Role(Object):
    api_version: Literal["rbac.authorization.k8s.io/v1"] = "rbac.authorization.k8s.io/v1"
    kind: Literal["Role"] = "Role"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    rules: list[PolicyRule] = Field(default_factory=empty_list)


class ClusterRole(Object):
    namespaced: ClassVar[bool] = False
    api_version: Literal["rbac.authorization.k8s.io/v1"] = "rbac.authorization.k8s.io/v1"
    kind: Literal["ClusterRole"] = "ClusterRole"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    aggregation_rule: AggregationRule | None = None
    rules: list[PolicyRule] = Field(default_factory=empty_list)


class RoleBinding(Object):
    api_version: Literal["rbac.authorization.k8s.io/v1"] = "rbac.authorization.k8s.io/v1"
    kind: Literal["RoleBinding"] = "RoleBinding"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    role_ref: RoleRef
    subjects: list[Subject] = Field(default_factory=empty_list)

    def set_defaults(self) -> None:
        _default_binding(self.role_ref, self.subjects)


class ClusterRoleBinding(Object):
    namespaced: ClassVar[bool] = False
    api_version: Literal["rbac.authorization.k8s.io/v1"] = "rbac.authorization.k8s.io/v1"
    kind: Literal["ClusterRoleBinding"] = "ClusterRoleBinding"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    role_ref: RoleRef
    subjects: list[Subject] = Field(default_factory=empty_list)

    def set_defaults(self) -> None:
        _default_binding(self.role_ref, self.subjects)


def _default_binding(role: RoleRef, subjects: list[Subject]) -> None:
    role.api_group = role.api_group or GROUP
    for subject in subjects:
        subject.set_defaults()
