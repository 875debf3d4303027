"""StatefulSet: numbered pods, each with its name and its claims, in order.

Sources: Kubernetes pkg/controller/statefulset/stateful_set_control.go (updateStatefulSet, processReplica,
processCondemned, getStatefulSetRevisions), stateful_set_utils.go and stateful_pod_control.go. Pure.

With `podManagementPolicy: OrderedReady`, one pod at a time: an ordinal is created when all before it are available,
and the highest one is deleted first. With Parallel, pods are created and deleted at once; a rolling update goes one by
one, from the highest ordinal. `maxUnavailable` follows the rules of the feature gate MaxUnavailableStatefulSet if the
field is set, and those without the gate if it is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from kubelite.controllers.decide import revisions
from kubelite.controllers.decide import stateful_claims as claims
from kubelite.controllers.decide.pods import (
    has_ended,
    has_failed,
    is_available,
    is_ready,
    next_availability,
    phase,
    pod_from_template,
    scaled,
)
from kubelite.controllers.model import Create, Delete, Effect, Event, Plan, Rewrite, SetStatus, View
from kubelite.controllers.references import is_terminating, managed
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels
from kubelite.kube.objects import SOURCE

POD_NAME, POD_INDEX = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"
REVISION_HASH = "controller.kubernetes.io/hash"  # label of a revision
RETRY = 30.0  # seconds after which a pod that was not admitted is tried again
RETRY_TAKEN = 5.0  # the same for a pod whose name another one has: of a deleted set of this name, say
_NAME = re.compile(r"(.*)-(0|[1-9][0-9]{0,9})", re.DOTALL)


def decide(view: View) -> Plan:
    owner = view.owner
    selector = owner["spec"].get("selector")

    def mine(doc: Json) -> bool:
        return matches_labels(selector, labels_of(doc))

    pods, effects = managed(view, "Pod", lambda pod: mine(pod) and ordinal_of(pod, owner) is not None)
    found, more = managed(view, revisions.KIND, mine)
    effects += more
    history = revisions.sort_revisions(found)
    if is_terminating(owner) and not history:
        return Plan()
    placed = _update_revision(view, history)
    effects += placed.effects
    current = _current_revision(owner, history) or placed.revision
    steps = _Steps(view, pods, current, placed.revision)
    if not is_terminating(owner):
        steps.take()
    effects += steps.effects()
    effects.append(SetStatus(owner["metadata"]["uid"], steps.status(placed.collisions)))
    if not is_terminating(owner):
        effects += _truncated(owner, history, pods, (current, placed.revision))
    return Plan(revisions.merged(effects), steps.again())


def ordinal_of(pod: Json, owner: Json) -> int | None:
    """Return the number in a pod's name, None if the name is none of this set's."""
    found = _NAME.fullmatch(pod["metadata"]["name"])
    if found is None or found[1] != owner["metadata"]["name"] or int(found[2]) >= 2**31:
        return None
    return int(found[2])


def _update_revision(view: View, history: Sequence[Json]) -> revisions.Placed:
    """Find or create the revision of the present template (getStatefulSetRevisions). `history` is sorted."""
    template = view.owner["spec"]["template"]
    collisions = int((view.owner.get("status") or {}).get("collisionCount") or 0)
    same = [one for one in history if revisions.is_same(one, template)]
    if is_terminating(view.owner):
        return revisions.Placed((same or history)[-1], [], collisions)
    number = revisions.next_number(history)
    if history and (
        same[-1:] == history[-1:] or (not same and revisions.is_equivalent(history[-1], template))
    ):
        return revisions.Placed(history[-1], [], collisions)
    if not same:
        return revisions.create(view, REVISION_HASH, number)
    revision, effects = revisions.renumber(same[-1], number)  # a rollback
    return revisions.Placed(revision, effects, collisions)


def _current_revision(owner: Json, history: Iterable[Json]) -> Json | None:
    name = (owner.get("status") or {}).get("currentRevision")
    return next((one for one in history if revisions.name_of(one) == name), None)


def _truncated(
    owner: Json, history: Sequence[Json], pods: Iterable[Json], used: Iterable[Json]
) -> list[Effect]:
    """truncateHistory: revisions that are in use stay, and do not count."""
    live = {revisions.name_of(one) for one in used} | {_revision_of(pod) for pod in pods}
    old = [one for one in history if revisions.name_of(one) not in live]
    return revisions.truncate(old, (), len(old) - int(owner["spec"].get("revisionHistoryLimit", 10)))


def _revision_of(pod: Json) -> str:
    return str(labels_of(pod).get(revisions.POD_LABEL, ""))


class _Steps:
    """One decision: the replicas by ordinal, the pods beyond them (condemned), and what is done to them.

    Effects are collected by class, so that those of a parallel set are carried out beside each other. Claims come
    before the pods that mount them, and get a pod as their owner before the pod is deleted.
    """

    def __init__(self, view: View, pods: Sequence[Json], current: Json, update: Json) -> None:
        self.view, self.owner, self.current, self.update = view, view.owner, current, update
        spec = self.owner["spec"]
        self.start = int((spec.get("ordinals") or {}).get("start") or 0)
        self.replicas = int(spec.get("replicas", 1))
        self.ordered = spec.get("podManagementPolicy", "OrderedReady") != "Parallel"
        self.min_ready = int(spec.get("minReadySeconds") or 0)
        self.strategy = spec.get("updateStrategy") or {"type": "RollingUpdate"}
        self.pods = {ordinal: pod for pod in pods if (ordinal := ordinal_of(pod, self.owner)) is not None}
        self.ordinals = range(self.start, self.start + self.replicas)
        self.condemned = sorted((one for one in self.pods if one not in self.ordinals), reverse=True)
        self.known = {claim["metadata"]["name"]: claim for claim in view.of(claims.KIND)}
        self.wait: list[float] = []  # seconds until the next decision is due
        self.failed = False  # whether a failed pod is deleted
        self.updating = 0  # pods of the current revision that are deleted for the update
        self._made: list[Create] = []
        self._made_events: list[Event] = []
        self._created: list[Create] = []
        self._events: list[Event] = []
        self._changed: dict[str, Json] = {}  # rewritten documents by uid
        self._deleted: dict[str, Json] = {}  # deleted pods by uid

    # What is done

    def take(self) -> None:
        """updateStatefulSet."""
        blocked = False
        for ordinal in self.ordinals:
            stop, error = self._replica(ordinal)
            if self.ordered and (stop or error):
                return
            blocked = blocked or error
        if blocked:
            return
        for ordinal in self.condemned:
            self._settle_claims(self.pods[ordinal], condemned=True)
        first = self._first_unavailable()
        for ordinal in self.condemned:
            if self._condemn(ordinal, first) and self.ordered:
                return
        if self.strategy.get("type") != "OnDelete":
            self._roll()

    def _replica(self, ordinal: int) -> tuple[bool, bool]:
        """processReplica. Return whether an ordered set stops here, and whether something is wrong."""
        pod = self.pods.get(ordinal)
        if pod is None:
            return self._create(ordinal)
        if has_ended(pod):
            self._replace(pod)
            return True, False
        if phase(pod) == "Pending" and not self._provide(pod, "Update"):
            return True, True
        if self.ordered and (is_terminating(pod) or not self._running(pod) or not self._available(pod)):
            return True, False
        return False, not self._repair(pod)

    def _create(self, ordinal: int) -> tuple[bool, bool]:
        pod = self._new_pod(ordinal)
        name = pod["metadata"]["name"]
        if claims.policy(self.owner)[0] and any(
            claims.is_stale(claim, pod) for claim in self._claims_of(name)
        ):
            return True, False  # the claim is deleted first (PodClaimIsStale)
        if not self._provide(pod, "Create"):
            return True, True
        taken = self.view.taken("Pod", name)
        if why := f'pods "{name}" already exists' if taken else self.view.refusal(pod):
            self._say("Create", pod, why)
            self.wait.append(RETRY_TAKEN if taken else RETRY)
            return True, True
        self._created.append(Create(pod))
        self._say("Create", pod)
        return True, False

    def _provide(self, pod: Json, verb: str) -> bool:
        """Create the claims of a pod that are missing; return False if one cannot be used
        (createPersistentVolumeClaims)."""
        name, set_name = pod["metadata"]["name"], self.owner["metadata"]["name"]
        going = []
        for claim in claims.new_claims(self.owner, name):
            claim_name = claim["metadata"]["name"]
            existing = self.known.get(claim_name)
            if existing is None:
                self._made.append(Create(claim))
                message = f"Create Claim {claim_name} Pod {name} in StatefulSet {set_name} success"
                self._made_events.append(Event(self.owner, "Normal", "SuccessfulCreate", message))
            elif is_terminating(existing):
                going.append(f"pvc {claim_name} is being deleted")
        if going:
            self._say(verb, pod, "; ".join(going))
            return False
        self._settle_claims(pod, condemned=False)
        return True

    def _replace(self, pod: Json) -> None:
        """Delete a pod that has ended; the next decision creates it again. Kubernetes leaves the pace to the API
        server; here a pod that the node rejects is not recreated all the time."""
        if is_terminating(pod):
            return
        if has_failed(pod):
            if wait := revisions.back_off(self.update, self.view.now):
                self.wait.append(wait)
                return
            self.failed = True
        self._delete(pod)

    def _repair(self, pod: Json) -> bool:
        """Give a pod its labels, and its claims their owners; return False if it cannot be repaired
        (UpdateStatefulPod)."""
        if is_terminating(pod):
            return True
        name = pod["metadata"]["name"]
        if not claims.has_volumes(self.owner, pod):
            why = f'Pod "{name}" is invalid: spec.volumes: Forbidden: pod updates may not change volumes'
            self._say("Update", pod, why)
            return False
        changed = self._settle_claims(pod, condemned=False)
        if labels_of(pod).get(POD_NAME) != name:
            labels = {**labels_of(pod), **_identity(name)}
            self._changed[pod["metadata"]["uid"]] = {**pod, "metadata": {**pod["metadata"], "labels": labels}}
            changed = True
        if changed:
            self._say("Update", pod)
        return True

    def _settle_claims(self, pod: Json, *, condemned: bool) -> bool:
        """Give a pod's claims the owners that the retention policy asks for; return whether one changed
        (UpdatePodClaimForRetentionPolicy)."""
        changed = False
        for claim in self._claims_of(pod["metadata"]["name"]):
            if _is_from_manifest(claim) or claims.has_right_owners(claim, self.owner, pod, condemned):
                continue
            if claims.has_other_controller(claim, self.owner, pod):
                message = (
                    f"PersistentVolumeClaim {claim['metadata']['name']} has a conflicting OwnerReference that acts"
                    " as a managing controller, the retention policy is ignored for this claim"
                )
                self._events.append(Event(self.owner, "Warning", "ConflictingController", message))
            uid = claim["metadata"]["uid"]
            self._changed[uid] = claims.with_owners(claim, self.owner, pod, condemned)
            changed = True
        return changed

    def _condemn(self, ordinal: int, first: int | None) -> bool:
        """processCondemned. Return whether an ordered set stops here. `first`: the first unavailable ordinal."""
        pod = self.pods[ordinal]
        if is_terminating(pod):
            return True
        # Unlike Kubernetes, which waits for ever if two have ended: one that has ended is deleted like a healthy one.
        healthy = has_ended(pod) or (self._running(pod) and self._available(pod))
        if self.ordered and not healthy and ordinal != first:
            return True
        self._delete(pod)
        return True

    def _first_unavailable(self) -> int | None:
        order = (*self.ordinals, *reversed(self.condemned))
        return next((one for one in order if self._is_unavailable(one)), None)

    def _roll(self) -> None:
        """Delete pods of other revisions than the new one, from the highest ordinal down to the partition."""
        rolling = self.strategy.get("rollingUpdate") or {}
        targets = self.ordinals[int(rolling.get("partition") or 0) :][::-1]
        most = rolling.get("maxUnavailable")
        if most is None:
            for ordinal in targets:
                if self._outdated(ordinal):
                    self._delete_outdated(ordinal)
                    return
                if self._is_unavailable(ordinal):
                    return
            return
        left = max(1, scaled(most, self.replicas, up=False)) - sum(map(self._is_unavailable, self.ordinals))
        for ordinal in [one for one in targets if self._outdated(one)][: max(0, left)]:
            self._delete_outdated(ordinal)

    def _outdated(self, ordinal: int) -> bool:
        pod = self.pods.get(ordinal)
        return (
            pod is not None
            and not is_terminating(pod)
            and _revision_of(pod) != revisions.name_of(self.update)
        )

    def _delete_outdated(self, ordinal: int) -> None:
        pod = self.pods[ordinal]
        self.updating += int(_revision_of(pod) == revisions.name_of(self.current))
        self._delete(pod)

    # Pods

    def _running(self, pod: Json) -> bool:
        return phase(pod) == "Running" and is_ready(pod)

    def _available(self, pod: Json) -> bool:
        return is_available(pod, self.min_ready, self.view.now)

    def _is_unavailable(self, ordinal: int) -> bool:
        pod = self.pods.get(ordinal)
        return pod is None or is_terminating(pod) or not self._available(pod)

    def _claims_of(self, pod: str) -> list[Json]:
        names = [claims.claim_name(template, pod) for template in claims.templates(self.owner)]
        return [self.known[name] for name in names if name in self.known]

    def _new_pod(self, ordinal: int) -> Json:
        """newVersionedStatefulSetPod: pods below the partition are of the current revision."""
        rolling = self.strategy.get("rollingUpdate")
        old = (self.owner.get("status") or {}).get("currentReplicas", 0)
        below = self.start + int(old if rolling is None else rolling.get("partition") or 0)
        rolls = self.strategy.get("type", "RollingUpdate") == "RollingUpdate"
        revision = self.current if rolls and ordinal < below else self.update
        name = f"{self.owner['metadata']['name']}-{ordinal}"
        pod = pod_from_template(revisions.template_of(revision), self.owner)
        labels = {**(pod["metadata"].get("labels") or {}), **_identity(name)}
        labels[revisions.POD_LABEL] = revisions.name_of(revision)
        spec = {**claims.with_volumes(self.owner, pod["spec"], name), "hostname": name}
        if self.owner["spec"].get("serviceName"):
            spec["subdomain"] = self.owner["spec"]["serviceName"]
        return {**pod, "metadata": {**pod["metadata"], "name": name, "labels": labels}, "spec": spec}

    def _delete(self, pod: Json) -> None:
        if pod["metadata"]["uid"] not in self._deleted:
            self._deleted[pod["metadata"]["uid"]] = pod
            self._say("Delete", pod)

    def _say(self, verb: str, pod: Json, error: str = "") -> None:
        """recordPodEvent."""
        end = f"failed error: {error}" if error else "successful"
        message = (
            f"{verb} Pod {pod['metadata']['name']} in StatefulSet {self.owner['metadata']['name']} {end}"
        )
        kind, reason = ("Warning", "Failed") if error else ("Normal", "Successful")
        self._events.append(Event(self.owner, kind, f"{reason}{verb}", message))

    # What comes of it

    def effects(self) -> list[Effect]:
        found: list[Effect] = [*self._made, *self._made_events, *self._created]
        if self.failed and "uid" in self.update["metadata"]:
            found.append(Rewrite(revisions.backed_off(self.update, self.view.now)))
        found += [Rewrite(doc) for doc in self._changed.values()]
        found += [Delete(uid) for uid in self._deleted]
        return [*found, *self._events]

    def status(self, collisions: int) -> Json:
        """computeReplicaStatus and completeRollingUpdate."""
        pods = list(self.pods.values())
        current, update = revisions.name_of(self.current), revisions.name_of(self.update)

        def count(holds: Callable[[Json], bool]) -> int:
            return sum(map(holds, pods))

        def of_revision(name: str) -> int:
            return count(lambda pod: _revision_of(pod) == name and not is_terminating(pod))

        ready, updated = count(self._running), of_revision(update)
        status: Json = {
            "observedGeneration": self.owner["metadata"].get("generation", 0),
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": count(lambda pod: self._running(pod) and self._available(pod)),
            "currentReplicas": of_revision(current) - self.updating,
            "updatedReplicas": updated,
            "currentRevision": current,
            "updateRevision": update,
            "collisionCount": collisions,
        }
        rolls = self.strategy.get("type", "RollingUpdate") == "RollingUpdate"
        if rolls and updated == ready == len(pods) == self.replicas:
            status |= {"currentReplicas": updated, "currentRevision": update}
        optional = ("readyReplicas", "currentReplicas", "updatedReplicas")
        return {key: value for key, value in status.items() if value or key not in optional}

    def again(self) -> float | None:
        soon = next_availability(self.pods.values(), self.min_ready, self.view.now)
        return min([*self.wait, *([] if soon is None else [soon])], default=None)


def _is_from_manifest(claim: Json) -> bool:
    """Whether a manifest defines the claim. It says who owns it, and is not contradicted: the claim is deleted with the
    manifest alone."""
    return bool((claim["metadata"].get("annotations") or {}).get(SOURCE))


def _identity(name: str) -> Json:
    return {POD_NAME: name, POD_INDEX: name.rpartition("-")[2]}
