"""The fields of a pod that an API server fills in and that have no meaning of their own on this node. They are added
when a pod is read, so that clients find what they find in a cluster; the store has the pod as its manifest gives it.

Sources: Kubernetes pkg/apis/core/v1/zz_generated.defaults.go and plugin/pkg/admission: priority, serviceaccount,
defaulttolerationseconds. Empty objects and nulls are those that the types of core/v1 marshal without omitempty.
"""

from __future__ import annotations

from kubelite.kube.json import Json
from manifests.types.priority import SYSTEM_CLASSES

TOLERATION_SECONDS = 300
TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_SPECS = ("initContainers", "containers", "ephemeralContainers")
_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


def with_defaults(doc: Json) -> Json:
    """Return a copy of a stored pod with these fields. What does not change is shared with `doc`."""
    spec, status = doc.get("spec") or {}, doc.get("status")
    found = {**doc, "spec": _spec(spec)}
    if status:
        found["status"] = _status(status)
        if not _is_scheduled(status):
            found["spec"].pop("nodeName", None)
    return found


def _spec(spec: Json) -> Json:
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    found = {
        "priority": SYSTEM_CLASSES.get(spec.get("priorityClassName", ""), 0),
        "preemptionPolicy": "PreemptLowerPriority",
        **spec,
        "serviceAccountName": account,
        "serviceAccount": account,
        "tolerations": _tolerations(spec.get("tolerations") or []),
    }
    for key in _SPECS:
        if key in spec:
            found[key] = [{"resources": {}, **container} for container in spec[key]]
    return found


def _tolerations(given: list[Json]) -> list[Json]:
    missing = [key for key in TOLERATED if not any(_tolerates(one, key) for one in given)]
    added = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}
        for key in missing
    ]
    return [*given, *added]


def _tolerates(toleration: Json, key: str) -> bool:
    return toleration.get("key") in (key, "", None) and toleration.get("effect") in ("NoExecute", "", None)


def _status(status: Json) -> Json:
    found = dict(status)
    if conditions := status.get("conditions"):
        found["conditions"] = [{"lastProbeTime": None, **condition} for condition in conditions]
    for key in _STATUSES:
        if key in status:
            found[key] = [{"lastState": {}, "state": {}, **container} for container in status[key]]
    return found


def _is_scheduled(status: Json) -> bool:
    """A scheduler sets nodeName when it has found a node for the pod."""
    return not any(
        one.get("type") == "PodScheduled" and one.get("status") == "False"
        for one in status.get("conditions") or ()
    )
