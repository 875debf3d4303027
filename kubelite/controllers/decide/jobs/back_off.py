"""How long a Job waits before it replaces a failed pod: 10 seconds after the first failure, doubled with each further
one, 10 minutes at most.

Source: Kubernetes pkg/controller/job/backoff_utils.go. Kubernetes' controller remembers failures in memory and forgets
them when it restarts. Here they are counted from the pods that exist: a restart forgets nothing, but a pod that is
deleted before it failed causes no wait once it has been counted.
"""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.controllers.decide.jobs.indexes import all_failures_of
from kubelite.kube.json import Json
from kubelite.kube.times import parse_time, unix

INITIAL, MAXIMUM = 10.0, 600.0  # seconds


def remaining(succeeded: Iterable[Json], failed: Iterable[Json], now: float) -> float:
    """Return the seconds until pods may be created. Only failures after the last success count (newBackoffRecord)."""
    last_success = max((finished_at(pod) for pod in succeeded), default=float("-inf"))
    times = [at for at in map(finished_at, failed) if at > last_success]
    return _left(len(times), max(times, default=0.0), now)


def remaining_of_index(last_failed: Json | None, now: float) -> float:
    """Return the seconds until the next pod of an index may be created; `last_failed`: the index' newest failed pod
    (getRemainingTimePerIndex)."""
    if last_failed is None:
        return 0.0
    return _left(all_failures_of(last_failed) + 1, finished_at(last_failed), now)


def finished_at(pod: Json) -> float:
    """Return when a pod ended, in Unix seconds: when its last container did, or else when it stopped being ready, when
    it was deleted, when it was created (getFinishedTime)."""
    metadata = pod["metadata"]
    found = _containers_end(pod)
    found = _not_ready_since(pod) if found is None else found
    if found is None and (deleted := parse_time(metadata.get("deletionTimestamp"))) is not None:
        found = deleted - float(metadata.get("deletionGracePeriodSeconds") or 0)
    return unix(metadata.get("creationTimestamp")) if found is None else found


def _left(failures: int, last: float, now: float) -> float:
    """getRemainingTimeForFailuresCount"""
    if failures == 0:
        return 0.0
    wait = min(INITIAL * float(2 ** min(failures - 1, 10)), MAXIMUM)
    return min(
        max(wait - (now - last), 0.0), wait
    )  # whatever the clock says, the failure is not in the future


def _containers_end(pod: Json) -> float | None:
    """Return when the last of a pod's containers ended; None if one has not (latestFinishTime)."""
    status = pod.get("status") or {}
    sidecars = {
        container["name"]
        for container in (pod.get("spec") or {}).get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    }
    inits = [found for found in status.get("initContainerStatuses") or () if found["name"] in sidecars]
    times: list[float] = []
    for found in (*(status.get("containerStatuses") or ()), *inits):
        at = parse_time(((found.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        if at is None:
            return None
        times.append(at)
    return max(times, default=None)


def _not_ready_since(pod: Json) -> float | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready" and condition["status"] == "False":
            return parse_time(condition.get("lastTransitionTime"))
    return None
