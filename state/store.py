"""The store: plain documents by kind, namespace and name, in SQLite, with one global resourceVersion and watches.

Reads come from memory and cost nothing; SQLite is read once, when the file is opened. Writes are awaited: they are
decided against memory, committed by one writer thread, and only then become visible to readers and watchers. Writes
that arrive while a commit is under way share the next one (group commit), so a burst of 200 pods costs a handful of
disk flushes instead of 200. The store knows no kinds: a document is a dictionary with `metadata`.

A write is on the disk when it returns, unless its caller says that it need not be (`durable=False`: a power cut may
undo it, as long as no durable write came after it). One that is in no hurry (`delay`, seconds) waits for one that is.

A file that SQLite finds damaged is set aside as `state.db.damaged-<unix time>` and a new one begins; `Store.set_aside`
names it so that the daemon can say so and rebuild from the manifests and from what runs. A disk that is full is met
with space set aside for that (Reserve), so that what makes room again can be recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DatabaseError, OperationalError

from state import schema
from state.errors import AlreadyExists, Conflict, Expired, NotFound, StorageFailed
from state.reserve import Reserve

Doc = dict[str, Any]
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]

RESERVE = ".reserve"  # beside the state file: see Reserve
HISTORY = 4096  # changes kept for watchers that come back with a resourceVersion


@dataclass(frozen=True, slots=True)
class Record:
    """One object. `doc` is the whole of it (metadata.resourceVersion included) and must not be changed in place."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: int
    doc: Doc

    @property
    def metadata(self) -> Doc:
        found: Doc = self.doc["metadata"]
        return found

    @property
    def deleting(self) -> bool:
        return bool(self.metadata.get("deletionTimestamp"))


@dataclass(frozen=True, slots=True)
class Change:
    """What a watcher gets: the object as it is after the change (as it last was, when DELETED)."""

    type: ChangeType
    record: Record


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """The last known record of one container instance; `doc` is a shim's ContainerRecord as JSON object."""

    id: str
    pod_uid: str
    name: str
    attempt: int
    state: str
    updated_at: float
    doc: Doc


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

    def by_uid(self, uid: str) -> Record | None:
        return self.objects[uid] if uid in self.objects else self.store.get_uid(uid)

    def by_name(self, key: tuple[str, str, str]) -> Record | None:
        uid = self.names[key] if key in self.names else self.store.uid_of(*key)
        return self.by_uid(uid) if uid else None

    def put(self, kind: ChangeType, record: Record) -> None:
        gone = kind == "DELETED"
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

    def __init__(self, engine: Engine, path: str, *, set_aside: str = "") -> None:
        self._engine = engine
        self.path = path
        self.set_aside = set_aside
        self.resource_version = 0
        self._objects: dict[str, Record] = {}
        self._names: dict[tuple[str, str, str], str] = {}
        self._containers: dict[str, dict[str, ContainerRow]] = {}
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._watches: list[Watch] = []
        self._queue: deque[_Write] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._connection: Connection | None = None  # the writer thread's
        self._synchronous = True  # what it commits with
        self._reserve = Reserve(path + RESERVE)

    @classmethod
    def open(cls, path: str) -> Store:
        """Open or create the file at `path`. Raises StorageFailed when the place itself cannot be used."""
        reserve = Reserve(path + RESERVE)
        while True:
            try:
                store = cls._load_or_set_aside(path)
                store._reserve.keep()
                return store
            except (OSError, DatabaseError) as error:
                if not (_looks_full(error) and reserve.give()):
                    raise StorageFailed(f"cannot open the state file {path}: {_words(error)}") from error

    @classmethod
    def _load_or_set_aside(cls, path: str) -> Store:
        try:
            return cls._load(path)
        except DatabaseError as error:
            if isinstance(error, OperationalError) and not _looks_damaged(error):
                raise
            return cls._load(path, set_aside=_set_aside(path))

    @classmethod
    def _load(cls, path: str, *, set_aside: str = "") -> Store:
        _keep_private(path)
        engine = schema.open_engine(path)
        store = cls(engine, path, set_aside=set_aside)
        try:
            with engine.begin() as connection:
                if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() != "ok":
                    raise DatabaseError(
                        "PRAGMA quick_check", None, Exception("database disk image is malformed")
                    )
                schema.migrate(connection)
                store._read(connection)
        except (DatabaseError, ValueError) as error:
            engine.dispose()
            if isinstance(error, ValueError):  # a document that is no JSON: the file was written over
                raise DatabaseError("read", None, Exception("database disk image is malformed")) from error
            raise
        return store

    def _read(self, connection: Connection) -> None:
        for row in connection.execute(select(schema.objects)):
            record = Record(
                row.kind, row.namespace, row.name, row.uid, row.resource_version, json.loads(row.doc)
            )
            self._objects[record.uid] = record
            self._names[record.kind, record.namespace, record.name] = record.uid
            self.resource_version = max(self.resource_version, record.resource_version)
        for row in connection.execute(select(schema.containers)):
            found = ContainerRow(
                row.id, row.pod_uid, row.name, row.attempt, row.state, row.updated_at, json.loads(row.doc)
            )
            self._containers.setdefault(found.pod_uid, {})[found.id] = found
        query = select(schema.meta.c.value).where(schema.meta.c.key == "resource_version")
        self.resource_version = max(self.resource_version, int(connection.execute(query).scalar() or 0))

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
        records = list(self._objects.values())  # one step: the metrics ask in a thread of their own
        found = (r for r in records if r.kind == kind and namespace in (None, r.namespace))
        return sorted(found, key=lambda r: (r.namespace, r.name))

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

    async def close(self) -> None:
        """Wait for what is queued, fold the log into the file, let go."""
        while self._queue or self._writer is not None:
            await asyncio.wait([self._start()])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go)
        self._thread.shutdown(wait=True)
        self._engine.dispose()

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()

    async def _submit(
        self, decide: Callable[[_Batch], Record | None], *, durable: bool = True, delay: float = 0.0
    ) -> Record | None:
        loop = asyncio.get_running_loop()
        write = _Write(decide, loop.create_future(), durable)
        self._queue.append(write)
        if delay and self._writer is None:
            self._later = self._later or loop.call_later(delay, self._start)
        else:
            self._start()
        # The write goes on even if its caller is cancelled: half a decision must not be undone by a timeout.
        return await asyncio.shield(write.done)

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
        if batch.changes or batch.containers:
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, batch)
                self._publish(batch)
            except Exception as failure:  # noqa: BLE001 - what it was is told to each caller
                if len(writes) > 1 and not isinstance(failure, (DatabaseError, OSError)):
                    for write in writes:  # one of them cannot be stored at all: the others can
                        await self._write_together([write])
                    return
                error = StorageFailed(f"cannot write the state file {self.path}: {_words(failure)}")
                error.__cause__ = failure
        for write, result in decided:
            _settle(write.done, error if error and not isinstance(result, Exception) else result)

    def _commit(self, batch: _Batch) -> None:
        """In the writer's thread; when the disk is full, in the space that is kept for that."""
        while True:
            try:
                self._commit_once(batch)
                break
            except (OSError, DatabaseError) as error:
                if not (_looks_full(error) and self._reserve.give()):
                    raise
        self._reserve.keep()

    def _commit_once(self, batch: _Batch) -> None:
        """On a connection of its own that is kept."""
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            self._write(self._connection, batch)
        except BaseException:
            connection, self._connection, self._synchronous = self._connection, None, True
            if connection is not None:
                connection.invalidate()
                connection.close()
            raise

    def _write(self, connection: Connection, batch: _Batch) -> None:
        with connection.begin():
            if (
                batch.durable != self._synchronous
            ):  # outside of SQLite's transaction, which the first change begins
                connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if batch.durable else 'NORMAL'}")
                self._synchronous = batch.durable
            rows = [_object_row(record) for record in batch.objects.values() if record is not None]
            _replace_rows(connection, schema.OBJECTS, list(batch.objects), rows)
            rows = [_container_row(row) for row in batch.containers.values() if row is not None]
            _replace_rows(connection, schema.CONTAINERS, list(batch.containers), rows)
            connection.exec_driver_sql(schema.SET_META, ("resource_version", str(batch.version)))

    def _publish(self, batch: _Batch) -> None:
        for uid, record in batch.objects.items():
            if record is None:
                self._objects.pop(uid, None)
            else:
                self._objects[uid] = record
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

    def _publish_container(self, identity: str, row: ContainerRow | None) -> None:
        if row is not None:
            self._containers.setdefault(row.pod_uid, {})[identity] = row
            return
        for uid, rows in list(self._containers.items()):
            if rows.pop(identity, None) is not None and not rows:
                del self._containers[uid]


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


