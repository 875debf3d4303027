"""Namespaces, ServiceAccounts, LimitRanges, ResourceQuotas, PodDisruptionBudgets, roles and bindings.

Rows follow Kubernetes 1.36: pkg/apis/core/v1/defaults_test.go (TestSetDefaultNamespace, TestSetDefaultLimitRangeItem),
pkg/apis/core/validation/validation_test.go (TestValidateNamespace, TestValidateLimitRange, TestValidateResourceQuota),
pkg/apis/policy/validation/validation_test.go and pkg/apis/rbac/validation/validation_test.go.
"""

from __future__ import annotations

from typing import Any

import pytest

from manifests.validation.workloads.kinds import workload_update_problems
from tests.unit.manifests.workloads.kit import Doc, altered, defaulted, document, one, problems, read

GROUP = "rbac.authorization.k8s.io"

PSA = "pod-security.kubernetes.io/"


def limits(*items: Doc) -> Doc:
    return document("LimitRange", {"limits": list(items)})


def quota(**spec: Any) -> Doc:
    return document("ResourceQuota", spec)


def budget(**spec: Any) -> Doc:
    return document("PodDisruptionBudget", {"minAvailable": 1, **spec})


def test_a_namespace_has_its_name_as_a_label_and_is_active() -> None:
    done = defaulted(document("Namespace", None, **{"metadata.labels": {"a": "b"}}))
    assert done["metadata"] == {"name": "web", "labels": {"a": "b", "kubernetes.io/metadata.name": "web"}}
    assert done["status"] == {"phase": "Active"}


def test_namespaced_kinds_get_a_namespace() -> None:
    for kind, cluster in (
        ("ServiceAccount", False),
        ("Role", False),
        ("ClusterRole", True),
        ("Namespace", True),
    ):
        assert ("namespace" in defaulted(document(kind, None))["metadata"]) is not cluster


