"""The pods that a Job creates.

Source: Kubernetes pkg/controller/job/job_controller.go manageJob, indexed_job_utils.go.
"""

from __future__ import annotations

from kubelite.controllers.decide import pods
from kubelite.controllers.decide.jobs import indexes, rules
from kubelite.controllers.decide.jobs.policies import judge
from kubelite.kube.jobs import TRACKING_FINALIZER
from kubelite.kube.json import Json

INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
_PREFIX_LENGTH = 58  # apiserver pkg/storage/names: 63 characters less the five that are added


def new_pod(job: Json, index: int | None = None, replaced: Json | None = None) -> Json:
    """Return a pod of a Job, with the finalizer by which it is counted. `replaced`: the failed pod of the index whose
    failures the new one carries on, if the Job limits them by index."""
    pod = pods.pod_from_template(job["spec"]["template"], job)
    metadata = pod["metadata"]
    finalizers = [one for one in metadata.get("finalizers") or () if one != TRACKING_FINALIZER]
    metadata["finalizers"] = [*finalizers, TRACKING_FINALIZER]
    if index is None:
        return pod
    name = job["metadata"]["name"]
    suffix = f"-{index}-"
    metadata["generateName"] = f"{name[: _PREFIX_LENGTH - len(suffix)]}{suffix}"
    metadata["labels"] = {**metadata.get("labels", {}), indexes.INDEX: str(index)}
    metadata["annotations"] = {**metadata.get("annotations", {}), indexes.INDEX: str(index)}
    if rules.limits_each_index(job):
        metadata["annotations"].update(_failure_counts(job, replaced))
    pod["spec"] = {**_with_variable(pod["spec"]), "hostname": f"{name}-{index}"}
    return pod


def _failure_counts(job: Json, replaced: Json | None) -> dict[str, str]:
    """Return the annotations that count the failures of an index before a pod (getNewIndexFailureCounts)."""
    if replaced is None:
        return {indexes.FAILURES: "0"}
    counts = judge(job["spec"].get("podFailurePolicy"), replaced).counts
    failures = indexes.failures_of(replaced) + counts
    ignored = indexes.ignored_failures_of(replaced) + (not counts)
    return {indexes.FAILURES: str(failures), **({indexes.IGNORED_FAILURES: str(ignored)} if ignored else {})}


def _with_variable(spec: Json) -> Json:
    """Give each container its index in the environment, unless it has a variable of that name
    (addCompletionIndexEnvVariables)."""
    path = {"fieldPath": f"metadata.labels['{indexes.INDEX}']"}
    variable = {"name": INDEX_VARIABLE, "valueFrom": {"fieldRef": {"apiVersion": "v1", **path}}}
    changed = {}
    for of in ("initContainers", "containers"):
        containers = [
            container
            if any(one["name"] == INDEX_VARIABLE for one in container.get("env") or ())
            else {**container, "env": [*(container.get("env") or ()), variable]}
            for container in spec.get(of) or ()
        ]
        if containers:
            changed[of] = containers
    return {**spec, **changed}
