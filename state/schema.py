"""The tables of `state.db`, its pragmas, and the migrations from older schemas.

SQLite runs in WAL mode with `synchronous=FULL`: a commit that returned is on the disk (see
https://sqlite.org/wal.html#performance and https://sqlite.org/pragma.html#pragma_synchronous), so an acknowledged write
survives a power failure. Writes with `durable=False` (see Store) are committed with NORMAL: a power failure may lose
the newest of them, back to the last durable one, and nothing else; a crash of the process loses none.

`PRAGMA user_version` counts migrations. Migrations only add tables, and columns with defaults, so that an older daemon
can still open the file (it ignores what it does not know). A migration that cannot do so raises OLDEST_READER: an older
daemon then refuses the file with an explanation, rather than lose data. All migrations run in one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    NullPool,
    String,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    event,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import ClauseElement

metadata = MetaData()

objects = Table(
    "objects",
    metadata,
    Column("uid", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("namespace", String, nullable=False),  # "" for kinds without namespaces
    Column("name", String, nullable=False),
    Column("resource_version", Integer, nullable=False),
    Column("doc", Text, nullable=False),  # the whole object as JSON
    Index("objects_by_name", "kind", "namespace", "name", unique=True),
)

containers = Table(
    "containers",
    metadata,
    Column("id", String, primary_key=True),
    Column("pod_uid", String, nullable=False, index=True),
    Column("name", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("updated_at", Float, nullable=False),  # Unix seconds
    Column("doc", Text, nullable=False),  # the shim's last record, as JSON
)

meta = Table(
    "meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", Text, nullable=False),
)

history = Table(
    "history",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),  # Unix seconds
    Column("kind", String, nullable=False),
    Column("namespace", String, nullable=False),
    Column("name", String, nullable=False),
    Column("uid", String, nullable=False),
    Column("what", String, nullable=False),  # see state.history.Entry
    Column("reason", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("before", Text, nullable=False),  # the state that the change replaced, as JSON
    Column("size", Integer, nullable=False),  # approximate bytes
    # No index: it would add a page to every commit, for queries that are rare.
)

revisions = Table(
    "revisions",
    metadata,
    Column("file", String, primary_key=True),  # absolute path of a manifest
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),  # Unix seconds at which it was read
    Column("digest", String, nullable=False),  # SHA-256 of the text
    Column("text", Text, nullable=False),
)

#: A list of SQL statements for each version: MIGRATIONS[n] raises user_version from n to n + 1. Version 1 has the first
#: three tables above, version 2 also the other two. Missing tables are created before the statements run.
MIGRATIONS: tuple[tuple[str, ...], ...] = ((), ())
SCHEMA_VERSION = len(MIGRATIONS)
#: The oldest schema version whose code may open a file written by this one; also recorded in the file.
OLDEST_READER = 1

#: The cache of pages is small, because nothing is read from the file while the daemon runs: the store has the objects
#: in memory, and history has connections of its own.
PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    "cache_size=-256",  # KiB
)
BUSY = 5.0  # seconds to wait while another process, such as a backup, locks the file

RESOURCE_VERSION, OLDEST_READER_KEY = "resource_version", "oldest_reader"


def _sql(statement: ClauseElement) -> str:
    """Compile a statement once: commits execute it as text, for many rows at once."""
    return str(statement.compile(dialect=sqlite.dialect()))


def _put(table: Table, *changing: str) -> str:
    """Write a row, given in column order. If its key exists, only the columns `changing` are updated."""
    insertion = sqlite.insert(table)
    insertion = insertion.on_conflict_do_update(
        index_elements=list(table.primary_key), set_={name: insertion.excluded[name] for name in changing}
    )
    compiled = insertion.compile(dialect=sqlite.dialect())
    assert compiled.positiontup == [column.name for column in table.columns]
    return str(compiled)


def _forget(table: Table, key: Column[Any]) -> str:
    return _sql(delete(table).where(key == bindparam("key")))


PUT_OBJECT, FORGET_OBJECT = _put(objects, "resource_version", "doc"), _forget(objects, objects.c.uid)
PUT_CONTAINER = _put(containers, "state", "updated_at", "doc")
FORGET_CONTAINER = _forget(containers, containers.c.id)
PUT_META = _put(meta, "value")


def open_engine(path: str) -> Engine:
    """Create an engine for the file at `path`, with kubelite's pragmas. Its transactions take the lock when they begin
    (BEGIN IMMEDIATE); the driver's own would take it at the first write."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=NullPool,
        connect_args={"check_same_thread": False, "timeout": BUSY, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def open_reader(path: str) -> Engine:
    """Create an engine for connections that only read, beside the one that writes."""
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": BUSY})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA query_only=ON")

    return engine


def write_rows(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Execute a statement for each row, within the caller's transaction, by the driver itself: SQLAlchemy's own calls
    take several times as long as SQLite's work on a row. Raises sqlite3.Error."""
    driver: sqlite3.Connection | None = connection.connection.driver_connection
    assert driver is not None
    driver.executemany(statement, rows)


def get_meta(connection: Connection, key: str) -> str | None:
    found: str | None = connection.scalar(select(meta.c.value).where(meta.c.key == key))
    return found


class TooNew(sqlite3.OperationalError):
    """The file was written by a newer kubelite, which marked it as not readable by this version."""


def migrate(connection: Connection) -> None:
    """Migrate the file to `SCHEMA_VERSION`, within the caller's transaction. A newer file is left unchanged. Raises
    TooNew."""
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if version > SCHEMA_VERSION:
        _check_readable(connection, version)
        return
    metadata.create_all(connection)
    for step in MIGRATIONS[max(version, 1) :]:
        for statement in step:
            connection.exec_driver_sql(statement)
    if version < SCHEMA_VERSION:
        connection.exec_driver_sql(PUT_META, (OLDEST_READER_KEY, str(OLDEST_READER)))
        connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")


def _check_readable(connection: Connection, version: int) -> None:
    oldest = get_meta(connection, OLDEST_READER_KEY)
    if oldest is not None and int(oldest) > SCHEMA_VERSION:
        raise TooNew(
            f"a newer kubelite wrote it (schema {version}, this version knows {SCHEMA_VERSION}); start that version, "
            "or move the file away to start over: running containers keep running and are matched with their manifests "
            "by name, but finished pods are forgotten and run again"
        )
