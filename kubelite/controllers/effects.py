"""Carries out the effects of a plan: writes to the store, deletions, events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import groupby

from kubelite.controllers.admission import Admission, Refused
from kubelite.controllers.deletion import delete, terminated
from kubelite.controllers.model import (
    Create,
    Delete,
    Effect,
    Event,
    Plan,
    Release,
    Rewrite,
    SetStatus,
    Together,
)
from kubelite.controllers.references import controller_of
from kubelite.kube.errors import Forbidden
from kubelite.kube.events import EventRecorder
from kubelite.kube.jobs import with_selector, without_finalizer
from kubelite.kube.json import Json
from kubelite.kube.objects import NAMESPACE, SOURCE, is_ending, reference
from kubelite.kube.times import rfc3339
from kubelite.node.storage.protection import protected
from manifests.problems import InvalidObject
from manifests.yaml.object_names import random_name
from runtime.identity import new_uid
from state.errors import AlreadyExists, Conflict, NotFound
from state.store import Record, Store

#: What Kubernetes' controllers say when an object other than a pod is refused.
_REFUSED = {
    "Job": "Error creating job: {error}",
    "ReplicaSet": 'Failed to create new replica set "{name}": {error}',
}

FAILED = "FailedCreate"

#: What another writer has changed since the view was made, or what an earlier effect of the plan has taken of a quota.
#: The plan ends, and the controller decides again.
OUTDATED = (AlreadyExists, Conflict, Forbidden, NotFound)


class Effects:
    """Carries out plans. Nothing here waits for the disk: a power failure may undo the newest writes, but only together
    with all later ones, and the controller then decides again from what is left."""

    def __init__(
        self, store: Store, events: EventRecorder, admission: Admission, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._events = events
        self._admission = admission
        self._clock = clock

    async def carry_out(self, plan: Plan) -> Exception | None:
        """Carry out the effects in their order. Adjacent effects of one class share a commit. Return what ended the
        plan early (an error of `OUTDATED`), None if nothing did. Raises StorageFailed, Refused, InvalidObject."""
        for _, group in groupby(plan.effects, type):
            results = await asyncio.gather(*map(self._do, group), return_exceptions=True)
            errors = [result for result in results if isinstance(result, BaseException)]
            for error in errors:
                if not isinstance(error, OUTDATED):
                    raise error
            if errors:
                return next(error for error in errors if isinstance(error, OUTDATED))
        return None

    def _do(self, effect: Effect) -> Awaitable[object]:
        match effect:
            case Create():
                return self._create(effect.doc)
            case Rewrite():
                return self._rewrite(effect.doc)
            case SetStatus():
                return self._set_status(effect)
            case Delete():
                return self._delete(effect)
            case Together():
                changes = [(_uid(one), self._change(one)) for one in effect.effects]
                return self._store.modify_all(changes, durable=False)
            case Event():
                return self._event(effect)

    async def _create(self, given: Json) -> None:
        doc = named(without_source(given))
        kind, metadata = doc["kind"], doc["metadata"]
        uid, now = new_uid(), self._clock()
        if kind == "Pod":
            try:
                new = self._admission.admit(doc, uid=uid, now=now)
            except (Refused, InvalidObject) as error:
                self._say(doc, "Warning", FAILED, f"Error creating: {error}")
                raise
        else:
            own = {**metadata, "uid": uid, "creationTimestamp": rfc3339(now)}
            if "spec" in doc:
                own["generation"] = 1
            new = {**doc, "metadata": protected(kind, own)}
            new = with_selector(new) if kind == "Job" else new
            try:
                self._admission.check(new)
            except Refused as error:
                words = _REFUSED.get(kind, "Error creating: {error}")
                self._say(doc, "Warning", FAILED, words.format(name=own["name"], error=error))
                raise
        await self._store.create(kind, new, durable=False)
        if kind == "Pod" and "name" not in given["metadata"]:
            self._say(new, "Normal", "SuccessfulCreate", f"Created pod: {metadata['name']}")

    def _say(self, doc: Json, type_: str, reason: str, message: str) -> None:
        """Record an event about the owner that controls an object."""
        if reason == FAILED and self._is_ending(doc):
            return
        found = controller_of(doc)
        if found is not None and (owner := self._store.get_uid(found["uid"])) is not None:
            self._events.event(reference(owner.doc), type_, reason, message)

    async def _rewrite(self, doc: Json) -> None:
        metadata = doc["metadata"]
        if await self._store.modify(metadata["uid"], partial(_rewritten, doc), durable=False) is None:
            raise NotFound(f'{doc["kind"].lower()} "{metadata["name"]}" not found')

    async def _set_status(self, effect: SetStatus) -> None:
        if await self._store.modify(effect.uid, partial(_with_status, effect.status), durable=False) is None:
            raise NotFound(f"the object with uid {effect.uid} is gone")

    def _change(self, effect: Rewrite | SetStatus | Delete | Release) -> Callable[[Json], Json | None]:
        """Return what an effect makes of an object that exists."""
        match effect:
            case Rewrite():
                return partial(_rewritten, effect.doc)
            case SetStatus():
                return partial(_with_status, effect.status)
            case Release():
                return lambda doc: without_finalizer(doc, effect.finalizer)
            case Delete():
                return lambda doc: terminated(doc, effect.finalizer, self._clock())

    async def _delete(self, effect: Delete) -> Record | None:
        """Delete an object; one that is gone already is no error."""
        return await delete(
            self._store, effect.uid, now=self._clock(), orphan=effect.orphan, finalizer=effect.finalizer
        )

    async def _event(self, effect: Event) -> None:
        if effect.reason == FAILED and self._is_ending(effect.about):
            return
        self._events.event(reference(effect.about), effect.type, effect.reason, effect.message)

    def _is_ending(self, doc: Json) -> bool:
        """Whether an object's namespace is terminated: that nothing is created in it is no news (createPods)."""
        home = self._store.get(NAMESPACE, "", doc["metadata"].get("namespace", ""))
        return home is not None and is_ending(home.doc)


