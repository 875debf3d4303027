"""The facts of Kubernetes' golden table for one decision about a Job (pkg/controller/job/job_controller_test.go).

They are as 1.36 behaves with its default features: FailureTarget and SuccessCriteriaMet come first, and terminating
pods are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kubelite.kube.json import Json

MOST = 2**31 - 1
LIMIT = "BackoffLimitExceeded"
DONE = [("SuccessCriteriaMet", "True", "CompletionsReached"), ("Complete", "True", "CompletionsReached")]


def failed(reason: str) -> list[tuple[str, str, str]]:
    return [("FailureTarget", "True", reason), ("Failed", "True", reason)]


def target(reason: str) -> list[tuple[str, str, str]]:
    return [("FailureTarget", "True", reason)]


@dataclass(frozen=True)
class Row:
    """`pods`: how many of each kind exist; `of_index`: (index, phase) or (index, phase, failures before it);
    `created`, `deleted`, `released` (pods that lose the finalizer): of the plan; the rest: of the status after it."""

    name: str
    spec: Json = field(default_factory=dict)
    pods: Json = field(default_factory=dict)
    of_index: Sequence[tuple[Any, ...]] = ()
    status: Json = field(default_factory=dict)
    exits: int = 1
    deleting: bool = False
    created: int = 0
    created_indexes: Sequence[int] | None = None
    deleted: int = 0
    released: int = 0
    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0
    terminating: int = 0
    completed: str | None = None
    failed_indexes: str | None = None
    conditions: Sequence[tuple[str, str, str]] = ()


INDEXED = {"completionMode": "Indexed"}
EACH = {**INDEXED, "backoffLimit": MOST, "backoffLimitPerIndex": 1, "parallelism": 2, "completions": 2}
ONLY_FAILED = {"podReplacementPolicy": "Failed"}
SUSPENDED = [("Suspended", "True", "JobSuspended")]
WAS_SUSPENDED = {
    "conditions": [
        {"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended"}
    ]
}


def on_exit(action: str) -> Json:
    return {"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [3]}}]}


#: TestControllerSyncJob.
SYNC_ROWS = [
    # TestControllerSyncJob
    Row("job start", created=2, active=2),
    Row("WQ job start", {"completions": None}, created=2, active=2),
    Row("pending pods", pods={"pending": 2}, active=2),
    Row("correct # of pods", {"parallelism": 3}, {"active": 3, "ready": 2}, active=3, ready=2),
    Row("WQ job: correct # of pods", {"completions": None}, {"active": 2}, active=2),
    Row(
        "too few active pods",
        pods={"active": 1, "succeeded": 1},
        created=1,
        active=2,
        succeeded=1,
        released=1,
    ),
    Row(
        "WQ job: recreate pods when failed",
        {"parallelism": 1, "completions": None, **ONLY_FAILED},
        {"active": 1, "failed": 1, "terminating": 1},
        terminating=1,
        released=1,
        failed=1,
        active=1,
    ),
    Row(
        "WQ job: recreate pods when terminating or failed",
        {"parallelism": 1, "completions": None, "podReplacementPolicy": "TerminatingOrFailed"},
        {"active": 1, "failed": 1, "terminating": 1},
        terminating=1,
        active=1,
        released=2,
        failed=2,
    ),
    Row(
        "more terminating pods than parallelism",
        {"parallelism": 1, "completions": 1, **ONLY_FAILED},
        {"active": 2, "terminating": 4},
        terminating=5,
        active=1,
        deleted=1,
        released=1,
    ),
    Row(
        "more terminating pods than parallelism; PodFailurePolicy used",
        {"parallelism": 1, "completions": 1, "podFailurePolicy": {}},
        {"active": 2, "terminating": 4},
        terminating=5,
        active=1,
        deleted=1,
        released=1,
    ),
    Row(
        "too few active pods with a dynamic job",
        {"completions": None},
        {"active": 1},
        created=1,
        active=2,
    ),
    Row("too many active pods", pods={"active": 3}, deleted=1, active=2, released=1, terminating=1),
    Row(
        "count ready pods when too many active pods",
        pods={"active": 3, "ready": 3},
        deleted=1,
        active=2,
        released=1,
        ready=2,
        terminating=1,
    ),
    Row(
        "failed + succeed pods: reset backoff delay",
        pods={"active": 1, "succeeded": 1, "failed": 1},
        created=1,
        active=2,
        succeeded=1,
        failed=1,
        released=2,
    ),
    Row("new failed pod", pods={"active": 1, "failed": 1}, created=1, active=2, failed=1, released=1),
    Row(
        "no new pod; possible finalizer update of failed pod",
        {"parallelism": 1, "completions": 1},
        {"active": 1},
        status={"active": 1, "failed": 1},
        active=1,
        failed=1,
    ),
    Row("job finish", pods={"succeeded": 5}, succeeded=5, released=5, conditions=DONE),
    Row(
        "WQ job finishing",
        {"completions": None},
        {"active": 1, "succeeded": 1},
        active=1,
        succeeded=1,
        released=1,
    ),
    Row(
        "WQ job all finished",
        {"completions": None},
        {"succeeded": 2},
        succeeded=2,
        released=2,
        conditions=DONE,
    ),
    Row(
        "WQ job all finished despite one failure",
        {"completions": None},
        {"succeeded": 1, "failed": 1},
        succeeded=1,
        failed=1,
        released=2,
        conditions=DONE,
    ),
    Row(
        "more active pods than parallelism",
        pods={"active": 10},
        deleted=8,
        active=2,
        released=8,
        terminating=8,
    ),
    Row(
        "more active pods than remaining completions",
        {"parallelism": 3, "completions": 4},
        {"active": 3, "succeeded": 2},
        deleted=1,
        active=2,
        succeeded=2,
        released=3,
        terminating=1,
    ),
    Row("status change", pods={"active": 2, "succeeded": 2}, active=2, succeeded=2, released=2),
    Row(
        "deleting job",
        pods={"pending": 1, "active": 1, "succeeded": 1},
        deleting=True,
        active=2,
        succeeded=1,
        released=3,
    ),
    Row(
        "too many job failures",
        {"backoffLimit": 0},
        {"failed": 1},
        deleting=True,
        failed=1,
        released=1,
        conditions=failed(LIMIT),
    ),
    Row("indexed job start", INDEXED, created=2, active=2, created_indexes=[0, 1], completed=""),
    Row(
        "indexed job with some pods deleted, podReplacementPolicy Failed",
        {**INDEXED, **ONLY_FAILED},
        {"terminating": 1},
        created=1,
        active=1,
        created_indexes=[0],
        terminating=1,
    ),
    Row(
        "indexed job with some pods deleted, podReplacementPolicy TerminatingOrFailed",
        {**INDEXED, "podReplacementPolicy": "TerminatingOrFailed"},
        {"terminating": 1},
        created=2,
        active=2,
        created_indexes=[0, 1],
        terminating=1,
        released=1,
    ),
    Row(
        "indexed job completed",
        {**INDEXED, "completions": 3},
        of_index=[(0, "Succeeded"), (1, "Failed"), (1, "Succeeded"), (2, "Succeeded")],
        succeeded=3,
        failed=1,
        completed="0-2",
        released=4,
        conditions=DONE,
    ),
    Row(
        "indexed job failed",
        {**INDEXED, "completions": 3, "backoffLimit": 0},
        of_index=[(0, "Succeeded"), (1, "Failed"), (2, "Running")],
        succeeded=1,
        failed=2,
        completed="0",
        released=3,
        deleted=1,
        terminating=1,
        conditions=target(LIMIT),
    ),
    Row(
        "count ready pods when job fails",
        {"completions": 3, "backoffLimit": 0},
        {"active": 2, "ready": 2, "failed": 1},
        failed=3,
        released=3,
        deleted=2,
        terminating=2,
        conditions=target(LIMIT),
    ),
    Row(
        "indexed job repeated completed index",
        {**INDEXED, "completions": 3},
        of_index=[(0, "Succeeded"), (1, "Succeeded"), (1, "Succeeded")],
        created=1,
        active=1,
        succeeded=2,
        completed="0,1",
        created_indexes=[2],
        released=3,
    ),
    Row(
        "indexed job some running and completed pods",
        {**INDEXED, "parallelism": 8, "completions": 20},
        of_index=[
            (0, "Running"),
            (2, "Succeeded"),
            (3, "Pending"),
            *((index, "Succeeded") for index in (4, 5, 7, 8, 9)),
        ],
        created=6,
        active=8,
        succeeded=6,
        completed="2,4,5,7-9",
        created_indexes=[1, 6, 10, 11, 12, 13],
        released=6,
    ),
    Row(
        "indexed job some failed pods",
        {**INDEXED, "parallelism": 3, "completions": 4},
        of_index=[(0, "Failed"), (1, "Pending"), (2, "Failed")],
        created=2,
        active=3,
        failed=2,
        created_indexes=[0, 2],
        released=2,
    ),
    Row(
        "indexed job some pods without index",
        INDEXED,
        {"active": 1, "succeeded": 1, "failed": 1},
        of_index=[
            *(("invalid", phase) for phase in ("Running", "Succeeded", "Failed", "Pending")),
            (0, "Succeeded"),
            (1, "Running"),
            (2, "Running"),
        ],
        deleted=3,
        active=2,
        succeeded=1,
        completed="0",
        released=8,
        terminating=3,
    ),
    Row(
        "indexed job repeated indexes",
        {**INDEXED, "parallelism": 5},
        {"succeeded": 1, "failed": 1},
        of_index=[("invalid", "Running"), (0, "Succeeded"), (1, "Running"), (2, "Running"), (2, "Pending")],
        deleted=2,
        active=2,
        succeeded=1,
        completed="0",
        released=5,
        terminating=2,
    ),
    Row(
        "indexed job with indexes outside of range",
        INDEXED,
        of_index=[(0, "Succeeded"), (5, "Running"), (6, "Succeeded"), (7, "Pending"), (8, "Failed")],
        succeeded=1,
        deleted=2,
        completed="0",
        released=5,
        terminating=2,
    ),
    Row(
        "count ready pods when suspending a job with satisfied expectations",
        {"suspend": True, "completions": 4},
        {"active": 2, "ready": 2},
        deleted=2,
        released=2,
        terminating=2,
        conditions=SUSPENDED,
    ),
    Row(
        "resuming a suspended job",
        {"completions": 4},
        status=WAS_SUSPENDED,
        created=2,
        active=2,
        conditions=[("Suspended", "False", "JobResumed")],
    ),
    Row(
        "suspending a deleted job",
        {"suspend": True, "completions": 4},
        {"active": 2},
        deleting=True,
        active=2,
        released=2,
    ),
    Row(
        "FailureTarget=False condition added manually is ignored",
        {"parallelism": 1, "completions": 1},
        {"active": 1, "ready": 1},
        status={"conditions": [{"type": "FailureTarget", "status": "False", "reason": "ByHand"}]},
        active=1,
        ready=1,
        conditions=[("FailureTarget", "False", "ByHand")],
    ),
    Row(
        "SuccessCriteriaMet=False condition added manually is ignored",
        {"parallelism": 1, "completions": 1},
        {"active": 1, "ready": 1},
        status={"conditions": [{"type": "SuccessCriteriaMet", "status": "False", "reason": "ByHand"}]},
        active=1,
        ready=1,
        conditions=[("SuccessCriteriaMet", "False", "ByHand")],
    ),
]
