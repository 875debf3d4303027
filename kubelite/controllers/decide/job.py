"""Job: pods that run to their end.

Source: Kubernetes pkg/controller/job/job_controller.go syncJob, pkg/controller/ttlafterfinished. A finished Job never
runs again; its record is what says so. For this reason a Job that a manifest defines is not deleted when its
`ttlSecondsAfterFinished` have passed, only its pods are: without the record, the manifest would create it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubelite.controllers.decide.jobs import conditions, indexes, rules
from kubelite.controllers.decide.jobs.manage import delete, manage
from kubelite.controllers.decide.jobs.policies import judge, success_rule
from kubelite.controllers.decide.jobs.round import Round, begin
from kubelite.controllers.decide.jobs.tracking import track
from kubelite.controllers.model import Delete, Effect, Event, Plan, Release, Rewrite, Together, View
from kubelite.controllers.references import controls, is_terminating, managed
from kubelite.kube.jobs import (
    TRACKING_FINALIZER,
    finished_condition,
    is_managed_elsewhere,
    is_tracked,
    with_selector,
    without_finalizer,
)
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels
from kubelite.kube.objects import SOURCE
from kubelite.kube.times import rfc3339, unix


def decide(view: View) -> Plan:
    """Give the Job its selector, then adopt and release pods, then create, delete and count them, and set the status;
    each step in a plan of its own, since the next one depends on it."""
    job = view.owner
    if is_managed_elsewhere(job):
        return Plan()
    if (complete := with_selector(job)) is not job:
        return Plan((Rewrite(complete),))
    if (finished := finished_condition(job)) is not None:
        return _after(view, finished)
    found, changes = managed(view, "Pod", lambda pod: matches_labels(job["spec"]["selector"], labels_of(pod)))
    if changes:
        return Plan([_claimed(effect, view) for effect in changes])
    if job["spec"].get("completionMode") not in (None, "NonIndexed", "Indexed"):
        message = "Skipped Job sync because completion mode is unknown"
        return Plan((Event(job, "Warning", "UnknownCompletionMode", message),))
    the = begin(view, found)
    if not the.status.get("startTime") and not rules.is_suspended(job):
        the.status["startTime"] = rfc3339(the.now)
    the.outcome = _outcome(the)
    if the.outcome is not None:
        delete(the, the.active)
    else:
        _go_on(the)
    effects = track(the)
    return Plan(effects, again=min(the.wakes, default=None))


def _claimed(effect: Effect, view: View) -> Effect:
    """An adopted pod gets the finalizer, a released one loses it (getPodsForJob)."""
    assert isinstance(effect, Rewrite)
    doc = without_finalizer(effect.doc, TRACKING_FINALIZER)
    if not controls(view.owner, doc):
        return Rewrite(doc)
    finalizers = [*(doc["metadata"].get("finalizers") or ()), TRACKING_FINALIZER]
    return Rewrite({**doc, "metadata": {**doc["metadata"], "finalizers": finalizers}})


def _outcome(the: Round) -> Json | None:
    """Return the condition that ends the Job, None if none does. An outcome that is on record stands; failure comes
    before success."""
    if (success := conditions.true_condition(the.status, conditions.SUCCESS_CRITERIA_MET)) is not None:
        return success
    if (failure := conditions.true_condition(the.status, conditions.FAILURE_TARGET)) is not None:
        return conditions.condition(conditions.FAILED, "True", failure["reason"], failure["message"], the.now)
    if message := _fail_job_message(the):
        return _target(the, ("PodFailurePolicy", message))
    if the.failed > the.spec["backoffLimit"] or rules.restarts_exceed_limit(the.job, the.pods):
        return _target(the, conditions.BACK_OFF_LIMIT)
    if _is_overdue(the):
        return _target(the, conditions.DEADLINE)
    if not rules.is_indexed(the.job):
        return None
    if reason := _too_many_failed_indexes(the):
        return _target(the, reason)
    policy = the.spec.get("successPolicy")
    if message := success_rule(policy, the.spec["completions"], the.done):
        return conditions.condition(
            conditions.SUCCESS_CRITERIA_MET, "True", "SuccessPolicy", message, the.now
        )
    return None


def _target(the: Round, reason: tuple[str, str]) -> Json:
    return conditions.condition(conditions.FAILURE_TARGET, "True", *reason, the.now)


def _fail_job_message(the: Round) -> str:
    """Return why a pod fails the Job at once, "" if none does (getFailJobMessage)."""
    policy = the.spec.get("podFailurePolicy")
    if policy is None:
        return ""
    failed = (pod for pod in (*the.pods, *the.past) if rules.has_failed(pod, the.job))
    messages = (judge(policy, pod).message for pod in failed)
    return next((message for message in messages if message), "")


def _is_overdue(the: Round) -> bool:
    """Whether `activeDeadlineSeconds` have passed. If not, decide again when they have (pastActiveDeadline)."""
    limit, began = the.spec.get("activeDeadlineSeconds"), the.status.get("startTime")
    if limit is None or not began or rules.is_suspended(the.job):
        return False
    left = unix(began) + limit - the.now
    if left > 0:
        the.wakes.append(left)
    return bool(left <= 0)


def _too_many_failed_indexes(the: Round) -> tuple[str, str] | None:
    if the.failed_indexes is None:
        return None
    failed, most = indexes.total(the.failed_indexes), the.spec.get("maxFailedIndexes")
    if most is not None and failed > most:
        return conditions.TOO_MANY_FAILED_INDEXES
    if failed and failed + indexes.total(the.done) >= the.spec["completions"]:
        return conditions.FAILED_INDEXES
    return None


def _go_on(the: Round) -> None:
    """Manage the pods of a Job that neither fails nor meets its success policy (the second half of syncJob)."""
    if not the.ends:
        manage(the)
    completions = the.spec.get("completions")
    enough = the.succeeded > 0 if completions is None else the.succeeded >= completions
    if enough and not the.active:
        the.outcome = conditions.condition(
            conditions.SUCCESS_CRITERIA_MET, "True", *conditions.COMPLETIONS_REACHED, the.now
        )
    elif not the.ends:
        _suspend_or_resume(the)


def _suspend_or_resume(the: Round) -> None:
    """Write the condition Suspended. A resumed Job starts anew: its deadline does not count the time before."""
    suspended = rules.is_suspended(the.job)
    reason = ("JobSuspended", "Job suspended") if suspended else ("JobResumed", "Job resumed")
    new = conditions.condition(conditions.SUSPENDED, "True" if suspended else "False", *reason, the.now)
    if not conditions.ensure(the.status, new):
        return
    the.status.pop("startTime", None)
    if not suspended:
        the.status["startTime"] = rfc3339(the.now)
    event = conditions.SUSPENDED if suspended else "Resumed"
    the.events.append(Event(the.job, "Normal", event, reason[1]))


def _after(view: View, finished: Json) -> Plan:
    """What is left to do for a finished Job: no pod waits to be counted (handleSingleOrphanPod), and it is deleted
    after its time."""
    job = view.owner
    own = [pod for pod in view.of("Pod") if controls(job, pod)]
    left_over = [Release(pod["metadata"]["uid"], TRACKING_FINALIZER) for pod in own if is_tracked(pod)]
    effects: list[Effect] = [Together(left_over)] if left_over else []
    seconds = job["spec"].get("ttlSecondsAfterFinished")
    if seconds is None or is_terminating(job):
        return Plan(effects)
    left = unix(finished["lastTransitionTime"]) + seconds - view.now
    if left > 0:
        return Plan(effects, again=left)
    return Plan(effects or _expired(job, own))


def _expired(job: Json, own: Sequence[Json]) -> list[Effect]:
    if not (job["metadata"].get("annotations") or {}).get(SOURCE):
        return [Delete(job["metadata"]["uid"])]
    return [Delete(pod["metadata"]["uid"]) for pod in own if not is_terminating(pod)]
