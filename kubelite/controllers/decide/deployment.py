"""Decides about a Deployment: it has a ReplicaSet for each template, and a rollout scales these up and down.

Source: Kubernetes pkg/controller/deployment: deployment_controller.go, sync.go, rolling.go, recreate.go.

One rule is stricter here. Kubernetes counts the replicas in the specs of ReplicaSets, so a rollout may exceed its
limits while a ReplicaSet is still behind its spec. Here, the next step waits until every ReplicaSet has the pods that
its spec asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubelite.controllers.decide.deployments import progress, revisions, rolling, scaling
from kubelite.controllers.decide.deployments.limits import Limits
from kubelite.controllers.decide.deployments.owned import REVISION, OwnedSet, active, counted
from kubelite.controllers.model import Effect, Event, Plan, Rewrite, SetStatus, Together, View
from kubelite.controllers.references import is_terminating, managed
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels


def decide(view: View) -> Plan:
    """Take the next step of a rollout or of a scaling, and set the status."""
    selector = view.owner["spec"].get("selector") or {}
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        return _selects_everything(view)
    found, changes = managed(view, "ReplicaSet", lambda doc: matches_labels(selector, labels_of(doc)))
    rewritten = [effect.doc for effect in changes if isinstance(effect, Rewrite)]
    sets = [OwnedSet(doc, adopted=any(doc is other for other in rewritten)) for doc in found]
    released = [Rewrite(doc) for doc in rewritten if not any(doc is one for one in found)]
    return _Decision(view, sets).plan(released)


def _selects_everything(view: View) -> Plan:
    """Validation forbids an empty selector; one that is there nevertheless selects nothing."""
    status = view.owner.get("status") or {}
    generation = view.owner["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0) >= generation:
        return Plan()
    message = "This deployment is selecting all pods. A non-empty selector is required."
    event = Event(view.owner, "Warning", "SelectingAll", message)
    return Plan(
        (event, SetStatus(view.owner["metadata"]["uid"], {**status, "observedGeneration": generation}))
    )


class _Decision:
    """A decision: what it is made from, and what it has come to. It lives for one call."""

    def __init__(self, view: View, sets: list[OwnedSet]) -> None:
        self.view, self.deployment = view, view.owner
        self.status: Json = view.owner.get("status") or {}
        self.limits = Limits.of(view.owner)
        self.conditions = progress.Conditions(view.owner, view.now)
        self.new = revisions.find_new(view.owner, sets)
        self.old = [found for found in sets if found is not self.new]
        self.collisions: int | None = self.status.get("collisionCount")
        self.revision: str | None = None  # of the Deployment, if it is known
        self.ready = all(found.observed for found in sets)  # for the next step

    def plan(self, effects: Sequence[Effect]) -> Plan:
        ends, paused = is_terminating(self.deployment), bool(self.deployment["spec"].get("paused"))
        if not ends:
            progress.note_pause(self.deployment, self.conditions)
            self._sync_revision()
        rolls = not ends and not paused and not self._scales()
        if self.ready and not ends:
            if rolls:
                self._roll()
            else:
                scaling.scale(self.limits, self.new, self.old, self.status.get("replicas", 0))
        status = self._status(estimate=rolls)
        deletions: list[Effect] = []
        if self.ready and not ends and (paused or (rolls and progress.is_complete(self.deployment, status))):
            deletions = list(revisions.cleanup(self.deployment, self.old))
        changes = [*effects, *self._resized(), *deletions, *self._events(), *self._own(status)]
        again = (
            progress.next_check(self.deployment, status, self.conditions, self.view.now) if rolls else None
        )
        return Plan(changes, again=again)

    @property
    def sets(self) -> list[OwnedSet]:
        return [*self.old, self.new] if self.new else self.old

    def _scales(self) -> bool:
        """Whether this is a scaling. A Recreate with several ReplicaSets with pods is one after its old pods ended."""
        if not self.limits.rolling and len(active(self.sets)) > 1:
            return False
        return scaling.is_scaling(self.limits, self.sets)

    def _sync_revision(self) -> None:
        """Keep the new ReplicaSet's annotations and minReadySeconds, and the Deployment's revision, up to date
        (getNewReplicaSet)."""
        if self.new is None:
            return
        revisions.renew_template(self.deployment, self.new)
        revisions.annotate_new(self.deployment, self.new, self.old)
        self.new.min_ready_seconds = self.deployment["spec"].get("minReadySeconds", 0)
        self.revision = self.new.annotations.get(REVISION)
        if progress.deadline(self.deployment) is not None and not self.conditions.get(progress.PROGRESSING):
            message = f'Found new replica set "{self.new.name}"'
            self.conditions.set(progress.PROGRESSING, "True", "FoundNewReplicaSet", message)

    def _roll(self) -> None:
        if not self.limits.rolling:
            self._recreate()
            return
        new = self.new or self._create()
        if not rolling.resize_new(self.limits, new, self.old):
            rolling.shrink_old(self.limits, new, active(self.old))

    def _recreate(self) -> None:
        """Stop all old pods; when they are gone, start the new ones (rolloutRecreate)."""
        if old := active(self.old):
            for found in old:
                found.replicas = 0
        elif not counted(self.old, "replicas") and not counted(self.old, "terminatingReplicas"):
            (self.new or self._create()).replicas = self.limits.replicas

    def _create(self) -> OwnedSet:
        self.new, collisions = revisions.new_set(self.view, self.limits, self.old)
        if collisions:
            self.collisions = collisions
        self.revision = self.new.annotations[REVISION]
        if progress.deadline(self.deployment) is not None:
            message = f'Created new replica set "{self.new.name}"'
            self.conditions.set(progress.PROGRESSING, "True", "NewReplicaSetCreated", message)
        return self.new

    def _status(self, *, estimate: bool) -> Json:
        """`estimate`: judge the progress of a rollout."""
        status = progress.counts(self.deployment, self.sets, self.new, self.collisions)
        progress.note_availability(self.limits, status, self.conditions)
        if estimate:
            progress.note_progress(self.deployment, status, self.new, self.conditions, self.view.now)
            progress.note_failures(self.sets, self.new, self.conditions)
        return {**status, "conditions": self.conditions.all}

    def _resized(self) -> list[Effect]:
        for found in self.sets:
            if found.replicas != found.doc["spec"].get("replicas", 1):
                found.note_sizes(self.limits.replicas, self.limits.most)
        effects = (found.effect() for found in self.sets)
        return [effect for effect in effects if effect is not None]

    def _events(self) -> list[Event]:
        events = []
        for found in self.sets:
            before = 0 if found.new else found.doc["spec"].get("replicas", 1)
            if found.replicas != before:
                direction = "up" if found.replicas > before else "down"
                message = f"Scaled {direction} replica set {found.name} from {before} to {found.replicas}"
                events.append(Event(self.deployment, "Normal", "ScalingReplicaSet", message))
        return events

    def _own(self, status: Json) -> list[Effect]:
        """What changes the Deployment itself: the annotation of its revision, and its status."""
        effects: list[Rewrite | SetStatus] = []
        metadata = self.deployment["metadata"]
        annotations = metadata.get("annotations") or {}
        if self.revision and annotations.get(REVISION) != self.revision:
            annotations = {**annotations, REVISION: self.revision}
            effects.append(Rewrite({**self.deployment, "metadata": {**metadata, "annotations": annotations}}))
        if status != self.status:
            effects.append(SetStatus(metadata["uid"], status))
        return list(effects) if len(effects) < 2 else [Together(effects)]
