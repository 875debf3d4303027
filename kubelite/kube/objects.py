"""Small pure helpers on whole objects (plain dictionaries in Kubernetes' JSON form)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from state.records import Record

SOURCE = "kubelite.io/source"  # annotation: the manifest file an object comes from

#: Kinds whose objects live in no namespace.
CLUSTER_SCOPED = frozenset(
    {"ClusterTrustBundle", "Namespace", "Node", "PersistentVolume", "PriorityClass", "StorageClass"}
)

#: Conditions of a pod that the node writes; all others are somebody else's.
OF_THE_NODE = frozenset(
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

#: Reasons with which a pod is brought to its end from outside; once one is recorded nothing brings it back.
OVER = frozenset({"DeadlineExceeded", "Evicted"})


def is_over(status: Mapping[str, Any]) -> bool:
    """Whether a recorded status says that the pod has ended, or is on its way to: its phase says so only when nothing
    of it runs any more."""
    return status.get("phase") in ("Succeeded", "Failed") or status.get("reason") in OVER


def source_of(record: Record) -> str:
    """The manifest file a stored object comes from; "" when it comes from no file."""
    found = record.metadata.get("annotations", {}).get(SOURCE, "")
    return str(found)


def object_name(kind: str, namespace: str, name: str) -> str:
    """`Pod default/web`, `PriorityClass high`: how messages name an object."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def reference(doc: Json, *, field_path: str = "") -> Json:
    """The v1 ObjectReference of an object, as events carry it."""
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


def mark_deleting(doc: Json, *, now: float, grace: int | None = None) -> Json | None:
    """The pod with its graceful deletion begun: deletionTimestamp is when grace ends, as in Kubernetes. When one is
    under way already it can only be made shorter; None when nothing changes."""
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