@pytest.mark.parametrize(
    ("given", "limit", "request_"),
    [
        ({"max": {"cpu": "1"}}, {"cpu": "1"}, {"cpu": "1"}),
        ({"max": {"cpu": "2"}, "default": {"cpu": "1"}}, {"cpu": "1"}, {"cpu": "1"}),
        ({"default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}}, {"cpu": "1"}, {"cpu": "100m"}),
        ({"min": {"cpu": "50m"}}, {}, {"cpu": "50m"}),
        (
            {"min": {"cpu": "50m"}, "max": {"memory": "1Gi"}},
            {"memory": "1Gi"},
            {"cpu": "50m", "memory": "1Gi"},
        ),
        ({"max": {"cpu": "0.0001"}}, {"cpu": "1m"}, {"cpu": "1m"}),
    ],
)
def test_limits_of_containers_have_defaults(given: Doc, limit: Doc, request_: Doc) -> None:
    (item,) = defaulted(limits({"type": "Container", **given}))["spec"]["limits"]
    assert (item.get("default", {}), item.get("defaultRequest", {})) == (limit, request_)


def test_limits_of_pods_have_no_defaults() -> None:
    (item,) = defaulted(limits({"type": "Pod", "max": {"cpu": "1"}}))["spec"]["limits"]
    assert item == {"type": "Pod", "max": {"cpu": "1"}}


L = "spec.limits[0]"


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        (limits({"type": "Pod"}, {"type": "Pod"}), 'spec.limits[1].type: Duplicate value: "Pod"'),
        (
            limits({"type": "Pod", "default": {"cpu": "1"}}),
            f"{L}.default: Forbidden: may not be specified when",
        ),
        (
            limits({"type": "Pod", "defaultRequest": {"cpu": "1"}}),
            f"{L}.defaultRequest: Forbidden: may not be",
        ),
        (
            limits({"type": "Pod", "max": {"cpu": "10m"}, "min": {"cpu": "100m"}}),
            f'{L}.min[cpu]: Invalid value: "100m": min value 100m is greater than max value 10m',
        ),
        (
            limits(
                {
                    "type": "Container",
                    "max": {"cpu": "1"},
                    "defaultRequest": {"cpu": "2"},
                    "default": {"cpu": "2"},
                }
            ),
            "",
        ),
        (
            limits({"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "800m"}}),
            f'{L}.defaultRequest[cpu]: Invalid value: "800m": default request value 800m is greater than default',
        ),
        (
            limits({"type": "Pod", "maxLimitRequestRatio": {"cpu": "800m"}}),
            f'{L}.maxLimitRequestRatio[cpu]: Invalid value: "800m": ratio 800m is less than 1',
        ),
        (
            limits(
                {
                    "type": "Pod",
                    "max": {"memory": "2Gi"},
                    "min": {"memory": "512Mi"},
                    "maxLimitRequestRatio": {"memory": "10"},
                }
            ),
            f'{L}.maxLimitRequestRatio[memory]: Invalid value: "10": ratio 10 is greater than max/min = 4.000000',
        ),
        (
            limits(
                {
                    "type": "Pod",
                    "max": {"cpu": "1e300"},
                    "min": {"cpu": "1m"},
                    "maxLimitRequestRatio": {"cpu": "1e320"},
                }
            ),
            f"{L}.maxLimitRequestRatio[cpu]: Invalid value: ",
        ),
        (
            limits({"type": "foo"}),
            f'{L}.type: Invalid value: "foo": must be a standard limit type or fully qual',
        ),
        (
            limits({"type": "PersistentVolumeClaim"}),
            f"{L}.limits: Required value: either minimum or maximum stor",
        ),
        (
            limits({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}, "min": {"storage": "10Gi"}}),
            f'{L}.min[storage]: Invalid value: "10Gi": min value 10Gi is greater than max value 1Gi',
        ),
        (
            limits({"type": "Pod", "max": {"foo": "1"}}),
            f'{L}.max[foo]: Invalid value: "foo": must be a standard',
        ),
        (
            limits({"type": "a.b/c", "max": {"foo": "1"}}),
            f'{L}.max[foo]: Invalid value: "foo": must be a standard',
        ),
        (
            limits({"type": "Container", "default": {"a.b/gpu": "2"}, "defaultRequest": {"a.b/gpu": "1"}}),
            f'{L}.defaultRequest[a.b/gpu]: Invalid value: "1": default value 2 must equal to defaultRequest value 1',
        ),
        (document("LimitRange", None), "spec: Required value"),
        (document("LimitRange", {}), "spec.limits: Required value"),
    ],
)
def test_rules_of_a_limit_range(doc: Doc, sentence: str) -> None:
    found = problems(doc)
    if sentence:
        one(found, sentence)
    else:  # outside of the range in two ways
        assert [text.rpartition(": ")[2] for text in found] == [
            "default request value 2 is greater than max value 1",
            "default value 2 is greater than max value 1",
        ]


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        (
            quota(hard={"cpu": "-1"}),
            'spec.hard[cpu]: Invalid value: "-1": must be greater than or equal to 0',
        ),
        (quota(hard={"pods": "500m"}), 'spec.hard[pods]: Invalid value: "500m": must be an integer'),
        (quota(hard={"a.b/gpu": "1.5"}), 'spec.hard[a.b/gpu]: Invalid value: "1500m": must be an integer'),
        (
            quota(hard={"foo": "1"}),
            'spec.hard[foo]: Invalid value: "foo": must be a standard resource for quota',
        ),
        (quota(hard={"a b": "1"}), 'spec.hard[a b]: Invalid value: "a b": name part must consist of'),
        (quota(hard={"pods": "1"}, scopes=["foo"]), 'spec.scopes: Invalid value: "foo": unsupported scope'),
        (
            quota(hard={"cpu": "1"}, scopes=["BestEffort"]),
            'spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource',
        ),
        (
            quota(hard={"pods": "1"}, scopes=["Terminating", "NotTerminating"]),
            'spec.scopes: Invalid value: ["Terminating","NotTerminating"]: conflicting scopes',
        ),
        (
            quota(
                scopeSelector={
                    "matchExpressions": [{"scopeName": "BestEffort", "operator": "In", "values": ["a"]}]
                }
            ),
            "spec.scopeSelector.matchExpressions[0].operator: Invalid value: \"In\": must be 'Exists' when scope is",
        ),
        (
            quota(scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}),
            "spec.scopeSelector.matchExpressions[0].values: Required value: must be at least one value when `opera",
        ),
        (
            quota(
                scopeSelector={
                    "matchExpressions": [
                        {"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]}
                    ]
                }
            ),
            'spec.scopeSelector.matchExpressions[0].values: Invalid value: ["a"]: must be no value when `operator`',
        ),
        (
            quota(scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass", "operator": "x"}]}),
            'spec.scopeSelector.matchExpressions[0].operator: Invalid value: "x": not a valid selector operator',
        ),
    ],
)
def test_rules_of_a_resource_quota(doc: Doc, sentence: str) -> None:
    one(problems(doc), sentence)


