"""Watching the directory: every way in which users and editors change files is noticed, and ends no pod by mistake."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kubelite.sources import directory as directory_module
from kubelite.sources.directory import Sources
from kubelite.sources.watch.tree_watch import link_directories
from manifests.yaml.loader import Loaded, load_text
from state.store import Store
from tests.unit.sources.kit import directory, image, names, pod, sources, web
from tests.waiting import until_async as until

__all__ = ["directory", "sources"]


@pytest.fixture
async def watching(sources: Sources) -> AsyncIterator[Sources]:
    task = asyncio.create_task(sources.run())
    await asyncio.wait_for(sources.ready.wait(), 5)
    await asyncio.sleep(0.05)
    yield sources
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_watching_sees_create_edit_rename_remove(
    directory: Path, store: Store, watching: Sources
) -> None:
    (directory / "web.yaml").write_text(pod())
    await until(lambda: names(store) == ["web"])
    new = directory / ".web.yaml.new"
    new.write_text(pod(image="renamed"))
    new.rename(directory / "web.yaml")
    await until(lambda: image(store) == "renamed")
    (directory / "sub").mkdir()
    (directory / "sub" / "x.yaml").write_text(pod("below"))
    await until(lambda: "below" in names(store))
    (directory / "web.yaml").unlink()
    await until(lambda: names(store) == ["below"])


async def test_watching_sees_all_depths_and_nothing_hidden(
    directory: Path, store: Store, watching: Sources
) -> None:
    deep = directory / "a" / "b"
    deep.mkdir(parents=True)
    await asyncio.sleep(0.05)
    (deep / "x.yaml").write_text(pod("deep"))
    await until(lambda: names(store) == ["deep"])
    (directory / "a").rename(directory / "c")
    (directory / "c" / "b" / "y.yaml").write_text(pod("moved"))
    await until(lambda: "moved" in names(store))
    scans: list[None] = []
    watching.scan = lambda: _note(scans)  # type: ignore[method-assign, assignment, misc]
    (directory / ".hidden").mkdir()
    (directory / ".x.yaml").write_text(pod())
    (deep.parent.parent / "notes.txt").write_text("")
    await asyncio.sleep(0.2)  # longer than SETTLE, which the rename started
    scans.clear()
    (directory / ".x.yaml").write_text(pod("again"))
    await asyncio.sleep(0.05)
    assert not scans
    (directory / "z.yaml").write_text(pod())
    await until(lambda: scans)


async def _note(scans: list[None]) -> None:
    scans.append(None)


@pytest.fixture
def seldom(sources: Sources) -> Sources:
    """Sources with a relist of an hour: earlier changes are noticed only by events."""
    sources._relist = 3600.0
    return sources


async def test_a_link_to_the_directory_of_all_files_is_replaced(
    directory: Path, store: Store, seldom: Sources, watching: Sources
) -> None:
    """As kubelet writes the volume of a ConfigMap (Kubernetes pkg/volume/util/atomic_writer.go)."""
    for version in ("first", "second"):
        (directory / f"..{version}").mkdir()
        (directory / f"..{version}" / "web.yaml").write_text(pod(image=version))
    (directory / "..data").symlink_to("..first")
    (directory / "web.yaml").symlink_to("..data/web.yaml")
    await until(lambda: names(store) == ["web"])
    assert image(store) == "first"
    (directory / "..data_tmp").symlink_to("..second")
    (directory / "..data_tmp").rename(directory / "..data")
    await until(lambda: image(store) == "second")
    assert names(store) == ["web"]


async def test_an_overflowed_event_queue_causes_a_scan(
    directory: Path, store: Store, watching: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "sub").mkdir()
    await asyncio.sleep(0.05)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with (directory / "web.yaml").open("w") as file:
        for _ in range(limit // 2 + 100):  # a write and a change of mode cannot be merged into one event
            file.write(" ")
            file.flush()
            os.fchmod(file.fileno(), 0o644)
    (directory / "sub" / "new").mkdir()
    await asyncio.sleep(0.1)
    (directory / "sub" / "new" / "x.yaml").write_text(pod("late"))
    await until(lambda: "late" in names(store))


async def test_an_editor_that_truncates_or_renames_ends_no_pod(
    directory: Path, store: Store, watching: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor's pauses are shorter than `settle`. Here `settle` is long, because pauses are longer on a busy
    machine."""
    monkeypatch.setattr(Sources.scan, "__kwdefaults__", {"settle": 30.0})
    file = directory / "web.yaml"
    file.write_text(pod())
    await until(lambda: names(store) == ["web"])
    uid = web(store).uid
    for turn in range(5):
        file.rename(directory / "web.yaml~")
        await asyncio.sleep(0.03)
        file.write_text("")
        await asyncio.sleep(0.03)
        file.write_text(pod(image=f"v{turn}"))
        await asyncio.sleep(0.03)
        assert not web(store).deleting
    await until(lambda: image(store) == "v4")
    assert web(store).uid == uid


