"""Pure: a pod's priority, which decides the order in which pods are scheduled, preempted and evicted.

It comes from the pod's PriorityClass: one of Kubernetes' built-in classes, or a class from the setting
`priority_classes` or from a manifest. The rules are those of admission (Kubernetes plugin/pkg/admission/priority) with
one difference: an edit of a class also changes the priority of existing pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubelite.kube.json import Json
from manifests.types.core import Pod
from manifests.types.priority import SYSTEM_CLASSES

KIND = "PriorityClass"
CRITICAL = 2_000_000_000  # SystemCriticalPriority: pods of this priority or higher are system-critical
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
    """The node's PriorityClasses by name, and the default class ("" if there is none: priority 0)."""

    ranks: Mapping[str, Rank]
    default: str = ""


def priority(pod: Pod) -> int:
    """The pod's priority: the one set at admission (see `admitted`), else that of its built-in class, else 0."""
    if pod.spec.priority is not None:
        return pod.spec.priority
    return SYSTEM_CLASSES.get(pod.spec.priority_class_name or "", 0)


def classes_of(docs: Iterable[Json], settings: Mapping[str, int]) -> Classes:
    """`docs`: PriorityClasses of manifests, which take precedence over those of the settings. Of several classes with
    globalDefault, the one with the lowest value counts."""
    found = list(docs)
    ranks = {name: Rank(value) for name, value in (SYSTEM_CLASSES | dict(settings)).items()}
    for doc in found:
        ranks[doc["metadata"]["name"]] = Rank(doc.get("value", 0), doc.get("preemptionPolicy"))
    defaults = [(doc.get("value", 0), doc["metadata"]["name"]) for doc in found if doc.get("globalDefault")]
    return Classes(ranks, min(defaults)[1] if defaults else "")


def admitted(doc: Json, classes: Classes) -> Json:
    """A pod with the priority of its class; a priority in the manifest takes precedence. Objects of other kinds and
    pods with an unknown class are returned unchanged."""
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
    """The spec of a pod whose class no longer exists. It keeps the priority that the class gave it."""
    name = new.get("priorityClassName")
    if not name or "priority" in new or old.get("priorityClassName") != name:
        return new
    given = {key: old[key] for key in ("priority", "preemptionPolicy") if key in old}
    return {**given, **new}


def apart(spec: Mapping[str, Any]) -> Json:
    """A pod's spec without the fields that a class sets."""
    given = ("priority", "priorityClassName", "preemptionPolicy")
    return {key: value for key, value in spec.items() if key not in given}


def always_there(settings: Mapping[str, int]) -> list[Json]:
    """The classes that come from no manifest, as objects."""
    found = []
    for name, value in (SYSTEM_CLASSES | dict(settings)).items():
        words = _DESCRIPTIONS.get(name, "From the node's setting priority_classes.")
        one: Json = {"metadata": {"name": name}, "value": value, "description": words}
        one |= {"preemptionPolicy": "PreemptLowerPriority"}
        found.append({"apiVersion": "scheduling.k8s.io/v1", "kind": KIND, **one})
    return found