def _uid(effect: Rewrite | SetStatus | Delete | Release) -> str:
    return str(effect.doc["metadata"]["uid"]) if isinstance(effect, Rewrite) else effect.uid


def _with_status(status: Json, old: Json) -> Json | None:
    return None if old.get("status") == status else {**old, "status": status}


def _rewritten(doc: Json, old: Json) -> Json:
    """Raises Conflict if the object is not the version that `doc` was made from."""
    metadata = doc["metadata"]
    if old["metadata"].get("resourceVersion") != metadata.get("resourceVersion"):
        raise Conflict(f'{doc["kind"].lower()} "{metadata["name"]}" was changed meanwhile')
    return rewritten(old, doc)


def named(doc: Json) -> Json:
    """Return an object with a name. `generateName`, shortened to leave room for them, gets five random characters."""
    metadata = doc["metadata"]
    if metadata.get("name"):
        return doc
    return {**doc, "metadata": {**metadata, "name": random_name(metadata["generateName"])}}


def without_source(doc: Json) -> Json:
    """Return an object without the annotation of its manifest, which controllers copy with those of the owner: what a
    controller creates comes from no manifest, and is deleted with its owner."""
    annotations = doc["metadata"].get("annotations") or {}
    if SOURCE not in annotations:
        return doc
    left = {key: value for key, value in annotations.items() if key != SOURCE}
    return {**doc, "metadata": {**doc["metadata"], "annotations": left}}


def rewritten(old: Json, new: Json) -> Json:
    """Return an object with the content of `new` and the status of `old`."""
    doc = {key: value for key, value in new.items() if key != "status"}
    if "status" in old:
        doc["status"] = old["status"]
    before = old["metadata"].get("generation")
    if before is not None:
        changed = doc.get("spec") != old.get("spec")
        doc["metadata"] = {**doc["metadata"], "generation": int(before) + changed}
    return doc
