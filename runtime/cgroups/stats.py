"""What a cgroup has used: the numbers, and the parsers of the files that say them (reader.py reads those)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from runtime.cgroups import files

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuStats:
    usage_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    periods: int = 0  # enforcement periods that ran; 0 without a quota
    throttled_periods: int = 0
    throttled_ns: int = 0
    burst_periods: int = 0
    burst_ns: int = 0


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Bytes, with descendants. `limit` 0 is no limit. Zero too is what this kind of cgroup does not count."""

    usage: int = 0
    working_set: int = 0  # usage without the inactive file cache: what eviction and dashboards look at
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


@dataclass(frozen=True, slots=True)
class PidsStats:
    current: int = 0
    limit: int = 0  # 0: none


@dataclass(frozen=True, slots=True)
class IoStats:
    """One block device."""

    major: int
    minor: int
    rbytes: int = 0
    wbytes: int = 0
    rios: int = 0
    wios: int = 0
    dbytes: int = 0
    dios: int = 0
    sync_bytes: int = 0  # v1 alone splits by it
    async_bytes: int = 0
    cost_usage_us: int = 0  # v2's io.cost controller, where it is on
    cost_wait_us: int = 0
    cost_indebt_us: int = 0
    cost_indelay_us: int = 0


@dataclass(frozen=True, slots=True)
class Pressure:
    """Total stall times of one resource (admin-guide: accounting/psi.rst)."""

    some_us: int = 0
    full_us: int = 0


@dataclass(frozen=True, slots=True)
class PressureStats:
    """None: this kernel counts no PSI, or not for cgroups."""

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


def parse_v2(texts: Mapping[str, str], before: Stats | None = None, changed: Iterable[str] = ()) -> Stats:
    """From cgroup v2 files, keyed by their names ("" where there is none). What was found `before` stays where none of
    its files is in `changed`."""
    return _parse(_V2, texts, before, changed)


def parse_v1(texts: Mapping[str, str], before: Stats | None = None, changed: Iterable[str] = ()) -> Stats:
    """The same from v1 files; `unified.cpu.stat` and the PSI files come from a hybrid's cgroup2 side."""
    return _parse(_V1, texts, before, changed)


def _parse(
    parsers: Mapping[str, Callable[[Mapping[str, str]], Any]],
    texts: Mapping[str, str],
    before: Stats | None,
    changed: Iterable[str],
) -> Stats:
    """`parsers`: what makes each field of Stats."""
    new = parsers.keys() if before is None else set(map(_part, changed))
    return Stats(
        **{part: parse(texts) if part in new else getattr(before, part) for part, parse in parsers.items()}
    )


_PARTS = {"unified": "cpu", "cpuacct": "cpu", "blkio": "io"}


@cache
def _part(name: str) -> str:
    """The field of Stats that a file is read for."""
    first = name.partition(".")[0]
    return "pressure" if name.endswith(".pressure") else _PARTS.get(first, first)


def _pids(texts: Mapping[str, str]) -> PidsStats:
    return PidsStats(files.number(texts["pids.current"]), files.number(texts["pids.max"]))


def cpu_v2(stat: Mapping[str, int]) -> CpuStats:
    """Of the numbers of v2's cpu.stat, which counts microseconds; a number that is not there is 0."""
    get = stat.get
    return CpuStats(
        usage_ns=get("usage_usec", 0) * 1000,
        user_ns=get("user_usec", 0) * 1000,
        system_ns=get("system_usec", 0) * 1000,
        periods=get("nr_periods", 0),
        throttled_periods=get("nr_throttled", 0),
        throttled_ns=get("throttled_usec", 0) * 1000,
        burst_periods=get("nr_bursts", 0),
        burst_ns=get("burst_usec", 0) * 1000,
    )


def _cpu_v1(texts: Mapping[str, str]) -> CpuStats:
    """cpuacct.stat counts in ticks of 10 ms; the cgroup2 side of a hybrid has microseconds, in one file less."""
    throttle = files.keyed(texts["cpu.stat"])
    if texts["unified.cpu.stat"]:
        fine = cpu_v2(files.keyed(texts["unified.cpu.stat"]))
        usage, user, system = fine.usage_ns, fine.user_ns, fine.system_ns
    else:
        ticks = files.keyed(texts["cpuacct.stat"])
        usage = files.number(texts["cpuacct.usage"])
        user, system = ticks.get("user", 0) * _TICK, ticks.get("system", 0) * _TICK
    return CpuStats(
        usage,
        user,
        system,
        throttle.get("nr_periods", 0),
        throttle.get("nr_throttled", 0),
        throttle.get("throttled_time", 0),
        throttle.get("nr_bursts", 0),
        throttle.get("burst_time", 0),
    )


