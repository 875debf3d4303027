"""A hugetlbfs volume: mounted with the requested page size, and unmounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.node.spec.volume_plans import Kind, VolumePlan
from kubelite.node.storage.mounts import set_up, unmount_below

if "hugetlbfs" not in Path("/proc/filesystems").read_text():
    pytest.skip("needs hugetlbfs", allow_module_level=True)


def test_a_volume_has_pages_of_its_size(tmp_path: Path) -> None:
    path = tmp_path / "volumes" / "v"
    plan = VolumePlan("v", Kind.HUGE_PAGES, str(path), size=2 << 20)
    try:
        set_up(plan)
        set_up(plan)  # existing content is retained
        lines = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(path) in line]
        assert len(lines) == 1 and " hugetlbfs " in lines[0] and "pagesize=2M" in lines[0]
        assert path.stat().st_mode & 0o777 == 0o777
    finally:
        unmount_below(str(tmp_path))
    assert str(path) not in Path("/proc/self/mounts").read_text()