@pytest.mark.parametrize(
    "doc",
    [
        quota(),
        quota(
            hard={"requests.cpu": "1.5", "limits.memory": "1Gi", "pods": "4", "count/deployments.apps": "2"}
        ),
        quota(hard={"requests.a.b/gpu": "1", "requests.hugepages-2Mi": "4Mi", "services.nodeports": "0"}),
        quota(hard={"pods": "1", "cpu": "1"}, scopes=["Terminating", "NotBestEffort"]),
        quota(
            hard={"pods": "1"},
            scopeSelector={
                "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]
            },
        ),
        limits({"type": "Container", "max": {"cpu": "1", "hugepages-2Mi": "4Mi"}}, {"type": "a.b/c"}),
        budget(),
        budget(
            minAvailable=None, maxUnavailable="100%", selector={}, unhealthyPodEvictionPolicy="AlwaysAllow"
        ),
        document(
            "ServiceAccount", None, imagePullSecrets=[{"name": "x"}], automountServiceAccountToken=False
        ),
        document("Namespace", {"finalizers": ["kubernetes", "a.b/c"]}),
        document("Namespace", None, **{"metadata.labels": {f"{PSA}enforce": "baseline"}}),
        document(
            "Namespace", None, **{"metadata.labels": {f"{PSA}warn-version": "v1.99", f"{PSA}other": "x"}}
        ),
        document("Role", None, rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]),
        document("ClusterRole", None, rules=[{"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]),
        document("ClusterRole", None, **{"metadata.name": "system:node:A B", "rules": None}),
        document(
            "ClusterRole", None, aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
        ),
    ],
)
def test_valid_ones(doc: Doc) -> None:
    assert problems(doc) == []


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        (
            budget(maxUnavailable=1),
            'spec: Invalid value: {"maxUnavailable":1,"minAvailable":1}: minAvailable and max',
        ),
        (budget(minAvailable=-1), "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"),
        (budget(minAvailable="x"), 'spec.minAvailable: Invalid value: "x": a valid percent string must be'),
        (
            budget(minAvailable="101%"),
            'spec.minAvailable: Invalid value: "101%": must not be greater than 100%',
        ),
        (
            budget(selector={"matchLabels": {"a": "b c"}}),
            'spec.selector.matchLabels[a]: Invalid value: "b c": a valid label must be',
        ),
        (
            budget(unhealthyPodEvictionPolicy="x"),
            'spec.unhealthyPodEvictionPolicy: Unsupported value: "x": supported values: "AlwaysAllow", "IfHealthyB',
        ),
        (
            document("Namespace", None, **{"metadata.name": "a.b"}),
            'metadata.name: Invalid value: "a.b": a lowercase',
        ),
        (
            document("Namespace", None, **{"metadata.namespace": "a"}),
            "metadata.namespace: Forbidden: not allowed",
        ),
        (
            document("Namespace", None, **{"metadata.labels": {f"{PSA}enforce": "strict"}}),
            'metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": must be one of priv',
        ),
        (
            document("Namespace", None, **{"metadata.labels": {f"{PSA}warn": ""}}),
            'metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: "": must be one of',
        ),
        (
            document("Namespace", None, **{"metadata.labels": {f"{PSA}audit-version": "1.30"}}),
            'metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: "1.30": must be "latest"',
        ),
        (
            document("Namespace", None, **{"metadata.labels": {f"{PSA}enforce-version": "v1.030"}}),
            'metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: "v1.030": must be "latest"',
        ),
        (
            document("Namespace", {"finalizers": ["foo"]}),
            'spec.finalizers[0]: Invalid value: "foo": name is neither',
        ),
        (
            document("ServiceAccount", None, **{"metadata.name": "A"}),
            'metadata.name: Invalid value: "A": a lowercase',
        ),
        (
            document("Role", None, **{"metadata.name": "a/b"}),
            "metadata.name: Invalid value: \"a/b\": may not contain '/'",
        ),
        (
            document("Role", None, **{"metadata.name": ".."}),
            "metadata.name: Invalid value: \"..\": may not be '..'",
        ),
        (
            document("Role", None, rules=[{"apiGroups": [""], "resources": ["pods"]}]),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            document("Role", None, rules=[{"verbs": ["get"], "resources": ["pods"]}]),
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        ),
        (
            document("Role", None, rules=[{"verbs": ["get"], "apiGroups": [""]}]),
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ),
        (
            document("Role", None, rules=[{"verbs": ["get"], "nonResourceURLs": ["/x"]}]),
            'rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs',
        ),
        (
            document(
                "ClusterRole", None, rules=[{"verbs": ["get"], "apiGroups": [""], "nonResourceURLs": ["/x"]}]
            ),
            'rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non',
        ),
        (
            document("ClusterRole", None, aggregationRule={}),
            "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if",
        ),
    ],
)
def test_rules_of_the_others(doc: Doc, sentence: str) -> None:
    one(problems(doc), sentence)


