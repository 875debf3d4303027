"""Functions on whole objects (plain dictionaries in Kubernetes' JSON form)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from state.records import Record

SOURCE = "kubelite.io/source"  # annotation: the manifest file that defines the object
#: annotation of a workload: the replicas of its manifest, while an autoscaler has set another number
REPLICAS = "kubelite.io/manifest-replicas"
CLUSTER = "kubelite.io/cluster"  # annotation of a pod that a cluster has bound to this node: its API server
CREATED_BY = "kubelite.io/created-by"  # annotation of a manifest: the command that wrote it, run or create

ACCOUNT = "ServiceAccount"
DEFAULT_ACCOUNT = "default"  # the ServiceAccount that every namespace has
AUTHORITY = "kube-root-ca.crt"  # ConfigMap of every namespace: whom clients of the API trust
AUTHORITY_KEY = "ca.crt"  # its key
MOUNTED_SECONDS = 3607  # how long the token of a pod's own volume is asked for


class Automount(StrEnum):
    """Which pods get a token of the API when they are created."""

    NAMED = "Named"  # those that name a ServiceAccount, or ask for the token
    ALL = "All"  # all that do not refuse it, as on a cluster
    NONE = "None"


#: Kinds without namespaces.
CLUSTER_SCOPED = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "ClusterTrustBundle",
        "IngressClass",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "StorageClass",
    }
)

#: Kinds whose objects controllers turn into other objects.
WORKLOADS = frozenset(
    {
        "CronJob",
        "DaemonSet",
        "Deployment",
        "Job",
        "ReplicaSet",
        "ReplicationController",
        "StatefulSet",
    }
)

#: Kinds, beside workloads, whose status a controller keeps.
POLICIES = frozenset({"PodDisruptionBudget"})
CONTROLLED = WORKLOADS | POLICIES

NAMESPACE = "Namespace"
TERMINATING = "Terminating"  # phase of a namespace whose objects are deleted, and that gets no new ones
#: Namespaces that cannot be deleted (Kubernetes plugin/pkg/admission/namespace/lifecycle, immortalNamespaces).
IMMORTAL = frozenset({"default", "kube-public", "kube-system"})

#: Pod conditions that the node writes; all others are written by other programs.
NODE_CONDITIONS = frozenset(
    {
        "ContainersReady",
        "DisruptionTarget",
        "Initialized",
        "PodReadyToStartContainers",
        "PodResizeInProgress",
        "PodResizePending",
        "PodScheduled",
        "Ready",
    }
)

#: Phases of a pod that has ended.
TERMINAL_PHASES = ("Succeeded", "Failed")

#: Reasons for which the node terminates a pod permanently. Once one is recorded, the pod never runs again.
TERMINAL_REASONS = frozenset({"DeadlineExceeded", "Evicted"})


def is_terminal(status: Mapping[str, Any]) -> bool:
    """Whether a recorded status says that the pod has ended, or is being terminated permanently. In the second case the
    phase does not change until the last container has ended."""
    return status.get("phase") in TERMINAL_PHASES or status.get("reason") in TERMINAL_REASONS


def is_ending(namespace: Json) -> bool:
    """Whether a Namespace is being emptied. One that is only to be deleted waits for its documents to go."""
    return bool((namespace.get("status") or {}).get("phase") == TERMINATING)


def source_of(record: Record) -> str:
    """Return the manifest file that defines a stored object, or ""."""
    found = record.metadata.get("annotations", {}).get(SOURCE, "")
    return str(found)


def is_of_cluster(annotations: Mapping[str, str]) -> bool:
    """Whether these are the annotations of a pod that a cluster has bound to this node."""
    return CLUSTER in annotations


def belongs_to_cluster(doc: Json) -> bool:
    """Whether an object is a pod that a cluster has bound to this node. The cluster's own Services, controllers, quotas
    and policies count it. Those of the node do not, even if its namespace and labels match."""
    return is_of_cluster(doc["metadata"].get("annotations") or {})


def own_to_node(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return the annotations without the one that marks a cluster's pods. The node alone sets it: a manifest or a
    template that has it must not get what belongs to the cluster's pods, such as their Secrets."""
    return {key: value for key, value in annotations.items() if key != CLUSTER}


def object_name(kind: str, namespace: str, name: str) -> str:
    """Return an object's name as messages show it: `Pod default/web`, `PriorityClass high`."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def reference(doc: Json, *, field_path: str = "") -> Json:
    """Return the v1 ObjectReference of an object, as used in events."""
    metadata = doc["metadata"]
    ref = {
        "kind": doc.get("kind", ""),
        "apiVersion": doc.get("apiVersion", "v1"),
        "namespace": metadata.get("namespace", ""),
        "name": metadata["name"],
        "uid": metadata.get("uid", ""),
    }
    if field_path:
        ref["fieldPath"] = field_path
    return ref


def ended(pod: Json) -> Json | None:
    """Return a pod that was terminated as one that has ended: Failed, if it has not succeeded before (Kubernetes
    pkg/kubelet/status/status_manager.go, TerminatePod). None if it has ended already."""
    status = pod.get("status") or {}
    return (
        None if status.get("phase") in TERMINAL_PHASES else {**pod, "status": {**status, "phase": "Failed"}}
    )


def mark_deleting(doc: Json, *, now: float, grace: int | None = None) -> Json | None:
    """Return the pod marked for graceful deletion, or None if nothing changes. `now`: Unix seconds; `grace`: seconds
    (None: the pod's own). deletionTimestamp is the end of the grace period, as in Kubernetes. The grace period of a
    terminating pod can only be shortened."""
    metadata = doc["metadata"]
    if grace is None:
        wanted = doc.get("spec", {}).get("terminationGracePeriodSeconds")
        grace = 30 if wanted is None else int(wanted)
    current = metadata.get("deletionGracePeriodSeconds")
    if metadata.get("deletionTimestamp") and current is not None and int(current) <= grace:
        return None
    marked = {
        **metadata,
        "deletionTimestamp": rfc3339(now + grace),
        "deletionGracePeriodSeconds": grace,
    }
    return {**doc, "metadata": marked}


def template_of(workload: Json) -> Json:
    """Return a workload's template of pods."""
    spec = workload.get("spec") or {}
    spec = (spec.get("jobTemplate") or {}).get("spec") or spec
    found: Json = spec.get("template") or {}
    return found