async def test_an_unlinked_file_counts_as_removed_sooner_than_a_renamed_one(
    directory: Path, store: Store, watching: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that unlinks a file recreates it at once; an editor that renames it takes longer."""
    monkeypatch.setattr(Sources.scan, "__kwdefaults__", {"settle": 3600.0})
    (directory / "web.yaml").write_text(pod())
    (directory / "db.yaml").write_text(pod("db"))
    await until(lambda: names(store) == ["db", "web"])
    (directory / "db.yaml").rename(directory / "db.yaml~")
    (directory / "web.yaml").unlink()
    await until(lambda: web(store).deleting)
    assert not store.list("Pod")[0].deleting


async def test_a_file_that_is_unlinked_and_recreated_ends_no_pod(
    directory: Path, store: Store, watching: Sources
) -> None:
    """As git does when it checks out another version."""
    (directory / "web.yaml").write_text(pod())
    await until(lambda: names(store) == ["web"])
    uid = web(store).uid
    for turn in range(20):
        (directory / "web.yaml").unlink()
        (directory / "web.yaml").write_text(pod(image=f"v{turn}"))
        await asyncio.sleep(0.005)
        assert not web(store).deleting
    await until(lambda: image(store) == "v19")
    assert web(store).uid == uid


async def test_many_writes_settle_on_the_last(directory: Path, store: Store, watching: Sources) -> None:
    for turn in range(200):
        (directory / "web.yaml").write_text(pod(image=f"v{turn}"))
        if turn % 20 == 0:
            await asyncio.sleep(0.01)
    await until(lambda: names(store) == ["web"] and image(store) == "v199")


async def test_a_directory_that_comes_back_is_watched_again(
    directory: Path, store: Store, watching: Sources
) -> None:
    (directory / "web.yaml").write_text(pod())
    await until(lambda: names(store) == ["web"])
    moved = directory.with_suffix(".moved")
    directory.rename(moved)
    await until(lambda: watching.error)
    moved.rename(directory)
    await until(lambda: not watching.error)
    (directory / "web.yaml").write_text(pod(image="after"))
    await until(lambda: image(store) == "after")
    assert names(store) == ["web"]


async def test_a_link_into_a_volume_elsewhere_is_seen_at_once(
    directory: Path, store: Store, seldom: Sources, tmp_path: Path
) -> None:
    """A directory of links into a ConfigMap volume, which replaces its files by renaming `..data`."""
    volume = tmp_path / "volume"
    for version in ("one", "two"):
        (volume / f"..{version}").mkdir(parents=True)
        (volume / f"..{version}" / "web.yaml").write_text(pod(image=version))
    (volume / "..data").symlink_to("..one")
    (volume / "web.yaml").symlink_to("..data/web.yaml")
    (directory / "web.yaml").symlink_to(volume / "web.yaml")
    task = asyncio.create_task(seldom.run())
    try:
        await until(lambda: names(store) == ["web"] and image(store) == "one")
        await asyncio.sleep(0.1)
        (volume / "..tmp").symlink_to("..two")
        (volume / "..tmp").rename(volume / "..data")
        await until(lambda: image(store) == "two")
        (volume / "..two" / "web.yaml").write_text(pod(image="edited"))  # no volume does so, but people do
        await until(lambda: image(store) == "edited")
        (tmp_path / "plain.yaml").write_text(pod("plain"))
        (directory / "plain.yaml").symlink_to("../plain.yaml")
        await until(lambda: "plain" in names(store))
        await asyncio.sleep(0.1)
        (tmp_path / "plain.yaml").write_text(pod("changed"))
        await until(lambda: "changed" in names(store))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_the_directories_that_a_link_leads_through(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "x").symlink_to(tmp_path / "b" / ".." / "b" / "file")
    found = link_directories(str(tmp_path / "x"))
    assert found == [str(tmp_path), str(tmp_path / "a")]
    assert link_directories(str(tmp_path / "loop")) == [str(tmp_path)]


async def test_a_file_that_no_descriptor_was_left_for_is_read_again(
    directory: Path, store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(_file: str) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    (directory / "web.yaml").write_text(pod())
    with monkeypatch.context() as short:
        short.setattr(sources, "_text", exhausted)
        await sources.scan()
    (state,) = sources.states()
    assert state.status == "Unreadable" and "Too many open files" in state.problems[0].message
    await sources.scan()  # the file is as it was
    assert names(store) == ["web"]


async def test_a_watch_that_fails_ends_the_run(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs it begins anew. Without the watch, edits would be seen at the next scan only."""

    async def short_of_memory(*_arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(directory_module, "follow", short_of_memory)
    with pytest.raises(MemoryError):
        await asyncio.wait_for(sources.run(), 10)


async def test_a_large_file_is_parsed_beside_the_event_loop(
    directory: Path, store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parser waits here until the event loop has run something else."""
    ran = threading.Event()
    parse = load_text

    def waiting(text: str, *, file: str) -> Loaded:
        assert ran.wait(10), "the event loop stands still"
        return parse(text, file=file)

    monkeypatch.setattr(directory_module, "load_text", waiting)
    comment = "# a line of a large file\n" * (directory_module.LARGE // 25 + 1)
    (directory / "web.yaml").write_text(comment + pod())
    asyncio.get_running_loop().call_later(0.01, ran.set)
    await sources.scan()
    assert names(store) == ["web"]
