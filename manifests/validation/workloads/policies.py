"""Rules of Namespaces, ServiceAccounts (Kubernetes pkg/apis/core/validation), PodDisruptionBudgets
(pkg/apis/policy/validation), roles and bindings (pkg/apis/rbac/validation)."""

import re
from collections.abc import Iterator, Mapping

from manifests.names import dns_label, dns_subdomain, path_segment, qualified_name
from manifests.problems import Path, Problem, invalid, not_supported, required
from manifests.types.workloads.disruption import PodDisruptionBudget
from manifests.types.workloads.namespace import Namespace, ServiceAccount
from manifests.types.workloads.rbac import (
    GROUP,
    ClusterRole,
    ClusterRoleBinding,
    PolicyRule,
    Role,
    RoleBinding,
    Subject,
)
from manifests.validation.meta import validate_meta
from manifests.validation.pod import validate_selector
from manifests.validation.rules import formatted
from manifests.validation.workloads.template import int_or_percent

EVICTION_POLICIES = ("AlwaysAllow", "IfHealthyBudget")
POD_SECURITY_LEVELS = ("privileged", "baseline", "restricted")
_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def namespace_problems(found: Namespace) -> Iterator[Problem]:
    yield from validate_meta(found.metadata, namespaced=False, name=dns_label)
    yield from _pod_security_problems(found.metadata.labels)
    for index, name in enumerate(found.spec.finalizers):
        here: Path = ("spec", "finalizers", index)
        yield from formatted(here, name, qualified_name)
        if "/" not in name and name not in _FINALIZERS:
            sentence = "name is neither a standard finalizer name nor is it fully qualified"
            yield invalid(here, name, sentence)


def _pod_security_problems(labels: Mapping[str, str]) -> Iterator[Problem]:
    """Rules of Pod Security admission: PolicyToEvaluate, ParseLevel and ParseVersion (pod-security-admission,
    api/helpers.go), which refuse a new Namespace and a change of these labels (ValidateNamespace in
    admission/admission.go)."""
    for mode in ("enforce", "audit", "warn"):
        key = f"pod-security.kubernetes.io/{mode}"
        if key in labels and labels[key] not in POD_SECURITY_LEVELS:
            words = f"must be one of {', '.join(POD_SECURITY_LEVELS)}"
            yield invalid(("metadata", "labels", key), labels[key], words)
        key = f"{key}-version"
        if key in labels and not re.fullmatch(r"latest|v1\.(0|[1-9][0-9]*)", labels[key]):
            yield invalid(("metadata", "labels", key), labels[key], 'must be "latest" or "v1.x"')


def service_account_problems(found: ServiceAccount) -> Iterator[Problem]:
    yield from validate_meta(found.metadata)


def pod_disruption_budget_problems(found: PodDisruptionBudget) -> Iterator[Problem]:
    spec, path = found.spec, ("spec",)
    yield from validate_meta(found.metadata)
    if spec.min_available is not None and spec.max_unavailable is not None:
        yield invalid(path, spec.to_json(), "minAvailable and maxUnavailable cannot be both set")
    yield from int_or_percent(spec.min_available, (*path, "minAvailable"), at_most_all=True)
    yield from int_or_percent(spec.max_unavailable, (*path, "maxUnavailable"), at_most_all=True)
    if spec.selector is not None:
        yield from validate_selector(spec.selector, (*path, "selector"))
    policy = spec.unhealthy_pod_eviction_policy
    if policy is not None and policy not in EVICTION_POLICIES:
        yield not_supported((*path, "unhealthyPodEvictionPolicy"), policy, EVICTION_POLICIES)


def role_problems(role: Role) -> Iterator[Problem]:
    yield from validate_meta(role.metadata, name=path_segment)
    for index, rule in enumerate(role.rules):
        yield from _rule(rule, ("rules", index), namespaced=True)


def cluster_role_problems(role: ClusterRole) -> Iterator[Problem]:
    yield from validate_meta(role.metadata, namespaced=False, name=path_segment)
    for index, rule in enumerate(role.rules):
        yield from _rule(rule, ("rules", index), namespaced=False)
    if role.aggregation_rule is None:
        return
    here: Path = ("aggregationRule", "clusterRoleSelectors")
    selectors = role.aggregation_rule.cluster_role_selectors
    if not selectors:
        sentence = "at least one clusterRoleSelector required if aggregationRule is non-nil"
        yield required(here, sentence)
    for index, selector in enumerate(selectors):
        yield from validate_selector(selector, (*here, index))


def _rule(rule: PolicyRule, path: Path, *, namespaced: bool) -> Iterator[Problem]:
    if not rule.verbs:
        yield required((*path, "verbs"), "verbs must contain at least one value")
    urls, here = rule.non_resource_urls, (*path, "nonResourceURLs")
    if urls:
        if namespaced:
            yield invalid(here, urls, "namespaced rules cannot apply to non-resource URLs")
        if rule.api_groups or rule.resources or rule.resource_names:
            sentence = "rules cannot apply to both regular resources and non-resource URLs"
            yield invalid(here, urls, sentence)
        return
    if not rule.api_groups:
        yield required((*path, "apiGroups"), "resource rules must supply at least one api group")
    if not rule.resources:
        yield required((*path, "resources"), "resource rules must supply at least one resource")


def role_binding_problems(binding: RoleBinding) -> Iterator[Problem]:
    yield from validate_meta(binding.metadata, name=path_segment)
    yield from _binding(binding, ("Role", "ClusterRole"))


def cluster_role_binding_problems(binding: ClusterRoleBinding) -> Iterator[Problem]:
    yield from validate_meta(binding.metadata, namespaced=False, name=path_segment)
    yield from _binding(binding, ("ClusterRole",))


def _binding(binding: RoleBinding | ClusterRoleBinding, kinds: tuple[str, ...]) -> Iterator[Problem]:
    role = binding.role_ref
    if role.api_group != GROUP:
        yield not_supported(("roleRef", "apiGroup"), role.api_group or "", (GROUP,))
    if role.kind not in kinds:
        yield not_supported(("roleRef", "kind"), role.kind, kinds)
    if not role.name:
        yield required(("roleRef", "name"))
    else:
        yield from formatted(("roleRef", "name"), role.name, path_segment)
    for index, subject in enumerate(binding.subjects):
        yield from _subject(subject, ("subjects", index), namespaced=binding.namespaced)


def _subject(subject: Subject, path: Path, *, namespaced: bool) -> Iterator[Problem]:
    if not subject.name:
        yield required((*path, "name"))
    group = subject.api_group or ""
    match subject.kind:
        case "ServiceAccount":
            if subject.name:
                yield from formatted((*path, "name"), subject.name, dns_subdomain)
            if group:
                yield not_supported((*path, "apiGroup"), group, ("",))
            if not namespaced and not subject.namespace:
                yield required((*path, "namespace"))
        case "User" | "Group":
            if group != GROUP:
                yield not_supported((*path, "apiGroup"), group, (GROUP,))
        case other:
            yield not_supported((*path, "kind"), other, ("ServiceAccount", "User", "Group"))


def role_binding_update_problems(old: RoleBinding, new: RoleBinding) -> Iterator[Problem]:
    if old.role_ref != new.role_ref:
        yield invalid(("roleRef",), new.role_ref.to_json(), "cannot change roleRef")


def cluster_role_binding_update_problems(
    old: ClusterRoleBinding, new: ClusterRoleBinding
) -> Iterator[Problem]:
    if old.role_ref != new.role_ref:
        yield invalid(("roleRef",), new.role_ref.to_json(), "cannot change roleRef")
