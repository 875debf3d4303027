"""PURE: what a pod's priority is: the rank in which pods get room, keep it, and give it back.

It comes from the pod's PriorityClass: one of Kubernetes' own, of the setting `priority_classes`, or of a manifest. As
admission has it (K plugin/pkg/admission/priority), but for one thing: here a pod follows an edit of its class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubelite.kube.json import Json
from manifests.types.core import Pod
from manifests.types.priority import SYSTEM_CLASSES

KIND = "PriorityClass"
_DESCRIPTIONS = {
    "system-node-critical": "Kubernetes' own: pods that must not be moved from their node.",
    "system-cluster-critical": "Kubernetes' own: pods that must run, here or on another node.",
}


@dataclass(frozen=True, slots=True)
class Rank:
    value: int
    policy: str | None = None  # preemptionPolicy


@dataclass(frozen=True, slots=True)
class Classes:
    """The PriorityClasses of the node, by name, and the one of pods that name none ("" where they have 0)."""

    ranks: Mapping[str, Rank]
    default: str = ""


def priority(pod: Pod) -> int:
    """As its class has it (`admitted`), or by one of the classes that are always there."""
    if pod.spec.priority is not None:
        return pod.spec.priority
    return SYSTEM_CLASSES.get(pod.spec.priority_class_name or "", 0)


def classes_of(docs: Iterable[Json], settings: Mapping[str, int]) -> Classes:
    """`docs`: PriorityClasses of manifests, which win over the settings'. Of several with globalDefault the lowest
    counts."""
    found = list(docs)
    ranks = {name: Rank(value) for name, value in (SYSTEM_CLASSES | dict(settings)).items()}
    for doc in found:
        ranks[doc["metadata"]["name"]] = Rank(doc.get("value", 0), doc.get("preemptionPolicy"))
    defaults = [(doc.get("value", 0), doc["metadata"]["name"]) for doc in found if doc.get("globalDefault")]
    return Classes(ranks, min(defaults)[1] if defaults else "")


def admitted(doc: Json, classes: Classes) -> Json:
    """A pod with what its class says of it; a number of its own wins. Any other kind, and a pod whose class nobody has
    said, as it is."""
    if doc["kind"] != "Pod":
        return doc
    spec = doc.get("spec") or {}
    name = spec.get("priorityClassName") or ("" if "priority" in spec else classes.default)
    rank = classes.ranks.get(name)
    if rank is None:
        return doc
    given: Json = {"priorityClassName": name, "priority": rank.value}
    if rank.policy is not None:
        given["preemptionPolicy"] = rank.policy
    return {**doc, "spec": {**given, **spec}}


def rank_kept(old: Mapping[str, Any], new: Json) -> Json:
    """The spec of a pod whose class is gone: it keeps what that gave it."""
    name = new.get("priorityClassName")
    if not name or "priority" in new or old.get("priorityClassName") != name:
        return new
    given = {key: old[key] for key in ("priority", "preemptionPolicy") if key in old}
    return {**given, **new}


def apart(spec: Mapping[str, Any]) -> Json:
    """A pod's spec without what a class gives it."""
    given = ("priority", "priorityClassName", "preemptionPolicy")
    return {key: value for key, value in spec.items() if key not in given}


def always_there(settings: Mapping[str, int]) -> list[Json]:
    """The classes that are in no manifest, as objects."""
    found = []
    for name, value in (SYSTEM_CLASSES | dict(settings)).items():
        words = _DESCRIPTIONS.get(name, "Of the node's setting priority_classes.")
        one: Json = {"metadata": {"name": name}, "value": value, "description": words}
        one |= {"preemptionPolicy": "PreemptLowerPriority"}
        found.append({"apiVersion": "scheduling.k8s.io/v1", "kind": KIND, **one})
    return found
