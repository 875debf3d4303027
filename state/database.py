"""The state file: commits in SQLite, and the handling of damage and of a full disk.

Tables, statements and transactions are SQLAlchemy's (schema.py). A commit executes statements that were compiled once,
with parameters in the driver's own form, which halves its cost. Disk errors are raised as the driver's own exceptions,
because their text is for people; SQLAlchemy's text repeats the statement.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self

from sqlalchemy import Connection, Table, select
from sqlalchemy.exc import DBAPIError

from state import history, schema
from state.history import Entry, Question, Revision, Version
from state.records import ContainerRow, Record
from state.reserve import Reserve

DatabaseError = sqlite3.DatabaseError  # any error of SQLite

RESERVE = ".reserve"  # suffix of the reserve file: see state.reserve
TOGETHER = 256  # documents that are decoded in one call

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of the file."""

    objects: tuple[Record, ...]
    containers: tuple[ContainerRow, ...]
    resource_version: int


class HistoryRows(NamedTuple):
    """What a write adds to history. `complete`: nothing is missing, so history has no gap."""

    entries: Sequence[Entry] = ()
    versions: Sequence[Version] = ()
    complete: bool = False


NO_HISTORY = HistoryRows()


@dataclass(frozen=True, slots=True)
class Summary:
    """What a state file holds. `since`: Unix seconds from which history is complete."""

    objects: tuple[Record, ...] = ()
    entries: int = 0  # of history
    revisions: int = 0  # versions of manifest files
    since: float = 0.0


def summary(path: str) -> Summary:
    """Read the file at `path` without changing it, also while a daemon uses it; a missing file is empty. Raises OSError
    or DatabaseError if it cannot be read."""
    if not os.path.exists(path):
        return Summary()
    with _driver_errors(), schema.open_reader(path).connect() as connection:
        entries, revisions, since = history.count(connection)
        return Summary(_contents(connection).objects, entries, revisions, since)


class Database:
    """One process's connection to the file at `path`. Created by `open`, then used by one thread at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.set_aside = ""  # new name of a damaged file
        self.reserve = Reserve(path + RESERVE)
        self.connection: Connection | None = None
        self._synchronous = True  # whether commits wait for the disk
        self._missing = False  # a full disk lost changes of history, which is not recorded yet

    @classmethod
    def open(cls, path: str) -> tuple[Self, Contents]:
        """Open or create the file; a damaged file is set aside. Raises OSError or DatabaseError if the path cannot be
        used."""
        database = cls(path)
        while True:
            try:
                found = database._open_or_set_aside()
                database.reserve.refill()
                return database, found
            except (OSError, DatabaseError) as error:
                if not (looks_full(error) and database.reserve.release()):
                    raise

    def _open_or_set_aside(self) -> Contents:
        try:
            return self._open_sound()
        except DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not _looks_damaged(error):
                raise
            self.set_aside = _set_aside(self.path)
            return self._open_sound()

    def _open_sound(self) -> Contents:
        _keep_private(self.path)
        with _driver_errors():
            connection = self._connect()
            try:
                with connection.begin():
                    if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() != "ok":
                        raise _damaged()
                    schema.migrate(connection)
                    version = int(schema.get_meta(connection, schema.RESOURCE_VERSION) or 0)
                    history.begin(connection, version)
                    return _contents(connection)
            except BaseException:
                self.close()
                raise

    def _connect(self) -> Connection:
        self.connection, self._synchronous = schema.open_engine(self.path).connect(), True
        return self.connection

    def close(self) -> None:
        """Merge the log into the file and close the connection."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def commit(
        self,
        objects: Mapping[str, Record | None],
        containers: Mapping[str, ContainerRow | None],
        *,
        version: int,
        durable: bool,
        moved: Collection[str] = (),
        entries: list[Entry] | None = None,
        versions: list[Version] | None = None,
        remembers: bool = False,
    ) -> None:
        """Write rows by key, delete those that are None, and delete `moved` rows before others are written; all or
        nothing. If the disk is full, write without history, in the reserved space. `remembers`: `entries` is complete,
        so history has no gap. Raises OSError or DatabaseError."""
        rows = HistoryRows(entries or (), versions or (), remembers)
        while True:
            try:
                self.write(objects, containers, version=version, durable=durable, moved=moved, rows=rows)
                break
            except (OSError, DatabaseError) as error:
                if not (looks_full(error) and self.reserve.release()):
                    raise
                rows, self._missing = NO_HISTORY, True
        self.reserve.refill()

    def write(
        self,
        objects: Mapping[str, Record | None],
        containers: Mapping[str, ContainerRow | None],
        *,
        version: int,
        durable: bool,
        moved: Collection[str],
        rows: HistoryRows = NO_HISTORY,
    ) -> None:
        """Try once. After a failure, the next attempt opens a new connection."""
        with _driver_errors():
            connection = self.connection or self._connect()
            try:
                if durable != self._synchronous:
                    _pragma(connection, f"synchronous={'FULL' if durable else 'NORMAL'}")
                    self._synchronous = durable
                with connection.begin():
                    # Deletions come first: a name may pass from one object to another.
                    _many(connection, schema.FORGET_OBJECT, [(uid,) for uid in moved])
                    gone = [(key,) for key, row in containers.items() if row is None]
                    _many(connection, schema.FORGET_CONTAINER, gone)
                    _many(connection, schema.PUT_OBJECT, [_object_row(r) for r in objects.values() if r])
                    _many(
                        connection,
                        schema.PUT_CONTAINER,
                        [_container_row(r) for r in containers.values() if r],
                    )
                    history.put(connection, rows.entries, rows.versions)
                    if rows.complete:
                        history.complete(connection, version, restart=self._missing)
                    _many(connection, schema.PUT_META, [(schema.RESOURCE_VERSION, str(version))])
                if rows.complete:
                    self._missing = False
            except BaseException:
                with contextlib.suppress(DBAPIError, DatabaseError):
                    self.close()
                raise

    # -- history -----------------------------------------------------------------------------------------------

    def prune(self, *, before: float, size: int) -> None:
        """Prune history (state.history.prune). Like a commit, call this in the writer's thread."""
        self._transact(partial(history.prune, before=before, size=size))

    def rewrite_revisions(self, change: Callable[[str], str | None]) -> None:
        """Change or delete versions of manifests (state.history.rewrite). Call this in the writer's thread."""
        self._transact(partial(history.rewrite, change=change))

    def _transact(self, work: Callable[[Connection], None]) -> None:
        with _driver_errors():
            connection = self.connection or self._connect()
            try:
                with connection.begin():
                    work(connection)
            except BaseException:
                with contextlib.suppress(DBAPIError, DatabaseError):
                    self.close()
                raise

    def entries(self, question: Question) -> tuple[list[Entry], float]:
        """Query history, in any thread: the query has its own connection, and commits continue meanwhile (WAL)."""
        with _driver_errors(), schema.open_reader(self.path).connect() as connection:
            return history.entries(connection, question)

    def revisions(self, file: str | None) -> list[Revision]:
        with _driver_errors(), schema.open_reader(self.path).connect() as connection:
            return history.revisions_of(connection, file)


