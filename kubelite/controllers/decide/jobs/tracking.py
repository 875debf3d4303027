"""How pods are counted, each once, whatever happens between two effects.

Source: Kubernetes pkg/controller/job/job_controller.go trackJobStatusAndRemoveFinalizers. A pod stays until its Job has
counted it, by its finalizer. Kubernetes needs three requests: the uid is written into `status.uncountedTerminatedPods`,
the finalizer is removed, the uid becomes part of the count. Here one transaction removes the finalizers and writes the
counts, so that the list of uncounted pods is always empty, except in the state of kubelite 0.2 and older.
"""

from __future__ import annotations

from typing import Any

from kubelite.controllers.decide import pods
from kubelite.controllers.decide.jobs import conditions, indexes, rules
from kubelite.controllers.decide.jobs.policies import judge
from kubelite.controllers.decide.jobs.round import Round
from kubelite.controllers.model import Delete, Effect, Event, Release, SetStatus, Together
from kubelite.kube.jobs import TRACKING_FINALIZER, is_tracked
from kubelite.kube.json import Json

MOST_UNCOUNTED = 500  # pods counted in one round


def track(the: Round) -> list[Effect]:
    """Return the effects of the round, in order: the status with all counts and, when nothing is left to count, with
    the Job's end, in one transaction with the pods that lose their finalizers or are deleted; then new pods."""
    tracked = {pod["metadata"]["uid"] for pod in the.pods if is_tracked(pod)}
    _count_removed(the.status, tracked)
    released, complete = _count_new(the)
    _write_counts(the)
    outcome = _write_outcome(the)
    deletions = [effect for effect in the.manages if isinstance(effect, Delete)]
    others = [effect for effect in the.manages if not isinstance(effect, Delete)]
    deleted = {effect.uid for effect in deletions}
    gone = {pod["metadata"]["uid"] for pod in released}
    _count_removed(the.status, tracked - deleted - gone)
    finished = complete and _finish(the, outcome)
    written: list[SetStatus | Delete | Release] = []
    status = _cleaned(the.status)
    if status != (the.job.get("status") or {}):
        written.append(SetStatus(the.job["metadata"]["uid"], status))
    written += deletions
    written += [Release(uid, TRACKING_FINALIZER) for uid in sorted(gone - deleted)]
    return [
        *([Together(written)] if written else ()),
        *others,
        *the.events,
        *(_finish_events(the, outcome) if finished and outcome else ()),
    ]


def _count_new(the: Round) -> tuple[list[Json], bool]:
    """Add pods that have ended to the status. Return those whose finalizer may be removed, and whether these are all
    that have ended."""
    found = sorted(the.pods, key=indexes.index_of) if rules.is_indexed(the.job) else the.pods
    uncounted = {which: list(the.uncounted(which)) for which in ("succeeded", "failed")}
    known = {which: frozenset(uids) for which, uids in uncounted.items()}
    new_indexes: list[int] = []
    released: list[Json] = []
    fails = the.outcome is not None and the.outcome["type"] != conditions.SUCCESS_CRITERIA_MET
    complete = True
    for pod in found:
        uid = pod["metadata"]["uid"]
        failed = rules.has_failed(pod, the.job)
        if not is_tracked(pod) or not _may_release(the, pod, failed=failed):
            continue
        released.append(pod)
        if pods.has_succeeded(pod) and uid not in known["failed"]:
            index = indexes.index_of(pod)
            if not rules.is_indexed(the.job):
                uncounted["succeeded"] += [uid] * (uid not in known["succeeded"])
            elif rules.is_valid(pod, the.job) and not indexes.contains(the.before, index):
                new_indexes.append(index)
        # in a Job that fails, every pod that has not ended has failed
        elif (failed or fails) and uid not in known["failed"] and rules.is_valid(pod, the.job):
            uncounted["failed"] += [uid] * judge(the.spec.get("podFailurePolicy"), pod).counts
        if len(new_indexes) + sum(map(len, uncounted.values())) >= MOST_UNCOUNTED:
            complete = False
            break
    the.status["uncountedTerminatedPods"] = uncounted
    return released, complete


def _may_release(the: Round, pod: Json, *, failed: bool) -> bool:
    """canRemoveFinalizer: a pod has ended, or the Job has. A failed pod whose replacement carries on its failures is
    kept until then."""
    if the.ends or the.outcome is not None or pods.has_succeeded(pod):
        return True
    if not failed:
        return False
    kept = the.kept.get(indexes.index_of(pod))
    return kept is None or kept["metadata"]["uid"] != pod["metadata"]["uid"]


def _count_removed(status: dict[str, Any], tracked: set[str]) -> None:
    """Count the uncounted pods that have lost their finalizers (cleanUncountedPodsWithoutFinalizers)."""
    uncounted = status["uncountedTerminatedPods"]
    for which in ("succeeded", "failed"):
        uids = uncounted.get(which) or []
        left = [uid for uid in uids if uid in tracked]
        status[which] = status.get(which, 0) + len(uids) - len(left)
        status["uncountedTerminatedPods"] = uncounted = {**uncounted, which: left}


def _write_counts(the: Round) -> None:
    status = the.status
    status.update(active=len(the.active), ready=the.ready, terminating=the.terminating)
    if not rules.is_indexed(the.job):
        return
    status["completedIndexes"] = indexes.text_of(the.done)
    status["succeeded"] = indexes.total(the.done)
    status.pop("failedIndexes", None)
    if the.failed_indexes is not None:
        status["failedIndexes"] = indexes.text_of(the.failed_indexes)


def _write_outcome(the: Round) -> Json | None:
    """Write that the Job will fail or complete; return the condition that says that it has."""
    outcome = the.outcome
    if outcome is None or outcome["type"] not in (conditions.FAILURE_TARGET, conditions.SUCCESS_CRITERIA_MET):
        return outcome
    fails = outcome["type"] == conditions.FAILURE_TARGET
    if conditions.true_condition(the.status, outcome["type"]) is None:
        conditions.ensure(the.status, outcome)
    last = conditions.FAILED if fails else conditions.COMPLETE
    return conditions.condition(last, "True", outcome["reason"], outcome["message"], the.now)


def _finish(the: Round, outcome: Json | None) -> bool:
    """Write the Job's end unless pods are left to count or to end (enactJobFinished). Return whether it is written."""
    if outcome is None or the.terminating or the.uncounted("succeeded") or the.uncounted("failed"):
        return False
    conditions.ensure(the.status, outcome)
    if outcome["type"] == conditions.COMPLETE:
        the.status["completionTime"] = outcome["lastTransitionTime"]
    return True


def _finish_events(the: Round, outcome: Json) -> list[Effect]:
    """recordJobFinished"""
    if outcome["type"] != conditions.COMPLETE:
        return [Event(the.job, "Warning", outcome["reason"], outcome["message"])]
    completed = Event(the.job, "Normal", "Completed", "Job completed")
    completions = the.spec.get("completions")
    if completions is not None and the.status.get("succeeded", 0) > completions:
        message = "Too many succeeded pods running after completion count reached"
        return [Event(the.job, "Warning", "TooManySucceededPods", message), completed]
    return [completed]


def _cleaned(status: dict[str, Any]) -> Json:
    """Return the status as Kubernetes' JSON has it: without counts that are 0, except `ready` and `terminating`."""
    left_out = ("active", "succeeded", "failed", "completedIndexes")
    uncounted = {which: uids for which, uids in status["uncountedTerminatedPods"].items() if uids}
    kept = {key: value for key, value in status.items() if key not in left_out or value}
    return {**kept, "uncountedTerminatedPods": uncounted}
