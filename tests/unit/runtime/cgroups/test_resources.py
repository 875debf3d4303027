"""OCI linux.resources → writes, for both cgroup versions; and the handling of refused or impossible writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.cgroups import resources_v1, resources_v2
from runtime.cgroups.writes import Plan, Write, execute
from runtime.errors import CapabilityError, SpecError

THROTTLE = [{"major": 8, "minor": 0, "rate": 1048576}]


def flat(plan: Plan) -> list[tuple[str, str]]:
    return [(write.file, write.value) for write in plan.writes]


@pytest.mark.parametrize(
    ("resources", "v1", "v2"),
    [
        ({}, [], []),
        ({"memory": None, "cpu": None, "pids": None}, [], []),
        (
            {"memory": {"limit": 100, "swap": 100}},
            [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "100")],
            [("memory.max", "100"), ("memory.swap.max", "0")],
        ),
        (
            {"memory": {"limit": 100, "swap": 150, "reservation": 50}},
            [
                ("memory.limit_in_bytes", "100"),
                ("memory.memsw.limit_in_bytes", "150"),
                ("memory.soft_limit_in_bytes", "50"),
            ],
            [("memory.max", "100"), ("memory.swap.max", "50"), ("memory.low", "50")],
        ),
        (
            {"memory": {"limit": -1}},
            [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
            [("memory.max", "max"), ("memory.swap.max", "max")],
        ),
        (
            {"cpu": {"shares": 1024, "quota": 50000, "period": 100000}},
            [("cpu.shares", "1024"), ("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")],
            [("cpu.weight", "100"), ("cpu.max", "50000 100000")],
        ),
        (
            {"cpu": {"quota": -1}},
            [("cpu.cfs_quota_us", "-1")],
            [("cpu.max", "max")],
        ),
        (
            {"cpu": {"quota": 50000, "burst": 0}},
            [("cpu.cfs_quota_us", "50000"), ("cpu.cfs_burst_us", "0")],
            [("cpu.max", "50000"), ("cpu.max.burst", "0")],
        ),
        # an idle cgroup rejects a weight
        ({"cpu": {"shares": 512, "idle": 1}}, [("cpu.idle", "1")], [("cpu.idle", "1")]),
        (
            {"cpu": {"cpus": "0-1", "mems": "0"}},
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        ),
        ({"pids": {"limit": 10}}, [("pids.max", "10")], [("pids.max", "10")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
        ({"pids": {"limit": 0}}, [("pids.max", "1")], [("pids.max", "1")]),
        ({"pids": {}}, [], []),
        ({"blockIO": {"weight": 1000}}, [("blkio.bfq.weight", "1000")], [("io.weight", "10000")]),
        (
            {"blockIO": {"throttleReadBpsDevice": THROTTLE, "throttleWriteIOPSDevice": THROTTLE}},
            [
                ("blkio.throttle.read_bps_device", "8:0 1048576"),
                ("blkio.throttle.write_iops_device", "8:0 1048576"),
            ],
            [("io.max", "8:0 rbps=1048576"), ("io.max", "8:0 wiops=1048576")],
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]},
            [("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304")],
            [("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")],
        ),
        (
            {"rdma": {"mlx5_0": {"hcaHandles": 2}}},
            [("rdma.max", "mlx5_0 hca_handle=2 hca_object=max")],
            [("rdma.max", "mlx5_0 hca_handle=2 hca_object=max")],
        ),
        # the group OOM kill exists only on v2, but is requested on every machine
        ({"unified": {"memory.oom.group": "1"}}, [], [("memory.oom.group", "1")]),
    ],
)
def test_plans(resources: dict[str, Any], v1: list[tuple[str, str]], v2: list[tuple[str, str]]) -> None:
    assert flat(resources_v1.plan(resources)) == v1
    assert flat(resources_v2.plan(resources)) == v2


@pytest.mark.parametrize(
    ("resources", "error"),
    [
        ({"memory": {"limit": 100, "swap": 50}}, SpecError),
        ({"memory": {"swappiness": 101}}, SpecError),
        ({"unified": {"memory.high": "1"}}, CapabilityError),
        ({"blockIO": {"leafWeight": 100}}, CapabilityError),
    ],
)
def test_v1_refuses(resources: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        resources_v1.plan(resources)


@pytest.mark.parametrize(
    "resources",
    [
        {"memory": {"limit": 100, "swap": 50}},
        {"memory": {"swap": 50}},
        {"unified": {"../memory.max": "1"}},
        {"unified": {"cgroup.procs": "1"}},
        {"unified": {"release": "1"}},
    ],
)
def test_v2_refuses(resources: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        resources_v2.plan(resources)


def test_unsupported_limits_are_reported_and_the_rest_applied() -> None:
    v1 = resources_v1.plan({"memory": {"kernel": 5, "limit": 9}})
    assert flat(v1) == [("memory.limit_in_bytes", "9")]
    assert len(v1.warnings) == 1
    v2 = resources_v2.plan(
        {
            "memory": {"kernelTCP": 5, "swappiness": 0, "disableOOMKiller": True},
            "cpu": {"realtimeRuntime": 5},
            "network": {"classID": 3},
        }
    )
    assert flat(v2) == []
    assert len(v2.warnings) == 5


def test_unified_comes_last_and_line_by_line() -> None:
    plan = resources_v2.plan(
        {"memory": {"limit": 5}, "unified": {"memory.max": "7", "io.max": "8:0 rbps=1\n8:16 rbps=2"}}
    )
    assert flat(plan) == [
        ("memory.max", "5"),
        ("memory.max", "7"),
        ("io.max", "8:0 rbps=1"),
        ("io.max", "8:16 rbps=2"),
    ]


@pytest.mark.parametrize(
    ("shares", "weight"),
    [
        (0, 0),
        (1, 1),
        (2, 1),
        (102, 17),
        (256, 35),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (4096, 303),
        (262144, 10000),
        (1 << 20, 10000),
    ],
)
def test_weight_is_the_new_formula(shares: int, weight: int) -> None:
    assert resources_v2.weight(shares) == weight


@given(st.integers(2, 262144), st.integers(2, 262144))
def test_weight_keeps_order_and_range(a: int, b: int) -> None:
    assert 1 <= resources_v2.weight(a) <= 10000
    if a <= b:
        assert resources_v2.weight(a) <= resources_v2.weight(b)


@pytest.mark.parametrize(("blkio", "weight"), [(10, 1), (1000, 10000), (500, 4950)])
def test_io_weight(blkio: int, weight: int) -> None:
    assert resources_v2.io_weight(blkio) == weight


def test_missing_file_or_controller_is_a_warning_naming_the_value(tmp_path: Path) -> None:
    (tmp_path / "pids.max").write_text("")
    plan = Plan(
        [Write("pids", "pids.max", "5"), Write("pids", "pids.new", "6"), Write("io", "io.max", "7")], []
    )
    places = {"pids": str(tmp_path)}
    warnings = execute(plan, places.get)
    assert (tmp_path / "pids.max").read_text() == "5"
    assert [("= 6" in w, "= 7" in w) for w in warnings] == [(True, False), (False, True)]


def test_required_and_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match=r"memory\.max = 7"):
        execute(Plan([Write("memory", "memory.max", "7", required=True)], []), {"memory": str(tmp_path)}.get)
