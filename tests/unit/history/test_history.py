"""History: past states rebuilt from the present, the wording of changes, limits, and rollback to a version."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelite.history.entries import (
    MOST_REPEATS,
    entry_of,
    event_entry,
    objects_at,
    status_words,
    workload_words,
)
from kubelite.history.revisions import NothingToUndo, choose, difference
from kubelite.history.service import record_version
from kubelite.kube.json import Json
from state.errors import StorageFailed
from state.history import LARGEST, VERSIONS, Entry, Question, Revision, Version
from state.records import Change, Record
from state.store import Store
from tests.unit.state.store_kit import commits_of


def doc(name: str = "web", **more: Any) -> Json:
    return {"metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"}, "spec": {}, **more}


async def opened(path: Path) -> Store:
    return Store.open(str(path / "state.db"), historian=entry_of)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["create", "status", "spec", "labels", "delete"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 3),
    ),
    max_size=25,
)


@settings(max_examples=200)
@given(STEPS, st.sampled_from(["Pod", "Deployment", "Job"]))
def test_an_earlier_state_is_the_present_with_the_changes_undone(
    steps: list[tuple[str, str, int]], of: str
) -> None:
    """For any two moments: the later state and the entries in between give the earlier state exactly."""
    now: dict[str, Record] = {}
    entries: list[Entry] = []
    snapshots: list[tuple[int, list[Json]]] = [(0, [])]
    for version, (step, name, number) in enumerate(steps):
        old = now.get(name)
        new = _stepped(step, name, number, old.doc if old else None)
        if (new is None and old is None) or (new is not None and old is not None and new == old.doc):
            continue
        kind = "ADDED" if old is None else "DELETED" if new is None else "MODIFIED"
        last = new if new is not None else old.doc if old else {}
        stamped = {**last, "metadata": {**last["metadata"], "resourceVersion": str(version)}}
        record = Record(of, "default", name, f"uid-{name}", version, stamped)
        entry = entry_of(old, Change(kind, record))  # type: ignore[arg-type]
        assert entry is not None
        entries.append(entry)
        now.pop(name, None)
        if new is not None:
            now[name] = record
        snapshots.append((len(entries), _bare(r.doc for r in now.values())))
    for count, then in snapshots:
        assert _bare(objects_at(of, [r.doc for r in now.values()], entries[count:])) == then


def _stepped(step: str, name: str, number: int, old: Json | None) -> Json | None:
    if step == "delete":
        return None
    new = old or doc(name)
    if step == "status":
        return {**new, "status": {"message": str(number)}}
    if step == "spec":
        return {**new, "spec": {"priority": number}}
    if step == "labels":
        return {**new, "metadata": {**new["metadata"], "labels": {"n": str(number)}}}
    return new


def _bare(docs: Any) -> list[Json]:
    """Without resourceVersion, which the store assigns."""
    stripped = [
        {**d, "metadata": {k: v for k, v in d["metadata"].items() if k != "resourceVersion"}} for d in docs
    ]
    return sorted(stripped, key=lambda d: str(d["metadata"]["name"]))


RUNNING: Json = {
    "phase": "Running",
    "podIP": "10.88.0.5",
    "conditions": [{"type": "Ready", "status": "True"}],
    "containerStatuses": [
        {"name": "app", "containerID": "2", "restartCount": 1, "state": {"running": {}},
         "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    ],
}  # fmt: skip
CRASHED: Json = {
    "phase": "Running",
    "containerStatuses": [
        {"name": "app", "containerID": "1", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    ],
}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({}, RUNNING, ["phase Pending → Running", "address 10.88.0.5",
                       "app running after terminated (OOMKilled, exit code 137)", "app restart count 1", "ready"]),
        (RUNNING, CRASHED, ["app waiting (CrashLoopBackOff)", "not ready"]),
        (RUNNING, RUNNING, []),
        ({"phase": "Running"}, {"phase": "Failed", "reason": "Evicted", "message": "it grew"},
         ["phase Running → Failed", "Evicted: it grew"]),
    ],
)  # fmt: skip
def test_changes_of_a_status_in_words(old: Json, new: Json, words: list[str]) -> None:
    assert list(status_words(old, new)) == words


def test_other_changes_in_words_without_secrets() -> None:
    old = Record("Pod", "default", "web", "u", 1, doc(spec={"containers": [{"image": "a"}]}))
    new = Record("Pod", "default", "web", "u", 2, doc(spec={"containers": [{"image": "b"}]}))
    entry = entry_of(old, Change("MODIFIED", new))
    assert entry is not None and "spec.containers[0].image" in entry.message
    made = entry_of(None, Change("ADDED", Record("Pod", "default", "web", "u", 1, doc())))
    assert made is not None and made.message == "created" and made.before == ""
    secret = Record("Secret", "default", "s", "s", 1, doc("s", data={"password": "aHVudGVyMg=="}))
    kept = entry_of(secret, Change("DELETED", secret))
    assert kept is not None and "aHVudGVyMg" not in repr(kept)
    directory = Record("ManifestDirectory", "", "d", "d", 1, doc("d"))
    assert entry_of(None, Change("ADDED", directory)) is None


def test_a_repeated_event_is_recorded_at_growing_intervals() -> None:
    event = {"involvedObject": {"kind": "Pod", "namespace": "default", "name": "web", "uid": "u"},
             "type": "Warning", "reason": "BackOff", "message": "again"}  # fmt: skip
    kept = [count for count in range(1, 1000) if event_entry({**event, "count": count})]
    assert kept == [*range(1, MOST_REPEATS + 1), 16, 32, 64, 128, 256, 512]
    entry = event_entry({**event, "count": 3})
    assert entry is not None and (entry.what, entry.message) == ("Warning", "again (seen 3 times)")


async def test_history_is_written_with_the_commits_of_the_changes(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    commits = commits_of(store)
    await store.create("Pod", doc())
    store.note(Entry(1.0, "Pod", "default", "web", "uid-web", "Decision", "", "start it"))
    store.note(Version("/m/web.yaml", 1.0, "text"))
    await store.update_status("uid-web", {"phase": "Running"})
    assert len(commits) == 2
    entries, _ = await store.history(Question(name="web"))
    assert [(e.what, e.message) for e in entries] == [
        ("ADDED", "created"), ("Decision", "start it"), ("MODIFIED", "phase Pending → Running"),
    ]  # fmt: skip
    assert [r.text for r in await store.revisions("/m/web.yaml")] == ["text"]
    assert len(commits) == 2, "reading writes nothing"
    store.note(Entry(1.0, "Pod", "default", "web", "uid-web", "Decision", "", "nobody writes after it"))
    await store.close()
    again = await opened(tmp_path)
    assert [e.message for e in (await again.history(Question(name="web")))[0]][-1] == "nobody writes after it"
    await again.close()


async def test_pods_of_a_past_moment_after_a_restart(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.create("Pod", doc("old"))
    await store.update_status("uid-old", {"phase": "Running"})
    moment = time.time()
    await store.update_status("uid-old", {"phase": "Failed"})
    await store.delete("uid-old")
    await store.create("Pod", doc("new"))
    await store.close()
    store = await opened(tmp_path)
    changes, since = await store.history(Question(kind="Pod", since=moment, changes=True))
    found = objects_at("Pod", [r.doc for r in store.list("Pod")], changes)
    assert [(d["metadata"]["name"], d["status"]["phase"]) for d in found] == [("old", "Running")]
    assert since < moment
    await store.close()


def test_the_words_of_a_workload() -> None:
    progressing = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}
    old = {"replicas": 2, "readyReplicas": 1, "conditions": [progressing]}
    new = {
        "replicas": 2,
        "readyReplicas": 2,
        "conditions": [{**progressing, "reason": "NewReplicaSetAvailable"}],
    }
    assert list(workload_words(old, new)) == ["ready 1 → 2", "Progressing True (NewReplicaSetAvailable)"]
    assert list(workload_words({}, {"active": [{}]})) == ["active 0 → 1"]
    assert list(workload_words({"active": 1}, {"succeeded": 1})) == ["active 1 → 0", "succeeded 0 → 1"]


async def test_versions_are_numbered_and_limited(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    for text in ("a", "a", "b", "a"):
        store.note(Version("f", 1.0, text))
        await store.revisions("f")
    assert [(r.number, r.text) for r in await store.revisions("f")] == [(1, "a"), (2, "b"), (3, "a")]
    for number in range(VERSIONS + 2):
        store.note(Version("f", 2.0, f"more {number}"))
        await store.revisions("f")
    numbers = [r.number for r in await store.revisions("f")]
    assert numbers == list(range(6, 6 + VERSIONS))
    await store.close()


async def test_history_is_pruned_by_age_and_size(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    for number in range(100):
        store.note(Entry(float(number + 1), "Pod", "default", "web", "u", "Normal", "", "x" * 900))
        await store.history(Question(limit=1))
    store.note(Version("f", 1.0, "outdated"), Version("g", 1.0, "alone"))
    await store.revisions()
    store.note(Version("f", 2.0, "newest"))
    await store.revisions()
    await store.prune(before=11.0, size=10**9)
    entries, since = await store.history(Question())
    assert len(entries) == 90 and since == 11.0
    assert [r.text for r in await store.revisions()] == ["newest", "alone"], "what is newest stays"
    await store.prune(before=0.0, size=50_000)
    entries, since = await store.history(Question())
    assert 40 <= len(entries) <= 50 and entries[-1].at == 100.0
    assert entries[0].at >= since > 50.0
    await store.close()


async def test_the_oldest_versions_beyond_the_size_are_pruned(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    for at, letter in enumerate("äöü"):  # two bytes each
        store.note(Version("f", float(at), letter * 100), Version("g", float(at), letter * 100))
        await store.revisions()
    await store.prune(before=0.0, size=1200)
    assert len(await store.revisions()) == 6
    await store.prune(before=0.0, size=801)
    found = [(r.file, r.text[0]) for r in await store.revisions()]
    assert found == [("f", "ö"), ("f", "ü"), ("g", "ö"), ("g", "ü")]
    await store.prune(before=0.0, size=0)
    assert [(r.file, r.text[0]) for r in await store.revisions()] == [("f", "ü"), ("g", "ü")]
    await store.close()


async def test_a_version_is_limited_in_bytes(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    record_version(store, "f", "ä" * (LARGEST // 2))
    record_version(store, "g", "ä" * (LARGEST // 2 + 1))
    assert [r.file for r in await store.revisions()] == ["f"]
    await store.close()


async def test_on_a_full_disk_history_is_lost_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await opened(tmp_path)
    await store.create("Pod", doc())
    from state import history

    def full(_connection: Any, entries: list[Entry], _versions: Any) -> None:
        if entries:
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(history, "put", full)
    record = await store.update_status("uid-web", {"phase": "Running"})
    assert record is not None and record.doc["status"] == {"phase": "Running"}
    monkeypatch.undo()
    entries, began = await store.history(Question(name="web"))
    assert [e.what for e in entries] == ["ADDED"]
    before = time.time()
    await store.update_status("uid-web", {"phase": "Failed"})
    entries, since = await store.history(Question(name="web"))
    assert [e.what for e in entries] == ["ADDED", "MODIFIED"] and since >= before > began
    await store.update_status("uid-web", {"phase": "Succeeded"})
    assert (await store.history(Question()))[1] == since, "once"
    await store.close()


async def test_an_older_file_gets_its_tables(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.create("Pod", doc())
    await store.close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as raw:
        for statement in (
            "DROP TABLE history", "DROP TABLE revisions", "DELETE FROM meta WHERE key LIKE 'history%'",
            "PRAGMA user_version=1",
        ):  # fmt: skip
            raw.execute(statement)
        raw.commit()
    began = time.time()
    store = await opened(tmp_path)
    await store.update_status("uid-web", {"phase": "Running"})
    entries, since = await store.history(Question(name="web"))
    assert [e.what for e in entries] == ["MODIFIED"] and since >= began - 1
    await store.close()


async def test_history_restarts_after_a_gap(tmp_path: Path) -> None:
    """The missing changes were written by an older kubelite, or by one with history turned off."""
    store = await opened(tmp_path)
    await store.create("Pod", doc())
    await store.create("Other", doc("other"))  # history has no row of it and is complete
    _, began = await store.history(Question())
    await store.close()
    store = await opened(tmp_path)
    assert (await store.history(Question()))[1] == began
    await store.close()
    forgetful = Store.open(str(tmp_path / "state.db"))
    await forgetful.update_status("uid-web", {"phase": "Running"})
    await forgetful.close()
    before = time.time()
    store = await opened(tmp_path)
    entries, since = await store.history(Question())
    assert since >= before > began and [e.what for e in entries] == ["ADDED"]
    await store.close()


async def test_unreadable_history_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await opened(tmp_path)

    def broken(*_: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("state.history.entries", broken)
    with pytest.raises(StorageFailed, match="disk I/O error"):
        await store.history(Question())
    monkeypatch.undo()
    await store.create("Pod", doc())  # with a new connection
    await store.close()


def revisions(*texts: str) -> list[Revision]:
    return [Revision("f", number, 0.0, text) for number, text in enumerate(texts, 1)]


@pytest.mark.parametrize(
    ("texts", "now", "chosen"),
    [
        ("ab", "b", 1),  # the version before
        ("aba", "a", 2),  # after an undo: undo it
        ("abc", "c", 2),
        ("ab", "broken", 2),  # an edit that was never valid: back to the running version
        ("ab", None, 2),  # the file was deleted
    ],
)
def test_the_version_that_undo_restores(texts: str, now: str | None, chosen: int) -> None:
    assert choose("f", revisions(*texts), now).number == chosen


def _sentences() -> Iterator[tuple[list[Revision], str, int | None, str]]:
    yield revisions("a"), "a", None, "history has no earlier version"
    yield [], "a", None, "history has no earlier version"
    yield revisions("a", "b"), "b", 7, "there is no revision 7; known: 1, 2"


@pytest.mark.parametrize(("known", "now", "number", "words"), [*_sentences()])
def test_nothing_to_undo(known: list[Revision], now: str, number: int | None, words: str) -> None:
    with pytest.raises(NothingToUndo, match=words):
        choose("f", known, now, number=number)


def test_undo_skips_invalid_versions_and_shows_the_difference() -> None:
    known = revisions("a\n", "broken", "b\n")
    chosen = choose("f", known, "b\n", valid=lambda r: r.text != "broken")
    assert chosen.number == 1
    assert difference("f", "b\n", chosen).splitlines()[-2:] == ["-b", "+a"]
