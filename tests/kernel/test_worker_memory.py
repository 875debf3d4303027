"""The memory limit of image workers, on the kernel."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import cgroups
from runtime.cgroups import Cgroup, open_cgroup
from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.requests import MemoryCap
from tests.kernel.cgroup_kit import spawn
from tests.kernel.images_support import member, tar, write_layout
from tests.waiting import cgroup_places, remove_cgroup

pytestmark = pytest.mark.kernel
ENOUGH, TOO_LITTLE = 256 << 20, 1 << 20


@pytest.fixture
def cgroup() -> Iterator[str]:
    name = f"/kubelite-test-{secrets.token_hex(4)}"
    try:
        yield f"{name}/images"
    finally:
        remove_cgroup(name)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    path = tmp_path / "layout"
    write_layout(path, [tar((member("file"), b"content" * 100_000))], "example.com/x:1")
    return path


def limits(cgroup: str) -> set[str]:
    """Return the memory limits that the kernel has for the cgroup, in the hierarchies of v1 and v2."""
    names = ("memory.limit_in_bytes", "memory.max")
    files = [place / name for place in cgroup_places(cgroup) for name in names]
    return {file.read_text().strip() for file in files if file.exists()}


@contextlib.contextmanager
def using_memory(group: Cgroup, size: int) -> Iterator[None]:
    """A process in the cgroup that uses `size` bytes, while the block runs."""
    ready, done = os.pipe()

    def use() -> None:
        held = b"x" * size
        os.write(done, held[:1])
        signal.pause()

    pid = spawn(group, use)
    try:
        assert select.select([ready], [], [], 10)[0]
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(done)


async def test_a_worker_beyond_its_memory_is_killed_with_a_reason(
    tmp_path: Path, cgroup: str, layout: Path
) -> None:
    client = ImageClient(str(tmp_path / "store"), memory=MemoryCap(cgroup, TOO_LITTLE))
    with pytest.raises(ImageError, match=r"memory limit of 1Mi \(setting image_worker_memory\)") as error:
        await client.load(str(layout))
    assert error.value.retriable
    assert open_cgroup(cgroup).oom_kills() >= 1
    more = ImageClient(str(tmp_path / "store"), memory=MemoryCap(cgroup, ENOUGH))
    (record,) = await more.load(str(layout))  # with the new limit; earlier kills do not matter
    assert record.reference == "example.com/x:1"
    assert limits(cgroup) == {str(ENOUGH)}
    assert open_cgroup(cgroup).pids() == []
    await client.close()
    await more.close()


async def test_a_worker_that_cannot_be_limited_says_why(tmp_path: Path, layout: Path) -> None:
    client = ImageClient(str(tmp_path / "store"), memory=MemoryCap("/cgroup.procs/images", ENOUGH))
    with pytest.raises(ImageError, match="Not a directory") as error:
        await client.load(str(layout))
    assert "unexpectedly" not in str(error.value)
    await client.close()


async def test_a_lower_limit_waits_for_the_other_workers(tmp_path: Path, cgroup: str, layout: Path) -> None:
    """v1 refuses a limit that is below what is in use (EBUSY)."""
    if "memory" not in cgroups.layout().v1:
        pytest.skip("needs v1 controllers: this machine is v2")
    group = open_cgroup(cgroup)
    group.create()
    group.apply({"memory": {"limit": ENOUGH}})
    with using_memory(group, 64 << 20):
        client = ImageClient(str(tmp_path / "store"), memory=MemoryCap(cgroup, 32 << 20))
        assert len(await client.load(str(layout))) == 1
        assert limits(cgroup) == {str(ENOUGH)}
    assert len(await client.load(str(layout))) == 1
    assert limits(cgroup) == {str(32 << 20)}
    await client.close()


async def test_a_removed_cgroup_comes_back(tmp_path: Path, cgroup: str, layout: Path) -> None:
    client = ImageClient(str(tmp_path / "store"), memory=MemoryCap(cgroup, ENOUGH))
    await client.load(str(layout))
    remove_cgroup(cgroup)
    await client.load(str(layout))
    assert limits(cgroup) == {str(ENOUGH)}
    await client.close()
