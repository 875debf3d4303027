"""Pure: how manifests of workloads are merged with what controllers wrote, and what an edit of one does."""

from __future__ import annotations

from collections.abc import Iterator

from kubelite.kube.json import Json
from kubelite.kube.objects import REPLICAS
from kubelite.sources.services import ignored_fields
from manifests.yaml.helm_hooks import at_install

#: Annotations of a workload that its controller writes. Those in a manifest (from `kubectl get -o yaml`) are ignored.
_OF_CONTROLLERS = (REPLICAS, "deployment.kubernetes.io/", "deprecated.daemonset.template.generation")


def without_effect(doc: Json) -> str:
    """Return what an object of a manifest does not do on this node; "" if it does what it does on a cluster."""
    if doc["kind"] == "Service":
        return ignored_fields(doc["spec"])
    if doc["kind"] == "ServiceAccount" and doc.get("imagePullSecrets"):
        return "imagePullSecrets have no effect here: name them in the pods"
    return at_install(doc)


def own_annotations(annotations: Json) -> Json:
    """Return the annotations that a controller has written."""
    return {key: value for key, value in annotations.items() if key.startswith(_OF_CONTROLLERS)}


def replicas_kept(old: Json, doc: Json) -> Json:
    """Return an edited workload with the replicas that an autoscaler has set, as long as the manifest has the number
    that it had then. Another number in the manifest counts, as after `kubectl apply`."""
    annotations = doc["metadata"].get("annotations") or {}
    said = annotations.get(REPLICAS)
    if said is None:
        return doc
    if str(doc["spec"].get("replicas", 1)) == said:
        return {**doc, "spec": {**doc["spec"], "replicas": old["spec"].get("replicas", 1)}}
    left = {key: value for key, value in annotations.items() if key != REPLICAS}
    return {**doc, "metadata": {**doc["metadata"], "annotations": left}}


def unchangeable(old: Json, new: Json) -> list[tuple[str, str]]:
    """Return the field and the message of each change that Kubernetes forbids."""
    if all(old.get(key) == new.get(key) for key in ("spec", "addressType")):  # EndpointSlices have no spec
        return []
    from manifests.problems import field_path
    from manifests.types.workloads.kinds import workload
    from manifests.validation.workloads.kinds import workload_update_problems

    kind = workload((new["apiVersion"], new["kind"]))
    bare = ({key: value for key, value in doc.items() if key != "status"} for doc in (old, new))
    before, after = (kind.parse(doc) for doc in bare)
    return [(field_path(found.path), found.message) for found in workload_update_problems(before, after)]


def edit_words(old: Json, new: Json) -> Iterator[str]:
    """Describe what the controller does after an edit of a workload."""
    kind, before, after = new["kind"], old.get("spec") or {}, new.get("spec") or {}
    had, wanted = before.get("replicas", 1), after.get("replicas", 1)
    if had != wanted:
        yield f"scaled from {had} to {wanted} pods"
    if kind == "CronJob":
        if before.get("schedule") != after.get("schedule") or before.get("timeZone") != after.get("timeZone"):
            yield f"the schedule becomes {after.get('schedule')}"
        if before.get("jobTemplate") != after.get("jobTemplate"):
            yield "the next jobs get the new template; existing jobs do not change"
    if bool(before.get("suspend")) != bool(after.get("suspend")):
        yield "suspended" if after.get("suspend") else "resumed"
    if kind not in ("Job", "CronJob") and before.get("template") != after.get("template"):
        yield _template_words(kind, after, old.get("status") or {})
    if bool(before.get("paused")) != bool(after.get("paused")):
        yield "the rollout is paused" if after.get("paused") else "the rollout is resumed"


def _template_words(kind: str, spec: Json, status: Json) -> str:
    if kind in ("ReplicaSet", "ReplicationController"):
        return "new pods get the new template; existing pods do not change"
    if kind == "DaemonSet":
        count, strategy = status.get("currentNumberScheduled", 1), spec.get("updateStrategy") or {}
    else:
        count, strategy = spec.get("replicas", 1), spec.get("updateStrategy") or spec.get("strategy") or {}
    if spec.get("paused"):
        return "a new revision: no pod is replaced while the rollout is paused"
    pods = f"{count} pod{'s' * (count != 1)}"
    if strategy.get("type") == "OnDelete":
        return f"a new revision: each of {pods} is replaced when it is deleted"
    if kind == "StatefulSet" and (first := (strategy.get("rollingUpdate") or {}).get("partition")):
        left = max(0, count - first)
        return f"a new revision: {left} of {pods} {'is' if left == 1 else 'are'} replaced (partition {first})"
    how = ", all at once" if strategy.get("type") == "Recreate" else ""
    return f"a new revision: {pods} {'is' if count == 1 else 'are'} replaced{how}"


def creation_words(doc: Json) -> Iterator[str]:
    """Describe what the controller does with a new workload."""
    spec, kind = doc.get("spec") or {}, doc["kind"]
    if kind == "CronJob":
        yield f"jobs run at {spec.get('schedule')}"
    elif kind == "Job":
        yield "its pods run when it is created"
    elif kind == "DaemonSet":
        yield "one pod is created if it fits on this node"
    else:
        count = spec.get("replicas", 1)
        yield f"{count} pod{'s are' if count != 1 else ' is'} created"
