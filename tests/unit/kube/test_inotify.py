"""Watch one directory by inotify."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.kube.inotify import IN_CREATE, DirectoryWatch, Event, Inotify


async def test_changes_are_reported_until_the_watch_ends(tmp_path: Path) -> None:
    changed = asyncio.Event()
    with DirectoryWatch(str(tmp_path), changed.set) as watch:
        assert watch.active
        (tmp_path / "0.log").write_text("")
        await asyncio.wait_for(changed.wait(), 5)
    assert not watch.active
    changed.clear()
    (tmp_path / "1.log").write_text("")
    await asyncio.sleep(0.05)
    assert not changed.is_set()


async def test_a_directory_that_is_missing_is_polled(tmp_path: Path) -> None:
    with DirectoryWatch(str(tmp_path / "missing"), lambda: None) as watch:
        assert not watch.active


async def test_events_name_the_entry_and_errors_the_path(tmp_path: Path) -> None:
    found: asyncio.Queue[Event] = asyncio.Queue()

    def put(events: Iterator[Event]) -> None:
        for event in events:
            found.put_nowait(event)

    inotify = Inotify(put)
    try:
        wd = inotify.add(str(tmp_path), IN_CREATE)
        (tmp_path / "a").touch()
        (tmp_path / "b").touch()
        assert [await asyncio.wait_for(found.get(), 5) for _ in range(2)] == [
            (wd, IN_CREATE, "a"),
            (wd, IN_CREATE, "b"),
        ]
        with pytest.raises(FileNotFoundError, match="missing"):
            inotify.add(str(tmp_path / "missing"), IN_CREATE)
    finally:
        inotify.close()
    inotify.close()  # a second time it does nothing
