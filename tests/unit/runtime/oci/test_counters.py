"""The statistics that `events` reads from kernel files, on directories that imitate a cgroup and resctrl."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from runtime.cgroups import Cgroup
from runtime.oci.cli import counters


class Standing:
    """A cgroup that has all controllers in one directory."""

    def __init__(self, where: Path | None) -> None:
        self._where = where

    def directory(self, controller: str) -> str | None:
        return None if self._where is None else str(self._where)


def files(where: Path, **texts: str) -> Cgroup:
    for name, text in texts.items():
        (where / name.replace("__", ".")).write_text(text)
    return cast(Cgroup, Standing(where))


def test_huge_pages_of_v1(tmp_path: Path) -> None:
    cgroup = files(
        tmp_path,
        hugetlb__2MB__usage_in_bytes="4194304\n",
        hugetlb__2MB__max_usage_in_bytes="6291456\n",
        hugetlb__2MB__failcnt="3\n",
        hugetlb__2MB__limit_in_bytes="9223372036852678656\n",
        hugetlb__1GB__usage_in_bytes="1\n",
        hugetlb__1GB__max_usage_in_bytes="1\n",
        hugetlb__1GB__failcnt="0\n",
        hugetlb__1GB__rsvd__usage_in_bytes="1073741824\n",
        hugetlb__1GB__rsvd__max_usage_in_bytes="2147483648\n",
        hugetlb__1GB__rsvd__failcnt="7\n",
    )
    assert counters.of_huge_pages(cgroup) == {
        "1GB": {"usage": 1 << 30, "max": 2 << 30, "failcnt": 7},
        "2MB": {"usage": 4 << 20, "max": 6 << 20, "failcnt": 3},
    }


def test_huge_pages_of_v2(tmp_path: Path) -> None:
    cgroup = files(
        tmp_path,
        hugetlb__2MB__current="0\n",
        hugetlb__2MB__rsvd__current="2097152\n",
        hugetlb__2MB__events="max 4\n",
        memory__current="1\n",
    )
    assert counters.of_huge_pages(cgroup) == {"2MB": {"usage": 2 << 20, "failcnt": 4}}


@pytest.mark.parametrize("where", [None, Path("/klt/nowhere")])
def test_no_huge_pages(where: Path | None) -> None:
    assert counters.of_huge_pages(cast(Cgroup, Standing(where))) == {}


def test_pressure(tmp_path: Path) -> None:
    text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    found = counters.of_pressure(files(tmp_path, cpu__pressure=text), "cpu", "cpu")
    assert found["psi"]["some"] == {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 42}
    assert found["psi"]["full"]["total"] == 7
    assert counters.of_pressure(cast(Cgroup, Standing(None)), "cpu", "cpu") == {}


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize(
    ("wanted", "monitor"),
    [({}, "c1"), ({"closID": "gold"}, "gold"), ({"enableMonitoring": True}, "c1/mon_groups/c1")],
)
def test_a_class_of_service(tmp_path: Path, wanted: dict[str, Any], monitor: str) -> None:
    """A class named by the container's ID, a shared class, and one with its own monitoring group."""
    for name, text in (("cbm_mask", "7ff\n"), ("min_cbm_bits", "1\n"), ("num_closids", "16\n")):
        write(tmp_path, f"info/L3/{name}", text)
    for name in ("bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"):
        write(tmp_path, f"info/MB/{name}", "10\n")
    write(tmp_path, "info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n")
    write(tmp_path, "schemata", "    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n")
    write(tmp_path, f"{wanted.get('closID', 'c1')}/schemata", "    L3:0=0f0;1=7ff\n    MB:0= 20;1=100\n")
    for node, count in (("mon_L3_00", 1), ("mon_L3_01", 2)):
        write(tmp_path, f"{monitor}/mon_data/{node}/llc_occupancy", f"{count}\n")
        write(tmp_path, f"{monitor}/mon_data/{node}/mbm_total_bytes", f"{count}0\n")
        write(tmp_path, f"{monitor}/mon_data/{node}/mbm_local_bytes", "Unavailable\n")
    found = counters.of_class(wanted, "c1", str(tmp_path))
    assert found["l3_cache_info"] == {"cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16}
    assert found["l3_cache_schema_root"] == "L3:0=7ff;1=7ff"
    assert found["l3_cache_schema"] == "L3:0=0f0;1=7ff"
    assert found["mem_bw_info"]["bandwidth_gran"] == 10
    assert found["mem_bw_schema"] == "MB:0= 20;1=100"
    assert found["mbm_stats"] == [
        {"mbm_total_bytes": 10, "mbm_local_bytes": 0},
        {"mbm_total_bytes": 20, "mbm_local_bytes": 0},
    ]
    assert found["cmt_stats"] == [{"llc_occupancy": 1}, {"llc_occupancy": 2}]


def test_hardware_without_classes(tmp_path: Path) -> None:
    assert counters.of_class({"closID": "gold"}, "c1", str(tmp_path)) == {}
