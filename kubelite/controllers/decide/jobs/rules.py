"""What follows from a Job's spec: modes, policies, when a pod of it counts as failed.

Source: Kubernetes pkg/controller/job/job_controller.go, indexed_job_utils.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.controllers.decide import pods
from kubelite.controllers.decide.jobs import indexes
from kubelite.controllers.decide.jobs.policies import judge
from kubelite.controllers.references import is_terminating
from kubelite.kube.jobs import is_tracked
from kubelite.kube.json import Json


def is_indexed(job: Json) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def is_suspended(job: Json) -> bool:
    return bool(job["spec"].get("suspend"))


def limits_each_index(job: Json) -> bool:
    return job["spec"].get("backoffLimitPerIndex") is not None


def replaces_only_failed(job: Json) -> bool:
    """Whether a terminating pod is replaced only once it has ended (onlyReplaceFailedPods)."""
    spec = job["spec"]
    return spec.get("podReplacementPolicy") == "Failed" or spec.get("podFailurePolicy") is not None


def has_failed(pod: Json, job: Json) -> bool:
    """Whether a pod counts as failed: a terminating one does unless only ended ones are replaced (isPodFailed)."""
    if pods.has_failed(pod):
        return True
    return not replaces_only_failed(job) and is_terminating(pod) and not pods.has_succeeded(pod)


def index_has_failed(pod: Json, job: Json) -> bool:
    """Whether the index of a pod has failed for good with it (isIndexFailed)."""
    if not has_failed(pod, job):
        return False
    verdict = judge(job["spec"].get("podFailurePolicy"), pod)
    if verdict.action == "FailIndex":
        return True
    return verdict.counts and indexes.failures_of(pod) >= job["spec"]["backoffLimitPerIndex"]


def is_valid(pod: Json, job: Json) -> bool:
    """Whether a pod has yet to be counted and, in an Indexed Job, has one of its indexes (getValidPodsWithFilter)."""
    return is_tracked(pod) and (not is_indexed(job) or indexes.has_index(pod, job["spec"]["completions"]))


def restarts_exceed_limit(job: Json, found: Iterable[Json]) -> bool:
    """Whether containers that restart in their pods (restartPolicy OnFailure) have done so too often
    (pastBackoffLimitOnFailure)."""
    spec = job["spec"]
    if (spec["template"].get("spec") or {}).get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        status.get("restartCount", 0)
        for pod in found
        if pods.phase(pod) in ("Running", "Pending")
        for of in ("initContainerStatuses", "containerStatuses")
        for status in (pod.get("status") or {}).get(of) or ()
    )
    return bool(restarts >= max(spec["backoffLimit"], 1))
