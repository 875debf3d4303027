"""Translate OCI `linux.resources` to writes for cgroup v2. Pure.

The OCI specification uses v1's units. The conversions are those that runc and crun share (opencontainers/cgroups
utils.go, crun.1 "CGROUP v2"). Kernel document: admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runtime.cgroups.resources_v1 import hugetlb, pids_max, rdma_line
from runtime.cgroups.writes import Plan, Write
from runtime.errors import SpecError


def plan(resources: Mapping[str, Any], *, bfq: bool = False) -> Plan:
    """All writes except device access, which is a BPF program (`devices.attach_v2`). `bfq`: io.bfq.weight exists
    (io.weight may not). Raises SpecError."""
    made = Plan([], [])
    _memory(resources.get("memory") or {}, made)
    _cpu(resources.get("cpu") or {}, made)
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None:
        made.writes.append(Write("pids", "pids.max", pids_max(limit)))
    _io(resources.get("blockIO") or {}, made, bfq=bfq)
    for huge in resources.get("hugepageLimits") or []:
        hugetlb(huge, "max", made)
    for device, limits in (resources.get("rdma") or {}).items():
        made.writes.append(Write("rdma", "rdma.max", rdma_line(device, limits)))
    network = resources.get("network") or {}
    if network.get("classID") or network.get("priorities"):
        made.warnings.append("linux.resources.network was not applied: cgroup v2 has no net_cls and net_prio")
    _unified(resources.get("unified") or {}, made)
    return made


def weight(shares: int) -> int:
    """cpu.shares (2..262144) → cpu.weight (1..10000), with the formula of runc 1.3.2, crun 1.23 and later.

    It maps 1024 to 100, which are the kernel's defaults, and both ends of the ranges to each other. 0 stays 0 (not
    set).
    """
    if shares == 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def swap_max(limit: int, swap: int) -> str | None:
    """memory.swap.max from v1's limits on memory and memory+swap, in bytes. None: unchanged. Raises SpecError."""
    if swap == 0:
        return "max" if limit == -1 else None
    if swap == -1:
        return "max"
    if limit <= 0:
        raise SpecError("memory.swap needs memory.limit: on cgroup v2 the swap limit is their difference")
    if swap < limit:
        raise SpecError(f"memory.swap {swap} (memory and swap together) is below memory.limit {limit}")
    return str(swap - limit)


def io_weight(blkio: int) -> int:
    """blkio weight 10..1000 → io.weight 1..10000, linear."""
    return 1 + (blkio - 10) * 9999 // 990


def _max(value: int) -> str:
    return "max" if value < 0 else str(value)


def _memory(memory: Mapping[str, Any], made: Plan) -> None:
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    swap_value = swap_max(limit, swap)
    if limit:
        made.writes.append(Write("memory", "memory.max", _max(limit)))
    if swap_value is not None:
        made.writes.append(Write("memory", "memory.swap.max", swap_value))
    if memory.get("reservation"):
        made.writes.append(Write("memory", "memory.low", _max(memory["reservation"])))
    if memory.get("useHierarchy") is False:
        made.warnings.append(
            "memory.useHierarchy false was not applied: memory is always accounted hierarchically"
        )
    for key in ("kernel", "kernelTCP", "swappiness", "disableOOMKiller"):
        value = memory.get(key)
        if value is not None and value is not False and value != -1:
            made.warnings.append(f"memory.{key} was not applied: cgroup v2 has no such setting")


def _cpu(cpu: Mapping[str, Any], made: Plan) -> None:
    idle, shares = cpu.get("idle"), cpu.get("shares") or 0
    if shares and idle != 1:  # an idle cgroup rejects a weight
        made.writes.append(Write("cpu", "cpu.weight", str(weight(shares))))
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        value = "max" if quota <= 0 else str(quota)
        made.writes.append(Write("cpu", "cpu.max", f"{value} {period}" if period else value))
    if cpu.get("burst") is not None:
        made.writes.append(Write("cpu", "cpu.max.burst", str(cpu["burst"])))
    if idle is not None:
        made.writes.append(Write("cpu", "cpu.idle", str(idle)))
    for key in ("cpus", "mems"):
        if cpu.get(key):
            made.writes.append(Write("cpuset", f"cpuset.{key}", str(cpu[key])))
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        made.warnings.append("cpu.realtimePeriod and realtimeRuntime were not applied: cgroup v2 has neither")


def _io(block: Mapping[str, Any], made: Plan, *, bfq: bool) -> None:
    file, convert = ("io.bfq.weight", int) if bfq else ("io.weight", io_weight)
    if block.get("weight"):
        made.writes.append(Write("io", file, str(convert(block["weight"]))))
    for device in block.get("weightDevice") or []:
        if device.get("weight"):
            value = f"{device['major']}:{device['minor']} {convert(device['weight'])}"
            made.writes.append(Write("io", file, value))
    if block.get("leafWeight") or any(device.get("leafWeight") for device in block.get("weightDevice") or []):
        made.warnings.append("blockIO.leafWeight was not applied: cgroup v2 has no such setting")
    for key, name in (
        ("throttleReadBpsDevice", "rbps"),
        ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"),
        ("throttleWriteIOPSDevice", "wiops"),
    ):
        for device in block.get(key) or []:
            rate = device["rate"] or "max"
            made.writes.append(Write("io", "io.max", f"{device['major']}:{device['minor']} {name}={rate}"))


def _unified(unified: Mapping[str, str], made: Plan) -> None:
    """Write these directly to the files, last, so that they override converted limits."""
    for file, value in unified.items():
        if "/" in file or "." not in file or file.startswith("cgroup."):
            raise SpecError(f"linux.resources.unified: {file!r} is not a controller's file")
        for line in str(value).splitlines() or [""]:
            # Set on every container, so it must not fail on a machine without the memory controller.
            required = file != "memory.oom.group"
            made.writes.append(Write(file.split(".", 1)[0], file, line, required=required))
