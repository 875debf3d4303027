"""The statistics of `events` beyond those that a node collects, read from the kernel under runc's names.

The names are those of runc's types.Stats, which follow cgroup v1. On v2, names without a counterpart are left out, as
are counters that the kernel does not provide.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from runtime.cgroups import Cgroup
from runtime.cgroups.files import keyed, read_or
from runtime.oci.config.spec_linux import number_set

_PARTS: Final = {
    "limit": "limit_in_bytes",
    "usage": "usage_in_bytes",
    "max": "max_usage_in_bytes",
    "failcnt": "failcnt",
}
_KINDS: Final = {"swap": "memory.memsw", "kernel": "memory.kmem", "kernelTCP": "memory.kmem.tcp"}
_CPUSET: Final = (
    "cpu_exclusive", "mem_exclusive", "mem_hardwall", "memory_migrate", "memory_pressure", "memory_spread_page",
    "memory_spread_slab", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip


def of_memory(cgroup: Cgroup) -> dict[str, Any]:
    """`raw` is memory.stat. `swap` includes memory usage, on v2 too. Also `kernel` and `kernelTCP`. Values are in
    bytes."""
    where = cgroup.directory("memory")
    if where is None:
        return {}
    raw = [line.split() for line in read_or(f"{where}/memory.stat").splitlines()]
    found: dict[str, Any] = {"raw": {row[0]: int(row[1]) for row in raw if len(row) == 2}}
    for name, prefix in _KINDS.items():
        numbers = {part: _number(f"{where}/{prefix}.{file}") for part, file in _PARTS.items()}
        if known := {part: number for part, number in numbers.items() if number is not None}:
            found[name] = known
    if (swapped := _number(f"{where}/memory.swap.current")) is not None:
        found["swap"] = {"usage": swapped + (_number(f"{where}/memory.current") or 0)}
        limits = [_number(f"{where}/{name}.max") for name in ("memory", "memory.swap")]
        if None not in limits:
            found["swap"]["limit"] = sum(limit or 0 for limit in limits)
    return found


def of_processors(cgroup: Cgroup) -> dict[str, Any]:
    """CPU time per processor in nanoseconds; only v1 counts it."""
    where = cgroup.directory("cpuacct")
    rows = [line.split() for line in read_or(f"{where}/cpuacct.usage_all").splitlines()[1:]] if where else []
    if not rows:
        return {}
    user, system = ([int(row[column]) for row in rows] for column in (1, 2))
    each = [int(word) for word in read_or(f"{where}/cpuacct.usage_percpu").split()]
    return {"percpu": each, "percpu_user": user, "percpu_kernel": system}


def of_cpuset(cgroup: Cgroup) -> dict[str, Any]:
    """The cpuset with runc's names; {} without the controller."""
    where = cgroup.directory("cpuset")
    if where is None:
        return {}
    found: dict[str, Any] = {
        name: sorted(number_set(read_or(f"{where}/cpuset.{name}").strip(), name)) for name in ("cpus", "mems")
    }
    numbers = {name: _number(f"{where}/cpuset.{name}") for name in _CPUSET}
    return {**found, **{name: number for name, number in numbers.items() if number is not None}}


def of_huge_pages(cgroup: Cgroup) -> dict[str, Any]:
    """Bytes by page size (`2MB`): reserved bytes if the kernel counts them, otherwise used bytes."""
    where = cgroup.directory("hugetlb")
    try:
        names = os.listdir(where) if where else []
    except FileNotFoundError:
        names = []
    found = {}
    for size in sorted({name.split(".")[1] for name in names if name.startswith("hugetlb.")}):
        kind = f"{where}/hugetlb.{size}.rsvd"
        if not any(os.path.exists(f"{kind}.{file}") for file in ("usage_in_bytes", "current")):
            kind = f"{where}/hugetlb.{size}"
        if (current := _number(f"{kind}.current")) is not None:
            failed = keyed(read_or(f"{where}/hugetlb.{size}.events")).get("max", 0)
            found[size] = {"usage": current, "failcnt": failed}
        else:
            parts = {"usage": "usage_in_bytes", "max": "max_usage_in_bytes", "failcnt": "failcnt"}
            found[size] = {name: _number(f"{kind}.{file}") or 0 for name, file in parts.items()}
    return found


def of_pressure(cgroup: Cgroup, controller: str, resource: str) -> dict[str, Any]:
    """`psi` of v2, if the kernel provides it (accounting/psi.rst): averages in percent, `total` in microseconds."""
    where = cgroup.directory(controller)
    found: dict[str, dict[str, float | int]] = {}
    for line in read_or(f"{where}/{resource}.pressure").splitlines() if where else []:
        kind, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        found[kind] = {key: int(text) if key == "total" else float(text) for key, text in values.items()}
    return {"psi": found} if found else {}


_CLASS: Final = {
    "l3_cache": ("L3", ("cbm_mask", "min_cbm_bits", "num_closids")),
    "mem_bw": ("MB", ("bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids")),
}
_MONITORED: Final = {"mbm_stats": ("mbm_total_bytes", "mbm_local_bytes"), "cmt_stats": ("llc_occupancy",)}


def of_class(wanted: Mapping[str, Any], container_id: str, root: str) -> dict[str, Any]:
    """linux.intelRdt: the hardware's properties, the schemata of the default class and of the container's, and the
    monitored values by NUMA node. `root`: where resctrl is mounted."""
    group = f"{root}/{wanted.get('closID') or container_id}"
    found: dict[str, Any] = {}
    for name, (resource, files) in _CLASS.items():
        info = f"{root}/info/{resource}"
        if not os.path.isdir(info):
            continue
        texts = {file: read_or(f"{info}/{file}").strip() for file in files}
        found[f"{name}_info"] = {
            file: text if file == "cbm_mask" else int(text or 0) for file, text in texts.items()
        }
        found[f"{name}_schema_root"] = _schema(root, resource)
        found[f"{name}_schema"] = _schema(group, resource)
    features = read_or(f"{root}/info/L3_MON/mon_features").split()
    monitor = f"{group}/mon_groups/{container_id}" if wanted.get("enableMonitoring") else group
    nodes = _nodes(f"{monitor}/mon_data")
    for name, files in _MONITORED.items():
        if known := [file for file in files if file in features]:
            found[name] = [{file: _number(f"{node}/{file}") or 0 for file in known} for node in nodes]
    return found


def _schema(group: str, resource: str) -> str:
    lines = (line.strip() for line in read_or(f"{group}/schemata").splitlines())
    return next((line for line in lines if line.startswith(f"{resource}:")), "")


def _nodes(directory: str) -> list[str]:
    try:
        return [f"{directory}/{name}" for name in sorted(os.listdir(directory)) if name.startswith("mon_L3_")]
    except FileNotFoundError:
        return []


def _number(path: str) -> int | None:
    """The number in a file; None if the file is missing or holds no number (`max`)."""
    try:
        return int(read_or(path))
    except ValueError:
        return None
