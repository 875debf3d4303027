"""How many pods of a Job run: creations and deletions.

Source: Kubernetes pkg/controller/job/job_controller.go manageJob. Unlike there, `status.active` counts the pods that
run while a Job waits for its back-off (there it is 0 meanwhile), and a deleted pod loses its finalizer in the same
write, so that nothing can come between the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubelite.controllers.decide import pods
from kubelite.controllers.decide.jobs import back_off, indexes, rules
from kubelite.controllers.decide.jobs.new_pods import new_pod
from kubelite.controllers.decide.jobs.round import Round
from kubelite.controllers.model import Create, Delete, Event
from kubelite.kube.jobs import TRACKING_FINALIZER
from kubelite.kube.json import Json

MOST = 500  # pods created or deleted in one round
RETRY = 10.0  # seconds until a refused pod is tried again


def manage(the: Round) -> None:
    """Create missing pods or delete superfluous ones, never both in one round."""
    if rules.is_suspended(the.job):
        delete(the, _superfluous(the, len(the.active)))
        return
    wanted = _wanted(the)
    if excess := _superfluous(the, max(len(the.active) - wanted, 0))[:MOST]:
        delete(the, excess)
        return
    replaced_later = the.terminating if rules.replaces_only_failed(the.job) else 0
    missing = min(wanted - replaced_later - len(the.active), MOST)
    if missing > 0:
        _create(the, missing)


def delete(the: Round, doomed: Sequence[Json]) -> None:
    """Delete active pods. What they do from now on is not counted, except as `track` says."""
    gone = {pod["metadata"]["uid"] for pod in doomed}
    for pod in doomed:
        metadata = pod["metadata"]
        the.manages.append(Delete(metadata["uid"], finalizer=TRACKING_FINALIZER))
        message = f"Deleted pod: {metadata['name']}"
        the.events.append(Event(the.job, "Normal", "SuccessfulDelete", message))
    the.ready -= sum(pods.is_ready(pod) for pod in doomed)
    the.terminating += len(doomed)
    the.active = [pod for pod in the.active if pod["metadata"]["uid"] not in gone]


def _wanted(the: Round) -> int:
    """Return how many pods should be active. Without `completions`, no pod is added once one has succeeded."""
    parallelism: int = the.spec["parallelism"]
    completions: int | None = the.spec.get("completions")
    if completions is None:
        return len(the.active) if the.succeeded > 0 else parallelism
    return max(min(completions - the.succeeded, parallelism), 0)


def _superfluous(the: Round, least: int) -> list[Json]:
    """Return the active pods to delete, at least so many (activePodsForRemoval)."""
    remove: list[Json] = []
    left = the.active
    if rules.is_indexed(the.job):
        remove, left = indexes.superfluous(the.active, the.spec["completions"], the.now)
    if len(remove) < least:
        remove += pods.deletion_order(left, the.now)[: least - len(remove)]
    return remove


def _create(the: Round, missing: int) -> None:
    if rules.is_indexed(the.job):
        new = [new_pod(the.job, index, the.kept.get(index)) for index in _due_indexes(the, missing)]
    elif _waits(the, _back_off(the)):
        new = []
    else:
        new = [new_pod(the.job) for _ in range(missing)]
    if not new:
        return
    if refused := the.view.refusal(new[0]):
        the.events.append(Event(the.job, "Warning", "FailedCreate", f"Error creating: {refused}"))
        the.wakes.append(RETRY)
        return
    the.manages += map(Create, new)
    the.active = [*the.active, *new]


def _back_off(the: Round) -> float:
    """Return the seconds until pods may be created. Terminating pods that are no longer counted are left out: these
    were deleted by the Job itself, or were counted already."""
    ended = [*the.past, *(pod for pod in the.pods if pods.has_ended(pod) or rules.is_valid(pod, the.job))]
    failed = [pod for pod in ended if rules.has_failed(pod, the.job)]
    if not failed:
        return 0.0
    succeeded = [pod for pod in ended if pods.has_succeeded(pod)]
    return back_off.remaining(succeeded, failed, the.now)


def _due_indexes(the: Round, missing: int) -> list[int]:
    """Return the indexes to create a pod of (firstPendingIndexes, getPodCreationInfoForIndependentIndexes)."""
    each = rules.limits_each_index(the.job)
    if not each and _waits(the, _back_off(the)):
        return []
    occupied = list(the.active)
    if rules.replaces_only_failed(the.job):
        occupied += [pod for pod in the.pods if pods.still_terminates(pod)]
    taken = indexes.with_indexes(
        the.done, {index for pod in occupied if (index := indexes.index_of(pod)) >= 0}
    )
    taken = indexes.merged(taken, the.failed_indexes or ())
    pending = indexes.first_free(taken, missing, the.spec["completions"])
    if not each:
        return pending
    waits = {index: back_off.remaining_of_index(the.kept.get(index), the.now) for index in pending}
    due = [index for index, wait in waits.items() if wait == 0.0]
    if len(due) < len(waits):
        the.wakes.append(min(wait for wait in waits.values() if wait > 0.0))
    return due


def _waits(the: Round, seconds: float) -> bool:
    if seconds > 0.0:
        the.wakes.append(seconds)
    return seconds > 0.0
