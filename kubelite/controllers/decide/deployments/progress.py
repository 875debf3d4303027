"""The status of a Deployment: counts, and the conditions Available, Progressing and ReplicaFailure.

Source: Kubernetes pkg/controller/deployment/progress.go, sync.go (calculateStatus), util/deployment_util.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubelite.controllers.decide.deployments.limits import Limits
from kubelite.controllers.decide.deployments.owned import OwnedSet, counted, planned
from kubelite.controllers.decide.deployments.revisions import UNLIMITED
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339, unix

AVAILABLE, PROGRESSING, REPLICA_FAILURE = "Available", "Progressing", "ReplicaFailure"

NEW_SET_AVAILABLE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED, RESUMED = "DeploymentPaused", "DeploymentResumed"


class Conditions:
    """The conditions while the Deployment is decided. `now`: Unix seconds."""

    def __init__(self, deployment: Json, now: float) -> None:
        self.all: list[Json] = list((deployment.get("status") or {}).get("conditions") or ())
        self._now = rfc3339(now)

    def get(self, type_: str) -> Json | None:
        return next((found for found in self.all if found["type"] == type_), None)

    def reason(self, type_: str) -> str:
        found = self.get(type_)
        return "" if found is None else found.get("reason", "")

    def set(self, type_: str, status: str, reason: str, message: str, *, renew: bool = False) -> None:
        """Set a condition (SetDeploymentCondition). One of the same status and reason stays as it is; `renew`: its
        lastUpdateTime is now, and its message may be another one."""
        old = self.get(type_)
        if old and not renew and (old["status"], old.get("reason")) == (status, reason):
            return
        changed = old is None or old["status"] != status
        self.put(
            {
                "type": type_,
                "status": status,
                "lastUpdateTime": self._now,
                "lastTransitionTime": self._now
                if changed or old is None
                else old.get("lastTransitionTime", self._now),
                "reason": reason,
                "message": message,
            }
        )

    def put(self, condition: Json) -> None:
        self.remove(condition["type"])
        self.all.append(condition)

    def remove(self, type_: str) -> None:
        self.all = [found for found in self.all if found["type"] != type_]


def deadline(deployment: Json) -> int | None:
    """Return progressDeadlineSeconds; None without a deadline (HasProgressDeadline)."""
    seconds: int | None = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds == UNLIMITED else seconds


def note_pause(deployment: Json, conditions: Conditions) -> None:
    """Note that the rollout is paused or resumed, so that the time of the pause does not count as a lack of progress
    (checkPausedConditions)."""
    if deadline(deployment) is None or (reason := conditions.reason(PROGRESSING)) == TIMED_OUT:
        return
    paused = bool(deployment["spec"].get("paused"))
    if paused and reason != PAUSED:
        conditions.set(PROGRESSING, "Unknown", PAUSED, "Deployment is paused")
    elif not paused and reason == PAUSED:
        conditions.set(PROGRESSING, "Unknown", RESUMED, "Deployment is resumed")


def counts(deployment: Json, sets: Sequence[OwnedSet], new: OwnedSet | None, collisions: int | None) -> Json:
    """Return the status without its conditions (calculateStatus). As in Kubernetes' JSON, a count of 0 is left out,
    except for `terminatingReplicas` and `collisionCount`."""
    available = counted(sets, "availableReplicas")
    found = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": counted(sets, "replicas"),
        "updatedReplicas": counted([new], "replicas"),
        "readyReplicas": counted(sets, "readyReplicas"),
        "availableReplicas": available,
        "unavailableReplicas": max(planned(sets) - available, 0),
    }
    status: Json = {key: count for key, count in found.items() if count}
    if (terminating := _terminating(sets)) is not None:
        status["terminatingReplicas"] = terminating
    if collisions is not None:
        status["collisionCount"] = collisions
    return status


def _terminating(sets: Iterable[OwnedSet]) -> int | None:
    """None if a ReplicaSet has a status without this count (GetTerminatingReplicaCountForReplicaSets)."""
    total = 0
    for found in sets:
        status = found.doc.get("status") or {}
        if "terminatingReplicas" not in status and status.get("observedGeneration"):
            return None
        total += status.get("terminatingReplicas", 0)
    return total


def note_availability(limits: Limits, status: Json, conditions: Conditions) -> None:
    if status.get("availableReplicas", 0) >= limits.least_available:
        message = "Deployment has minimum availability."
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", message)
    else:
        message = "Deployment does not have minimum availability."
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message)


def note_progress(
    deployment: Json, status: Json, new: OwnedSet | None, conditions: Conditions, now: float
) -> None:
    """Estimate the progress of a rollout (syncRolloutStatus)."""
    if (seconds := deadline(deployment)) is None:
        conditions.remove(PROGRESSING)
        return
    reason = conditions.reason(PROGRESSING)
    if reason == NEW_SET_AVAILABLE and status.get("replicas", 0) == status.get("updatedReplicas", 0):
        return  # there is no rollout: the last one completed, and all pods are those of one ReplicaSet
    kind, name = ("ReplicaSet", new.name) if new else ("Deployment", deployment["metadata"]["name"])
    who = f'{kind} "{name}"'
    if is_complete(deployment, status):
        conditions.set(PROGRESSING, "True", NEW_SET_AVAILABLE, f"{who} has successfully progressed.")
    elif has_progressed(deployment.get("status") or {}, status):
        conditions.set(PROGRESSING, "True", "ReplicaSetUpdated", f"{who} is progressing.", renew=True)
    elif _has_timed_out(conditions, seconds, now):
        conditions.set(PROGRESSING, "False", TIMED_OUT, f"{who} has timed out progressing.")


def is_complete(deployment: Json, status: Json) -> bool:
    """Whether all replicas are updated and available, and no old pod is left (DeploymentComplete)."""
    wanted = deployment["spec"].get("replicas", 1)
    keys = ("updatedReplicas", "replicas", "availableReplicas")
    return all(status.get(key, 0) == wanted for key in keys) and bool(
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    )


def has_progressed(old: Json, new: Json) -> bool:
    """Whether there are more updated, ready or available pods, or fewer old ones (DeploymentProgressing)."""
    more = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return any(new.get(key, 0) > old.get(key, 0) for key in more) or _old_pods(new) < _old_pods(old)


def _old_pods(status: Json) -> int:
    found: int = status.get("replicas", 0) - status.get("updatedReplicas", 0)
    return found


def _has_timed_out(conditions: Conditions, seconds: int, now: float) -> bool:
    """DeploymentTimedOut."""
    found = conditions.get(PROGRESSING)
    if found is None or found.get("reason") == NEW_SET_AVAILABLE:
        return False
    return found.get("reason") == TIMED_OUT or unix(found.get("lastUpdateTime")) + seconds < now


def note_failures(sets: Iterable[OwnedSet], new: OwnedSet | None, conditions: Conditions) -> None:
    """Take over the ReplicaFailure of the new ReplicaSet, or else of another one (getReplicaFailures)."""
    for found in ([new] if new else []) + [one for one in sets if one is not new]:
        for failure in (found.doc.get("status") or {}).get("conditions") or ():
            if failure["type"] != REPLICA_FAILURE:
                continue
            told = conditions.get(REPLICA_FAILURE)
            if told is None or told.get("message") != failure.get("message"):
                since = failure.get("lastTransitionTime")
                conditions.put({**failure, "lastUpdateTime": since})
            return
    conditions.remove(REPLICA_FAILURE)


def next_check(deployment: Json, status: Json, conditions: Conditions, now: float) -> float | None:
    """Return in how many seconds a rollout that makes no progress times out, None if none is under way
    (requeueStuckDeployment)."""
    seconds, found = deadline(deployment), conditions.get(PROGRESSING)
    if seconds is None or found is None or found.get("reason") in (TIMED_OUT, NEW_SET_AVAILABLE, PAUSED):
        return None
    if is_complete(deployment, status):
        return None
    return max(unix(found.get("lastUpdateTime")) + seconds - now, 0.0) + 1.0
