"""What is left to do in a namespace that is terminated. Pure.

Source: Kubernetes pkg/controller/namespace/deletion/namespaced_resources_deleter.go (deleteAllContent, with
OrderedNamespaceDeletion: pods are deleted before everything else) and status_condition_utils.go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubelite.kube.json import Json
from kubelite.kube.objects import TERMINATING
from kubelite.kube.times import rfc3339
from kubelite.policies.resource_quota import PLURALS

#: The conditions of a namespace that is terminated, with reason and message while nothing is left to say.
_CONDITIONS = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": (
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
}


@dataclass(frozen=True, slots=True)
class Step:
    """`delete`: uids of the objects whose deletion begins; `gone`: nothing is left, and the namespace goes, too."""

    delete: Sequence[str]
    status: Json
    gone: bool = False


def decide(namespace: Json, objects: Mapping[str, Sequence[Json]], now: float) -> Step:
    """`objects`: those of the namespace by kind, without events; `now`: Unix seconds."""
    left = {kind: docs for kind, docs in objects.items() if docs}
    first = {"Pod": left["Pod"]} if "Pod" in left else left
    due = [
        str(doc["metadata"]["uid"])
        for docs in first.values()
        for doc in docs
        if not doc["metadata"].get("deletionTimestamp")
    ]
    return Step(due, _status(namespace, left, now), not left)


def _status(namespace: Json, left: Mapping[str, Sequence[Json]], now: float) -> Json:
    said = {type_: ("False", *words) for type_, words in _CONDITIONS.items()}
    if left:
        counts = sorted(
            f"{_resource(kind)} has {len(docs)} resource instances" for kind, docs in left.items()
        )
        message = f"Some resources are remaining: {', '.join(counts)}"
        said["NamespaceContentRemaining"] = ("True", "SomeResourcesRemain", message)
    finalizers = Counter(
        one for docs in left.values() for doc in docs for one in doc["metadata"].get("finalizers") or ()
    )
    if finalizers:
        counts = sorted(f"{name} in {count} resource instances" for name, count in finalizers.items())
        message = f"Some content in the namespace has finalizers remaining: {', '.join(counts)}"
        said["NamespaceFinalizersRemaining"] = ("True", "SomeFinalizersRemain", message)
    before = {one["type"]: one for one in (namespace.get("status") or {}).get("conditions") or ()}
    conditions = []
    for type_, (status, reason, message) in said.items():
        known = before.get(type_)
        since = known["lastTransitionTime"] if known and known["status"] == status else rfc3339(now)
        conditions.append(
            {
                "type": type_,
                "status": status,
                "lastTransitionTime": since,
                "reason": reason,
                "message": message,
            }
        )
    return {"phase": TERMINATING, "conditions": conditions}


def _resource(kind: str) -> str:
    """Return `pods.` or `deployments.apps`: Kubernetes writes the dot of the core group, too."""
    plural = PLURALS[kind]
    return plural if "." in plural else f"{plural}."
