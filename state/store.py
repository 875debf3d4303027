"""The store: plain documents by kind, namespace and name, in SQLite, with one global resourceVersion and watches.

Reads come from memory and cost nothing; SQLite is read once, when the file is opened. Writes are awaited: they are
decided against memory, committed by one writer thread, and only then become visible to readers and watchers. Writes
that arrive while a commit is under way share the next one (group commit), so a burst of 200 pods costs a handful of
disk flushes instead of 200. The store knows no kinds: a document is a dictionary with `metadata`.

A write is on the disk when it returns, unless its caller says that it need not be (`durable=False`: a power cut may
undo it, as long as no durable write came after it; one that changes nothing writes nothing). One that is in no hurry
(`delay`, seconds) waits for one that is.

A file that SQLite finds damaged is set aside as `state.db.damaged-<unix time>` and a new one begins; `Store.set_aside`
names it so that the daemon can say so and rebuild from the manifests and from what runs. A disk that is full is met
with space set aside for that (Reserve), so that what makes room again can be recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import attrgetter

from state.database import Database, DatabaseError
from state.errors import AlreadyExists, Conflict, Expired, NotFound, StorageFailed
from state.records import Change, ChangeType, ContainerRow, Doc, Record

__all__ = ["Change", "ContainerRow", "Doc", "Record", "Store", "Watch"]

HISTORY = 4096  # changes kept for watchers that come back with a resourceVersion


@dataclass(slots=True)
class _Write:
    """A queued write: `decide` turns it into row changes against the batch, or raises for its own caller."""

    decide: Callable[[_Batch], Record | None]
    done: asyncio.Future[Record | None]
    durable: bool = True


@dataclass(slots=True)
class _Batch:
    """Writes that share one commit, staged over the store's memory."""

    store: Store
    version: int
    durable: bool = True
    objects: dict[str, Record | None] = field(default_factory=dict)  # uid -> record, None = deleted
    names: dict[tuple[str, str, str], str | None] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    containers: dict[str, ContainerRow | None] = field(default_factory=dict)
    sync: bool = False  # all that was written before must be on the disk
    moved: set[str] = field(default_factory=set)  # uids that were deleted, also those that have come again

    def by_uid(self, uid: str) -> Record | None:
        return self.objects[uid] if uid in self.objects else self.store.get_uid(uid)

    def by_name(self, key: tuple[str, str, str]) -> Record | None:
        uid = self.names[key] if key in self.names else self.store.uid_of(*key)
        return self.by_uid(uid) if uid else None

    def put(self, kind: ChangeType, record: Record) -> None:
        gone = kind == "DELETED"
        if gone:
            self.moved.add(record.uid)
        self.objects[record.uid] = None if gone else record
        self.names[record.kind, record.namespace, record.name] = None if gone else record.uid
        self.changes.append(Change(kind, record))

    def next_version(self) -> int:
        self.version += 1
        return self.version


