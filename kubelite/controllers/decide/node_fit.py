"""Whether the node suits the pods of a DaemonSet: nodeName, nodeSelector, required node affinity, taints.

Sources: Kubernetes pkg/controller/daemon/daemon_controller.go (NodeShouldRunDaemonPod), daemon/util/daemonset_util.go,
component-helpers/scheduling/corev1/nodeaffinity. Pure. Resources, ports and volumes do not matter here: the scheduler
lets the pod wait for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from kubelite.kube.json import Json

NO_SCHEDULE, NO_EXECUTE = "NoSchedule", "NoExecute"
_PREFIX = "node.kubernetes.io"


class Fit(NamedTuple):
    """`run`: a pod is created on the node. `stay`: a pod that is there may go on."""

    run: bool
    stay: bool


def _tolerates_all(key: str, effect: str) -> Json:
    return {"key": f"{_PREFIX}/{key}", "operator": "Exists", "effect": effect}


# AddOrUpdateDaemonPodTolerations
_TOLERATIONS: tuple[Json, ...] = (
    _tolerates_all("not-ready", NO_EXECUTE),
    _tolerates_all("unreachable", NO_EXECUTE),
    _tolerates_all("disk-pressure", NO_SCHEDULE),
    _tolerates_all("memory-pressure", NO_SCHEDULE),
    _tolerates_all("pid-pressure", NO_SCHEDULE),
    _tolerates_all("unschedulable", NO_SCHEDULE),
)
_HOST_NETWORK = _tolerates_all("network-unavailable", NO_SCHEDULE)


def with_tolerations(spec: Json) -> Json:
    """Return a pod's spec with the tolerations that every pod of a DaemonSet has."""
    found: list[Json] = list(spec.get("tolerations") or ())
    for wanted in (*_TOLERATIONS, *([_HOST_NETWORK] if spec.get("hostNetwork") else [])):
        same = [index for index, one in enumerate(found) if _is_same(one, wanted)]
        for index in same:
            found[index] = wanted
        if not same:
            found.append(wanted)
    return {**spec, "tolerations": found}


def bound_to(spec: Json, node: str) -> Json:
    """Return a pod's spec with required node affinity for one node alone (ReplaceDaemonSetPodNodeNameNodeAffinity)."""
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = spec.get("affinity") or {}
    by_node = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
    }
    return {**spec, "affinity": {**affinity, "nodeAffinity": by_node}}


def target_of(pod: Json) -> str:
    """Return the node for which a pod was made, "" if it was made for none (GetTargetNodeName)."""
    spec = pod.get("spec") or {}
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    for term in _required(spec) or ():
        for field in term.get("matchFields") or ():
            if field["key"] == "metadata.name" and field["operator"] == "In":
                return str(field["values"][0]) if len(field["values"]) == 1 else ""
    return ""


def fit(spec: Json, node: Json) -> Fit:
    """Whether pods with this spec, tolerations included, run on the node."""
    metadata = node.get("metadata") or {}
    name, labels = str(metadata.get("name", "")), metadata.get("labels") or {}
    if spec.get("nodeName") not in (None, "", name):
        return Fit(False, False)
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return Fit(False, False)
    terms = _required(spec)
    if terms is not None and not any(_matches(term, name, labels) for term in terms):
        return Fit(False, False)
    taints = (node.get("spec") or {}).get("taints") or ()
    tolerations = spec.get("tolerations") or ()
    if _tolerated(taints, tolerations, (NO_SCHEDULE, NO_EXECUTE)):
        return Fit(True, True)
    return Fit(False, _tolerated(taints, tolerations, (NO_EXECUTE,)))


def _required(spec: Json) -> Iterable[Json] | None:
    by_node = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = by_node.get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else required.get("nodeSelectorTerms") or ()


def _matches(term: Json, name: str, labels: Mapping[str, Any]) -> bool:
    """An empty term matches nothing."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_holds(one, labels) for one in expressions) and all(
        _holds(one, {"metadata.name": name}) for one in fields
    )


def _holds(requirement: Json, labels: Mapping[str, Any]) -> bool:
    key, values = requirement["key"], requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt" | "Lt" as operator:
            has, limit = _number(labels.get(key)), _number(values[0] if values else None)
            if has is None or limit is None:
                return False
            return has > limit if operator == "Gt" else has < limit
    return False


def _number(text: Any) -> int | None:
    digits = str(text).removeprefix("-")
    return int(str(text)) if digits.isascii() and digits.isdigit() else None


def _tolerated(taints: Iterable[Json], tolerations: Collection[Json], effects: Collection[str]) -> bool:
    return all(
        any(_tolerates(toleration, taint) for toleration in tolerations)
        for taint in taints
        if taint["effect"] in effects
    )


def _tolerates(toleration: Json, taint: Json) -> bool:
    """staging/src/k8s.io/api/core/v1/toleration.go ToleratesTaint: an empty effect matches every effect, an empty key
    with Exists every key."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    value, has = toleration.get("value") or "", taint.get("value") or ""
    match toleration.get("operator") or "Equal":
        case "Exists":
            return True
        case "Equal":
            return bool(toleration.get("key")) and value == has
        case "Gt" | "Lt" as operator:
            number, limit = _number(has), _number(value)
            if number is None or limit is None:
                return False
            return number > limit if operator == "Gt" else number < limit
    return False


def _is_same(one: Json, other: Json) -> bool:
    """MatchToleration: whether two tolerations differ at most in their tolerationSeconds."""
    keys = ("key", "effect", "value")
    same = all((one.get(key) or "") == (other.get(key) or "") for key in keys)
    return same and (one.get("operator") or "Equal") == (other.get("operator") or "Equal")
