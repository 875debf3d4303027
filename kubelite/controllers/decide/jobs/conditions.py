"""Conditions of a Job, with Kubernetes' reasons and messages.

Source: Kubernetes pkg/controller/job/job_controller.go. FailureTarget and SuccessCriteriaMet say that the outcome is
certain; Failed and Complete follow when no pod is left to count or to end.
"""

from __future__ import annotations

from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED = "FailureTarget", "SuccessCriteriaMet", "Suspended"
FAILED, COMPLETE = "Failed", "Complete"

BACK_OFF_LIMIT = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
TOO_MANY_FAILED_INDEXES = (
    "MaxFailedIndexesExceeded",
    "Job has exceeded the specified maximal number of failed indexes",
)
FAILED_INDEXES = ("FailedIndexes", "Job has failed indexes")
COMPLETIONS_REACHED = ("CompletionsReached", "Reached expected number of succeeded pods")


def condition(kind: str, status: str, reason: str, message: str, now: float) -> Json:
    at = rfc3339(now)
    return {
        "type": kind,
        "status": status,
        "lastProbeTime": at,
        "lastTransitionTime": at,
        "reason": reason,
        "message": message,
    }


def true_condition(status: Json, kind: str) -> Json | None:
    found = _find(status, kind)
    return found if found is not None and found["status"] == "True" else None


def ensure(status: dict[str, Any], new: Json) -> bool:
    """Set a condition in a status; return whether that changes it. A condition that never was True is not added as
    False (ensureJobConditionStatus)."""
    old = _find(status, new["type"])
    conditions = list(status.get("conditions") or ())
    if old is None:
        if new["status"] == "False":
            return False
        status["conditions"] = [*conditions, new]
        return True
    if all(old.get(key) == new[key] for key in ("status", "reason", "message")):
        return False
    status["conditions"] = [new if found is old else found for found in conditions]
    return True


def _find(status: Json, kind: str) -> Json | None:
    for found in status.get("conditions") or ():
        if found["type"] == kind:
            result: Json = found
            return result
    return None
