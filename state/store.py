"""The store: plain documents by kind, namespace and name, in SQLite, with one global resourceVersion and watches.

Reads are served from memory; SQLite is read once, when the file is opened. Writes are awaited: they are decided against
memory, committed by one writer thread, and only then become visible to readers and watchers. Writes that arrive during
a commit share the next one (group commit), so a burst of 200 pods costs a handful of disk flushes instead of 200. The
store does not interpret kinds: a document is a dictionary with `metadata`.

A write is on the disk when it returns, unless its caller passes `durable=False`: a power failure may then undo it,
until a durable write follows. A write that changes nothing is not written. A write with a `delay` (seconds) waits that
long for another one to share a commit with.

If SQLite finds the file damaged, the store sets it aside as `state.db.damaged-<unix time>` and creates a new one.
`Store.set_aside` is its name, so that the daemon can report it and rebuild from the manifests and the running pods. On
a full disk the store uses space reserved for that (Reserve), so that the removals that free space can be recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from typing import TypeVar

from state.batch import Batch, Gate, Historian, Write, attempt, replace_object, settle, stamped
from state.database import Database, DatabaseError
from state.errors import AlreadyExists, Conflict, Expired, NotFound, StorageFailed
from state.history import ROW, Entry, Question, Revision, Version
from state.records import Change, ContainerRow, Doc, Record
from state.watch import Watch

__all__ = ["Change", "ContainerRow", "Doc", "Record", "Store", "Watch"]

T = TypeVar("T")

HISTORY = 4096  # changes retained at most for watchers that resume from a resourceVersion
NOTES_WAIT = 5.0  # seconds that notes for history wait for a write to share a commit with


class Store:
    """See the module's docstring. Open it with `Store.open(path)`, end it with `await close()`. One event loop only."""

    def __init__(
        self, database: Database, historian: Historian | None = None, gate: Gate | None = None
    ) -> None:
        self._database = database
        self.path = database.path
        self.set_aside = database.set_aside
        self.resource_version = 0
        self._objects: dict[str, Record] = {}
        self._kinds: dict[str, dict[str, Record]] = {}  # kind -> uid -> record
        self._names: dict[tuple[str, str, str], str] = {}
        self._containers: dict[str, dict[str, ContainerRow]] = {}  # pod uid -> container id -> row
        self._pods: dict[str, str] = {}  # container id -> pod uid
        self._history: deque[Change] = deque(maxlen=HISTORY)
        self._watches: list[Watch] = []
        self._queue: deque[Write] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None
        self.gate = gate  # decides whether an object may be added or edited; None: any may
        self.historian = historian  # decides what history records of each change; None: nothing
        self.history_written = 0  # approximate bytes written to history; reset by whoever prunes it
        self._notes: list[Entry] = []
        self._versions: dict[str, Version] = {}  # by file
        self._notes_due: asyncio.TimerHandle | None = None
        self._unsynced = True  # the newest commits may not be on the disk yet
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")

    @classmethod
    def open(cls, path: str, *, historian: Historian | None = None, gate: Gate | None = None) -> Store:
        """Open or create the file at `path`. Raises StorageFailed if the path cannot be used."""
        try:
            database, found = Database.open(path)
        except (OSError, DatabaseError) as error:
            raise StorageFailed(f"cannot open the state file {path}: {error}") from error
        store = cls(database, historian, gate)
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

    def of_kind(self, kind: str) -> Mapping[str, Record]:
        """Return the objects of a kind by uid. The mapping changes with the next commit."""
        return self._kinds.get(kind, {})

    def get(self, kind: str, namespace: str, name: str) -> Record | None:
        uid = self.uid_of(kind, namespace, name)
        return self._objects.get(uid) if uid else None

    def check(self, kind: str, doc: Doc) -> None:
        """Raise what `gate` would raise if the object were added now."""
        if self.gate is not None:
            self.gate(Batch(self, self.resource_version), kind, doc, None)

    def docs(self, kind: str) -> list[Doc]:
        """Return the documents of a kind, in the order of `list`. They must not be changed in place."""
        return [record.doc for record in self.list(kind)]

    def list(self, kind: str, namespace: str | None = None) -> list[Record]:
        """Return objects of a kind, in one namespace or in all (None), sorted by namespace and name."""
        # Copied in one step: metrics call this in another thread.
        records = list(self._kinds.get(kind, {}).values())
        if namespace is not None:
            records = [r for r in records if r.namespace == namespace]
        records.sort(key=_by_name)
        return records

    def containers(self, pod_uid: str) -> tuple[ContainerRow, ...]:
        """Return the recorded container instances of a pod, oldest attempt first."""
        rows = self._containers.get(pod_uid, {}).values()
        return tuple(sorted(rows, key=lambda row: (row.name, row.attempt)))

    def pods_with_containers(self) -> tuple[str, ...]:
        return tuple(self._containers)

    def watch(
        self,
        kind: str | Collection[str] | None = None,
        since: int | None = None,
        limit: int | None = None,
    ) -> Watch:
        """Return changes of a kind, of several kinds or of all (None), from now on, or after resourceVersion `since`.
        Raises Expired if those are no longer retained.
        A watcher with more than `limit` pending changes is dropped; None, for the daemon's own watchers, means no
        limit."""
        watch = Watch(self.forget_watch, kind, limit)
        if since is not None and since < self.resource_version:
            oldest = self._history[0].record.resource_version if self._history else self.resource_version + 1
            if since + 1 < oldest:
                raise Expired(f"too old resource version: {since} ({oldest - 1})")
            for change in self._history:
                if change.record.resource_version > since:
                    watch.offer(change)
        self._watches.append(watch)
        return watch

    def forget_changes(self, version: int) -> None:
        """Forget the changes up to a resourceVersion. Watchers cannot resume from an earlier one any more."""
        while self._history and self._history[0].record.resource_version <= version:
            self._history.popleft()

    def forget_watch(self, watch: Watch) -> None:
        with contextlib.suppress(ValueError):
            self._watches.remove(watch)

    # -- writing ------------------------------------------------------------------------------------------------

    async def create(self, kind: str, doc: Doc, *, durable: bool = True, delay: float = 0.0) -> Record:
        """Add an object; `doc.metadata` must have a name and a uid. Raises AlreadyExists, and what `gate` raises."""
        metadata = doc["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])

        def decide(batch: Batch) -> Record:
            if batch.by_name(key) or batch.by_uid(metadata["uid"]):
                raise AlreadyExists(f'{kind.lower()} "{metadata["name"]}" already exists')
            if self.gate is not None:
                self.gate(batch, kind, doc, None)
            record = stamped(Record(*key, metadata["uid"], batch.next_version(), doc))
            batch.put("ADDED", record)
            return record

        return _present(await self._submit(decide, durable=durable, delay=delay))

    async def update(
        self, kind: str, doc: Doc, *, expect: int | None = None, durable: bool = True, delay: float = 0.0
    ) -> Record:
        """Replace an object, found by namespace and name. Raises NotFound, or Conflict if its resourceVersion is not
        `expect`. A document without changes is not written."""
        metadata = doc["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])

        def decide(batch: Batch) -> Record:
            old = batch.by_name(key)
            if old is None:
                raise NotFound(f'{kind.lower()} "{metadata["name"]}" not found')
            if expect is not None and old.resource_version != expect:
                raise Conflict(
                    f'{kind.lower()} "{metadata["name"]}" was changed meanwhile (it is now at {old.resource_version})'
                )
            return replace_object(batch, old, doc)

        return _present(await self._submit(decide, durable=durable, delay=delay))

    def post(self, kind: str, doc: Doc, *, delay: float) -> asyncio.Future[Record | None]:
        """Add or replace an object without waiting, and without durability. It is written with the next write that has
        no delay, or after `delay` seconds."""
        metadata = doc["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])

        def decide(batch: Batch) -> Record:
            old = batch.by_uid(metadata["uid"])
            if old is not None:
                return replace_object(batch, old, doc)
            record = stamped(Record(*key, metadata["uid"], batch.next_version(), doc))
            batch.put("ADDED", record)
            return record

        return self._enqueue(decide, durable=False, delay=delay)

    async def modify(
        self, uid: str, change: Callable[[Doc], Doc | None], *, durable: bool = True, gated: bool = False
    ) -> Record | None:
        """Apply `change` to the object as it is at the moment of writing. `change` gets the old document, which it must
        not alter, and returns a new one, or None for no change. Returns None if the object does not exist. `gated`: ask
        `gate` about the change, and raise what it raises."""

        def decide(batch: Batch) -> Record | None:
            old = batch.by_uid(uid)
            doc = change(old.doc) if old else None
            if old is None or doc is None:
                return old
            if gated and self.gate is not None:
                self.gate(batch, old.kind, doc, old.doc)
            return replace_object(batch, old, doc)

        return await self._submit(decide, durable=durable)

    async def modify_all(
        self, changes: Sequence[tuple[str, Callable[[Doc], Doc | None]]], *, durable: bool = True
    ) -> None:
        """Apply a `change` (see `modify`) to each of several objects, by uid, in their order: all or none. An object
        that is named twice is written once. Raises NotFound if an object does not exist, and what a `change` raises."""

        def decide(batch: Batch) -> None:
            docs: dict[str, Doc] = {}
            for uid, change in changes:
                old = batch.by_uid(uid)
                if old is None:
                    raise NotFound(f"the object with uid {uid} does not exist")
                before = docs.get(uid, old.doc)
                docs[uid] = change(before) or before
            for uid, doc in docs.items():
                replace_object(batch, _present(batch.by_uid(uid)), doc)

        await self._submit(decide, durable=durable)

    async def update_status(self, uid: str, status: Doc) -> Record | None:
        """Set `.status` of the object. Returns None if the object does not exist."""
        return await self.modify(uid, lambda doc: {**doc, "status": status})

    async def delete(self, uid: str) -> Record | None:
        """Delete the object. Returns its last state, or None if it did not exist."""

        def decide(batch: Batch) -> Record | None:
            old = batch.by_uid(uid)
            if old is not None:
                last = stamped(Record(old.kind, old.namespace, old.name, uid, batch.next_version(), old.doc))
                batch.put("DELETED", last, old)
            return old

        return await self._submit(decide)

    async def put_containers(
        self, rows: Mapping[str, ContainerRow | None], *, durable: bool = True, delay: float = 0.0
    ) -> None:
        """Record container instances by id; a row of None is deleted."""

        def decide(batch: Batch) -> None:
            batch.containers.update(rows)

        await self._submit(decide, durable=durable, delay=delay)

    async def forget_containers(self, pod_uid: str, *, durable: bool = True, delay: float = 0.0) -> None:
        """Delete all container instances of a pod, including those whose rows are not written yet."""

        def decide(batch: Batch) -> None:
            known = {**self._containers.get(pod_uid, {}), **batch.containers}
            for identity, row in known.items():
                if row is not None and row.pod_uid == pod_uid:
                    batch.containers[identity] = None

        await self._submit(decide, durable=durable, delay=delay)

    async def sync(self) -> None:
        """Return when everything written so far is on the disk, durable or not."""

        def decide(batch: Batch) -> None:
            batch.sync = self._unsynced

        await self._submit(decide)

    # -- history ------------------------------------------------------------------------------------------------

    def note(self, *what: Entry | Version) -> None:
        """Record in history events that change no object, and versions of manifests. They are written with the next
        write, or after a while. Nobody waits for them, and a full disk may lose them."""
        for found in what:
            if isinstance(found, Entry):
                self._notes.append(found)
            else:
                self._versions[found.file] = found
        if self._notes_due is None:
            self._notes_due = asyncio.get_running_loop().call_later(NOTES_WAIT, self._write_notes)

    async def history(self, question: Question) -> tuple[Sequence[Entry], float]:
        """Return entries, oldest first, including pending ones, and the time since which history is complete (Unix
        seconds)."""
        await self._noted()
        return await self._ask(partial(self._database.entries, question))

    async def revisions(self, file: str | None = None) -> Sequence[Revision]:
        """Return the versions of a manifest file, or of all files, oldest first."""
        await self._noted()
        return await self._ask(partial(self._database.revisions, file))

    async def prune(self, *, before: float, size: int) -> None:
        """Delete history before `before` (Unix seconds) and beyond `size` bytes. Raises StorageFailed."""
        await self._ask(partial(self._database.prune, before=before, size=size), self._thread)

    async def rewrite_revisions(self, change: Callable[[str], str | None]) -> None:
        """Change the texts of the versions of manifests; None deletes a version. `change` runs in a thread. Raises
        StorageFailed."""
        await self._ask(partial(self._database.rewrite_revisions, change), self._thread)

    async def _noted(self) -> None:
        if self._notes or self._versions:
            with contextlib.suppress(StorageFailed):
                await self._submit(_nothing, durable=False)

    def _write_notes(self) -> None:
        self._notes_due = None
        if self._notes or self._versions:
            self._enqueue(_nothing, durable=False, delay=0)

    async def _ask(self, question: Callable[[], T], thread: ThreadPoolExecutor | None = None) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, question)
        except (OSError, DatabaseError) as error:
            raise StorageFailed(f"cannot read the state file {self.path}: {error}") from error

    async def close(self) -> None:
        """Wait for queued writes, merge the log into the file, and close it."""
        if self._notes_due is not None:
            self._notes_due.cancel()
            self._write_notes()
        while self._queue or self._writer is not None:
            await asyncio.wait([self._start()])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown(wait=True)

    async def _submit(
        self, decide: Callable[[Batch], Record | None], *, durable: bool = True, delay: float = 0.0
    ) -> Record | None:
        # The write continues if its caller is cancelled: a timeout must not undo half of a decision.
        return await asyncio.shield(self._enqueue(decide, durable=durable, delay=delay))

    def _enqueue(
        self, decide: Callable[[Batch], Record | None], *, durable: bool, delay: float
    ) -> asyncio.Future[Record | None]:
        loop = asyncio.get_running_loop()
        write = Write(decide, loop.create_future(), durable)
        self._queue.append(write)
        if delay and self._writer is None:
            self._later = self._later or loop.call_later(delay, self._start)
        else:
            self._start()
        return write.done

    def flush(self) -> None:
        """Start writing the delayed writes now."""
        if self._queue:
            self._start()

    def _start(self) -> asyncio.Task[None]:
        """Start the writer unless it runs."""
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
                try:
                    await self._write_together(writes)
                except MemoryError as shortage:  # before anything was written
                    error = StorageFailed(f"cannot write the state file {self.path}: not enough memory")
                    error.__cause__ = shortage
                    for write in writes:
                        settle(write.done, error)
        finally:
            self._writer = None

    async def _write_together(self, writes: Sequence[Write]) -> None:
        """Decide, commit and publish. Every caller gets a result in any case."""
        batch = Batch(self, self.resource_version, any(w.durable for w in writes))
        decided = [(w, attempt(w, batch)) for w in writes]
        error: Exception | None = None
        batch.entries, self._notes = [*self._notes, *batch.entries], []
        batch.versions, self._versions = [*batch.versions, *self._versions.values()], {}
        if batch.changes or batch.containers or batch.sync or batch.entries or batch.versions:
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, batch)
                self._unsynced = not batch.durable
                self._publish(batch)
            except Exception as failure:  # noqa: BLE001 - reported to each caller
                if len(writes) > 1 and not isinstance(failure, (DatabaseError, OSError)):
                    for write in writes:  # one of them cannot be stored; the others can
                        await self._write_together([write])
                    return
                error = StorageFailed(f"cannot write the state file {self.path}: {failure}")
                error.__cause__ = failure
        for write, result in decided:
            settle(write.done, error if error and not isinstance(result, Exception) else result)

    def _commit(self, batch: Batch) -> None:
        """Commit a batch; runs in the writer's thread."""
        self.history_written += sum(ROW + len(e.before) + len(e.message) for e in batch.entries)
        self._database.commit(
            batch.objects,
            batch.containers,
            version=batch.version,
            durable=batch.durable,
            moved=batch.moved,
            entries=batch.entries,
            versions=batch.versions,
            remembers=self.historian is not None,
        )

    def _publish(self, batch: Batch) -> None:
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


def _nothing(_: Batch) -> None:
    """Decide nothing: a write that only carries notes."""


_by_name = attrgetter("namespace", "name")


def _present(record: Record | None) -> Record:
    assert record is not None
    return record
