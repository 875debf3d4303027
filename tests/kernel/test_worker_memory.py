"""The memory limit of image workers, on the kernel."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cgroups import open_cgroup
from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.requests import MemoryCap
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
    """What the kernel shows, of v1 and of v2."""
    names = ("memory.limit_in_bytes", "memory.max")
    files = [place / name for place in cgroup_places(cgroup) for name in names]
    return {file.read_text().strip() for file in files if file.exists()}


async def test_a_worker_beyond_its_memory_is_killed_with_a_reason(
    tmp_path: Path, cgroup: str, layout: Path
) -> None:
    client = ImageClient(str(tmp_path / "store"), memory=MemoryCap(cgroup, TOO_LITTLE))
    with pytest.raises(ImageError, match=r"memory limit of 1Mi \(setting image_worker_memory\)") as error:
        await client.load(str(layout))
    assert error.value.retriable
    assert open_cgroup(cgroup).oom_kills() >= 1
    more = ImageClient(str(tmp_path / "store"), memory=MemoryCap(cgroup, ENOUGH))
    (record,) = await more.load(
        str(layout)
    )  # the cgroup has the new limit, and its older kills do not matter
    assert record.reference == "example.com/x:1"
    assert limits(cgroup) == {str(ENOUGH)}
    assert open_cgroup(cgroup).pids() == []
    await client.close()
    await more.close()


async def test_a_removed_cgroup_comes_back(tmp_path: Path, cgroup: str, layout: Path) -> None:
    client = ImageClient(str(tmp_path / "store"), memory=MemoryCap(cgroup, ENOUGH))
    await client.load(str(layout))
    remove_cgroup(cgroup)
    await client.load(str(layout))
    assert limits(cgroup) == {str(ENOUGH)}
    await client.close()