def _replace_rows(
    connection: Connection, sql: tuple[str, str, tuple[str, ...]], keys: list[str], rows: list[dict[str, Any]]
) -> None:
    """All rows of `keys` go before the new ones come: a name may pass from one object to another."""
    deletion, insertion, columns = sql
    if keys:
        connection.exec_driver_sql(deletion, [(key,) for key in keys])
    if rows:
        connection.exec_driver_sql(insertion, [tuple(row[column] for column in columns) for row in rows])


def _object_row(record: Record) -> dict[str, Any]:
    return {
        "uid": record.uid,
        "kind": record.kind,
        "namespace": record.namespace,
        "name": record.name,
        "resource_version": record.resource_version,
        "doc": json.dumps(record.doc, separators=(",", ":"), ensure_ascii=False),
    }


def _container_row(row: ContainerRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "pod_uid": row.pod_uid,
        "name": row.name,
        "attempt": row.attempt,
        "state": row.state,
        "updated_at": row.updated_at,
        "doc": json.dumps(row.doc, separators=(",", ":"), ensure_ascii=False),
    }


def _words(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)


def _looks_damaged(error: DatabaseError) -> bool:
    """What SQLite says of the content. "disk I/O error" is the disk's (a full one says it of its own log's index)."""
    return any(word in _words(error) for word in ("malformed", "not a database"))


def _looks_full(error: Exception) -> bool:
    """SQLite says "disk I/O error" where it was its log's index that found no space."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(word in _words(error) for word in ("disk is full", "disk I/O error"))


def _keep_private(path: str) -> None:
    """Secrets are in it: nobody but its owner may read it or SQLite's log of it, which gets the file's own mode. Before
    SQLite has it open: closing a descriptor of a file lets go of all the process's locks on it (fcntl(2))."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.chmod(path + suffix, 0o600)


def _set_aside(path: str) -> str:
    """Move a damaged file and its log out of the way; returns the new name."""
    kept = f"{path}.damaged-{int(time.time())}"
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path + suffix, kept + suffix)
    return kept
