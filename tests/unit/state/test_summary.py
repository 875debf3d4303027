"""The summary of a state file that a daemon may be using."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from state.database import DatabaseError, Summary, summary
from state.history import Entry, Version
from state.store import Store


async def test_a_file_in_use_is_read_without_a_change(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    store = Store.open(path)
    await store.create("Node", {"kind": "Node", "metadata": {"name": "n", "uid": "n"}})
    store.note(Version("/m/web.yaml", 1.0, "text"), Entry(2.0, "Pod", "default", "web", "u", "decided"))
    await store.sync()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
    found = summary(path)
    assert [(record.kind, record.name) for record in found.objects] == [("Node", "n")]
    assert (found.entries, found.revisions) == (1, 1)
    assert found.since > 0
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    await store.close()
    assert summary(path) == found, "and without a daemon"


def test_a_missing_file_is_empty_and_is_not_created(tmp_path: Path) -> None:
    assert summary(str(tmp_path / "state.db")) == Summary()
    assert not list(tmp_path.iterdir())


async def test_a_file_without_history(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    await Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.executescript("DROP TABLE history; DROP TABLE revisions")
    connection.close()
    assert summary(path) == Summary()


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseError):
        summary(str(path))
