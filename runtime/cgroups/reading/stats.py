"""The usage statistics of a cgroup, and how they are computed from parsed files (parsers.py; reader.py reads them)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from runtime.cgroups.reading import parsers
from runtime.cgroups.reading.parsers import IoStats, Pressure

__all__ = [
    "CpuStats",
    "IoStats",
    "MemoryStats",
    "PidsStats",
    "Pressure",
    "PressureStats",
    "Stats",
    "stats_v1",
    "stats_v2",
]

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class CpuStats(NamedTuple):
    usage_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    periods: int = 0  # elapsed enforcement periods; 0 without a quota
    throttled_periods: int = 0
    throttled_ns: int = 0
    burst_periods: int = 0
    burst_ns: int = 0


class MemoryStats(NamedTuple):
    """Bytes, including descendants. `limit` 0: no limit. Counters that this cgroup version lacks are 0."""

    usage: int = 0
    working_set: int = 0  # usage without inactive file cache; used by eviction and dashboards
    rss: int = 0
    cache: int = 0
    swap: int = 0
    mapped_file: int = 0
    kernel: int = 0
    active_file: int = 0
    inactive_file: int = 0
    file_dirty: int = 0
    file_writeback: int = 0
    limit: int = 0
    max_usage: int = 0
    failcnt: int = 0  # times the limit was hit
    oom_kills: int = 0
    pgfault: int = 0
    pgmajfault: int = 0
    pgscan: int = 0
    pgsteal: int = 0
    workingset_refault_anon: int = 0
    workingset_refault_file: int = 0
    events_high: int = 0
    events_max: int = 0


class PidsStats(NamedTuple):
    current: int = 0
    limit: int = 0  # 0: none


class PressureStats(NamedTuple):
    """None: this kernel does not provide PSI for cgroups."""

    cpu: Pressure | None = None
    memory: Pressure | None = None
    io: Pressure | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    cpu: CpuStats
    memory: MemoryStats
    pids: PidsStats
    io: tuple[IoStats, ...]
    pressure: PressureStats


Values = Mapping[str, Any]  # file name → parsed content; missing files have no entry


def stats_v2(values: Values, before: Stats | None = None, changed: Iterable[str] = ()) -> Stats:
    """The statistics from cgroup v2 files.

    `changed`: the files whose content differs from when `before` was computed. Parts with equal results are reused from
    `before`.
    """
    return _stats(_V2, values, before, changed)


def stats_v1(values: Values, before: Stats | None = None, changed: Iterable[str] = ()) -> Stats:
    """The same from v1 files. `unified.cpu.stat` and the PSI files come from the cgroup2 side of hybrid."""
    return _stats(_V1, values, before, changed)


def _stats(
    makers: Mapping[str, Callable[[Values], Any]],
    values: Values,
    before: Stats | None,
    changed: Iterable[str],
) -> Stats:
    """`makers`: a function for each field of Stats, in their order."""
    if before is None:
        return Stats(*[make(values) for make in makers.values()])
    new = set(map(_part, changed))
    parts, same = [], True
    for part, make in makers.items():
        found = old = getattr(before, part)
        if part in new and (found := make(values)) == old:
            found = old
        same = same and found is old
        parts.append(found)
    return before if same else Stats(*parts)


_PARTS = {"unified": "cpu", "cpuacct": "cpu", "blkio": "io"}


@cache
def _part(name: str) -> str:
    """The field of Stats to which a file contributes."""
    first = name.partition(".")[0]
    return "pressure" if name.endswith(".pressure") else _PARTS.get(first, first)


def _pids(values: Values) -> PidsStats:
    return PidsStats(values.get("pids.current", 0), values.get("pids.max", 0))


def _cpu_v2(values: Values) -> CpuStats:
    usage, user, system, periods, throttled, time, bursts, burst = values.get("cpu.stat", parsers.CPU.zeros)
    return CpuStats(
        usage * 1000, user * 1000, system * 1000, periods, throttled, time * 1000, bursts, burst * 1000
    )


def _cpu_v1(values: Values) -> CpuStats:
    """cpuacct.stat counts ticks of 10 ms. The cgroup2 side of hybrid has microseconds, and in a single file."""
    throttle = values.get("cpu.stat", parsers.CPU_V1.zeros)
    if fine := values.get("unified.cpu.stat"):
        usage, user, system = fine[0] * 1000, fine[1] * 1000, fine[2] * 1000
    else:
        user, system = values.get("cpuacct.stat", parsers.TICKS.zeros)
        usage, user, system = values.get("cpuacct.usage", 0), user * _TICK, system * _TICK
    return CpuStats(usage, user, system, *throttle)


def _memory_v2(values: Values) -> MemoryStats:
    anon, file, mapped, kernel, active, inactive, dirty, writeback, *counts = values.get(
        "memory.stat", parsers.MEMORY.zeros
    )
    pgfault, pgmajfault, pgscan, pgsteal, refault_anon, refault_file = counts
    high, most, kills = values.get("memory.events", parsers.EVENTS.zeros)
    # The root has no memory.current; its usage is about anon + file.
    usage = values.get("memory.current", 0) or anon + file
    return MemoryStats(
        usage=usage,
        working_set=max(0, usage - inactive),
        rss=anon,
        cache=file,
        swap=values.get("memory.swap.current", 0),
        mapped_file=mapped,
        kernel=kernel,
        active_file=active,
        inactive_file=inactive,
        file_dirty=dirty,
        file_writeback=writeback,
        limit=values.get("memory.max", 0),
        max_usage=values.get("memory.peak", 0),
        failcnt=most,
        oom_kills=kills,
        pgfault=pgfault,
        pgmajfault=pgmajfault,
        pgscan=pgscan,
        pgsteal=pgsteal,
        workingset_refault_anon=refault_anon,
        workingset_refault_file=refault_file,
        events_high=high,
        events_max=most,
    )


def _memory_v1(values: Values) -> MemoryStats:
    rss, cached, swap, mapped, active, inactive, dirty, writeback, *counts = values.get(
        "memory.stat", parsers.MEMORY_V1.zeros
    )
    pgfault, pgmajfault, refault_anon, refault_file = counts
    usage = values.get("memory.usage_in_bytes", 0)
    return MemoryStats(
        usage=usage,
        working_set=max(0, usage - inactive),
        rss=rss,
        cache=cached,
        swap=swap,
        mapped_file=mapped,
        kernel=values.get("memory.kmem.usage_in_bytes", 0),
        active_file=active,
        inactive_file=inactive,
        file_dirty=dirty,
        file_writeback=writeback,
        limit=values.get("memory.limit_in_bytes", 0),
        max_usage=values.get("memory.max_usage_in_bytes", 0),
        # if the limit on memory+swap equals that on memory, the former is hit
        failcnt=values.get("memory.failcnt", 0) + values.get("memory.memsw.failcnt", 0),
        oom_kills=values.get("memory.oom_control", parsers.KILLS.zeros)[0],
        pgfault=pgfault,
        pgmajfault=pgmajfault,
        workingset_refault_anon=refault_anon,
        workingset_refault_file=refault_file,
    )


def _io_v1(values: Values) -> tuple[IoStats, ...]:
    return parsers.io_v1(
        values.get("blkio.throttle.io_service_bytes_recursive", ()),
        values.get("blkio.throttle.io_serviced_recursive", ()),
    )


def _pressure(values: Values) -> PressureStats:
    get = values.get
    return PressureStats(get("cpu.pressure"), get("memory.pressure"), get("io.pressure"))


_V2: Mapping[str, Callable[[Values], Any]] = {
    "cpu": _cpu_v2,
    "memory": _memory_v2,
    "pids": _pids,
    "io": lambda values: values.get("io.stat", ()),
    "pressure": _pressure,
}
_V1: Mapping[str, Callable[[Values], Any]] = {
    "cpu": _cpu_v1,
    "memory": _memory_v1,
    "pids": _pids,
    "io": _io_v1,
    "pressure": _pressure,
}