@contextlib.contextmanager
def _driver_errors() -> Iterator[None]:
    """Raise the driver's exceptions without SQLAlchemy's wrapping."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, Exception):
            raise error.orig from error.orig.__cause__
        raise


def _pragma(connection: Connection, text: str) -> None:
    """Set a pragma on the driver's connection: it has no effect in a transaction, which SQLAlchemy's would begin."""
    driver: sqlite3.Connection | None = connection.connection.driver_connection
    assert driver is not None
    driver.execute(f"PRAGMA {text}")


def _many(connection: Connection, statement: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        schema.write_rows(connection, statement, rows)


def _contents(connection: Connection) -> Contents:
    """Read everything. Raises DatabaseError also if a document is not JSON: the file was overwritten."""
    objects = (
        Record(sys.intern(kind), sys.intern(namespace), name, uid, version, doc)
        for (uid, kind, namespace, name, version), doc in _rows(connection, schema.objects)
    )
    containers = (
        ContainerRow(identity, pod_uid, name, attempt, state, updated_at, doc)
        for (identity, pod_uid, name, attempt, state, updated_at), doc in _rows(connection, schema.containers)
    )
    version = int(schema.get_meta(connection, schema.RESOURCE_VERSION) or 0)
    return Contents(tuple(objects), tuple(containers), version)


def _rows(connection: Connection, table: Table) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield the columns before `doc`, which is the last one, and the decoded document."""
    for rows in connection.execute(select(table)).partitions(TOGETHER):
        for row, doc in zip(rows, _decoded([row[-1] for row in rows]), strict=True):
            yield tuple(row[:-1]), doc


def _object_row(record: Record) -> tuple[Any, ...]:
    doc = _encode(record.doc)
    return record.uid, record.kind, record.namespace, record.name, record.resource_version, doc


def _container_row(row: ContainerRow) -> tuple[Any, ...]:
    return row.id, row.pod_uid, row.name, row.attempt, row.state, row.updated_at, _encode(row.doc)


def _decoded(docs: Sequence[str]) -> list[dict[str, Any]]:
    """Decode documents in one call, in which the decoder keeps a key that they all have once
    (https://github.com/python/cpython/blob/3.13/Modules/_json.c, the memo of its scanner)."""
    try:
        found: list[dict[str, Any]] = json.loads(f"[{','.join(docs)}]")
    except ValueError as error:
        raise _damaged() from error
    if len(found) != len(docs):
        raise _damaged()
    return found


def _damaged() -> sqlite3.DatabaseError:
    return DatabaseError("database disk image is malformed")


def _looks_damaged(error: DatabaseError) -> bool:
    """Tell whether SQLite found the content damaged. "disk I/O error" does not count: a full disk causes it, too."""
    return any(word in str(error) for word in ("malformed", "not a database"))


def looks_full(error: Exception) -> bool:
    """Tell whether the disk is full. SQLite says "disk I/O error" if there is no space for its log's index."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(word in str(error) for word in ("disk is full", "disk I/O error"))


def _keep_private(path: str) -> None:
    """Make the file readable by its owner only, because it contains secrets; SQLite gives its log the same mode. This
    happens before SQLite opens the file: closing any descriptor of a file releases the process's locks (fcntl(2))."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.chmod(path + suffix, 0o600)


def _set_aside(path: str) -> str:
    """Move a damaged file and its log away; return the new name."""
    kept = f"{path}.damaged-{int(time.time())}"
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path + suffix, kept + suffix)
    return kept
