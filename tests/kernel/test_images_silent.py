"""Image workers that give no sign of life, and those that only take long."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images import client as images
from runtime.images.client import ImageClient
from tests.kernel.images_support import member, tar, write_layout
from tests.waiting import PATIENCE, until_async

pytestmark = pytest.mark.kernel
SILENT = 5.0 * PATIENCE


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "HEARTBEAT", 0.2)
    monkeypatch.setattr(images, "SILENT", SILENT)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    path = tmp_path / "layout"
    write_layout(path, [tar((member("file"), b"content"))], "example.com/x:1")
    return path


def workers() -> list[int]:
    """The pids of this process's image workers."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"runtime.images.worker" in (directory / "cmdline").read_bytes():
                found.append(int(directory.name))
        except OSError:  # it has ended
            continue
    return found


async def test_a_stopped_worker_is_killed_and_named(tmp_path: Path, layout: Path) -> None:
    client = ImageClient(str(tmp_path / "store"))
    work = asyncio.ensure_future(client.load(str(layout)))
    (pid,) = await until_async(workers)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(ImageError, match=rf"the image worker \(pid {pid}\) gave no sign of life") as error:
        await work
    assert error.value.retriable
    assert time.monotonic() - began < SILENT + 5.0 * PATIENCE
    assert workers() == []
    (record,) = await client.load(str(layout))  # the next one is not affected
    assert record.reference == "example.com/x:1"
    await client.close()


async def test_a_worker_that_takes_long_is_left_alone(tmp_path: Path, layout: Path) -> None:
    client = ImageClient(str(tmp_path / "store"))
    await client.load(str(layout))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    work = asyncio.ensure_future(client.save(["example.com/x:1"], str(pipe), form="oci-archive"))
    await asyncio.sleep(SILENT + 2.0)  # it waits for a reader
    assert not work.done()
    await asyncio.to_thread(pipe.read_bytes)
    assert len(await work) == 1
    await client.close()
