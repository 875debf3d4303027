"""Empties the namespaces that are terminated, and deletes them.

A namespace is terminated when its document is gone and no other document names it (kubelite/sources/ending.py), or
by `kubelite delete namespace`. That is recorded as its phase, so a restart goes on where it was. Meanwhile the store
adds nothing to it (kubelite/policies/gate.py).

A node on which no namespace is terminated never imports this module: see `kubelite.daemon.workloads`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable

from kubelite.controllers.deletion import delete
from kubelite.kube.json import Json
from kubelite.kube.objects import NAMESPACE, belongs_to_cluster, is_ending
from kubelite.kube.times import rfc3339
from kubelite.namespaces.ending import decide
from kubelite.policies.resource_quota import PLURALS
from kubelite.sources.ending import terminated
from state.errors import StorageFailed
from state.store import Record, Store

COALESCE = 0.02  # seconds in which changes lead to one decision
RETRY = 1.0  # seconds after a write that failed, as on a full disk


async def end(store: Store, name: str, now: float) -> None:
    """Record that a namespace is terminated. One without a document gets a record for that. `now`: Unix seconds."""
    if (uid := store.uid_of(NAMESPACE, "", name)) is not None:
        await store.modify(uid, lambda doc: terminated(doc, now))
        return
    metadata = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": rfc3339(now)}
    new = terminated({"apiVersion": "v1", "kind": NAMESPACE, "metadata": metadata}, now)
    if new is not None:
        await store.create(NAMESPACE, new)


class NamespaceController:
    """`run` watches until it is cancelled. `gone` is called with each namespace that was deleted."""

    def __init__(
        self, store: Store, gone: Callable[[Record], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._gone = gone
        self._clock = clock

    async def run(self) -> None:
        async with self._store.watch(frozenset({NAMESPACE, *PLURALS})) as watch:
            while True:
                ending = [record for record in self._store.list(NAMESPACE) if is_ending(record.doc)]
                try:
                    for record in ending:
                        await self._continue(record)
                except StorageFailed:
                    await asyncio.sleep(RETRY)
                    continue
                await watch.next()
                await asyncio.sleep(COALESCE)
                watch.take()

    async def _continue(self, record: Record) -> None:
        objects = {kind: self._docs(kind, record.name) for kind in PLURALS}
        now = self._clock()
        step = decide(record.doc, objects, now)
        if step.gone:
            events = self._events(record.name)
            await asyncio.gather(*map(self._store.delete, (*events, record.uid)))
            self._gone(record)
            return
        await self._store.modify(record.uid, lambda doc: {**doc, "status": step.status}, durable=False)
        await asyncio.gather(*(delete(self._store, uid, now=now) for uid in step.delete))

    def _docs(self, kind: str, namespace: str) -> list[Json]:
        """A cluster that the node has joined has namespaces of its own: its pods stay."""
        found = (record.doc for record in self._store.list(kind, namespace))
        return [doc for doc in found if not belongs_to_cluster(doc)]

    def _events(self, namespace: str) -> list[str]:
        """Return the uids of the events, without those about the cluster's pods."""
        cluster = {one.uid for one in self._store.list("Pod", namespace) if belongs_to_cluster(one.doc)}
        found = self._store.list("Event", namespace)
        return [one.uid for one in found if (one.doc.get("involvedObject") or {}).get("uid") not in cluster]
