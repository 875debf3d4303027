"""The power is cut between any two writes, and any part of what was not synced is lost: what was acknowledged is there.

The programs in power_writer.py run once, with every change they make to the disk recorded; powercut.py then makes the
disks that a crash after each of those changes may leave, and each is opened by the code that would open it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.images.content import Session, prepare
from runtime.images.manifests import this_platform
from runtime.images.store import ImageStore
from state import schema
from state.store import Store
from tests.chaos import newer
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
    """Whether a store is as before a step or as after it (of steps that are made together: each of them)."""
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
    """The newer version opens it whether its steps had been taken or not, and so does the older one."""
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
            ), f"{what}: { ({k: len(v) for k, v in found.items()}) }"


def test_images_after_a_crash_at_any_write(place: Path) -> None:
    """An image that is listed is whole, whenever the power failed, and the next writer clears up."""
    below, entries = recorded(
        place, "tests.chaos.power_writer", "images", str(_archive(place / "archive.tar"))
    )
    whole = _layers(below, entries, place / "whole")
    for done, marks, what in _crashes(below, entries, place / "crashed", 1):
        root = place / "crashed" / "images"
        store = ImageStore(str(root))
        prepare(str(root))
        with Session(store):
            pass
        assert store.check(deep=True) == [], what
        found = sorted(record.reference for record in store.list())
        states = [[], *(sorted(mark["names"]) for mark in marks)]
        assert found in states[done : done + 2], what
        for record in store.list():
            for layer in record.layers:
                assert _tree(Path(layer)) == whole[Path(layer).name], (what, layer)


def _layers(below: Path, entries: list[Entry], into: Path) -> dict[str, dict[str, bytes]]:
    """What is in each layer at the moment of some acknowledgement."""
    found: dict[str, dict[str, bytes]] = {}
    disk = Disk(below)
    for entry in entries:
        if entry.kind != "mark":
            disk.apply(entry)
            continue
        disk.crash(Loss.NOTHING, random.Random(0), into)
        found |= {path.name: _tree(path) for path in (into / "images" / "layers").iterdir()}
    return found


def _tree(root: Path) -> dict[str, bytes]:
    """Path → what is there."""
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = b"-> " + os.fsencode(os.readlink(path))
        else:
            found[name] = b"/" if path.is_dir() else path.read_bytes()
    return found


def _archive(path: Path) -> Path:
    """What `docker save` makes: two layers, files, a hard link and one that replaces another."""
    layers = [
        _tar({"etc/motd": b"hello" * 4000, "bin/tool": b"#!" * 50_000}, links={"bin/other": "bin/tool"}),
        _tar({"etc/motd": b"bye", "srv/data": bytes(range(256)) * 500}),
    ]
    config = {
        "architecture": this_platform().architecture,
        "os": "linux",
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
        },
        "config": {"Cmd": ["/bin/tool"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["localhost/loaded:1"], "Layers": ["0.tar", "1.tar"]}]
    files = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    path.write_bytes(_tar(files | {f"{n}.tar": layer for n, layer in enumerate(layers)}))
    return path


def _tar(files: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, target
            archive.addfile(member)
    return buffer.getvalue()
