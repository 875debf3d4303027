"""The present limits of a cgroup (admin-guide/cgroup-v2.rst, cgroup-v1/). `stats` has the usage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from runtime.cgroups import files


class _Directories(Protocol):
    def directory(self, controller: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Spec:
    """CPU in shares and microseconds, memory in bytes. 0: no limit, or not available in this cgroup version."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    memory_reservation: int = 0
    swap_limit: int = 0  # on v1 memory and swap together, as in the kernel


def read_spec(group: _Directories) -> Spec:
    """Read the limits. Those of a removed cgroup are 0."""
    cpu, memory = group.directory("cpu"), group.directory("memory")
    shares, quota, period = _cpu(cpu) if cpu else (0, 0, 0)
    return Spec(
        shares,
        quota,
        period,
        _first(memory, "memory.soft_limit_in_bytes", "memory.min"),
        _first(memory, "memory.memsw.limit_in_bytes", "memory.swap.max"),
    )


def _cpu(place: str) -> tuple[int, int, int]:
    if weight := files.number(files.read_or(f"{place}/cpu.weight")):
        quota, _, period = files.read_or(f"{place}/cpu.max").strip().partition(" ")
        # the inverse of the linear formula for the weight, as in cAdvisor
        return 2 + ((weight - 1) * 262142) // 9999, files.number(quota), files.number(period)
    return (
        files.number(files.read_or(f"{place}/cpu.shares")),
        files.number(files.read_or(f"{place}/cpu.cfs_quota_us")),
        files.number(files.read_or(f"{place}/cpu.cfs_period_us")),
    )


def _first(place: str | None, *names: str) -> int:
    texts = (files.read_or(f"{place}/{name}") for name in names) if place else ()
    return files.number(next((text for text in texts if text), ""))
