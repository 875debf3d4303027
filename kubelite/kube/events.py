"""Records v1 Events about objects, which `kubectl get events` and `describe` show.

A repeated event (same object, type, reason and message) increments the count of the first one, as in client-go's
correlator (k8s.io/client-go tools/record/events_cache.go). Events are deleted after an hour, as in a cluster
(kube-apiserver --event-ttl). If there are more than `MOST`, the oldest are deleted. Events are written in the
background: recording one never waits and never fails.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from state.errors import StoreError
from state.store import Record, Store

log = logging.getLogger(__name__)

TTL = 3600.0  # seconds
MOST = 5000
DELAY = 0.1  # seconds that an event waits to share a commit with others, or with a write to its pod
CACHE = 4096  # number of events whose repetitions are counted

_Key = tuple[str, str, str, str, str, str]


class EventRecorder:
    """Records events by `event(reference, type, reason, message)`; the type is Normal or Warning."""

    def __init__(self, store: Store, node_name: str, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._node = node_name
        self._clock = clock
        self._last = 0  # Unix nanoseconds in the name of the newest event
        self._known: OrderedDict[_Key, str] = OrderedDict()  # key → uid of the stored event
        self._pending: dict[str, Json] = {}  # uid → newest version, not yet written
        self._writing: set[asyncio.Future[Record | None]] = set()
        for record in store.list("Event"):
            self._known[_key(record.doc)] = record.uid

    def node_event(self, reason: str, message: str, *, warning: bool = True) -> None:
        """Record an event about the node."""
        about = {"kind": "Node", "apiVersion": "v1", "namespace": "", "name": self._node, "uid": self._node}
        self.event(about, "Warning" if warning else "Normal", reason, message)

    def event(self, reference: Json, type_: str, reason: str, message: str) -> None:
        """Record an event about an object and log it. `reference`: a v1 ObjectReference."""
        level = logging.WARNING if type_ == "Warning" else logging.INFO
        name = f"{reference.get('namespace', '')}/{reference['name']}".lstrip("/")
        fields = {
            "object": f"{reference['kind'].lower()}/{name}",
            "uid": reference.get("uid", ""),
            "reason": reason,
        }
        log.log(level, "%s", message, extra=fields)
        now = rfc3339(self._clock())
        doc = self._new(reference, type_, reason, message, now)
        key = _key(doc)
        uid = self._known.get(key)
        known = self._pending.get(uid) if uid else None
        if uid and known is None and (record := self._store.get_uid(uid)):
            known = record.doc
        if known is not None:
            doc = {**known, "count": int(known["count"]) + 1, "lastTimestamp": now}
        else:
            self._known[key] = doc["metadata"]["uid"]
        self._known.move_to_end(key)
        while len(self._known) > CACHE:
            self._known.popitem(last=False)
        self._pending[doc["metadata"]["uid"]] = doc
        writing = self._store.post("Event", doc, delay=DELAY)
        self._writing.add(writing)
        writing.add_done_callback(lambda done: self._written(doc, done))

    async def flush(self) -> None:
        """Write the pending events to the store, and wait until they are written."""
        if self._writing:
            self._store.flush()
            await asyncio.wait(self._writing)

    def _written(self, doc: Json, done: asyncio.Future[Record | None]) -> None:
        self._writing.discard(done)
        uid = doc["metadata"]["uid"]
        if self._pending.get(uid) is doc:
            del self._pending[uid]
        if not done.cancelled() and (error := done.exception()) is not None:
            if not isinstance(error, StoreError):
                raise error
            log.error("cannot record an event: %s", error)

    async def expire(self) -> None:
        """Delete events that are older than an hour, and the oldest ones beyond `MOST`."""
        events = sorted(self._store.list("Event"), key=lambda r: str(r.doc.get("lastTimestamp")))
        limit = rfc3339(self._clock() - TTL)
        surplus = len(events) - MOST
        for place, record in enumerate(events):
            if place < surplus or str(record.doc.get("lastTimestamp")) < limit:
                self._known.pop(_key(record.doc), None)
                await self._store.delete(record.uid)

    def _new(self, reference: Json, type_: str, reason: str, message: str, now: str) -> Json:
        identity = str(uuid.uuid4())
        self._last = max(self._last + 1, int(self._clock() * 1e9))
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                # the format of client-go: sorted by name, the events of a pod are in order within one second
                "name": f"{reference['name']}.{self._last:016x}",
                "namespace": reference.get("namespace") or "default",
                "uid": identity,
                "creationTimestamp": now,
            },
            "involvedObject": reference,
            "reason": reason,
            "message": message,
            "type": type_,
            "source": {"component": "kubelite", "host": self._node},
            "reportingComponent": "kubelite",
            "reportingInstance": self._node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def _key(doc: dict[str, Any]) -> _Key:
    about = doc["involvedObject"]
    identity = about.get("uid") or f"{about.get('namespace')}/{about['name']}"
    return about["kind"], identity, about.get("fieldPath", ""), doc["type"], doc["reason"], doc["message"]
