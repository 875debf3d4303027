"""Writes that share one commit: each is decided against memory, and becomes visible when the commit is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from state.history import Entry, Version
from state.records import Change, ChangeType, ContainerRow, Doc, Record

#: Turns the object before a change (None: it did not exist) and the change into the entry for history, if any.
Historian = Callable[[Record | None, Change], Entry | None]
#: Gets the objects as of a write, a kind, a document to write and the one before it (None: an object to add). Raises an
#: error if it must not be written.
Gate = Callable[["Batch", str, Doc, Doc | None], None]


class Committed(Protocol):
    """The store as of its last commit."""

    historian: Historian | None

    def get_uid(self, uid: str) -> Record | None: ...

    def uid_of(self, kind: str, namespace: str, name: str) -> str | None: ...

    def of_kind(self, kind: str) -> Mapping[str, Record]: ...


@dataclass(slots=True)
class Write:
    """A queued write. `decide` turns it into row changes of the batch, or raises an error for its own caller."""

    decide: Callable[[Batch], Record | None]
    done: asyncio.Future[Record | None]
    durable: bool = True


@dataclass(slots=True)
class Batch:
    """Writes that share one commit, layered over the store's memory."""

    store: Committed
    version: int
    durable: bool = True
    objects: dict[str, Record | None] = field(default_factory=dict)  # uid -> record, None = deleted
    names: dict[tuple[str, str, str], str | None] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)  # history rows
    versions: list[Version] = field(default_factory=list)
    containers: dict[str, ContainerRow | None] = field(default_factory=dict)
    sync: bool = False  # everything written before must be on the disk
    # uids of deleted objects, also of those that were added again.
    moved: set[str] = field(default_factory=set)

    def by_uid(self, uid: str) -> Record | None:
        return self.objects[uid] if uid in self.objects else self.store.get_uid(uid)

    def by_name(self, key: tuple[str, str, str]) -> Record | None:
        uid = self.names[key] if key in self.names else self.store.uid_of(*key)
        return self.by_uid(uid) if uid else None

    def doc_of(self, kind: str, namespace: str, name: str) -> Doc | None:
        record = self.by_name((kind, namespace, name))
        return record.doc if record is not None else None

    def docs_in(self, kind: str, namespace: str) -> Iterator[Doc]:
        """Yield the documents of a kind in a namespace, with the writes of this batch so far."""
        for uid, record in self.store.of_kind(kind).items():
            if record.namespace == namespace and uid not in self.objects:
                yield record.doc
        for written in self.objects.values():
            if written is not None and written.kind == kind and written.namespace == namespace:
                yield written.doc

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
    """Return what a write decides against this batch, or what it raised. A failed write does not affect the others."""
    try:
        return write.decide(batch)
    except Exception as error:  # noqa: BLE001 - any error of the decision belongs to the caller of the write
        return error


def settle(done: asyncio.Future[Record | None], result: Record | Exception | None) -> None:
    """Give a write's result to its caller, if it still waits for one."""
    if done.done():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
        done.exception()  # marks it as retrieved, or asyncio would log an error whose caller was cancelled
    else:
        done.set_result(result)


def replace_object(batch: Batch, old: Record, doc: Doc) -> Record:
    """Put a new version of an object into the batch, and return it; the old record if nothing changes."""
    if same(old.doc, doc):
        return old
    record = stamped(Record(old.kind, old.namespace, old.name, old.uid, batch.next_version(), doc))
    batch.put("MODIFIED", record, old)
    return record


def stamped(record: Record) -> Record:
    """Return the record with its uid and resourceVersion written into its document."""
    metadata = {
        **record.doc["metadata"],
        "uid": record.uid,
        "resourceVersion": str(record.resource_version),
    }
    doc = {**record.doc, "metadata": metadata}
    return Record(record.kind, record.namespace, record.name, record.uid, record.resource_version, doc)


def same(old: Doc, new: Doc) -> bool:
    """Tell whether two documents are equal apart from resourceVersion and uid."""

    def bare(doc: Doc) -> Doc:
        metadata = {k: v for k, v in doc["metadata"].items() if k not in ("resourceVersion", "uid")}
        return {**doc, "metadata": metadata}

    return bare(old) == bare(new)