class Watch:
    """An asynchronous iterator of `Change`s; leave it by `close()` (or `async with`)."""

    def __init__(self, store: Store, kind: str | None) -> None:
        self._store = store
        self._kind = kind
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue()

    def offer(self, change: Change) -> None:
        if self._kind is None or change.record.kind == self._kind:
            self._queue.put_nowait(change)

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        change = await self._queue.get()
        if change is None:
            raise StopAsyncIteration
        return change

    async def next(self, timeout: float | None = None) -> Change | None:
        """The next change, or None when `timeout` seconds passed (or the watch was closed)."""
        try:
            async with asyncio.timeout(timeout):
                return await self._queue.get()
        except TimeoutError:
            return None

    def close(self) -> None:
        self._store.forget_watch(self)
        self._queue.put_nowait(None)

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Store:
    """See the module's text. Open with `Store.open(path)`, end with `await close()`. One event loop, one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.path = database.path
        self.set_aside = database.set_aside
        self.resource_version = 0
        self._objects: dict[str, Record] = {}
        self._kinds: dict[str, dict[str, Record]] = {}  # kind -> uid -> record
        self._names: dict[tuple[str, str, str], str] = {}
        self._containers: dict[str, dict[str, ContainerRow]] = {}  # pod's uid -> id -> row
        self._pods: dict[str, str] = {}  # container's id -> pod's uid
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._watches: list[Watch] = []
        self._queue: deque[_Write] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._unsynced = True  # the newest commits need not be on the disk yet
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")

    @classmethod
    def open(cls, path: str) -> Store:
        """Open or create the file at `path`. Raises StorageFailed when the place itself cannot be used."""
        try:
            database, found = Database.open(path)
        except (OSError, DatabaseError) as error:
            raise StorageFailed(f"cannot open the state file {path}: {error}") from error
        store = cls(database)
        for record in found.objects:
            store._publish_object(record.uid, record)
            store._names[record.kind, record.namespace, record.name] = record.uid
        for row in found.containers:
            store._publish_container(row.id, row)
        versions = (record.resource_version for record in found.objects)
        store.resource_version = max(found.resource_version, *versions, 0)
        return store

    # -- reading ------------------------------------------------------------------------------------------------

    def get_uid(self, uid: str) -> Record | None:
        return self._objects.get(uid)

    def uid_of(self, kind: str, namespace: str, name: str) -> str | None:
        return self._names.get((kind, namespace, name))

    def get(self, kind: str, namespace: str, name: str) -> Record | None:
        uid = self.uid_of(kind, namespace, name)
        return self._objects.get(uid) if uid else None

    def list(self, kind: str, namespace: str | None = None) -> list[Record]:
        """Objects of a kind, of one namespace or of all (None), sorted by namespace and name."""
        records = list(
            self._kinds.get(kind, {}).values()
        )  # one step: the metrics ask in a thread of their own
        if namespace is not None:
            records = [r for r in records if r.namespace == namespace]
        records.sort(key=_by_name)
        return records

    def containers(self, pod_uid: str) -> tuple[ContainerRow, ...]:
        """The recorded container instances of a pod, oldest attempt first."""
        rows = self._containers.get(pod_uid, {}).values()
        return tuple(sorted(rows, key=lambda row: (row.name, row.attempt)))

    def pods_with_containers(self) -> tuple[str, ...]:
        return tuple(self._containers)

    def watch(self, kind: str | None = None, since: int | None = None) -> Watch:
        """Changes from now on, or after resourceVersion `since`. Raises Expired when those are not kept any more."""
        watch = Watch(self, kind)
        if since is not None and since < self.resource_version:
            oldest = self._history[0].record.resource_version if self._history else self.resource_version + 1
            if since + 1 < oldest:
                raise Expired(f"too old resource version: {since} ({oldest - 1})")
            for change in self._history:
                if change.record.resource_version > since:
                    watch.offer(change)
        self._watches.append(watch)
        return watch

    def forget_watch(self, watch: Watch) -> None:
        with contextlib.suppress(ValueError):
            self._watches.remove(watch)

    # -- writing ------------------------------------------------------------------------------------------------

    async def create(self, kind: str, doc: Doc, *, durable: bool = True, delay: float = 0.0) -> Record:
        """Add an object; `doc.metadata` must have name and uid. Raises AlreadyExists."""
        metadata = doc["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])

        def decide(batch: _Batch) -> Record:
            if batch.by_name(key) or batch.by_uid(metadata["uid"]):
                raise AlreadyExists(f'{kind.lower()} "{metadata["name"]}" already exists')
            record = _stamped(Record(*key, metadata["uid"], batch.next_version(), doc))
            batch.put("ADDED", record)
            return record

        return _present(await self._submit(decide, durable=durable, delay=delay))

    async def update(
        self, kind: str, doc: Doc, *, expect: int | None = None, durable: bool = True, delay: float = 0.0
    ) -> Record:
        """Replace an object, found by namespace and name. Raises NotFound, or Conflict when its resourceVersion is not
        `expect`. A document that changes nothing is not written."""
        metadata = doc["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])

        def decide(batch: _Batch) -> Record:
            old = batch.by_name(key)
            if old is None:
                raise NotFound(f'{kind.lower()} "{metadata["name"]}" not found')
            if expect is not None and old.resource_version != expect:
                raise Conflict(
                    f'{kind.lower()} "{metadata["name"]}" was changed meanwhile (now at {old.resource_version})'
                )
            return _replace(batch, old, doc)

        return _present(await self._submit(decide, durable=durable, delay=delay))

    def post(self, kind: str, doc: Doc, *, delay: float) -> asyncio.Future[Record | None]:
        """Add or replace an object that nobody waits for and that a power cut may take, with the next write that is
        not put off, or after `delay` seconds."""
        metadata = doc["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])

        def decide(batch: _Batch) -> Record:
            old = batch.by_uid(metadata["uid"])
            if old is not None:
                return _replace(batch, old, doc)
            record = _stamped(Record(*key, metadata["uid"], batch.next_version(), doc))
            batch.put("ADDED", record)
            return record

        return self._enqueue(decide, durable=False, delay=delay)

    async def modify(
        self, uid: str, change: Callable[[Doc], Doc | None], *, durable: bool = True
    ) -> Record | None:
        """Apply `change` (old document, not to be altered → new one, None for no change) to the object as it is at the
        moment of writing; None when it is gone."""

        def decide(batch: _Batch) -> Record | None:
            old = batch.by_uid(uid)
            doc = change(old.doc) if old else None
            return _replace(batch, old, doc) if old and doc is not None else old

        return await self._submit(decide, durable=durable)

    async def update_status(self, uid: str, status: Doc) -> Record | None:
        """Set `.status` of the object; None when it is gone."""
        return await self.modify(uid, lambda doc: {**doc, "status": status})

    async def delete(self, uid: str) -> Record | None:
        """Remove the object; its last state, or None when there was none."""

        def decide(batch: _Batch) -> Record | None:
            old = batch.by_uid(uid)
            if old is not None:
                last = _stamped(Record(old.kind, old.namespace, old.name, uid, batch.next_version(), old.doc))
                batch.put("DELETED", last)
            return old

        return await self._submit(decide)

    async def put_containers(
        self, rows: Mapping[str, ContainerRow | None], *, durable: bool = True, delay: float = 0.0
    ) -> None:
        """Record container instances by id; None forgets one."""

        def decide(batch: _Batch) -> None:
            batch.containers.update(rows)

        await self._submit(decide, durable=durable, delay=delay)

    async def forget_containers(self, pod_uid: str, *, durable: bool = True, delay: float = 0.0) -> None:
        """Forget every container instance of a pod, those included whose record is still on its way here."""

        def decide(batch: _Batch) -> None:
            known = {**self._containers.get(pod_uid, {}), **batch.containers}
            for identity, row in known.items():
                if row is not None and row.pod_uid == pod_uid:
                    batch.containers[identity] = None

        await self._submit(decide, durable=durable, delay=delay)

    async def sync(self) -> None:
        """Return when all that is written by now is on the disk, whatever its writers asked for."""

        def decide(batch: _Batch) -> None:
            batch.sync = self._unsynced

        await self._submit(decide)

    async def close(self) -> None:
        """Wait for what is queued, fold the log into the file, let go."""
        while self._queue or self._writer is not None:
            await asyncio.wait([self._start()])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown(wait=True)

    async def _submit(
        self, decide: Callable[[_Batch], Record | None], *, durable: bool = True, delay: float = 0.0
    ) -> Record | None:
        # The write goes on even if its caller is cancelled: half a decision must not be undone by a timeout.
        return await asyncio.shield(self._enqueue(decide, durable=durable, delay=delay))

    def _enqueue(
        self, decide: Callable[[_Batch], Record | None], *, durable: bool, delay: float
    ) -> asyncio.Future[Record | None]:
        loop = asyncio.get_running_loop()
        write = _Write(decide, loop.create_future(), durable)
        self._queue.append(write)
        if delay and self._writer is None:
            self._later = self._later or loop.call_later(delay, self._start)
        else:
            self._start()
        return write.done

    def hurry(self) -> None:
        """Write now what was put off."""
        if self._queue:
            self._start()

    def _start(self) -> asyncio.Task[None]:
        """See that the writer runs."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._drain(), name="state-writer")
        return self._writer

    async def _drain(self) -> None:
        try:
            while self._queue:
                writes = list(self._queue)
                self._queue.clear()
                await self._write_together(writes)
        finally:
            self._writer = None

    async def _write_together(self, writes: Sequence[_Write]) -> None:
        """Decide, commit, publish; every caller gets its answer, whatever happens."""
        batch = _Batch(self, self.resource_version, any(w.durable for w in writes))
        decided = [(w, _attempt(w, batch)) for w in writes]
        error: Exception | None = None
        if batch.changes or batch.containers or batch.sync:
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, batch)
                self._unsynced = not batch.durable
                self._publish(batch)
            except Exception as failure:  # noqa: BLE001 - what it was is told to each caller
                if len(writes) > 1 and not isinstance(failure, (DatabaseError, OSError)):
                    for write in writes:  # one of them cannot be stored at all: the others can
                        await self._write_together([write])
                    return
                error = StorageFailed(f"cannot write the state file {self.path}: {failure}")
                error.__cause__ = failure
        for write, result in decided:
            _settle(write.done, error if error and not isinstance(result, Exception) else result)

    def _commit(self, batch: _Batch) -> None:
        """In the writer's thread."""
        self._database.commit(
            batch.objects, batch.containers, version=batch.version, durable=batch.durable, moved=batch.moved
        )

    def _publish(self, batch: _Batch) -> None:
        for uid, record in batch.objects.items():
            self._publish_object(uid, record)
        for key, found in batch.names.items():
            if found is None:
                self._names.pop(key, None)
            else:
                self._names[key] = found
        for identity, row in batch.containers.items():
            self._publish_container(identity, row)
        self.resource_version = batch.version
        for change in batch.changes:
            self._history.append(change)
            for watch in tuple(self._watches):
                watch.offer(change)

    def _publish_object(self, uid: str, record: Record | None) -> None:
        old = self._objects.pop(uid, None)
        if old is not None and (record is None or record.kind != old.kind):
            del self._kinds[old.kind][uid]
        if record is not None:
            self._objects[uid] = self._kinds.setdefault(record.kind, {})[uid] = record

    def _publish_container(self, identity: str, row: ContainerRow | None) -> None:
        if row is not None:
            self._containers.setdefault(row.pod_uid, {})[identity] = row
            self._pods[identity] = row.pod_uid
            return
        uid = self._pods.pop(identity, None)
        if uid is not None:
            rows = self._containers[uid]
            del rows[identity]
            if not rows:
                del self._containers[uid]


