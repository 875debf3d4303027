"""The garbage collector: deletes what has lost all its owners, and finishes deletions in the foreground.

Sources: Kubernetes pkg/controller/garbagecollector/garbagecollector.go (attemptToDeleteItem, orphanDependents,
processDeletingDependentsItem). Objects from manifests are never collected: the directory is the truth.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from kubelite.controllers.deletion import FOREGROUND, ORPHAN, delete
from kubelite.controllers.index import Index
from kubelite.controllers.references import is_terminating
from kubelite.kube.json import Json
from kubelite.kube.objects import source_of
from state.store import Record, Store


class GarbageCollector:
    """`known`: the kinds whose objects the store has. An owner of another kind may exist elsewhere, so its dependents
    stay."""

    def __init__(
        self, store: Store, index: Index, known: Collection[str], clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._index = index
        self._known = known
        self._clock = clock

    def suspects(self) -> list[str]:
        """Return the uids of the objects that a daemon which was killed may have left to do."""
        found = self._index.owned()
        waiting = (uid for kind in self._known for uid in self._waiting(kind))
        return [*found, *waiting]

    def _waiting(self, kind: str) -> list[str]:
        return [record.uid for record in self._store.list(kind) if record.deleting and finalizers(record)]

    async def collect(self, uid: str) -> None:
        """Look at one object, and do what is to be done about it."""
        record = self._store.get_uid(uid)
        if record is None:
            return
        if record.deleting and (left := finalizers(record)):
            await self._finish(record, left)
            return
        gone = self._gone(record)
        if not gone or source_of(record):
            return
        if len(gone) == len(record.metadata["ownerReferences"]):
            policy = finalizers(record)
            await delete(self._store, uid, now=self._clock(), orphan=ORPHAN in policy)
        else:
            await self._store.modify(uid, lambda doc: without_owners(doc, gone), durable=False)

    def _gone(self, record: Record) -> set[str]:
        """Return the uids of the owners that do not exist any more. An object of the same name with another uid is not
        the owner."""
        return {
            str(ref.get("uid", ""))
            for ref in record.metadata.get("ownerReferences") or ()
            if ref.get("kind") in self._known and not self._exists(ref, record.namespace)
        }

    def _exists(self, ref: Json, namespace: str) -> bool:
        owner = self._store.get_uid(str(ref.get("uid", "")))
        same = owner is not None and (owner.kind, owner.name) == (ref.get("kind"), ref.get("name"))
        return same and owner is not None and owner.namespace in ("", namespace)

    async def _finish(self, owner: Record, left: Collection[str]) -> None:
        records = (self._store.get_uid(uid) for uid in self._index.dependents(owner.uid))
        dependents = [record for record in records if record is not None and not source_of(record)]
        if ORPHAN in left:
            await asyncio.gather(
                *(
                    self._store.modify(found.uid, lambda doc: without_owners(doc, {owner.uid}), durable=False)
                    for found in dependents
                )
            )
            await self._store.delete(owner.uid)
            return
        await asyncio.gather(
            *(
                delete(self._store, found.uid, now=self._clock(), foreground=found.kind != "Pod")
                for found in dependents
                if not is_terminating(found.doc)
            )
        )
        if not any(blocks(found, owner.uid) and self._store.get_uid(found.uid) for found in dependents):
            await self._store.delete(owner.uid)


def finalizers(record: Record) -> Collection[str]:
    """Return the finalizers of an object that the garbage collector removes."""
    return {FOREGROUND, ORPHAN}.intersection(record.metadata.get("finalizers") or ())


def blocks(record: Record, owner: str) -> bool:
    """Whether the deletion of an owner in the foreground waits for this dependent."""
    references = record.metadata.get("ownerReferences") or ()
    return any(ref.get("uid") == owner and ref.get("blockOwnerDeletion") for ref in references)


def without_owners(doc: Json, gone: Collection[str]) -> Json:
    """Return an object without its references to these owners."""
    metadata = {key: value for key, value in doc["metadata"].items() if key != "ownerReferences"}
    left = [ref for ref in doc["metadata"].get("ownerReferences") or () if ref.get("uid") not in gone]
    return {**doc, "metadata": {**metadata, **({"ownerReferences": left} if left else {})}}
