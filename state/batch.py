"""Writes that share one commit: what each decides against memory, gathered until it is written and then seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from state.history import Entry, Version
from state.records import Change, ChangeType, ContainerRow, Doc, Record

if TYPE_CHECKING:
    from state.store import Store


@dataclass(slots=True)
class Write:
    """A queued write: `decide` turns it into row changes against the batch, or raises for its own caller."""

    decide: Callable[[Batch], Record | None]
    done: asyncio.Future[Record | None]
    durable: bool = True


@dataclass(slots=True)
class Batch:
    """Writes that share one commit, staged over the store's memory."""

    store: Store
    version: int
    durable: bool = True
    objects: dict[str, Record | None] = field(default_factory=dict)  # uid -> record, None = deleted
    names: dict[tuple[str, str, str], str | None] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)  # of history
    versions: list[Version] = field(default_factory=list)
    containers: dict[str, ContainerRow | None] = field(default_factory=dict)
    sync: bool = False  # all that was written before must be on the disk
    moved: set[str] = field(default_factory=set)  # uids that were deleted, also those that have come again

    def by_uid(self, uid: str) -> Record | None:
        return self.objects[uid] if uid in self.objects else self.store.get_uid(uid)

    def by_name(self, key: tuple[str, str, str]) -> Record | None:
        uid = self.names[key] if key in self.names else self.store.uid_of(*key)
        return self.by_uid(uid) if uid else None

    def put(self, kind: ChangeType, record: Record, old: Record | None = None) -> None:
        gone = kind == "DELETED"
        if gone:
            self.moved.add(record.uid)
        self.objects[record.uid] = None if gone else record
        self.names[record.kind, record.namespace, record.name] = None if gone else record.uid
        change = Change(kind, record)
        self.changes.append(change)
        if self.store.historian is not None and (entry := self.store.historian(old, change)) is not None:
            self.entries.append(entry)

    def next_version(self) -> int:
        self.version += 1
        return self.version


def attempt(write: Write, batch: Batch) -> Record | Exception | None:
    """What a write decides against this batch, or what it raised: one that fails takes no other along."""
    try:
        return write.decide(batch)
    except Exception as error:  # noqa: BLE001 - whatever the decision raised belongs to the caller that asked
        return error


def settle(done: asyncio.Future[Record | None], result: Record | Exception | None) -> None:
    """Tell the caller of a write how it went; fine when nobody waits any more."""
    if done.cancelled():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
        done.exception()  # a caller that was cancelled meanwhile never asks: not a lost error
    else:
        done.set_result(result)


def replace_object(batch: Batch, old: Record, doc: Doc) -> Record:
    """Put a new version of an object into the batch; the old record when nothing changes."""
    if same(old.doc, doc):
        return old
    record = stamped(Record(old.kind, old.namespace, old.name, old.uid, batch.next_version(), doc))
    batch.put("MODIFIED", record, old)
    return record


def stamped(record: Record) -> Record:
    """The record with its uid and resourceVersion written into its document."""
    metadata = {
        **record.doc["metadata"],
        "uid": record.uid,
        "resourceVersion": str(record.resource_version),
    }
    doc = {**record.doc, "metadata": metadata}
    return Record(record.kind, record.namespace, record.name, record.uid, record.resource_version, doc)


def same(old: Doc, new: Doc) -> bool:
    """Whether two documents say the same, whatever their resourceVersion and uid."""

    def bare(doc: Doc) -> Doc:
        metadata = {k: v for k, v in doc["metadata"].items() if k not in ("resourceVersion", "uid")}
        return {**doc, "metadata": metadata}

    return bare(old) == bare(new)
