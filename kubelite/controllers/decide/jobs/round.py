"""One decision about an unfinished Job in progress: what it is made from, and what it has come to so far."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from kubelite.controllers.decide import pods
from kubelite.controllers.decide.jobs import indexes, rules
from kubelite.controllers.decide.jobs.back_off import finished_at
from kubelite.controllers.decide.jobs.indexes import Intervals
from kubelite.controllers.decide.jobs.policies import judge
from kubelite.controllers.model import Effect, View
from kubelite.controllers.references import is_terminating
from kubelite.kube.jobs import is_tracked
from kubelite.kube.json import Json


@dataclass(slots=True)
class Round:
    """`pods`: without those that have ended and are counted, which are in `past`: a large Job has many. `status`: a
    copy of the Job's, changed step by step. The counts of pods (`active`, `ready`, `terminating`) are those after the
    effects. `outcome`: the condition that ends the Job, None as long as none does."""

    view: View
    job: Json
    pods: list[Json]
    past: list[Json]
    status: dict[str, Any]
    active: list[Json] = field(default_factory=list)
    ready: int = 0
    terminating: int = 0
    succeeded: int = 0
    failed: int = 0
    before: Intervals = ()  # indexes that had succeeded before this round
    done: Intervals = ()  # indexes that have succeeded
    failed_indexes: Intervals | None = None  # None: the Job does not limit failures by index
    kept: dict[int, Json] = field(default_factory=dict)  # index → failed pod that its replacement carries on
    outcome: Json | None = None
    manages: list[Effect] = field(default_factory=list)  # creations and deletions of pods
    events: list[Effect] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)  # seconds

    @property
    def spec(self) -> Json:
        found: Json = self.job["spec"]
        return found

    @property
    def now(self) -> float:
        return self.view.now

    @property
    def ends(self) -> bool:
        """Whether the Job itself is being deleted."""
        return is_terminating(self.job)

    def uncounted(self, which: str) -> list[str]:
        found: list[str] = self.status["uncountedTerminatedPods"].get(which) or []
        return found


def begin(view: View, found: list[Json]) -> Round:
    """Look at the pods and the status (the first half of syncJob)."""
    job = view.owner
    status = copy.deepcopy(job.get("status") or {})
    status.setdefault("uncountedTerminatedPods", {})
    past: list[Json] = []
    present: list[Json] = []
    for pod in found:
        (past if pods.has_ended(pod) and not is_tracked(pod) else present).append(pod)
    the = Round(view, job, present, past, status, [pod for pod in present if pods.is_active(pod)])
    the.ready = sum(pods.is_ready(pod) for pod in the.active)
    the.terminating = sum(pods.still_terminates(pod) for pod in present)
    the.succeeded = status.get("succeeded", 0) + len(the.uncounted("succeeded")) + len(new_successes(the))
    policy = the.spec.get("podFailurePolicy")
    failures = sum(judge(policy, pod).counts for pod in new_failures(the))
    the.failed = status.get("failed", 0) + len(the.uncounted("failed")) + failures
    if rules.is_indexed(job):
        _count_indexes(the)
    return the


def new_successes(the: Round) -> list[Json]:
    """Return pods that have succeeded and are not in the status yet (getNewFinishedPods)."""
    counted = the.uncounted("succeeded")
    return [pod for pod in _new(the, counted) if pods.has_succeeded(pod)]


def new_failures(the: Round) -> list[Json]:
    counted = the.uncounted("failed")
    return [pod for pod in _new(the, counted) if rules.has_failed(pod, the.job)]


def _new(the: Round, counted: list[str]) -> list[Json]:
    return [pod for pod in the.pods if rules.is_valid(pod, the.job) and pod["metadata"]["uid"] not in counted]


def _count_indexes(the: Round) -> None:
    """calculateSucceededIndexes, calculateFailedIndexes, getPodsWithDelayedDeletionPerIndex"""
    completions = the.spec["completions"]
    valid = [pod for pod in the.pods if rules.is_valid(pod, the.job)]
    the.before = indexes.parse(the.status.get("completedIndexes", ""), completions)
    the.done = indexes.with_indexes(
        the.before, {indexes.index_of(pod) for pod in valid if pods.has_succeeded(pod)}
    )
    the.succeeded = indexes.total(the.done)
    if not rules.limits_each_index(the.job):
        return
    the.failed_indexes = indexes.with_indexes(
        indexes.parse(the.status.get("failedIndexes", ""), completions),
        {indexes.index_of(pod) for pod in valid if rules.index_has_failed(pod, the.job)},
    )
    the.kept = _kept(the, valid)


def _kept(the: Round, valid: list[Json]) -> dict[int, Json]:
    """Return for each index that waits for a replacement its newest failed pod. The pod stays uncounted until then,
    because the number of failures is in its annotations alone."""
    running = {indexes.index_of(pod) for pod in the.active}
    over = indexes.merged(the.done, the.failed_indexes or ())
    found: dict[int, Json] = {}
    for pod in valid:
        index = indexes.index_of(pod)
        if not rules.has_failed(pod, the.job) or index in running or indexes.contains(over, index):
            continue
        if index not in found or _is_newer(pod, found[index]):
            found[index] = pod
    return found


def _is_newer(pod: Json, other: Json) -> bool:
    counts_more = indexes.all_failures_of(pod) >= indexes.all_failures_of(other)
    return counts_more and finished_at(pod) >= finished_at(other)
