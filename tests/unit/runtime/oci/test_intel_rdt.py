"""linux.intelRdt on a directory that imitates resctrl: which files are written, and what is removed again."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import CapabilityError, SpecError
from runtime.oci.optional import intel_rdt


def make_class(root: Path, name: str, schemata: str = "") -> Path:
    """Create the files that the kernel creates in a new directory."""
    group = root / name
    (group / "mon_groups").mkdir(parents=True, exist_ok=True)
    (group / "schemata").write_text(schemata)
    (group / "tasks").write_text("")
    return group


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Record all writes in order. A created directory gets its files immediately."""
    writes: list[tuple[str, str]] = []

    def write(path: str, text: str) -> None:
        assert Path(path).parent.is_dir(), path
        writes.append((path, text))

    monkeypatch.setattr("runtime.oci.optional.intel_rdt.files.write", write)
    return writes


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, []),
        ({"l3CacheSchema": "L3:0=f"}, ["L3:0=f"]),
        ({"l3CacheSchema": "L3:0=f\nMB:0=10", "memBwSchema": "MB:0=20"}, ["L3:0=f", "MB:0=20"]),
        ({"l3CacheSchema": "L3:0=f\nMB:0=10"}, ["L3:0=f", "MB:0=10"]),
        ({"schemata": ["L2:0=1", "MB:0=5"], "memBwSchema": "MB:0=20"}, ["MB:0=20", "L2:0=1", "MB:0=5"]),
    ],
)
def test_the_written_files(wanted: dict[str, Any], found: list[str]) -> None:
    assert intel_rdt.lines(wanted) == found


def test_a_class_of_its_own(tmp_path: Path, kernel: list[tuple[str, str]]) -> None:
    with ExitStack() as undo:
        intel_rdt.enter({"l3CacheSchema": "L3:0=f"}, "c1", 7, str(tmp_path), undo)
        group = str(tmp_path / "c1")
        assert kernel == [(f"{group}/schemata", "L3:0=f\n"), (f"{group}/tasks", "7")]
    assert not (tmp_path / "c1").exists(), "a create that failed leaves nothing"


def test_an_existing_class_is_retained(tmp_path: Path, kernel: list[tuple[str, str]]) -> None:
    group = make_class(tmp_path, "shared", "    L3:0=00f;1=00f\n    MB:0= 20;1=100\n")
    schemas = {"l3CacheSchema": "L3:1=f;0=f", "memBwSchema": "MB:0=20;1=100"}
    wanted = {"closID": "shared", **schemas, "enableMonitoring": True}
    with ExitStack() as undo:
        intel_rdt.enter(wanted, "c1", 7, str(tmp_path), undo)
        undo.pop_all()
    assert kernel == [(f"{group}/mon_groups/c1/tasks", "7"), (f"{group}/tasks", "7")]
    intel_rdt.leave(wanted, "c1", str(tmp_path))
    assert group.is_dir()
    assert not (group / "mon_groups/c1").exists()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"closID": "nowhere"}, "nowhere"),
        ({"closID": "shared", "l3CacheSchema": "L3:0=1"}, "L3:0=1"),
        ({"closID": "shared", "schemata": ["MB:0=30"]}, "MB:0=30"),
    ],
)
def test_mismatching_schemata(
    tmp_path: Path, kernel: list[tuple[str, str]], wanted: dict[str, Any], said: str
) -> None:
    make_class(tmp_path, "shared", "L3:0=f\nMB:0=20\n")
    with ExitStack() as undo, pytest.raises(SpecError, match=said):
        intel_rdt.enter(wanted, "c1", 7, str(tmp_path), undo)
    assert kernel == []


def test_update_of_a_running_container(tmp_path: Path, kernel: list[tuple[str, str]]) -> None:
    make_class(tmp_path, "c1", "L3:0=f\n")
    intel_rdt.update({}, {"l3CacheSchema": "L3:0=3"}, "c1", str(tmp_path))
    assert kernel == [(str(tmp_path / "c1/schemata"), "L3:0=3\n")]


def test_the_mount_point_of_resctrl() -> None:
    line = "40 23 0:35 / /sys/fs/resctrl rw,relatime - resctrl resctrl rw"
    assert intel_rdt.mount_point(line) == "/sys/fs/resctrl"
    with pytest.raises(CapabilityError, match="no resctrl"):
        intel_rdt.mount_point("40 23 0:35 / / rw - ext4 /dev/vda rw")
