"""The cgroup in each hierarchy for `exec --cgroup`."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.cgroups.layout import Layout, Mode
from runtime.cgroups.sub import SubCgroup
from runtime.errors import SpecError, SyscallError


def machine(at: Path, mode: Mode = Mode.HYBRID) -> Layout:
    """Directories that imitate hierarchies, each with a container's cgroup and one below it."""
    v1 = {"cpu": "cpu,cpuacct", "cpuacct": "cpu,cpuacct", "memory": "memory"} if mode is not Mode.V2 else {}
    for place in (*v1.values(), "unified"):
        for group in ("c", "c/sub"):
            (at / place / group).mkdir(parents=True, exist_ok=True)
            for file in ("tasks", "cgroup.procs"):
                (at / place / group / file).touch()
    points = {controller: str(at / place) for controller, place in v1.items()}
    return Layout(mode, str(at / "unified"), points, frozenset())


def entered(at: Path) -> dict[str, str]:
    return {
        str(f.relative_to(at).parent): f.name for f in at.rglob("*") if f.is_file() and f.read_text() == "0"
    }


@pytest.mark.parametrize(
    ("below", "where"),
    [
        ({}, {"cpu,cpuacct/c": "tasks", "memory/c": "tasks", "unified/c": "cgroup.procs"}),
        ({"": "/"}, {"cpu,cpuacct/c": "tasks", "memory/c": "tasks", "unified/c": "cgroup.procs"}),
        (
            {"": "sub"},
            {"cpu,cpuacct/c/sub": "tasks", "memory/c/sub": "tasks", "unified/c/sub": "cgroup.procs"},
        ),
        ({"cpu": "sub"}, {"cpu,cpuacct/c/sub": "tasks", "memory/c": "tasks", "unified/c": "cgroup.procs"}),
        (
            {"cpu": "sub", "cpuacct": "sub", "memory": "/sub/"},
            {"cpu,cpuacct/c/sub": "tasks", "memory/c/sub": "tasks", "unified/c": "cgroup.procs"},
        ),
    ],
)
def test_places(tmp_path: Path, below: dict[str, str], where: dict[str, str]) -> None:
    SubCgroup("/c", below, machine(tmp_path)).attach(0)
    assert entered(tmp_path) == where


def test_unified_alone(tmp_path: Path) -> None:
    SubCgroup("/c", {"": "sub"}, machine(tmp_path, Mode.V2)).attach(0)
    assert entered(tmp_path) == {"unified/c/sub": "cgroup.procs"}


@pytest.mark.parametrize(
    ("below", "words"),
    [
        ({"": ".."}, "bad sub cgroup path: .."),
        ({"cpu": "a/../../b"}, "bad sub cgroup path: a/../../b"),
        ({"io": "sub"}, "unknown controller io in SubCgroupPaths"),
        ({"cpu": "sub", "cpuacct": "other"}, "cpuacct and cpu share a hierarchy, so they need the same path"),
    ],
)
def test_invalid_sub_cgroups(tmp_path: Path, below: dict[str, str], words: str) -> None:
    with pytest.raises(SpecError, match=f"^{words}$"):
        SubCgroup("/c", below, machine(tmp_path))


def test_a_missing_sub_cgroup(tmp_path: Path) -> None:
    with pytest.raises(
        SyscallError, match=r"^adding pid \d+ to cgroups: .*/memory/c/none/tasks: No such file"
    ):
        SubCgroup("/c", {"memory": "none"}, machine(tmp_path)).attach(0)
