"""The power is cut between any two writes, and any part of the unsynced data is lost: acknowledged data is intact.

The programs in power_writer.py run once while every change to the disk is recorded. powercut.py then creates the disks
that a crash after each change may leave, and each is opened by the code that would open it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.images.store.content import Session, prepare
from runtime.images.store.store import ImageStore
from runtime.images.store.verify import check_store, hash_file
from state import schema
from state.store import Store
from tests.chaos import newer
from tests.chaos.power_writer import content
from tests.chaos.powercut import Disk, Entry, Loss, recorded
from tests.chaos.small_images import docker_archive, tree_of

SAMPLES = 220  # crashes that are tried for each record; there is one before and after every sync and mark


@pytest.fixture
def place(cc: str) -> Iterator[Path]:
    """A directory in memory if possible: the tried contents need not be on a disk."""
    assert cc
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="kubelite-power-", dir=memory) as found:
        yield Path(found)


def _crashes(
    below: Path, entries: list[Entry], into: Path, seed: int, samples: int = SAMPLES
) -> Iterator[tuple[int, list[Any], str]]:
    """Yield (marks acknowledged before the crash, all marks, the changes) for each crash, which is written to
    `into`."""
    rng = random.Random(seed)
    disk, marks = Disk(below), [entry.mark for entry in entries if entry.kind == "mark"]
    telling = {at for at, entry in enumerate(entries) if entry.kind in ("sync", "syncfs", "rename", "mark")}
    chosen = {*telling, *(at - 1 for at in telling), len(entries) - 1}
    others = sorted(set(range(len(entries))) - chosen)
    chosen |= set(rng.sample(others, min(len(others), max(0, samples - len(chosen)))))
    done = 0
    for at, entry in enumerate(entries):
        if entry.kind == "mark":
            done += 1
        else:
            disk.apply(entry)
        if at in chosen:
            loss = rng.choice(list(Loss))
            disk.crash(loss, rng, into)
            yield done, marks, f"after call {at} ({entry.kind}), {loss}, with {done} steps acknowledged"


def _between(found: dict[str, str], before: dict[str, str], after: dict[str, str], *, together: bool) -> bool:
    """Whether a store is in the state before a step or after it (for concurrent steps: each of them)."""
    if not together:
        return found in (before, after)
    keys = {*before, *after, *found}
    return all(found.get(key) in (before.get(key), after.get(key)) for key in keys)


def _check_store(root: Path, done: int, marks: list[Any], what: str) -> None:
    store = Store.open(str(root / "state.db"))
    found = content(store)
    asyncio.run(store.close())
    assert not store.set_aside, what
    least = max((n for n in range(1, done + 1) if marks[n - 1]["durable"]), default=0)
    states = [{}, *(mark["content"] for mark in marks)]
    assert found == states[least] or any(
        _between(found, states[n - 1], states[n], together=marks[n - 1]["together"])
        for n in range(least + 1, min(done + 1, len(marks)) + 1)
    ), f"{what}: not what it was after step {least}, the last that had to last, nor any later"


@pytest.mark.parametrize("seed", range(2))
def test_the_store_after_a_crash_at_any_write(place: Path, seed: int) -> None:
    below, entries = recorded(place, "tests.chaos.power_writer", "store", str(seed))
    assert sum(1 for entry in entries if entry.kind == "sync") > 50
    for done, marks, what in _crashes(below, entries, place / "crashed", seed):
        _check_store(place / "crashed", done, marks, what)


def test_the_store_after_a_crash_at_any_write_of_a_migration(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the newer and the older version open it, whether or not the migration's steps were done."""
    below, entries = recorded(place, "tests.chaos.power_writer", "migration", "1")
    for done, marks, what in _crashes(below, entries, place / "crashed", 1, samples=400):
        shutil.rmtree(place / "older", ignore_errors=True)
        shutil.copytree(place / "crashed", place / "older")
        _check_store(place / "older", done, marks, what)
        with monkeypatch.context() as patch:
            for name, value in newer.changes().items():
                patch.setattr(schema, name, value)
            _check_store(place / "crashed", done, marks, what)
            with contextlib.closing(sqlite3.connect(place / "crashed" / "state.db")) as raw:
                raw.execute("SELECT colour FROM objects").fetchall()
                raw.execute("SELECT words FROM notes").fetchall()
                assert raw.execute("PRAGMA user_version").fetchone() == (newer.VERSION,), what


def test_manifests_after_a_crash_at_any_write_of_apply(place: Path) -> None:
    below, entries = recorded(place, "tests.chaos.power_writer", "manifests")
    for seed in range(20):  # there are few calls, so each is tried with every loss
        for done, marks, what in _crashes(below, entries, place / "crashed", seed):
            root = place / "crashed"
            found = {
                str(path.relative_to(root)): path.read_text()
                for path in root.rglob("*")
                if path.is_file() and not path.name.startswith(".")  # what the daemon reads
            }
            states = [{}, *(mark["content"] for mark in marks)]
            assert found == states[done] or (
                done < len(marks) and _between(found, states[done], states[done + 1], together=True)
            ), f"{what}: { ({k: len(v) for k, v in found.items()}) }"


def test_a_claims_directory_always_has_an_owner(place: Path) -> None:
    below, entries = recorded(place, "tests.chaos.power_writer", "claim")
    for seed in range(20):
        for done, marks, what in _crashes(below, entries, place / "crashed", seed):
            directory = place / "crashed" / "default" / "data"
            if (directory / "data").is_dir():  # without it, the claim is bound again
                about = json.loads((directory / "claim.json").read_text())
                assert about["owner"] == "the-pod", what
                assert about["policy"] in marks[max(0, done - 1) : done + 1], what


def test_images_after_a_crash_at_any_write(place: Path) -> None:
    """A listed image is complete whenever the power failed, and the next writer cleans up."""
    below, entries = recorded(
        place, "tests.chaos.power_writer", "images", str(docker_archive(place / "archive.tar"))
    )
    _check_images(place, below, entries)


def test_images_after_a_crash_at_any_write_of_pulls_and_collections(place: Path) -> None:
    below, entries = recorded(place, "tests.chaos.power_writer", "pulls")
    _check_images(place, below, entries)


def _check_images(place: Path, below: Path, entries: list[Entry]) -> None:
    whole = _layers(below, entries, place / "whole")
    assert whole
    for done, marks, what in _crashes(below, entries, place / "crashed", 1):
        root = place / "crashed" / "images"
        store = ImageStore(str(root))
        prepare(str(root))
        with Session(store):
            pass
        assert check_store(store, deep=True) == [], what
        found = sorted(record.reference for record in store.list())
        states = [[], *(sorted(mark["names"]) for mark in marks)]
        assert found in states[done : done + 2], what
        for layer in (
            root / "layers"
        ).iterdir():  # with or without a name: a later pull assumes that it is complete
            assert tree_of(layer) == whole[layer.name], (what, layer)
        for blob in (root / "blobs/sha256").iterdir():
            assert hash_file(str(blob)) == f"sha256:{blob.name}", (what, blob)


def _layers(below: Path, entries: list[Entry], into: Path) -> dict[str, dict[str, bytes]]:
    """The content of each layer at the time of an acknowledgement."""
    found: dict[str, dict[str, bytes]] = {}
    disk = Disk(below)
    for entry in entries:
        if entry.kind != "mark":
            disk.apply(entry)
            continue
        disk.crash(Loss.NOTHING, random.Random(0), into)
        found |= {path.name: tree_of(path) for path in (into / "images" / "layers").iterdir()}
    return found