_by_name = attrgetter("namespace", "name")


def _attempt(write: _Write, batch: _Batch) -> Record | Exception | None:
    try:
        return write.decide(batch)
    except Exception as error:  # noqa: BLE001 - whatever the decision raised belongs to the caller that asked
        return error


def _settle(done: asyncio.Future[Record | None], result: Record | Exception | None) -> None:
    if done.cancelled():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
        done.exception()  # a caller that was cancelled meanwhile never asks: not a lost error
    else:
        done.set_result(result)


def _replace(batch: _Batch, old: Record, doc: Doc) -> Record:
    if _same(old.doc, doc):
        return old
    record = _stamped(Record(old.kind, old.namespace, old.name, old.uid, batch.next_version(), doc))
    batch.put("MODIFIED", record)
    return record


def _stamped(record: Record) -> Record:
    """The record with its uid and resourceVersion written into its document."""
    metadata = {
        **record.doc["metadata"],
        "uid": record.uid,
        "resourceVersion": str(record.resource_version),
    }
    doc = {**record.doc, "metadata": metadata}
    return Record(record.kind, record.namespace, record.name, record.uid, record.resource_version, doc)


def _same(old: Doc, new: Doc) -> bool:
    def bare(doc: Doc) -> Doc:
        metadata = {k: v for k, v in doc["metadata"].items() if k not in ("resourceVersion", "uid")}
        return {**doc, "metadata": metadata}

    return bare(old) == bare(new)


def _present(record: Record | None) -> Record:
    assert record is not None
    return record
