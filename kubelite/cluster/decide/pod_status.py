"""What the node tells the cluster of a pod's status, and how the end of a pod is told. Pure.

Sources: Kubernetes pkg/kubelet/status/status_manager.go (syncPod, mergePodStatus, TerminatePod), pkg/util/pod/pod.go
(PatchPodStatus); the merge keys in staging/src/k8s.io/api/core/v1/types.go (PodStatus).
"""

from __future__ import annotations

from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.objects import NODE_CONDITIONS, TERMINAL_PHASES
from kubelite.kube.times import rfc3339

_LOST = "ContainerStatusUnknown"
_LOST_MESSAGE = "The container could not be located when the pod was terminated"
_LISTS = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
#: Fields of a status that other components write.
_FOREIGN = frozenset(
    {"conditions", "nominatedNodeName", "resourceClaimStatuses", "extendedResourceClaimStatus"}
)


def status_patch(pod: Json, status: Json) -> Json | None:
    """Return the strategic merge patch that brings the status of the cluster's pod to `status`, the node's; None if it
    is there already. The uid keeps the patch from a later pod of the same name."""
    there, changes = pod.get("status") or {}, dict[str, Any]()
    if there.get("phase") in TERMINAL_PHASES:
        status = {**status, "phase": there["phase"]}  # never from terminated to running
    for key in {**there, **status}:
        if key not in _FOREIGN and there.get(key) != status.get(key):
            changes[key] = _replaced(key, status.get(key))
    if conditions := _conditions(there, status):
        changes["conditions"] = conditions
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": changes} if changes else None


def _replaced(key: str, value: Any) -> Any:
    """Return what replaces a field as a whole. The lists of addresses are merged by address, unless the patch says
    otherwise; a field that is gone is null."""
    if key in ("podIPs", "hostIPs") and isinstance(value, list):
        return [{"$patch": "replace"}, *value] if key == "podIPs" else value
    return value


def _conditions(there: Json, status: Json) -> list[Json]:
    """Return the node's conditions that differ, and a deletion of those that it has no more."""
    known = {one["type"]: one for one in there.get("conditions") or ()}
    own = {one["type"]: one for one in status.get("conditions") or () if one["type"] in NODE_CONDITIONS}
    changed = [one for kind, one in own.items() if _differs(one, known.get(kind))]
    # What the cluster wrote of the pod's disruption stays: the node did not.
    gone = [kind for kind in known if kind in NODE_CONDITIONS - {"DisruptionTarget"} and kind not in own]
    return [
        *({"lastProbeTime": None, **one} for one in changed),
        *({"$patch": "delete", "type": k} for k in gone),
    ]


def _differs(one: Json, other: Json | None) -> bool:
    if other is None:
        return True
    fields = ("status", "reason", "message", "observedGeneration", "lastTransitionTime")
    return any(one.get(field) != other.get(field) for field in fields)


def final(status: Json, now: float) -> Json:
    """Return the last status of a pod of which nothing runs any more: in a terminal phase, with every container
    terminated."""
    lists = {key: [_ended(one, now) for one in status[key]] for key in _LISTS if status.get(key)}
    phase = status.get("phase")
    if phase not in TERMINAL_PHASES:
        mains = lists.get("containerStatuses") or ()
        clean = bool(mains) and all(not one["state"]["terminated"].get("exitCode") for one in mains)
        phase = "Succeeded" if clean else "Failed"
    conditions = [_over(one, now) for one in status.get("conditions") or ()]
    return {**status, **lists, "phase": phase, **({"conditions": conditions} if conditions else {})}


def _ended(container: Json, now: float) -> Json:
    if "terminated" in (container.get("state") or {}):
        return {**container, "ready": False, "started": False}
    state = {"terminated": {"exitCode": 137, "reason": _LOST, "message": _LOST_MESSAGE, "startedAt": None,
                            "finishedAt": None}}  # fmt: skip
    return {**container, "ready": False, "started": False, "state": state}


def _over(condition: Json, now: float) -> Json:
    if condition["type"] not in ("Ready", "ContainersReady") or condition["status"] == "False":
        return condition
    return {**condition, "status": "False", "reason": "PodCompleted", "lastTransitionTime": rfc3339(now)}


def refusal(status: Json, reason: str, message: str, now: float) -> Json:
    """Return the status of a pod that the node does not run (Kubernetes pkg/kubelet/kubelet.go, rejectPod)."""
    start = status.get("startTime") or rfc3339(now)
    return {"phase": "Failed", "reason": reason, "message": message, "startTime": start,
            "qosClass": status.get("qosClass")}  # fmt: skip
