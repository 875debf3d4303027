"""Finds the rules of a workload's kind, and imports them on first use."""

from collections.abc import Callable, Iterator
from importlib import import_module

from manifests.problems import Problem
from manifests.types.meta import Object
from manifests.validation.meta import validate_meta

#: kind → module relative to this package, and the first part of its rules' names: `deployment_problems(obj)`, and
#: `deployment_update_problems(old, new)` if some fields must not change
RULES = {
    "ClusterRole": ("policies", "cluster_role"),
    "ClusterRoleBinding": ("policies", "cluster_role_binding"),
    "ControllerRevision": ("sets", "controller_revision"),
    "CronJob": ("job", "cron_job"),
    "DaemonSet": ("sets", "daemon_set"),
    "Deployment": ("deployment", "deployment"),
    "Endpoints": (".services.endpoints", "endpoints"),
    "EndpointSlice": (".services.endpoints", "endpoint_slice"),
    "HorizontalPodAutoscaler": ("autoscaler", "horizontal_pod_autoscaler"),
    "Ingress": (".services.ingress", "ingress"),
    "IngressClass": (".services.ingress", "ingress_class"),
    "Job": ("job", "job"),
    "LimitRange": ("limits", "limit_range"),
    "Namespace": ("policies", "namespace"),
    "NetworkPolicy": (".services.network_policy", "network_policy"),
    "PodDisruptionBudget": ("policies", "pod_disruption_budget"),
    "ReplicaSet": ("replica_set", "replica_set"),
    "ReplicationController": ("replica_set", "replication_controller"),
    "ResourceQuota": ("limits", "resource_quota"),
    "Role": ("policies", "role"),
    "RoleBinding": ("policies", "role_binding"),
    "Service": (".services.service", "service"),
    "ServiceAccount": ("policies", "service_account"),
    "StatefulSet": ("sets", "stateful_set"),
}

Rules = Callable[..., Iterator[Problem]]


def workload_problems(obj: Object) -> list[Problem]:
    """Return everything that is wrong with a defaulted object by the rules of its kind."""
    rules = _rules(obj.kind, "problems")
    return list(rules(obj) if rules is not None else validate_meta(obj.metadata, namespaced=obj.namespaced))


def workload_update_problems(old: Object, new: Object) -> list[Problem]:
    """Return what of `new` must not differ from `old`, an object of the same kind; both are defaulted."""
    rules = _rules(new.kind, "update_problems")
    return list(rules(old, new)) if rules is not None else []


def _rules(kind: str, what: str) -> Rules | None:
    if kind not in RULES:
        return None
    module, prefix = RULES[kind]
    found: Rules | None = getattr(import_module(f".{module}", __package__), f"{prefix}_{what}", None)
    return found
