"""The power is cut between any two writes, and any part of what was not yet synced is lost: what was acknowledged is there.

The programs in power_writer.py run once, with every change they make to the disk recorded; powercut.py then makes the
disks that a crash after each of those changes may leave, and each is opened by the code that would open it.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.images.store import ImageStore
from state.store import Store
from tests.chaos.power_writer import content
from tests.chaos.powercut import Disk, Entry, Loss, recorded

SAMPLES = 220  # crashes looked at, of each record; every sync and every mark has one on either side


@pytest.fixture
def place(cc: str) -> Iterator[Path]:
    """In memory where there is such a place: what is tried out has no need to be on a disk."""
    assert cc
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="kubelite-power-", dir=memory) as found:
        yield Path(found)


def _crashes(
    below: Path, entries: list[Entry], into: Path, seed: int, samples: int = SAMPLES
) -> Iterator[tuple[int, list[Any], str]]:
    """(marks acknowledged before it, the marks of all, what was done) for crash after crash, laid out in `into`."""
    rng = random.Random(seed)
    disk, marks = Disk(below), [entry.mark for entry in entries if entry.kind == "mark"]
    telling = {at for at, entry in enumerate(entries) if entry.kind not in ("write", "truncate")}
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
    """Whether a store is as before a step or as after it (of steps that are made together: each of them)."""
    if not together:
        return found in (before, after)
    keys = {*before, *after, *found}
    return all(found.get(key) in (before.get(key), after.get(key)) for key in keys)


@pytest.mark.parametrize("seed", range(2))
def test_the_store_after_a_crash_at_any_write(place: Path, seed: int) -> None:
    below, entries = recorded(place, "tests.chaos.power_writer", "store", str(seed))
    assert sum(1 for entry in entries if entry.kind == "sync") > 50
    for done, marks, what in _crashes(below, entries, place / "crashed", seed):
        store = Store.open(str(place / "crashed" / "state.db"))
        found = content(store)
        asyncio.run(store.close())
        assert not store.set_aside, what
        least = max((n for n in range(1, done + 1) if marks[n - 1]["durable"]), default=0)
        states = [{}, *(mark["content"] for mark in marks)]
        assert found == states[least] or any(
            _between(found, states[n - 1], states[n], together=marks[n - 1]["together"])
            for n in range(least + 1, min(done + 1, len(marks)) + 1)
        ), f"{what}: not what it was after step {least}, the last that had to last, nor any later"


def test_manifests_after_a_crash_at_any_write_of_apply(place: Path) -> None:
    below, entries = recorded(place, "tests.chaos.power_writer", "manifests")
    for seed in range(20):  # there are few calls: each is met with every loss
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
            ), f"{what}: {({k: len(v) for k, v in found.items()})}"


