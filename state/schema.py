"""The tables in `state.db`, the pragmas it is opened with, and the steps from each older schema to this one.

SQLite in WAL mode with `synchronous=FULL`: a commit that returned is on the disk (https://sqlite.org/wal.html#performance
and https://sqlite.org/pragma.html#pragma_synchronous), so what was acknowledged is there after a power cut. Writes
that need not be (Store: `durable=False`) are committed with NORMAL: a power cut may take the newest of them, to the
last durable one, and nothing else; the death of a process takes none.
`PRAGMA user_version` counts migrations. Migrations only ever add tables and columns with defaults, so that a daemon one
version older still opens the file (it ignores what it does not know).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    create_engine,
    delete,
    event,
    insert,
)
from sqlalchemy.dialects import sqlite

metadata = MetaData()

objects = Table(
    "objects",
    metadata,
    Column("uid", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("namespace", String, nullable=False),  # "" for kinds without one
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
    Column("doc", Text, nullable=False),  # the last record its shim gave, as JSON
)

meta = Table(
    "meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", Text, nullable=False),
)

#: One SQL list a version: MIGRATIONS[n] brings user_version n to n + 1. Version 1 is the tables above.
MIGRATIONS: tuple[tuple[str, ...], ...] = ((),)
SCHEMA_VERSION = len(MIGRATIONS)


def _statements(table: Table, key: Column[Any]) -> tuple[str, str, tuple[str, ...]]:
    """(delete by key, insert, the columns in the order of the insert's placeholders), for many rows at once."""
    dialect = sqlite.dialect()
    insertion = insert(table).compile(dialect=dialect)
    deletion = delete(table).where(key == bindparam("key")).compile(dialect=dialect)
    assert insertion.positiontup is not None
    return str(deletion), str(insertion), tuple(insertion.positiontup)


#: Compiled once: what a commit is made of.
OBJECTS, CONTAINERS = _statements(objects, objects.c.uid), _statements(containers, containers.c.id)
SET_META = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"


def open_engine(path: str) -> Engine:
    """An engine on the file at `path` with kubelite's pragmas on every connection."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False, "timeout": 5.0})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def migrate(connection: Connection) -> None:
    """Bring the file to `SCHEMA_VERSION`. A newer file is left as it is: newer versions only add."""
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    metadata.create_all(connection)
    for step in MIGRATIONS[max(version, 1) :]:
        for statement in step:
            connection.exec_driver_sql(statement)
    if version < SCHEMA_VERSION:
        connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
