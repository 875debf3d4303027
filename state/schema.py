"""The tables in `state.db`, the pragmas it is opened with, and the steps from each older schema to this one.

SQLite in WAL mode with `synchronous=FULL`: a commit that returned is on the disk (https://sqlite.org/wal.html#performance
and https://sqlite.org/pragma.html#pragma_synchronous), so what was acknowledged is there after a power cut. Writes
that need not be (Store: `durable=False`) are committed with NORMAL: a power cut may take the newest of them, to the
last durable one, and nothing else; the death of a process takes none.
`PRAGMA user_version` counts migrations. Migrations add tables and columns with defaults, so that an older daemon still
opens the file (it ignores what it does not know). One that cannot keep to that raises OLDEST_READER: an older daemon
then refuses the file, and says so, rather than lose what it does not understand. All steps are one transaction.
"""

from __future__ import annotations

import sqlite3

#: Version 1. `objects.namespace` is "" for kinds without one; `doc` is the whole object as JSON, a container's the last
#: record that its shim gave; `updated_at` is Unix seconds.
_TABLES = (
    """CREATE TABLE IF NOT EXISTS objects (
        uid VARCHAR NOT NULL, kind VARCHAR NOT NULL, namespace VARCHAR NOT NULL, name VARCHAR NOT NULL,
        resource_version INTEGER NOT NULL, doc TEXT NOT NULL, PRIMARY KEY (uid))""",
    "CREATE UNIQUE INDEX IF NOT EXISTS objects_by_name ON objects (kind, namespace, name)",
    """CREATE TABLE IF NOT EXISTS containers (
        id VARCHAR NOT NULL, pod_uid VARCHAR NOT NULL, name VARCHAR NOT NULL, attempt INTEGER NOT NULL,
        state VARCHAR NOT NULL, updated_at FLOAT NOT NULL, doc TEXT NOT NULL, PRIMARY KEY (id))""",
    "CREATE INDEX IF NOT EXISTS ix_containers_pod_uid ON containers (pod_uid)",
    "CREATE TABLE IF NOT EXISTS meta (key VARCHAR NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key))",
)

#: One SQL list a version: MIGRATIONS[n] brings user_version n to n + 1. Version 1 is the tables above.
MIGRATIONS: tuple[tuple[str, ...], ...] = ((),)
SCHEMA_VERSION = len(MIGRATIONS)
#: The oldest schema version whose code may open a file that this one wrote; the file says it, too.
OLDEST_READER = 1

PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY")

GET_OBJECTS = "SELECT uid, kind, namespace, name, resource_version, doc FROM objects"
GET_CONTAINERS = "SELECT id, pod_uid, name, attempt, state, updated_at, doc FROM containers"
GET_VERSION = "SELECT value FROM meta WHERE key = 'resource_version'"
PUT_OBJECT = """INSERT INTO objects (uid, kind, namespace, name, resource_version, doc) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (uid) DO UPDATE SET resource_version = excluded.resource_version, doc = excluded.doc"""
PUT_CONTAINER = """INSERT INTO containers (id, pod_uid, name, attempt, state, updated_at, doc)
    VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at, doc = excluded.doc"""
GET_OLDEST_READER = "SELECT value FROM meta WHERE key = 'oldest_reader'"
PUT_OLDEST_READER = "INSERT OR REPLACE INTO meta (key, value) VALUES ('oldest_reader', ?)"
PUT_VERSION = "INSERT OR REPLACE INTO meta (key, value) VALUES ('resource_version', ?)"
FORGET_OBJECT = "DELETE FROM objects WHERE uid = ?"
FORGET_CONTAINER = "DELETE FROM containers WHERE id = ?"


class TooNew(sqlite3.OperationalError):
    """The file was written by a newer kubelite, which says that this one must not open it."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to `SCHEMA_VERSION`, within the caller's transaction. A newer file is left as it is. Raises
    TooNew."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        _check_readable(connection, version)
        return
    for statement in _TABLES:
        connection.execute(statement)
    for step in MIGRATIONS[max(version, 1) :]:
        for statement in step:
            connection.execute(statement)
    if version < SCHEMA_VERSION:
        connection.execute(PUT_OLDEST_READER, (str(OLDEST_READER),))
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _check_readable(connection: sqlite3.Connection, version: int) -> None:
    oldest = connection.execute(GET_OLDEST_READER).fetchone()
    if oldest is not None and int(oldest[0]) > SCHEMA_VERSION:
        raise TooNew(
            f"a newer kubelite wrote it (schema {version}, this one knows {SCHEMA_VERSION}); start that version again, "
            "or move the file away to begin anew: what runs goes on running and is matched with its manifest by name, "
            "but finished pods are forgotten and run again"
        )
