"""A simulator for the tests of controllers. It holds documents in memory, applies effects, and starts and ends pods.

    world = World(seed=1)
    world.use("ReplicaSet", replica_set.decide, "Pod")
    web = world.add(replica_set_doc)
    world.settle()                      # controllers decide, pods start and become ready, until nothing changes
    assert len(world.of("Pod")) == 3

A `World` takes the place of the store and the node. It assigns uids, resourceVersions and generations. It refuses a
stale `Rewrite` and a name that is taken. It deletes what a deleted object owns, and terminates pods. `seed` determines
its random choices.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from kubelite.controllers.decide import pods
from kubelite.controllers.model import (
    Create,
    Decide,
    Delete,
    Effect,
    Event,
    Plan,
    Release,
    Rewrite,
    SetStatus,
    Together,
    View,
)
from kubelite.controllers.references import controller_of, is_terminating
from kubelite.kube.jobs import awaits_counting, without_finalizer
from kubelite.kube.json import Json
from kubelite.kube.objects import mark_deleting
from kubelite.kube.times import rfc3339

WORLDS = int(os.environ.get("TEST_WORLDS", "300"))  # random worlds that each property is tried on
START = 1_790_000_000.0  # Unix seconds
SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
NODE: Json = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node", "uid": "node", "labels": {"kubernetes.io/hostname": "node"}},
    "spec": {},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}


def copied(value: Any) -> Any:
    """Copy a JSON value: several times as fast as copy.deepcopy, which took half of the time of all worlds."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [copied(item) for item in value]
    return value


def single(plan: Plan) -> list[Effect | Release]:
    """Return the effects of a plan, those that are written together as well."""
    return [
        one
        for effect in plan.effects
        for one in (effect.effects if isinstance(effect, Together) else (effect,))
    ]


class NotSettled(AssertionError):
    """The controllers have not come to rest."""


