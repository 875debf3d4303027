"""ReplicaSet and ReplicationController: as many active pods as `spec.replicas` says.

Source: Kubernetes pkg/controller/replicaset/replica_set.go, replica_set_utils.go; a ReplicationController is managed by
the same code there (pkg/controller/replication), with a selector that is a map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kubelite.controllers.decide.deployments import failed_pods
from kubelite.controllers.decide.pods import (
    deletion_order,
    is_active,
    is_available,
    is_ready,
    next_availability,
    pod_from_template,
    still_terminates,
)
from kubelite.controllers.model import Create, Delete, Effect, Event, Plan, SetStatus, View
from kubelite.controllers.references import controls, is_terminating, managed
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels
from kubelite.kube.times import rfc3339, unix

REPLICA_FAILURE = "ReplicaFailure"

#: Seconds after which a refused pod is tried again: as long as it has been refused, within these bounds.
RETRY_MIN, RETRY_MAX = 1.0, 60.0


def decide(view: View) -> Plan:
    """Adopt and release pods, create or delete what is missing or too much, and set the status.

    The status says what is true once the effects are carried out: with its observedGeneration, an observer of the
    ReplicaSet knows that no pod is left that this generation does not want.
    """
    matches = _matcher(view.owner)
    active = tuple(pod for pod in view.of("Pod") if is_active(pod))
    found, effects = managed(replace(view, objects={"Pod": active}), "Pod", matches)
    terminating = [
        pod for pod in view.of("Pod") if still_terminates(pod) and controls(view.owner, pod) and matches(pod)
    ]
    own = [pod for pod in view.of("Pod") if controls(view.owner, pod)]
    change = _Change() if is_terminating(view.owner) else _missing_or_excess(view, found, own)
    effects += [Create(pod) for pod in change.created]
    effects += [Delete(pod["metadata"]["uid"]) for pod in change.deleted]
    effects += [Delete(pod["metadata"]["uid"]) for pod in change.outdated]
    effects += _events(view.owner, change)
    gone = {pod["metadata"]["uid"] for pod in change.deleted}
    left = [pod for pod in found if pod["metadata"]["uid"] not in gone]
    counts = _counts(view, [*left, *change.created], len(terminating) + len(gone))
    status = _status(view, counts, change.failure)
    if status != (view.owner.get("status") or {}):
        effects.append(SetStatus(view.owner["metadata"]["uid"], status))
    return Plan(effects, again=_again(view, left, status, change.wait))


@dataclass(frozen=True, slots=True)
class _Change:
    """Pods to create and to delete. `outdated`: ended pods to delete; `failure`: why pods that are missing are not
    created; `wait`: seconds until they are, because others have failed."""

    created: Sequence[Json] = ()
    deleted: Sequence[Json] = ()
    outdated: Sequence[Json] = ()
    failure: str = ""
    wait: float = 0.0


def _missing_or_excess(view: View, found: Sequence[Json], own: Sequence[Json]) -> _Change:
    """manageReplicas. `own`: all pods that the owner controls, also those that have ended."""
    replicas = view.owner["spec"]["replicas"]
    difference = replicas - len(found)
    outdated = failed_pods.too_many(own, replicas)
    if difference > 0:
        template = view.owner["spec"]["template"]
        if refused := view.refusal(pod_from_template(template, view.owner)):
            return _Change(outdated=outdated, failure=refused)
        if wait := failed_pods.wait(own, replicas, view.now):
            return _Change(outdated=outdated, wait=wait)
        new = [pod_from_template(template, view.owner) for _ in range(difference)]
        return _Change(created=new, outdated=outdated)
    if difference < 0:
        seconds = view.owner["spec"].get("minReadySeconds", 0)
        return _Change(deleted=deletion_order(found, view.now, seconds)[:-difference], outdated=outdated)
    return _Change(outdated=outdated)


def _matcher(owner: Json) -> Callable[[Json], bool]:
    """Return the test of a pod's labels. A ReplicationController's selector is a map of labels."""
    selector = owner["spec"].get("selector")
    if owner["kind"] == "ReplicationController":
        selector = {"matchLabels": selector} if selector else None
    return lambda pod: matches_labels(selector, labels_of(pod))


def _events(owner: Json, change: _Change) -> list[Effect]:
    """The events of deletions and of a refusal; what creates a pod records SuccessfulCreate, since it gives the name.
    A refusal is told once, and again when its reason is another one."""
    if change.failure:
        told = _failure_condition(owner)
        if told is not None and told.get("message") == change.failure:
            return []
        return [Event(owner, "Warning", "FailedCreate", f"Error creating: {change.failure}")]
    names = (pod["metadata"]["name"] for pod in change.deleted)
    return [Event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {name}") for name in names]


def _counts(view: View, active: Sequence[Json], terminating: int) -> Json:
    """The counts of calculateStatus. As in Kubernetes' JSON, a count of 0 is left out, except for `replicas` and
    `terminatingReplicas`; a ReplicationController has no `terminatingReplicas`."""
    spec = view.owner["spec"]
    wanted = (spec["template"].get("metadata") or {}).get("labels") or {}
    seconds = spec.get("minReadySeconds", 0)
    counts = {
        "fullyLabeledReplicas": sum(wanted.items() <= labels_of(pod).items() for pod in active),
        "readyReplicas": sum(is_ready(pod) for pod in active),
        "availableReplicas": sum(is_available(pod, seconds, view.now) for pod in active),
    }
    found: Json = {"replicas": len(active), **{key: count for key, count in counts.items() if count}}
    if view.owner["kind"] == "ReplicaSet":
        found["terminatingReplicas"] = terminating
    return found


def _status(view: View, counts: Json, failure: str) -> Json:
    """calculateStatus: ReplicaFailure is true as long as pods cannot be created. Its message is the newest reason;
    Kubernetes keeps the first one."""
    conditions = [
        condition
        for condition in (view.owner.get("status") or {}).get("conditions") or ()
        if condition["type"] != REPLICA_FAILURE
    ]
    if failure:
        told = _failure_condition(view.owner)
        since = told["lastTransitionTime"] if told else rfc3339(view.now)
        conditions.append(
            {
                "type": REPLICA_FAILURE,
                "status": "True",
                "lastTransitionTime": since,
                "reason": "FailedCreate",
                "message": failure,
            }
        )
    generation = view.owner["metadata"].get("generation", 1)
    return {**counts, "observedGeneration": generation, **({"conditions": conditions} if conditions else {})}


def _failure_condition(owner: Json) -> Json | None:
    for condition in (owner.get("status") or {}).get("conditions") or ():
        if condition["type"] == REPLICA_FAILURE:
            found: Json = condition
            return found
    return None


def _again(view: View, pods: Sequence[Json], status: Json, wait: float) -> float | None:
    """Decide again when a ready pod becomes available, when failed pods may be replaced (`wait`), and when a refused
    pod may be admitted."""
    times = [next_availability(pods, view.owner["spec"].get("minReadySeconds", 0), view.now), wait or None]
    for condition in status.get("conditions") or ():
        if condition["type"] == REPLICA_FAILURE:
            refused = view.now - unix(condition["lastTransitionTime"])
            times.append(min(max(refused, RETRY_MIN), RETRY_MAX))
    return min((time for time in times if time is not None), default=None)
