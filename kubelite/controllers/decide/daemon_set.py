"""DaemonSet: one pod on this node, if the node suits it.

Sources: Kubernetes pkg/controller/daemon/daemon_controller.go (manage, podsShouldBeOnNode, updateDaemonSetStatus) and
update.go (rollingUpdate, constructHistory), for a cluster of one node. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kubelite.controllers.decide import revisions
from kubelite.controllers.decide.node_fit import Fit, bound_to, fit, target_of, with_tolerations
from kubelite.controllers.decide.pods import (
    has_ended,
    has_failed,
    has_succeeded,
    is_available,
    is_ready,
    next_availability,
    pod_from_template,
    scaled,
)
from kubelite.controllers.model import Create, Delete, Effect, Event, Plan, Rewrite, SetStatus, View
from kubelite.controllers.references import is_terminating, managed
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels
from kubelite.kube.times import unix

RETRY = 30.0  # seconds after which a pod that was not admitted is tried again


class _History(NamedTuple):
    """`old`: all revisions but the current one. `pods`: with the labels that they get. `collisions`: of names."""

    current: Json
    old: list[Json]
    pods: list[Json]
    effects: list[Effect]
    collisions: int


class _Steps(NamedTuple):
    """What happens to pods. `failed`: a failed pod is among `delete`; `wait`: seconds until one may be deleted."""

    create: bool = False
    delete: Sequence[Json] = ()
    events: Sequence[Event] = ()
    failed: bool = False
    wait: float | None = None


def decide(view: View) -> Plan:
    owner = view.owner
    if is_terminating(owner):  # its pods and revisions are deleted or orphaned: there is nothing to count
        return Plan()
    selector = owner["spec"].get("selector")
    if selector is not None and not any(selector.values()):
        message = "This daemon set is selecting all pods. A non-empty selector is required."
        return Plan((Event(owner, "Warning", "SelectingAll", message),))

    def mine(doc: Json) -> bool:
        return matches_labels(selector, labels_of(doc))

    pods, effects = managed(view, "Pod", mine)
    history = _history(view, pods, mine)
    effects += history.effects
    found = _Daemon(view, history)
    steps = found.manage()
    if found.rolls and not steps.create and not steps.delete:
        steps = found.update(steps)
    effects += found.carry_out(steps)
    effects.append(SetStatus(owner["metadata"]["uid"], found.status()))
    effects += _truncated(owner, history)
    return Plan(revisions.merged(effects), found.again(steps))


class _Daemon:
    """One decision: the pods on the node, and whether the node suits them."""

    def __init__(self, view: View, history: _History) -> None:
        self.view, self.history = view, history
        spec = view.owner["spec"]
        self.node = str((view.node.get("metadata") or {}).get("name", ""))
        # A pod that has ended and is terminating is as good as gone (getNodesToDaemonPods).
        known = [pod for pod in history.pods if not (has_ended(pod) and is_terminating(pod))]
        self.pods = sorted((pod for pod in known if target_of(pod) in ("", self.node)), key=_age)
        self.elsewhere = [pod for pod in known if target_of(pod) not in ("", self.node)]
        self.min_ready = int(spec.get("minReadySeconds") or 0)
        self.fit: Fit = fit(with_tolerations(spec["template"].get("spec") or {}), view.node)
        strategy = spec.get("updateStrategy") or {}
        self.rolls = strategy.get("type", "RollingUpdate") == "RollingUpdate"
        rolling = (strategy.get("rollingUpdate") or {}) if self.rolls else {}
        self.surges = scaled(rolling.get("maxSurge", 0), 1, up=True) > 0
        unavailable = scaled(rolling.get("maxUnavailable", 1), int(self.fit.run), up=True)
        if self.fit.run and not unavailable and not self.surges:
            unavailable = 1
        self.max_unavailable = unavailable
        self.hash = str(labels_of(history.current)[revisions.POD_LABEL])

    def is_new(self, pod: Json) -> bool:
        return labels_of(pod).get(revisions.POD_LABEL) == self.hash

    def available(self, pod: Json) -> bool:
        return is_available(pod, self.min_ready, self.view.now)

    def manage(self) -> _Steps:
        """Create the pod that is missing, delete failed and surplus ones (podsShouldBeOnNode)."""
        # They were made for a node of another name: this machine, before it was renamed.
        strangers = [pod for pod in self.elsewhere if not is_terminating(pod)]
        if self.fit.run and not self.pods:
            return _Steps(create=True, delete=strangers)
        if not self.fit.stay:
            return _Steps(delete=[*strangers, *(pod for pod in self.pods if not is_terminating(pod))])
        steps = self._ended()
        left = [pod for pod in self.pods if not is_terminating(pod) and not has_ended(pod)]
        if not self.surges:
            return steps._replace(delete=[*strangers, *steps.delete, *left[1:]])
        if not left:
            # Unlike Kubernetes: not while a failed pod has to stay, or they would pile up.
            create = self.fit.run and steps.wait is None
            return steps._replace(create=create, delete=[*strangers, *steps.delete])
        return steps._replace(delete=[*strangers, *steps.delete, *self._surplus(left)])

    def _ended(self) -> _Steps:
        """Delete the pods that have ended. Those that failed may have to stay for a while, so that a pod that the node
        rejects is not recreated all the time."""
        delete, events = [], []
        wait = revisions.back_off(self.history.current, self.view.now)
        failed = False
        for pod in self.pods:
            if is_terminating(pod) or not has_ended(pod):
                continue
            if has_failed(pod) and (wait or failed):
                continue
            failed = failed or has_failed(pod)
            delete.append(pod)
            events.append(self._ended_event(pod))
        waits = any(has_failed(pod) and not is_terminating(pod) and pod not in delete for pod in self.pods)
        return _Steps(
            delete=delete,
            events=events,
            failed=failed,
            wait=(wait or revisions.BACK_OFF_INITIAL) if waits else None,
        )

    def _ended_event(self, pod: Json) -> Event:
        name = f"{pod['metadata'].get('namespace', 'default')}/{pod['metadata']['name']}"
        if has_succeeded(pod):
            message = f"Found succeeded daemon pod {name} on node {self.node}, will try to delete it"
            return Event(self.view.owner, "Normal", "SucceededDaemonPod", message)
        message = f"Found failed daemon pod {name} on node {self.node}, will try to kill it"
        return Event(self.view.owner, "Warning", "FailedDaemonPod", message)

    def _surplus(self, left: Sequence[Json]) -> list[Json]:
        """With maxSurge, an old and a new pod run beside each other until the new one is available; all others, and an
        old one that is not ready, are deleted."""
        new = next((pod for pod in left if self.is_new(pod)), None)
        old = next((pod for pod in left if not self.is_new(pod)), None)
        surplus = [pod for pod in left if pod is not new and pod is not old]
        if new is not None and old is not None and (not is_ready(old) or self.available(new)):
            surplus.append(old)
        return surplus

    def update(self, steps: _Steps) -> _Steps:
        """Replace the pod of an old revision (rollingUpdate)."""
        there = [pod for pod in self.pods if not is_terminating(pod)]
        new = [pod for pod in there if self.is_new(pod)]
        old = [pod for pod in there if not self.is_new(pod)]
        if len(old) != 1 or len(new) > 1:
            return steps
        if not self.surges:
            replaced = not new and (not self.available(old[0]) or self.max_unavailable > 0)
            return steps._replace(delete=old if replaced else ())
        if new:
            return steps._replace(delete=old if self.available(new[0]) else ())
        return steps._replace(create=True) if self.fit.run else steps._replace(delete=old)

    def carry_out(self, steps: _Steps) -> list[Effect]:
        owner = self.view.owner
        effects: list[Effect] = []
        if steps.failed and "uid" in self.history.current["metadata"]:
            effects.append(Rewrite(revisions.backed_off(self.history.current, self.view.now)))
        effects += steps.events
        if steps.create:
            pod = self.new_pod()
            if why := self.view.refusal(pod):
                effects.append(Event(owner, "Warning", "FailedCreate", f"Error creating: {why}"))
            else:
                effects.append(Create(pod))  # what gives it its name records the event
        effects += [Delete(pod["metadata"]["uid"]) for pod in steps.delete]
        for pod in steps.delete:
            effects.append(
                Event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
            )
        return effects

    def new_pod(self) -> Json:
        owner = self.view.owner
        pod = pod_from_template(owner["spec"]["template"], owner)
        metadata = pod["metadata"]
        labels = {**(metadata.get("labels") or {}), revisions.POD_LABEL: self.hash}
        spec = bound_to(with_tolerations(pod["spec"]), self.node)
        return {**pod, "metadata": {**metadata, "labels": labels}, "spec": spec}

    def status(self) -> Json:
        oldest = self.pods[0] if self.pods and self.fit.run else None
        desired = int(self.fit.run)
        ready = oldest is not None and is_ready(oldest)
        available = oldest is not None and self.available(oldest)
        status = {
            "currentNumberScheduled": int(oldest is not None),
            "numberMisscheduled": int(bool(self.pods) and not self.fit.run),
            "desiredNumberScheduled": desired,
            "numberReady": int(ready),
            "observedGeneration": self.view.owner["metadata"].get("generation", 0),
            "updatedNumberScheduled": int(oldest is not None and self.is_new(oldest)),
            "numberAvailable": int(available),
            "numberUnavailable": desired - int(available),
            "collisionCount": self.history.collisions,
        }
        optional = ("updatedNumberScheduled", "numberAvailable", "numberUnavailable", "collisionCount")
        return {key: value for key, value in status.items() if value or key not in optional}

    def again(self, steps: _Steps) -> float | None:
        times = [next_availability(self.pods, self.min_ready, self.view.now), steps.wait]
        if steps.create and self.view.refusal(self.new_pod()):
            times.append(RETRY)
        return min((one for one in times if one is not None), default=None)


def _age(pod: Json) -> tuple[bool, float, str]:
    """Scheduled pods first, then the oldest (podByCreationTimestampAndPhase)."""
    metadata = pod["metadata"]
    return (
        not (pod.get("spec") or {}).get("nodeName"),
        unix(metadata.get("creationTimestamp")),
        metadata["name"],
    )


def _history(view: View, pods: list[Json], mine: Callable[[Json], bool]) -> _History:
    """Find or create the revision of the present template (constructHistory)."""
    found, effects = managed(view, revisions.KIND, mine)
    template, key = view.owner["spec"]["template"], revisions.POD_LABEL
    for index, one in enumerate(found):
        if key not in labels_of(one):
            labels = {**labels_of(one), key: revisions.name_of(one)}
            found[index] = {**one, "metadata": {**one["metadata"], "labels": labels}}
            effects.append(Rewrite(found[index]))
    same = [one for one in found if revisions.is_same(one, template)]
    if not same:
        same = [one for one in revisions.sort_revisions(found)[-1:] if revisions.is_equivalent(one, template)]
    old = [one for one in found if one not in same]
    number = revisions.next_number(old)
    if not same:
        placed = revisions.create(view, key, number)
        return _History(placed.revision, old, pods, [*effects, *placed.effects], placed.collisions)
    current = max(same, key=lambda one: (one["revision"], revisions.name_of(one)))
    collisions = int((view.owner.get("status") or {}).get("collisionCount") or 0)
    if len(same) > 1:
        pods, more = _deduplicated(current, same, pods)
        effects += more
    if current["revision"] < number:
        current, more = revisions.renumber(current, number)
        effects += more
    return _History(current, old, pods, effects, collisions)


def _deduplicated(
    current: Json, same: Sequence[Json], pods: Sequence[Json]
) -> tuple[list[Json], list[Effect]]:
    """Keep one of several revisions with one template, for the pods of all of them (dedupCurHistories)."""
    key, kept = revisions.POD_LABEL, labels_of(current)[revisions.POD_LABEL]
    surplus = {labels_of(one).get(key) for one in same}
    changed, effects = list(pods), list[Effect]()
    for index, pod in enumerate(pods):
        if labels_of(pod).get(key) in surplus - {kept}:
            labels = {**labels_of(pod), key: kept}
            changed[index] = {**pod, "metadata": {**pod["metadata"], "labels": labels}}
            effects.append(Rewrite(changed[index]))
    effects += [Delete(one["metadata"]["uid"]) for one in same if one is not current]
    return changed, effects


def _truncated(owner: Json, history: _History) -> list[Effect]:
    """cleanupHistory: revisions of existing pods stay, and count."""
    live = {labels_of(pod).get(revisions.POD_LABEL) for pod in history.pods}
    keep = [revisions.name_of(one) for one in history.old if labels_of(one).get(revisions.POD_LABEL) in live]
    surplus = len(history.old) - int(owner["spec"].get("revisionHistoryLimit", 10))
    return revisions.truncate(revisions.sort_revisions(history.old), keep, surplus)