def _memory_v2(texts: Mapping[str, str]) -> MemoryStats:
    get, events = _getter(texts["memory.stat"]), files.keyed(texts["memory.events"])
    # The root has no memory.current; what is charged to it is about anon + file.
    usage = files.number(texts["memory.current"]) or get("anon") + get("file")
    return MemoryStats(
        usage=usage,
        working_set=max(0, usage - get("inactive_file")),
        rss=get("anon"),
        cache=get("file"),
        swap=files.number(texts["memory.swap.current"]),
        mapped_file=get("file_mapped"),
        kernel=get("kernel"),
        active_file=get("active_file"),
        inactive_file=get("inactive_file"),
        file_dirty=get("file_dirty"),
        file_writeback=get("file_writeback"),
        limit=files.number(texts["memory.max"]),
        max_usage=files.number(texts["memory.peak"]),
        failcnt=events.get("max", 0),
        oom_kills=events.get("oom_kill", 0),
        pgfault=get("pgfault"),
        pgmajfault=get("pgmajfault"),
        pgscan=get("pgscan"),
        pgsteal=get("pgsteal"),
        workingset_refault_anon=get("workingset_refault_anon"),
        workingset_refault_file=get("workingset_refault_file"),
        events_high=events.get("high", 0),
        events_max=events.get("max", 0),
    )


def _memory_v1(texts: Mapping[str, str]) -> MemoryStats:
    """The total_* keys include descendants, as usage_in_bytes does."""
    get = _getter(texts["memory.stat"])
    usage = files.number(texts["memory.usage_in_bytes"])
    return MemoryStats(
        usage=usage,
        working_set=max(0, usage - get("total_inactive_file")),
        rss=get("total_rss"),
        cache=get("total_cache"),
        swap=get("total_swap"),
        mapped_file=get("total_mapped_file"),
        kernel=files.number(texts["memory.kmem.usage_in_bytes"]),
        active_file=get("total_active_file"),
        inactive_file=get("total_inactive_file"),
        file_dirty=get("total_dirty"),
        file_writeback=get("total_writeback"),
        limit=files.number(texts["memory.limit_in_bytes"]),
        max_usage=files.number(texts["memory.max_usage_in_bytes"]),
        # with memory+swap no higher than memory, it is that limit which is hit
        failcnt=files.number(texts["memory.failcnt"]) + files.number(texts["memory.memsw.failcnt"]),
        oom_kills=files.keyed(texts["memory.oom_control"]).get("oom_kill", 0),
        pgfault=get("total_pgfault"),
        pgmajfault=get("total_pgmajfault"),
        workingset_refault_anon=get("total_workingset_refault_anon"),
        workingset_refault_file=get("total_workingset_refault_file"),
    )


def _getter(text: str) -> Callable[[str], int]:
    """`key value` lines of which few are wanted; a key that is not there is 0."""
    words = text.split()
    found = dict(zip(words[::2], words[1::2], strict=False))
    return lambda key: int(found.get(key, 0))


def io_v2(text: str) -> tuple[IoStats, ...]:
    """io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0` and perhaps cost.*; a line without numbers is
    a device that never did anything."""
    found = []
    for line in text.splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if not major.isdigit() or not values:
            continue
        numbers = {
            key: int(values.get(key, 0)) for key in ("rbytes", "wbytes", "rios", "wios", "dbytes", "dios")
        }
        cost = {
            f"cost_{key}_us": int(values[f"cost.{key}"])
            for key in ("usage", "wait", "indebt", "indelay")
            if f"cost.{key}" in values
        }
        found.append(IoStats(int(major), int(minor), **numbers, **cost))
    return tuple(found)


_V1_KINDS = {
    "Read": ("rbytes", "rios"),
    "Write": ("wbytes", "wios"),
    "Discard": ("dbytes", "dios"),
    "Sync": ("sync_bytes", ""),
    "Async": ("async_bytes", ""),
}


def io_v1(service_bytes: str, serviced: str) -> tuple[IoStats, ...]:
    """blkio.throttle.io_*: `8:0 Read 4096` lines and a `Total`."""
    devices: dict[tuple[int, int], dict[str, int]] = {}
    for at, text in enumerate((service_bytes, serviced)):
        for line in text.splitlines():
            words = line.split()
            if len(words) != 3 or words[1] not in _V1_KINDS:
                continue
            major, _, minor = words[0].partition(":")
            if name := _V1_KINDS[words[1]][at]:
                devices.setdefault((int(major), int(minor)), {})[name] = int(words[2])
    return tuple(IoStats(*device, **numbers) for device, numbers in sorted(devices.items()))


def pressure(texts: Mapping[str, str]) -> PressureStats:
    """Of the texts of `cpu.pressure`, `memory.pressure` and `io.pressure`, each of which must be there, if empty."""
    return PressureStats(
        *(parse_pressure(texts[f"{resource}.pressure"]) for resource in ("cpu", "memory", "io"))
    )


def parse_pressure(text: str) -> Pressure | None:
    """`some avg10=0.00 avg60=0.00 avg300=0.00 total=12` and the same with `full`."""
    totals = {line.split(" ", 1)[0]: int(line.rpartition("total=")[2]) for line in text.splitlines() if line}
    return Pressure(totals.get("some", 0), totals.get("full", 0)) if totals else None


_V2 = {
    "cpu": lambda texts: cpu_v2(files.keyed(texts["cpu.stat"])),
    "memory": _memory_v2,
    "pids": _pids,
    "io": lambda texts: io_v2(texts["io.stat"]),
    "pressure": pressure,
}
_V1 = {
    "cpu": _cpu_v1,
    "memory": _memory_v1,
    "pids": _pids,
    "io": lambda texts: io_v1(
        texts["blkio.throttle.io_service_bytes_recursive"], texts["blkio.throttle.io_serviced_recursive"]
    ),
    "pressure": pressure,
}