def binding(kind: str = "RoleBinding", **changed: Any) -> Doc:
    role = {"kind": "ClusterRole", "name": "edit"}
    doc = {**document(kind, None), "roleRef": role, "subjects": [{"kind": "User", "name": "alice"}]}
    return altered(doc, changed)


def test_a_binding_names_the_group_of_roles_and_users() -> None:
    done = defaulted(binding())
    assert done["roleRef"]["apiGroup"] == done["subjects"][0]["apiGroup"] == GROUP
    account = {"kind": "ServiceAccount", "name": "web"}
    assert defaulted(binding(subjects=[account]))["subjects"] == [account]


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        (
            binding(**{"roleRef.apiGroup": "x"}),
            f'roleRef.apiGroup: Unsupported value: "x": supported values: "{GROUP}"',
        ),
        (
            binding(**{"roleRef.kind": "x"}),
            'roleRef.kind: Unsupported value: "x": supported values: "ClusterRole", "R',
        ),
        (
            binding("ClusterRoleBinding", **{"roleRef.kind": "Role"}),
            'roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"',
        ),
        (binding(**{"roleRef.name": ""}), "roleRef.name: Required value"),
        (binding(**{"roleRef.name": "a/b"}), "roleRef.name: Invalid value: \"a/b\": may not contain '/'"),
        (binding(roleRef=None), "roleRef: Required value"),
        (
            binding(subjects=[{"kind": "x", "name": "y"}]),
            'subjects[0].kind: Unsupported value: "x": supported values',
        ),
        (binding(subjects=[{"kind": "User", "name": ""}]), "subjects[0].name: Required value"),
        (
            binding(subjects=[{"kind": "Group", "name": "a", "apiGroup": "x"}]),
            'subjects[0].apiGroup: Unsupported value: "x"',
        ),
        (
            binding(subjects=[{"kind": "ServiceAccount", "name": "a", "apiGroup": "x"}]),
            'subjects[0].apiGroup: Unsupported value: "x": supported values: ""',
        ),
        (
            binding(subjects=[{"kind": "ServiceAccount", "name": "A"}]),
            'subjects[0].name: Invalid value: "A": a lowercase RFC 1123 subdomain',
        ),
        (
            binding("ClusterRoleBinding", subjects=[{"kind": "ServiceAccount", "name": "a"}]),
            "subjects[0].namespace: Required value",
        ),
    ],
)
def test_rules_of_a_binding(doc: Doc, sentence: str) -> None:
    one(problems(doc), sentence)


def changes(before: Doc, **changed: Any) -> list[str]:
    (old, _), (new, _) = read(before), read(altered(before, changed))
    assert old is not None and new is not None
    return [str(problem) for problem in workload_update_problems(old, new)]


@pytest.mark.parametrize("kind", ["RoleBinding", "ClusterRoleBinding"])
def test_the_role_of_a_binding_cannot_change(kind: str) -> None:
    one(changes(binding(kind), **{"roleRef.name": "view"}), 'roleRef: Invalid value: {"apiGroup":')
    assert changes(binding(kind), subjects=[]) == []


def test_the_scopes_of_a_quota_cannot_change() -> None:
    doc = quota(hard={"pods": "1"}, scopes=["Terminating", "BestEffort"])
    one(changes(doc, **{"spec.scopes": []}), "spec.scopes: Invalid value: []: field is immutable")
    assert changes(doc, **{"spec.scopes": ["BestEffort", "Terminating"], "spec.hard": {"pods": "2"}}) == []
