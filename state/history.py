"""History: a row for each change of an object, and the versions of each manifest file, in the state file.

The transaction that makes a change also writes its row. `before` has the state that the change replaced, not the new
one. A past state is therefore computed by undoing the newest changes, and pruning the oldest rows does not affect the
others. This module stores rows for a time and up to a size. Their meaning is defined by the modules that use it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, LargeBinary, bindparam, cast, delete, func, insert, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import ClauseElement

from state.schema import PUT_META, get_meta, history, revisions, write_rows

SINCE = "history_since"  # key in meta: Unix seconds from which history is complete
UNTIL = "history_version"  # key in meta: resourceVersion up to which no change is missing
VERSIONS = 10  # retained per manifest file (as Kubernetes' revisionHistoryLimit)
LARGEST = 1 << 20  # bytes; larger manifest files are not retained
ROW = 100  # bytes that a row takes in addition to its texts
SLACK = 0.9  # fraction of the size to prune to, so that the next pruning is not due at once


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in the life of an object. `at`: Unix seconds; `what`: ADDED, MODIFIED, DELETED, or a word for an event
    that changed nothing in the store; `before`: the state that the change replaced, as JSON ("" for none)."""

    at: float
    kind: str
    namespace: str
    name: str
    uid: str
    what: str
    reason: str = ""
    message: str = ""
    before: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of a manifest file, as read at `at` (Unix seconds). Numbers count from 1."""

    file: str
    number: int
    at: float
    text: str

    @property
    def digest(self) -> str:
        return digest(self.text)


@dataclass(frozen=True, slots=True)
class Version:
    """The text of a file, which becomes a Revision unless it equals the newest one."""

    file: str
    at: float
    text: str


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sql(statement: ClauseElement) -> str:
    return str(statement.compile(dialect=sqlite.dialect()))


_COLUMNS = [column for column in history.columns if column.name != "id"]
_PUT_ENTRY = _sql(insert(history).values({column.name: bindparam(column.name) for column in _COLUMNS}))
#: A version becomes a new revision if the file's newest revision has a different digest.
_PUT_REVISION = """
INSERT INTO revisions (file, number, at, digest, text)
SELECT :file, coalesce((SELECT max(number) FROM revisions WHERE file = :file), 0) + 1, :at, :digest, :text
WHERE :digest IS NOT (SELECT digest FROM revisions WHERE file = :file ORDER BY number DESC LIMIT 1)
"""
_FORGET_REVISIONS = (
    "DELETE FROM revisions WHERE file = :file AND number <= "
    f"(SELECT max(number) FROM revisions WHERE file = :file) - {VERSIONS}"
)


def put(connection: Connection, entries: Sequence[Entry], versions: Sequence[Version]) -> None:
    """Write rows and versions, within the caller's transaction."""
    if entries:
        write_rows(connection, _PUT_ENTRY, [_row(entry) for entry in entries])
    for version in versions:
        words = {"file": version.file, "at": version.at, "text": version.text, "digest": digest(version.text)}
        if connection.exec_driver_sql(_PUT_REVISION, words).rowcount:
            connection.exec_driver_sql(_FORGET_REVISIONS, {"file": version.file})


