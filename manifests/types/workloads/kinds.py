"""The kinds of this room by apiVersion and kind, and a table of kinds whose classes are imported on first use.

Importing all of them takes longer than loading a directory of pods. Therefore a table of kinds has the places of their
classes, and a class is imported when the first document of its kind is read.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module

from manifests.types.meta import Object

Key = tuple[str, str]  # apiVersion and kind

#: module whose class has the name of the kind, relative to this package (".services": the room beside it); of several
#: API versions, the newest comes first
WORKLOADS: dict[Key, str] = {
    ("apps/v1", "ControllerRevision"): "revision",
    ("apps/v1", "DaemonSet"): "daemon_set",
    ("apps/v1", "Deployment"): "deployment",
    ("apps/v1", "ReplicaSet"): "replica_set",
    ("apps/v1", "StatefulSet"): "stateful_set",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "autoscaler",
    ("autoscaling/v1", "HorizontalPodAutoscaler"): "autoscaler_v1",
    ("batch/v1", "CronJob"): "job",
    ("batch/v1", "Job"): "job",
    ("networking.k8s.io/v1", "NetworkPolicy"): ".services.network_policy",
    ("policy/v1", "PodDisruptionBudget"): "disruption",
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): "rbac",
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): "rbac",
    ("rbac.authorization.k8s.io/v1", "Role"): "rbac",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "rbac",
    ("discovery.k8s.io/v1", "EndpointSlice"): ".services.endpoints",
    ("networking.k8s.io/v1", "Ingress"): ".services.ingress",
    ("networking.k8s.io/v1", "IngressClass"): ".services.ingress",
    ("v1", "Endpoints"): ".services.endpoints",
    ("v1", "LimitRange"): "limits",
    ("v1", "Namespace"): "namespace",
    ("v1", "ReplicationController"): "replica_set",
    ("v1", "ResourceQuota"): "limits",
    ("v1", "Service"): ".services.service",
    ("v1", "ServiceAccount"): "namespace",
}


class Kinds(Mapping[Key, type[Object]]):
    """Kinds by apiVersion and kind: classes that are imported already, and names of kinds of WORKLOADS.

    Iterating over keys imports nothing.
    """

    def __init__(self, classes: Mapping[Key, type[Object]], *workloads: str) -> None:
        """`workloads`: names of kinds in WORKLOADS. Raises KeyError if one is not in it."""
        self._classes: dict[Key, type[Object] | None] = dict(classes)
        for name in workloads:
            keys = [(version, kind) for version, kind in WORKLOADS if kind == name]
            if not keys:
                raise KeyError(name)
            self._classes.update(dict.fromkeys(keys))

    def __getitem__(self, key: Key) -> type[Object]:
        found = self._classes[key]
        if found is None:
            found = self._classes[key] = workload(key)
        return found

    def __iter__(self) -> Iterator[Key]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)


def workload(key: Key) -> type[Object]:
    """Import the class of a kind. Raises KeyError if it is not in WORKLOADS."""
    found: type[Object] = getattr(import_module(f".{WORKLOADS[key]}", __package__), key[1])
    return found