class World:
    """`now`: Unix seconds. `events`: events recorded, in order. `refuse`: why a pod is not admitted (`View.refusal`).
    `check`: called after each effect that is carried out; a test asserts there what must hold at each step."""

    def __init__(self, seed: int = 0, *, node: Json | None = None) -> None:
        self.random = Random(seed)
        self.now = START
        self.node = copied(NODE if node is None else node)
        self.events: list[Event] = []
        self.refuse: Callable[[Json], str] = lambda _pod: ""
        self.check: Callable[[], None] = lambda: None
        self._docs: dict[str, Json] = {}
        self._numbers = itertools.count(1)
        self._controllers: dict[str, tuple[Decide, tuple[str, ...]]] = {}
        self._shares: set[str] = set()

    def use(self, kind: str, decide: Decide, *owns: str, shares: str = "") -> None:
        """Let a controller manage the objects of a kind. `owns`: the kinds in its view; `shares`: one of them of which
        it sees all objects."""
        self._controllers[kind] = (decide, owns)
        self._shares.add(shares)

    # Documents

    def of(self, kind: str) -> list[Json]:
        """Return the documents of a kind, sorted by name. They must not be changed in place."""
        return sorted((doc for doc in self._docs.values() if doc["kind"] == kind), key=_name)

    def owned(self, owner: Json, kind: str) -> list[Json]:
        """Return the documents of a kind that `owner` controls."""
        uid = owner["metadata"]["uid"]
        return [doc for doc in self.of(kind) if (ref := controller_of(doc)) and ref["uid"] == uid]

    def get(self, uid: str) -> Json | None:
        return self._docs.get(uid)

    def named(self, kind: str, name: str) -> Json:
        return next(doc for doc in self.of(kind) if _name(doc) == name)

    def add(self, doc: Json) -> Json:
        """Store a new object as the store would; return it. A pod gets a node and the phase Pending, unless it has a
        status. Raises ValueError if an object has the name."""
        doc = copied(doc)
        metadata = doc["metadata"]
        if "name" not in metadata:
            suffix = "".join(self.random.choice(SUFFIX) for _ in range(5))
            metadata["name"] = metadata["generateName"][:58] + suffix
        if any(_name(other) == metadata["name"] for other in self.of(doc["kind"])):
            raise ValueError(f"{doc['kind']} {metadata['name']} exists")
        metadata.setdefault("namespace", "default")
        metadata.setdefault("uid", f"{doc['kind']}-{next(self._numbers)}")
        metadata.setdefault("creationTimestamp", rfc3339(self.now))
        metadata.setdefault("generation", 1)
        if doc["kind"] == "Pod":
            doc.setdefault("status", {"phase": "Pending", "conditions": []})
            doc.setdefault("spec", {}).setdefault("nodeName", self.node["metadata"]["name"])
        doc.setdefault("status", {})
        return self._put(doc)

    def edit(self, doc: Json, change: Callable[[Json], object]) -> Json:
        """Change an object as a person does: `change` gets a copy of the newest version. The generation increments if
        the spec changes. Return the new version."""
        old = self._docs[doc["metadata"]["uid"]]
        new = copied(old)
        change(new)
        return self._write(old, new)

    def delete(self, uid: str, *, orphan: bool = False, finalizer: str = "") -> None:
        """Delete an object and what it owns, as `Delete` does. A pod is terminating until `vanish`."""
        doc = self._docs.get(uid)
        if doc is None:
            return
        if doc["kind"] == "Pod" and not (pods.has_ended(doc) and not doc["metadata"].get("finalizers")):
            released = without_finalizer(doc, finalizer)
            self._write(doc, mark_deleting(released, now=self.now) or released)
            return
        if doc["kind"] == "PersistentVolumeClaim" and self._is_mounted(doc):
            if not is_terminating(doc):
                self.edit(doc, lambda new: new["metadata"].update(deletionTimestamp=rfc3339(self.now)))
            return
        self._docs.pop(uid)
        self._collect(uid, orphan=orphan)

    def _collect(self, uid: str, *, orphan: bool) -> None:
        """Delete what belonged to a deleted object alone, take the reference from the rest; delete terminating claims
        that no pod mounts any more."""
        for other in list(self._docs.values()):
            references = other["metadata"].get("ownerReferences") or []
            if not any(ref["uid"] == uid for ref in references):
                continue
            left = [ref for ref in references if ref["uid"] != uid]
            if orphan or left:
                self._write(other, {**other, "metadata": {**other["metadata"], "ownerReferences": left}})
            else:
                self.delete(other["metadata"]["uid"])
        for claim in self.of("PersistentVolumeClaim"):
            if is_terminating(claim) and not self._is_mounted(claim):
                self.delete(claim["metadata"]["uid"])

    # What the node does to pods

    def set_status(self, doc: Json, **fields: Any) -> None:
        """Merge fields into an object's status."""
        self.edit(doc, lambda new: new["status"].update(fields))

    def start(self, pod: Json, *, ready: bool = True) -> None:
        """The pod runs, and is ready from now on."""
        self.set_status(pod, phase="Running", startTime=rfc3339(self.now), conditions=[self._ready(ready)])

    def unready(self, pod: Json) -> None:
        self.set_status(pod, conditions=[self._ready(False)])

    def fail(self, pod: Json, *, exit_code: int = 1, **status: Any) -> None:
        """The pod ends as Failed. `status`: further fields, such as `reason`."""
        self._end(pod, "Failed", exit_code, status)

    def succeed(self, pod: Json) -> None:
        self._end(pod, "Succeeded", 0, {})

    def terminate(self, pod: Json) -> bool:
        """A terminating pod has stopped, and is gone unless its Job has yet to count it. Return whether this changes
        anything."""
        if not awaits_counting(pod, self._docs.get((controller_of(pod) or {}).get("uid", ""))):
            self.vanish(pod["metadata"]["uid"])
        elif pods.has_ended(pod):
            return False
        else:
            self.fail(pod, exit_code=137)
        return True

    def vanish(self, uid: str) -> None:
        """The object is gone, and what belonged to it."""
        if self._docs.pop(uid, None) is not None:
            self._collect(uid, orphan=False)

    # Controllers

    def view(self, owner: Json) -> View:
        _, owns = self._controllers[owner["kind"]]
        uid, namespace = owner["metadata"]["uid"], owner["metadata"]["namespace"]
        objects: dict[str, Sequence[Json]] = {}
        for kind in owns:
            objects[kind] = tuple(
                doc
                for doc in self.of(kind)
                if doc["metadata"].get("namespace", namespace) == namespace
                and (kind in self._shares or (ref := controller_of(doc)) is None or ref["uid"] == uid)
            )
        return View(owner, self.now, objects, self.node, self.refuse, self._taken)

    def decide(self, owner: Json) -> Plan:
        """Return the plan for the newest version of an object."""
        current = self._docs[owner["metadata"]["uid"]]
        return self._controllers[current["kind"]][0](self.view(current))

    def apply(self, plan: Plan, *, most: int | None = None) -> int:
        """Carry out a plan; return how many effects were carried out. `most`: the daemon is killed after so many.
        Adjacent effects of one class run in random order. The plan ends at a stale Rewrite or a taken name."""
        done = 0
        for effect in self._ordered(plan.effects):
            if most is not None and done >= most:
                return done
            if not self._carry_out(effect):
                return done
            done += 1
            self.check()
        return done

    def sync(self, owner: Json, *, most: int | None = None) -> Plan:
        """Decide for one object and carry the plan out; return it."""
        plan = self.decide(owner)
        self.apply(plan, most=most)
        return plan

    def run_controllers(self, *, most_rounds: int = 200) -> float | None:
        """Let all controllers act, in random order, until none changes anything; the node does nothing meanwhile.
        Return in how many seconds one of them wants to decide again. Raises NotSettled."""
        for _ in range(most_rounds):
            before = self._versions()
            again: list[float] = []
            owners = [doc for doc in self._docs.values() if doc["kind"] in self._controllers]
            self.random.shuffle(owners)
            for owner in owners:
                if owner["metadata"]["uid"] in self._docs:
                    plan = self.sync(owner)
                    again += [] if plan.again is None else [plan.again]
            if self._versions() == before:
                return min(again, default=None)
        raise NotSettled(f"the controllers still act after {most_rounds} rounds")

    def settle(self, live: Callable[[World], bool] | None = None, *, most_steps: int = 500) -> None:
        """Run controllers and the node in turns until neither changes anything and no controller waits for a time.

        `live`: what the node does in a step; it returns whether it changed something (default: `start_and_vanish`).
        After a step that changed something, the clock moves by a second. After any other, it moves to the time that a
        controller waits for. Raises NotSettled after `most_steps` steps."""
        for _ in range(most_steps):
            again = self.run_controllers()
            if (live or World.start_and_vanish)(self):
                self.now += 1.0
            elif again is None:
                return
            else:
                assert again > 0, f"a controller wants to decide again in {again} s, and nothing has changed"
                self.now += max(again, 0.001)
        raise NotSettled(f"the world still changes after {most_steps} steps")

    def start_and_vanish(self) -> bool:
        """Start pending pods, make running ones ready, and remove terminating ones. Return whether a pod changed."""
        changed = False
        for pod in self.of("Pod"):
            if is_terminating(pod):
                if not self.terminate(pod):
                    continue
            elif pods.phase(pod) in ("Pending", "Running") and not pods.is_ready(pod):
                self.start(pod)
            else:
                continue
            changed = True
            self.check()
        return changed

    # Inside

    def _carry_out(self, effect: Effect) -> bool:
        match effect:
            case Create(doc):
                assert doc["kind"] != "Pod" or not self.refuse(doc), (
                    "a pod that is not admitted is not created"
                )
                try:
                    made = self.add(doc)
                except ValueError:
                    return False
                self._tell_of_created(made, effect.doc)
            case Rewrite(doc):
                old = self._docs.get(doc["metadata"]["uid"])
                if old is None or old["metadata"]["resourceVersion"] != doc["metadata"]["resourceVersion"]:
                    return False
                self._write(old, {**copied(doc), "status": old["status"]})
            case SetStatus(uid, status):
                if uid in self._docs:
                    old = self._docs[uid]
                    self._write(old, {**old, "status": copied(status)})
            case Delete(uid, orphan, finalizer):
                self.delete(uid, orphan=orphan, finalizer=finalizer)
            case Together(effects):
                return self._carry_out_all(effects)
            case Event():
                self.events.append(effect)
        return True

    def _carry_out_all(self, effects: Sequence[Rewrite | SetStatus | Delete | Release]) -> bool:
        """All or none: nothing is killed or seen between them."""
        for one in effects:
            doc = one.doc if isinstance(one, Rewrite) else self._docs.get(one.uid)
            old = self._docs.get(doc["metadata"]["uid"]) if doc is not None else None
            if doc is None or old is None:
                return False
            if old["metadata"]["resourceVersion"] != doc["metadata"]["resourceVersion"]:
                return False
        for one in effects:
            match one:
                case Rewrite(doc):
                    old = self._docs[doc["metadata"]["uid"]]
                    self._write(old, {**copied(doc), "status": old["status"]})
                case Release(uid, finalizer):
                    self._write(self._docs[uid], without_finalizer(self._docs[uid], finalizer))
                case _:
                    self._carry_out(one)
        return True

    def _is_mounted(self, claim: Json) -> bool:
        return any(
            (volume.get("persistentVolumeClaim") or {}).get("claimName") == _name(claim)
            for pod in self.of("Pod")
            for volume in pod["spec"].get("volumes") or ()
        )

    def _tell_of_created(self, made: Json, asked: Json) -> None:
        """Record the event of a pod with a generated name, as the manager does."""
        reference = controller_of(made)
        if made["kind"] == "Pod" and "name" not in asked["metadata"] and reference is not None:
            about = self._docs.get(reference["uid"], reference)
            self.events.append(Event(about, "Normal", "SuccessfulCreate", f"Created pod: {_name(made)}"))

    def _taken(self, kind: str, name: str) -> bool:
        return any(_name(doc) == name for doc in self._docs.values() if doc["kind"] == kind)

    def _ordered(self, effects: Iterable[Effect]) -> Iterable[Effect]:
        for _, run in itertools.groupby(effects, type):
            beside = list(run)
            if not isinstance(beside[0], Event):
                self.random.shuffle(beside)
            yield from beside

    def _write(self, old: Json, new: Json) -> Json:
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            generation = old["metadata"].get("generation", 1) + 1
            new = {**new, "metadata": {**new["metadata"], "generation": generation}}
        return self._put(new)

    def _put(self, doc: Json) -> Json:
        doc = {**doc, "metadata": {**doc["metadata"], "resourceVersion": str(next(self._numbers))}}
        self._docs[doc["metadata"]["uid"]] = doc
        return doc

    def _versions(self) -> dict[str, str]:
        return {uid: doc["metadata"]["resourceVersion"] for uid, doc in self._docs.items()}

    def _ready(self, ready: bool) -> Json:
        status = "True" if ready else "False"
        return {"type": "Ready", "status": status, "lastTransitionTime": rfc3339(self.now)}

    def _end(self, pod: Json, phase: str, exit_code: int, status: Json) -> None:
        names = [container["name"] for container in pod["spec"].get("containers") or ()]
        terminated = {"exitCode": exit_code, "finishedAt": rfc3339(self.now)}
        statuses = [
            {"name": name, "ready": False, "restartCount": 0, "state": {"terminated": terminated}}
            for name in names
        ]
        fields = {"phase": phase, "conditions": [self._ready(False)], "containerStatuses": statuses, **status}
        self.set_status(pod, **fields)


def _name(doc: Json) -> str:
    return str(doc["metadata"]["name"])