def _row(entry: Entry) -> tuple[float | str | int, ...]:
    size = ROW + len(entry.message) + len(entry.before)
    return (
        entry.at, entry.kind, entry.namespace, entry.name, entry.uid, entry.what, entry.reason, entry.message,
        entry.before, size,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A query: entries of a kind, namespace and name (None: all), at or after `since`, the newest `limit` of them."""

    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    since: float = 0.0
    changes: bool = False  # only changes of objects in the store
    limit: int | None = None


def entries(connection: Connection, question: Question) -> tuple[list[Entry], float]:
    """Return the matching entries, oldest first, and the time since which history is complete (Unix seconds)."""
    wanted = select(*_COLUMNS[:-1]).where(history.c.at >= question.since)
    for column, value in (
        (history.c.kind, question.kind),
        (history.c.namespace, question.namespace),
        (history.c.name, question.name),
    ):
        if value is not None:
            wanted = wanted.where(column == value)
    if question.changes:
        wanted = wanted.where(history.c.what.in_(("ADDED", "MODIFIED", "DELETED")))
    wanted = wanted.order_by(history.c.id.desc()).limit(question.limit)
    found = [Entry(*row) for row in connection.execute(wanted)]
    return found[::-1], float(get_meta(connection, SINCE) or 0.0)


def revisions_of(connection: Connection, file: str | None = None) -> list[Revision]:
    """Return the versions of a file, or of all files, oldest first."""
    columns = (revisions.c.file, revisions.c.number, revisions.c.at, revisions.c.text)
    wanted = select(*columns).order_by(revisions.c.file, revisions.c.number)
    if file is not None:
        wanted = wanted.where(revisions.c.file == file)
    return [Revision(*row) for row in connection.execute(wanted)]


def count(connection: Connection) -> tuple[int, int, float]:
    """Return the number of entries, the number of versions, and the time since which history is complete."""
    tables = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars())
    if not {history.name, revisions.name} <= tables:  # an older kubelite's, which had no history
        return 0, 0, 0.0
    rows = [
        int(connection.scalar(select(func.count()).select_from(table)) or 0) for table in (history, revisions)
    ]
    return rows[0], rows[1], float(get_meta(connection, SINCE) or 0.0)


def prune(connection: Connection, *, before: float, size: int) -> None:
    """Delete entries and versions older than `before` (Unix seconds), and of each of the two the oldest beyond `size`
    bytes. Each file's newest version is retained. Runs within the caller's transaction."""
    limit = max(before, _too_much(connection, size))
    retained = select(history.c.id).where(history.c.at >= limit).order_by(history.c.id).limit(1)
    first = connection.scalar(retained)  # reads only the oldest rows, because rows are written in order
    gone = delete(history) if first is None else delete(history).where(history.c.id < first)
    if connection.execute(gone).rowcount:
        connection.exec_driver_sql(PUT_META, (SINCE, repr(limit)))
    newest = revisions.alias()
    outdated = (
        revisions.c.number
        < select(func.max(newest.c.number)).where(newest.c.file == revisions.c.file).scalar_subquery()
    )
    connection.execute(delete(revisions).where(revisions.c.at < before, outdated))
    length = func.length(cast(revisions.c.text, LargeBinary))  # in bytes; of a text, SQLite counts characters
    surplus = int(connection.scalar(select(func.sum(length))) or 0) - size
    if surplus <= 0:
        return
    key = (revisions.c.file, revisions.c.number)
    oldest = select(*key, length).where(outdated).order_by(revisions.c.at, *key)
    for file, number, taken in connection.execute(oldest).all():
        if surplus <= 0:
            break
        connection.execute(delete(revisions).where(revisions.c.file == file, revisions.c.number == number))
        surplus -= taken


def rewrite(connection: Connection, change: Callable[[str], str | None]) -> None:
    """Change the texts of the versions, and delete those for which `change` returns None. Runs within the caller's
    transaction."""
    for file, number, text in connection.execute(
        select(revisions.c.file, revisions.c.number, revisions.c.text)
    ).all():
        after = change(text)
        row = (revisions.c.file == file) & (revisions.c.number == number)
        if after is None:
            connection.execute(delete(revisions).where(row))
        elif after != text:
            connection.execute(update(revisions).where(row).values(text=after, digest=digest(after)))


def _too_much(connection: Connection, size: int) -> float:
    """Return the time up to which rows must be deleted for the rest to fit in `size`; 0 if all fit."""
    total = int(connection.scalar(select(func.sum(history.c.size))) or 0)
    if total <= size:
        return 0.0
    surplus = total - int(size * SLACK)
    running = func.sum(history.c.size).over(order_by=history.c.id)
    rows = connection.execute(select(history.c.at, running).order_by(history.c.id))
    return next((float(at) + 1e-6 for at, taken in rows if taken >= surplus), 0.0)


def complete(connection: Connection, version: int, *, restart: bool = False) -> None:
    """Record that no change up to this resourceVersion is missing; with `restart`, only those from now on. Runs within
    the caller's transaction."""
    if restart:
        write_rows(connection, PUT_META, [(SINCE, repr(time.time()))])
    write_rows(connection, PUT_META, [(UNTIL, str(version))])


def begin(connection: Connection, version: int) -> None:
    """Start history if it is not complete: in a new file, or if changes are missing because an older kubelite wrote
    them, history was switched off, or the disk was full. `version`: the file's resourceVersion."""
    known = get_meta(connection, UNTIL)
    if known is None or int(known) < version:
        complete(connection, version, restart=True)
