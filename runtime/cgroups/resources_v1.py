"""Translate OCI `linux.resources` to writes for cgroup v1. Pure (runtime-spec config-linux.md, "Control groups").

Kernel documents: admin-guide/cgroup-v1/{memory,cpusets,blkio-controller,pids,hugetlb}.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.cgroups.writes import Plan, Write
from runtime.errors import CapabilityError, SpecError

# Settings that v1 ignores, so that one specification works on both v1 and v2.
_UNIFIED_WITHOUT_EFFECT = frozenset({"memory.oom.group"})
_DEFAULTS = frozenset(
    {
        ("memory.limit_in_bytes", "-1"),
        ("memory.memsw.limit_in_bytes", "-1"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "-1"),
        ("cpu.shares", "1024"),
        ("pids.max", "max"),
    }
)


def plan(resources: Mapping[str, Any]) -> Plan:
    """All writes except those for devices, which depend on the present list (`devices.v1_writes`). Raises SpecError and
    CapabilityError."""
    made = Plan([], [])
    _memory(resources.get("memory") or {}, made)
    _cpu(resources.get("cpu") or {}, made)
    _cpuset(resources.get("cpu") or {}, made)
    _pids(resources.get("pids") or {}, made)
    _blkio(resources.get("blockIO") or {}, made)
    for huge in resources.get("hugepageLimits") or []:
        hugetlb(huge, "limit_in_bytes", made)
    _network(resources.get("network") or {}, made)
    _rdma(resources.get("rdma") or {}, made)
    if unknown := sorted(set(resources.get("unified") or {}) - _UNIFIED_WITHOUT_EFFECT):
        raise CapabilityError(
            f"invalid configuration: linux.resources.unified ({', '.join(unknown)}) needs cgroup v2, not v1"
        )
    return made


def hugetlb(huge: Mapping[str, Any], suffix: str, made: Plan) -> None:
    """Limit used huge pages and, if the kernel supports it (since 5.7), reserved ones, as runc does. A page size that
    the kernel does not have is an error."""
    size, limit = huge["pageSize"], str(huge["limit"])
    made.writes.append(Write("hugetlb", f"hugetlb.{size}.{suffix}", limit, required=True))
    made.writes.append(Write("hugetlb", f"hugetlb.{size}.rsvd.{suffix}", limit, optional=True))


def without_defaults(plan: Plan) -> Plan:
    """The plan without the kernel's defaults, which a new cgroup already has."""
    return Plan([w for w in plan.writes if (w.file, w.value) not in _DEFAULTS], plan.warnings)


def _memory(memory: Mapping[str, Any], made: Plan) -> None:
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit == -1 and swap is None:
        swap = -1  # the kernel would refuse a limit on memory+swap below that on memory
    if limit and swap and limit > 0 and 0 < swap < limit:
        raise SpecError(f"memory.swap {swap} (memory and swap together) is below memory.limit {limit}")
    for value, file in (
        (limit, "memory.limit_in_bytes"),
        (swap, "memory.memsw.limit_in_bytes"),
        (memory.get("reservation"), "memory.soft_limit_in_bytes"),
    ):
        if value:
            made.writes.append(Write("memory", file, str(value)))
    for key in ("kernel", "kernelTCP"):
        if memory.get(key) and memory[key] != -1:
            made.warnings.append(f"memory.{key} was not applied: kernels no longer have this limit")
    if memory.get("useHierarchy") is False:
        made.warnings.append(
            "memory.useHierarchy false was not applied: memory is always accounted hierarchically"
        )
    swappiness = memory.get("swappiness")
    if swappiness is not None:
        if not 0 <= swappiness <= 100:
            raise SpecError(f"memory.swappiness {swappiness} is not within 0..100")
        made.writes.append(Write("memory", "memory.swappiness", str(swappiness)))
    if memory.get("disableOOMKiller"):
        made.writes.append(Write("memory", "memory.oom_control", "1"))


def _cpu(cpu: Mapping[str, Any], made: Plan) -> None:
    idle = cpu.get("idle")
    for key, file in (
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("burst", "cpu.cfs_burst_us"),
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
        ("idle", "cpu.idle"),
    ):
        value = cpu.get(key)
        # As in runc, 0 means "not set" except for burst and idle. An idle cgroup rejects cpu.shares.
        if value is None or (value == 0 and key not in ("burst", "idle")) or (key == "shares" and idle == 1):
            continue
        made.writes.append(Write("cpu", file, str(value)))


def _cpuset(cpu: Mapping[str, Any], made: Plan) -> None:
    for key, file in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        if cpu.get(key):
            made.writes.append(Write("cpuset", file, str(cpu[key])))


def _pids(pids: Mapping[str, Any], made: Plan) -> None:
    limit = pids.get("limit")
    if limit is not None:
        made.writes.append(Write("pids", "pids.max", pids_max(limit)))


def pids_max(limit: int) -> str:
    """pids.max for linux.resources.pids.limit: -1 means no limit. 0 is a limit, written as 1, as runc does since 1.4,
    because systemd has no smaller one and the init counts anyway. Docker and podman send -1 for "unlimited"."""
    return "max" if limit < 0 else str(max(limit, 1))


def _blkio(block: Mapping[str, Any], made: Plan) -> None:
    if block.get("leafWeight") or any(d.get("leafWeight") for d in block.get("weightDevice") or []):
        raise CapabilityError("blockIO.leafWeight was removed from the kernel with the CFQ scheduler")
    if block.get("weight"):
        made.writes.append(Write("blkio", "blkio.bfq.weight", str(block["weight"])))
    for device in block.get("weightDevice") or []:
        if device.get("weight"):
            value = f"{device['major']}:{device['minor']} {device['weight']}"
            made.writes.append(Write("blkio", "blkio.bfq.weight_device", value))
    for key, file in (
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
    ):
        for device in block.get(key) or []:
            value = f"{device['major']}:{device['minor']} {device['rate']}"
            made.writes.append(Write("blkio", file, value))


def _network(network: Mapping[str, Any], made: Plan) -> None:
    if network.get("classID"):
        made.writes.append(Write("net_cls", "net_cls.classid", str(network["classID"]), required=True))
    for entry in network.get("priorities") or []:
        value = f"{entry['name']} {entry['priority']}"
        made.writes.append(Write("net_prio", "net_prio.ifpriomap", value, required=True))


def _rdma(rdma: Mapping[str, Any], made: Plan) -> None:
    for device, limits in rdma.items():
        made.writes.append(Write("rdma", "rdma.max", rdma_line(device, limits)))


def rdma_line(device: str, limits: Mapping[str, Any]) -> str:
    """A line for rdma.max, such as `mlx5_0 hca_handle=2 hca_object=max` (cgroup-v2.rst, "RDMA"; the same on v1)."""
    handles, objects = limits.get("hcaHandles", "max"), limits.get("hcaObjects", "max")
    return f"{device} hca_handle={handles} hca_object={objects}"
