"""Runs the controllers: watches the store, lets a controller decide about each object, and carries its plan out.

One key is one object: (kind, uid). The queue runs one task at a time for a key, and different keys beside each other.
An object is queued when it changes, when an object that it controls changes or is deleted, and when an object that
nothing controls and that its selector matches changes. A view is made from the store as it is at that moment, so what a
plan has written is in the next view. Nothing is remembered between two decisions.

A node without workloads never imports this module: see `kubelite.daemon.workloads`.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from kubelite.controllers.admission import Admission, Refused
from kubelite.controllers.effects import Effects
from kubelite.controllers.garbage import GarbageCollector, finalizers
from kubelite.controllers.index import Index, Place
from kubelite.controllers.model import Controller, Decide, View
from kubelite.controllers.registry import CONTROLLERS
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels, selector_of
from kubelite.kube.objects import belongs_to_cluster, reference
from state.records import Change
from state.store import Record, Store
from state.watch import Watch

log = logging.getLogger(__name__)

RULES = frozenset(("LimitRange", "ResourceQuota"))  # what may refuse a controller's objects
GARBAGE = "garbage"  # the kind in a key of the garbage collector
NODE = "Node"
COALESCE = 0.02  # seconds in which changed statuses of pods lead to one decision
AT_ONCE = 3  # outdated plans in a row after which the next one waits
RETRY_FIRST, RETRY_LAST = 0.05, 60.0  # seconds

Key = tuple[str, str]  # kind and uid


class Queue(Protocol):
    """A queue of keys, each processed by one task at a time (kubelite.kube.workqueue)."""

    def add(self, key: Key, /) -> None: ...
    def add_after(self, key: Key, seconds: float, /) -> None: ...


class ControllerManager:
    """`run` watches until it is cancelled; the queue calls `reconcile`. `deleted` is called with each deleted object of
    a controller's kind: its manifest may still define it. `node` returns the v1 Node."""

    def __init__(
        self,
        store: Store,
        events: EventRecorder,
        queue: Queue,
        admission: Admission,
        *,
        node: Callable[[], Json] = dict,
        deleted: Callable[[Record], None] = lambda _record: None,
        controllers: Sequence[Controller] = CONTROLLERS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._events = events
        self._queue = queue
        self._admission = admission
        self._node = node
        self._deleted = deleted
        self._clock = clock
        self._controllers = {found.kind: found for found in controllers}
        self._decides: dict[str, Decide] = {}
        self._outdated: dict[Key, int] = {}  # plans in a row that ended early
        self._refused: set[Key] = set()  # whose objects were refused at the last decision
        self._index = Index()
        self._effects = Effects(store, events, admission, clock)
        self._kinds = frozenset(self._controllers).union(*(found.owns for found in controllers))
        self._garbage = GarbageCollector(store, self._index, self._kinds, clock)
        self._watch: Watch | None = None

    async def run(self) -> None:
        """List every object, queue what may have something to do, and follow the changes."""
        with_node = any(found.sees_node for found in self._controllers.values())
        others = RULES | {NODE} if with_node else RULES
        async with self._store.watch(self._kinds | others) as watch:
            self._watch = watch
            for kind in self._kinds:
                for record in self._store.list(kind):
                    self._index.put(record)
                    if kind in self._controllers:
                        self._queue.add((kind, record.uid))
            for uid in self._garbage.suspects():
                self._queue.add((GARBAGE, uid))
            async for change in watch:
                self._see(change)

    async def reconcile(self, key: Key) -> float | None:
        """Decide about one object and act. Return in how many seconds to decide again, None: when something changes."""
        self._catch_up()
        kind, uid = key
        if kind == GARBAGE:
            await self._garbage.collect(uid)
            return None
        record = self._store.get_uid(uid)
        self._refused.discard(key)
        if record is None:
            self._outdated.pop(key, None)
            return None
        try:
            plan = self._decide(kind)(self._view(self._controllers[kind], record))
            error = await self._effects.carry_out(plan)
        except Refused:  # its event is recorded, and the rules that refuse it may change
            self._refused.add(key)
            self._outdated[key] = self._outdated.get(key, AT_ONCE) + 1
            return self._delay(key)
        except Exception as fault:
            message = f"the {kind} controller failed, will retry: {fault}"
            self._events.event(reference(record.doc), "Warning", "FailedSync", message)
            raise
        if error is not None:
            return self._again(key, error, record)
        self._outdated.pop(key, None)
        return plan.again

    def _again(self, key: Key, error: Exception, record: Record) -> float:
        """Return when to decide again after an outdated plan: at once, unless it happens again and again, as with a
        name that another object has."""
        count = self._outdated[key] = self._outdated.get(key, 0) + 1
        if count <= AT_ONCE:
            return 0.0
        self._events.event(reference(record.doc), "Warning", "FailedSync", str(error))
        return self._delay(key)

    def _delay(self, key: Key) -> float:
        return float(min(RETRY_FIRST * 2.0 ** min(self._outdated[key] - AT_ONCE, 20), RETRY_LAST))

    def _decide(self, kind: str) -> Decide:
        if kind not in self._decides:
            module = importlib.import_module(self._controllers[kind].module)
            self._decides[kind] = module.decide
            log.info("the %s controller runs", kind)
        return self._decides[kind]

    def _view(self, controller: Controller, record: Record) -> View:
        objects = {kind: self._docs(record, kind) for kind in controller.owns}
        node = self._node() if controller.sees_node else {}

        def taken(kind: str, name: str) -> bool:
            return self._store.get(kind, record.namespace, name) is not None

        def refusal(pod: Json) -> str:
            if said := self._admission.refused(pod):
                self._refused.add((record.kind, record.uid))
            return said

        return View(record.doc, self._clock(), objects, node, refusal, taken)

    def _docs(self, owner: Record, kind: str) -> Sequence[Json]:
        if kind in self._controllers[owner.kind].shares:
            docs = (found.doc for found in self._store.list(kind, owner.namespace))
            return [doc for doc in docs if not belongs_to_cluster(doc)]
        uids = (*self._index.controlled(owner.uid, kind), *self._index.orphans(owner.namespace, kind))
        records = (self._store.get_uid(uid) for uid in uids)
        return sorted((found.doc for found in records if found is not None), key=_name)

    # -- changes ------------------------------------------------------------------------------------------------

    def decide_again(self) -> None:
        """Decide about every object, since what they wait for may have come: the clock has changed."""
        for kind in self._controllers:
            for record in self._store.list(kind):
                self._queue.add((kind, record.uid))

    def _catch_up(self) -> None:
        """See the changes that are published and not yet read, so that a view has what the last plan wrote."""
        for change in self._watch.take() if self._watch is not None else ():
            self._see(change)

    def _see(self, change: Change) -> None:
        record = change.record
        if record.kind == NODE:
            self._node_changed()
        elif record.kind in RULES:
            self._rules_changed(record.namespace)
        elif change.type == "DELETED":
            self._gone(record)
        else:
            self._changed(record)

    def _changed(self, record: Record) -> None:
        before = self._index.put(record)
        if record.kind in self._controllers:
            self._queue.add((record.kind, record.uid))
        refers = bool(record.metadata.get("ownerReferences")) and before != self._index.place(record.uid)
        if refers or (record.deleting and finalizers(record)):
            self._queue.add((GARBAGE, record.uid))
        self._queue_owners(record, before, soon=record.kind == "Pod" and before is not None)

    def _gone(self, record: Record) -> None:
        before = self._index.place(record.uid)
        self._queue_owners(record, before)
        self._index.remove(record.uid)
        self._outdated.pop((record.kind, record.uid), None)
        for uid in (*self._index.dependents(record.uid), *_owners_that_wait(self._store, record)):
            self._queue.add((GARBAGE, uid))
        if record.kind in self._controllers:
            self._deleted(record)

    def _queue_owners(self, record: Record, before: Place | None, *, soon: bool = False) -> None:
        """Queue the owners of an object before and after its change, and those that see it because their selector
        matches. `soon`: after `COALESCE`, unless the object ends."""
        now = self._index.controller(record.uid)
        uids = {now, before.controller if before is not None else "", *self._that_match(record)} - {""}
        ends = record.deleting or (record.doc.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        for uid in uids:
            owner = self._store.get_uid(uid)
            if owner is None or owner.kind not in self._controllers:
                continue
            if soon and not ends:
                self._queue.add_after((owner.kind, uid), COALESCE)
            else:
                self._queue.add((owner.kind, uid))

    def _that_match(self, record: Record) -> list[str]:
        """Return the uids of the owners whose selector matches an object that they may adopt, or share."""
        orphan = record.uid in self._index.orphans(record.namespace, record.kind)
        labels = labels_of(record.doc)
        return [
            owner.uid
            for found in self._controllers.values()
            if record.kind in found.shares or (orphan and record.kind in found.owns)
            for owner in self._store.list(found.kind, record.namespace)
            if matches_labels(selector_of(owner.doc), labels)
        ]

    def _rules_changed(self, namespace: str) -> None:
        """Queue the owners of the namespace whose objects were refused."""
        for kind, uid in self._refused:
            owner = self._store.get_uid(uid)
            if owner is not None and owner.namespace == namespace:
                self._queue.add((kind, uid))

    def _node_changed(self) -> None:
        for controller in self._controllers.values():
            for record in self._store.list(controller.kind) if controller.sees_node else ():
                self._queue.add((controller.kind, record.uid))


def _owners_that_wait(store: Store, record: Record) -> list[str]:
    """Return the owners whose deletion in the foreground may have waited for a deleted object."""
    uids = (str(ref.get("uid", "")) for ref in record.metadata.get("ownerReferences") or ())
    owners = (store.get_uid(uid) for uid in uids)
    return [owner.uid for owner in owners if owner is not None and owner.deleting]


def _name(doc: Json) -> str:
    return str(doc["metadata"]["name"])
