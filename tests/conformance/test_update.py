"""`update`: each limit separately and all together, by flags, from a file and from standard input (after runc's update
tests)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups import Mode, layout
from tests.conformance.conftest import Bundle, Runtime, cgroup_file

MIB = 1 << 20
FIRST: dict[str, Any] = {
    "memory": {"limit": 32 * MIB, "reservation": 24 * MIB},
    "cpu": {"shares": 100, "quota": 500000, "period": 1000000, "cpus": "0"},
    "pids": {"limit": 20},
}
# what is written to which file on v1
FILES = {
    "memory": "memory.limit_in_bytes",
    "reservation": "memory.soft_limit_in_bytes",
    "pids": "pids.max",
    "quota": "cpu.cfs_quota_us",
    "period": "cpu.cfs_period_us",
    "shares": "cpu.shares",
    "cpus": "cpuset.cpus",
}
START = {
    "memory": str(32 * MIB),
    "reservation": str(24 * MIB),
    "pids": "20",
    "quota": "500000",
    "period": "1000000",
    "shares": "100",
    "cpus": "0",
}


@pytest.fixture
def started(bundle: Bundle) -> Bundle:
    if layout().mode is Mode.V2:
        pytest.skip("the names are v1's; v2's are in test_linux.py")
    bundle.linux["resources"] = FIRST
    bundle.start("sleep", "60")
    return bundle


def seen(bundle: Bundle) -> dict[str, str]:
    path = bundle.linux["cgroupsPath"]
    points = layout().v1
    found = {}
    for name, file in FILES.items():
        found[name] = Path(f"{points[file.partition('.')[0]]}{path}/{file}").read_text().strip()
    return found


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        (["--memory", "67108864"], {"memory": str(64 * MIB)}),
        (["--memory", "50M"], {"memory": str(50 * MIB)}),
        (["--memory-reservation", "33554432"], {"reservation": str(32 * MIB)}),
        (["--pids-limit", "10"], {"pids": "10"}),
        (["--pids-limit", "-1"], {"pids": "max"}),
        (["--cpu-period", "900000"], {"period": "900000"}),
        (["--cpu-quota", "600000"], {"quota": "600000"}),
        (["--cpu-quota", "-1"], {"quota": "-1"}),
        (["--cpu-quota", "-1", "--cpu-period", "100000"], {"quota": "-1", "period": "100000"}),
        (["--cpu-share", "200"], {"shares": "200"}),
        (["--cpuset-cpus", "1"], {"cpus": "1"}),
        (
            ["--cpu-period", "900000", "--cpu-quota", "600000", "--cpu-share", "200", "--memory", "64M"],
            {"period": "900000", "quota": "600000", "shares": "200", "memory": str(64 * MIB)},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_only_the_given_limits_change(
    runtime: Runtime, started: Bundle, flags: list[str], changed: dict[str, str]
) -> None:
    assert seen(started) == START
    runtime("update", *flags, started.id, check=True)
    assert seen(started) == {**START, **changed}


def test_a_limit_of_no_processes(bundle: Bundle) -> None:
    """It is a limit, written as 1 (runc 1.4: tests/integration/cgroups.bats)."""
    bundle.linux["resources"]["pids"] = {"limit": 0}
    bundle.start("sleep", "60")
    assert cgroup_file(bundle.id, "pids/pids.max", "pids.max").read_text() == "1\n"


@pytest.mark.parametrize("given", ["standard input", "a file"])
def test_resources_as_json(runtime: Runtime, started: Bundle, tmp_path: Path, given: str) -> None:
    runtime("update", "--pids-limit", "7", "--cpu-share", "300", "--memory", "64M", started.id, check=True)
    file = tmp_path / "resources.json"
    file.write_text(json.dumps(FIRST))
    with file.open() as text:
        runtime(
            "update",
            "-r",
            "-" if given == "standard input" else str(file),
            started.id,
            check=True,
            stdin=text,
        )
    assert seen(started) == START


@pytest.mark.parametrize(
    "flags", [["--memory", "1x"], ["--cpuset-cpus", "4000"], ["--resources", "/no/such/file"]], ids=" ".join
)
def test_an_invalid_limit_changes_nothing(runtime: Runtime, started: Bundle, flags: list[str]) -> None:
    assert runtime("update", *flags, started.id).code != 0
    assert seen(started) == START


def test_update_of_an_unknown_container(runtime: Runtime) -> None:
    done = runtime("update", "--pids-limit", "5", "nope")
    assert done.code != 0
    assert "container does not exist" in done.err
