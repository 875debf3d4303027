"""What several rooms ask about a Job: its labels and selector, whether it has finished, which pods it has to count.

Sources: Kubernetes staging/src/k8s.io/api/batch/v1/types.go, pkg/registry/batch/job/strategy.go,
pkg/controller/job/util/utils.go. Pure.
"""

from __future__ import annotations

from kubelite.kube.json import Json

PREFIX = "batch.kubernetes.io/"
CONTROLLER_UID, JOB_NAME = f"{PREFIX}controller-uid", f"{PREFIX}job-name"
LEGACY_CONTROLLER_UID, LEGACY_JOB_NAME = "controller-uid", "job-name"
TRACKING_FINALIZER = f"{PREFIX}job-tracking"
CONTROLLER_NAME = "kubernetes.io/job-controller"


def with_selector(job: Json) -> Json:
    """Return a Job with the selector and the labels that an API server generates from its uid when the Job is created
    (strategy.go generateSelector); the Job itself if it has them, or if it selects its pods itself.

    An API server refuses other values of these labels. Here they are replaced: a manifest that was read from another
    cluster has the uid that the Job had there.
    """
    spec, metadata = job["spec"], job["metadata"]
    if spec.get("manualSelector"):
        return job
    uid, name = metadata["uid"], metadata["name"]
    own = {CONTROLLER_UID: uid, JOB_NAME: name, LEGACY_CONTROLLER_UID: uid, LEGACY_JOB_NAME: name}
    template = spec["template"]
    given = template.get("metadata") or {}
    labels = {**(given.get("labels") or {}), **own}
    selector = {"matchLabels": {CONTROLLER_UID: uid}}
    has_labels = bool(metadata.get("labels"))
    if has_labels and given.get("labels") == labels and spec.get("selector") == selector:
        return job
    return {
        **job,
        # SetDefaults_Job, which also applies to what is read from the storage
        "metadata": metadata if has_labels else {**metadata, "labels": labels},
        "spec": {
            **spec,
            "selector": selector,
            "template": {**template, "metadata": {**given, "labels": labels}},
        },
    }


def finished_condition(job: Json) -> Json | None:
    """Return the condition Complete or Failed of a Job that has finished; None if it has not (FinishedCondition)."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            found: Json = condition
            return found
    return None


def is_managed_elsewhere(job: Json) -> bool:
    """Whether `spec.managedBy` leaves the Job to another program (managedByExternalController)."""
    return job["spec"].get("managedBy") not in (None, CONTROLLER_NAME)


def is_tracked(pod: Json) -> bool:
    """Whether a pod has yet to be counted (hasJobTrackingFinalizer)."""
    return TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or ())


def without_finalizer(doc: Json, finalizer: str) -> Json:
    """Return an object without a finalizer."""
    left = [one for one in doc["metadata"].get("finalizers") or () if one != finalizer]
    metadata = {key: value for key, value in doc["metadata"].items() if key != "finalizers"}
    return {**doc, "metadata": {**metadata, **({"finalizers": left} if left else {})}}


def controlling_job(pod: Json) -> str:
    """Return the uid of the Job that controls a pod, "" if none does."""
    for ref in pod["metadata"].get("ownerReferences") or ():
        if ref.get("controller") and ref.get("kind") == "Job":
            return str(ref.get("uid", ""))
    return ""


def awaits_counting(pod: Json, job: Json | None) -> bool:
    """Whether a deleted pod must stay until its Job has counted it. `job`: the Job that controls it, None if there is
    none any more: nobody counts the pod then (syncOrphanPod)."""
    return is_tracked(pod) and job is not None and finished_condition(job) is None
