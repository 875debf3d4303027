"""The state file: what the store's commits look like in SQLite, what damage and a full disk look like, and what is
done about them.

Tables, statements and transactions are SQLAlchemy's (schema.py); a commit runs statements that were compiled once, as
the driver takes them, for that halves what it costs. What the disk says comes up as the driver's own exception: its
text is for people, SQLAlchemy's repeats the statement.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from state import history, schema
from state.history import Entry, Question, Revision, Version
from state.records import ContainerRow, Record
from state.reserve import Reserve

DatabaseError = sqlite3.DatabaseError  # what SQLite says, of whatever kind

RESERVE = ".reserve"  # beside the state file: see Reserve

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Contents:
    """What was in the file."""

    objects: tuple[Record, ...]
    containers: tuple[ContainerRow, ...]
    resource_version: int


class Database:
    """One process's connection to the file at `path`. Opened by `open`, then used by one thread at a time."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.set_aside = ""  # what a damaged file is called now
        self.reserve = Reserve(path + RESERVE)
        self.connection: Connection | None = None
        self._synchronous = True  # what it commits with
        self._missing = False  # a full disk took changes from history, and it has not been said yet

    @classmethod
    def open(cls, path: str) -> tuple[Self, Contents]:
        """Open or create; a damaged file is set aside. Raises OSError or DatabaseError when the place itself cannot be
        used."""
        database = cls(path)
        while True:
            try:
                found = database._open_or_set_aside()
                database.reserve.keep()
                return database, found
            except (OSError, DatabaseError) as error:
                if not (looks_full(error) and database.reserve.give()):
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
        """Fold the log into the file and let go."""
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
        """Put what is there by its key, forget what is None, and what has `moved` before it is put; all of it or
        nothing. When the disk is full, without history, in the space that is kept for that. `remembers`: `entries` has
        all that history is to know of it. Raises OSError or DatabaseError."""
        past = entries or [], versions or [], remembers
        while True:
            try:
                self.write(objects, containers, version=version, durable=durable, moved=moved, past=past)
                break
            except (OSError, DatabaseError) as error:
                if not (looks_full(error) and self.reserve.give()):
                    raise
                past, self._missing = ([], [], False), True
        self.reserve.keep()

    def write(
        self,
        objects: Mapping[str, Record | None],
        containers: Mapping[str, ContainerRow | None],
        *,
        version: int,
        durable: bool,
        moved: Collection[str],
        past: tuple[list[Entry], list[Version], bool] = ([], [], False),
    ) -> None:
        """One attempt; after a failed one the next begins with a new connection."""
        with _driver_errors():
            connection = self.connection or self._connect()
            try:
                if durable != self._synchronous:
                    _pragma(connection, f"synchronous={'FULL' if durable else 'NORMAL'}")
                    self._synchronous = durable
                with connection.begin():
                    # all that goes before what comes: a name may pass from one object to another
                    _many(connection, schema.FORGET_OBJECT, [(uid,) for uid in moved])
                    gone = [(key,) for key, row in containers.items() if row is None]
                    _many(connection, schema.FORGET_CONTAINER, gone)
                    _many(connection, schema.PUT_OBJECT, [_object_row(r) for r in objects.values() if r])
                    _many(
                        connection,
                        schema.PUT_CONTAINER,
                        [_container_row(r) for r in containers.values() if r],
                    )
                    history.put(connection, *past[:2])
                    if past[2]:
                        history.complete(connection, version, anew=self._missing)
                    connection.exec_driver_sql(schema.PUT_META, (schema.RESOURCE_VERSION, str(version)))
                if past[2]:
                    self._missing = False
            except BaseException:
                with contextlib.suppress(DBAPIError, DatabaseError):
                    self.close()
                raise

    # -- the past ----------------------------------------------------------------------------------------------

    def prune(self, *, before: float, size: int) -> None:
        """See state.history.prune. As a commit: in the thread that writes."""
        with _driver_errors():
            connection = self.connection or self._connect()
            try:
                with connection.begin():
                    history.prune(connection, before=before, size=size)
            except BaseException:
                with contextlib.suppress(DBAPIError, DatabaseError):
                    self.close()
                raise

    def entries(self, question: Question) -> tuple[list[Entry], float]:
        """In any thread: on a connection of its own, beside which commits go on (WAL)."""
        with _driver_errors(), schema.open_reader(self.path).connect() as connection:
            return history.entries(connection, question)

    def revisions(self, file: str | None) -> list[Revision]:
        with _driver_errors(), schema.open_reader(self.path).connect() as connection:
            return history.revisions_of(connection, file)


@contextlib.contextmanager
def _driver_errors() -> Iterator[None]:
    """Let what the driver raised go on, without SQLAlchemy's wrapping."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, Exception):
            raise error.orig from error.orig.__cause__
        raise


def _pragma(connection: Connection, text: str) -> None:
    """Set what has no effect within a transaction: on the driver's connection, since SQLAlchemy's begins one."""
    driver: sqlite3.Connection | None = connection.connection.driver_connection
    assert driver is not None
    driver.execute(f"PRAGMA {text}")


def _many(connection: Connection, statement: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        connection.exec_driver_sql(statement, rows)


def _contents(connection: Connection) -> Contents:
    """Raises DatabaseError, also for a document that is no JSON: the file was written over."""
    objects = (
        Record(kind, namespace, name, uid, version, _decoded(doc))
        for uid, kind, namespace, name, version, doc in connection.execute(select(schema.objects))
    )
    containers = (
        ContainerRow(identity, pod_uid, name, attempt, state, updated_at, _decoded(doc))
        for identity, pod_uid, name, attempt, state, updated_at, doc in connection.execute(
            select(schema.containers)
        )
    )
    version = int(schema.get_meta(connection, schema.RESOURCE_VERSION) or 0)
    return Contents(tuple(objects), tuple(containers), version)


def _object_row(record: Record) -> tuple[Any, ...]:
    doc = _encode(record.doc)
    return record.uid, record.kind, record.namespace, record.name, record.resource_version, doc


def _container_row(row: ContainerRow) -> tuple[Any, ...]:
    return row.id, row.pod_uid, row.name, row.attempt, row.state, row.updated_at, _encode(row.doc)


def _decoded(doc: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(doc)
    except ValueError as error:
        raise _damaged() from error
    return found


def _damaged() -> sqlite3.DatabaseError:
    return DatabaseError("database disk image is malformed")


def _looks_damaged(error: DatabaseError) -> bool:
    """What SQLite says of the content. "disk I/O error" is the disk's (a full one says it of its own log's index)."""
    return any(word in str(error) for word in ("malformed", "not a database"))


def looks_full(error: Exception) -> bool:
    """SQLite says "disk I/O error" where it was its log's index that found no space."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(word in str(error) for word in ("disk is full", "disk I/O error"))


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
