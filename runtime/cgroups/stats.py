"""What a cgroup has used: the numbers, the readers that keep their descriptors, the parsers.

A scrape of hundreds of containers is all open/read/close; a `Reader` opens its files once and then costs one pread
each (measured: a third of the time). A kept descriptor does not hold the cgroup back from rmdir; afterwards it
gives ENODEV, told as NotFoundError. Limits are read with the usage, since both are live values of the kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from runtime.cgroups import files
from runtime.errors import NotFoundError, SyscallError

_SIZE = 16384
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


class Reader:
    """A cgroup's statistics, again and again. `parse` gets the text of each file by name ("" when absent).

    Context manager; close() gives the descriptors back (about 15 a container: spend them knowingly).
    """

    def __init__(
        self, about: str, paths: Mapping[str, str | None], parse: Callable[[Mapping[str, str]], Stats]
    ) -> None:
        self._about = about
        self._parse = parse
        self._fds: dict[str, int] = {}
        self._last: tuple[dict[str, bytes], Stats] | None = None
        for name, path in paths.items():
            if path is None:
                continue
            try:
                self._fds[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.close()
                raise SyscallError(error.errno or 0, "open", path) from error
        if not self._fds:
            raise NotFoundError(f"no cgroup {about}")

    def read(self) -> Stats:
        """Raises NotFoundError once the cgroup is removed. The very same object as last time when nothing has changed:
        most containers do nothing most of the time, and parsing is a third of the cost."""
        raw: dict[str, bytes] = {}
        for name, fd in self._fds.items():
            try:
                raw[name] = os.pread(fd, _SIZE, 0)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    raise NotFoundError(f"cgroup {self._about} is gone") from error
                if error.errno != errno.EOPNOTSUPP:  # PSI switched off at boot: as if the file were not there
                    raise SyscallError(
                        error.errno or 0, "pread", f"{name} of cgroup {self._about}"
                    ) from error
        if self._last is not None and self._last[0] == raw:
            return self._last[1]
        found = self._parse(_Texts((name, text.decode("ascii", "replace")) for name, text in raw.items()))
        self._last = (raw, found)
        return found

    @property
    def descriptors(self) -> int:
        """How many it keeps."""
        return len(self._fds)

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Texts(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return ""


def parse_v2(texts: Mapping[str, str]) -> Stats:
    """From cgroup v2 files, keyed by their names."""
    return Stats(
        cpu_v2(files.keyed(texts["cpu.stat"])),
        _memory_v2(texts),
        PidsStats(files.number(texts["pids.current"]), files.number(texts["pids.max"])),
        io_v2(texts["io.stat"]),
        pressure(texts),
    )


def parse_v1(texts: Mapping[str, str]) -> Stats:
    """From v1 files keyed by their names; `unified.cpu.stat` and the PSI files come from a hybrid's cgroup2 side."""
    return Stats(
        _cpu_v1(texts),
        _memory_v1(texts),
        PidsStats(files.number(texts["pids.current"]), files.number(texts["pids.max"])),
        io_v1(
            texts["blkio.throttle.io_service_bytes_recursive"], texts["blkio.throttle.io_serviced_recursive"]
        ),
        pressure(texts),
    )


def cpu_v2(stat: Mapping[str, int]) -> CpuStats:
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
    stat, events = files.keyed(texts["memory.stat"]), files.keyed(texts["memory.events"])
    get = stat.get
    # The root has no memory.current; what is charged to it is about anon + file.
    usage = files.number(texts["memory.current"]) or get("anon", 0) + get("file", 0)
    return MemoryStats(
        usage=usage,
        working_set=max(0, usage - get("inactive_file", 0)),
        rss=get("anon", 0),
        cache=get("file", 0),
        swap=files.number(texts["memory.swap.current"]),
        mapped_file=get("file_mapped", 0),
        kernel=get("kernel", 0),
        active_file=get("active_file", 0),
        inactive_file=get("inactive_file", 0),
        file_dirty=get("file_dirty", 0),
        file_writeback=get("file_writeback", 0),
        limit=files.number(texts["memory.max"]),
        max_usage=files.number(texts["memory.peak"]),
        failcnt=events.get("max", 0),
        oom_kills=events.get("oom_kill", 0),
        pgfault=get("pgfault", 0),
        pgmajfault=get("pgmajfault", 0),
        pgscan=get("pgscan", 0),
        pgsteal=get("pgsteal", 0),
        workingset_refault_anon=get("workingset_refault_anon", 0),
        workingset_refault_file=get("workingset_refault_file", 0),
        events_high=events.get("high", 0),
        events_max=events.get("max", 0),
    )


def _memory_v1(texts: Mapping[str, str]) -> MemoryStats:
    """The total_* keys include descendants, as usage_in_bytes does."""
    stat = files.keyed(texts["memory.stat"])
    get = stat.get
    usage = files.number(texts["memory.usage_in_bytes"])
    return MemoryStats(
        usage=usage,
        working_set=max(0, usage - get("total_inactive_file", 0)),
        rss=get("total_rss", 0),
        cache=get("total_cache", 0),
        swap=get("total_swap", 0),
        mapped_file=get("total_mapped_file", 0),
        kernel=files.number(texts["memory.kmem.usage_in_bytes"]),
        active_file=get("total_active_file", 0),
        inactive_file=get("total_inactive_file", 0),
        file_dirty=get("total_dirty", 0),
        file_writeback=get("total_writeback", 0),
        limit=files.number(texts["memory.limit_in_bytes"]),
        max_usage=files.number(texts["memory.max_usage_in_bytes"]),
        # with memory+swap no higher than memory, it is that limit which is hit
        failcnt=files.number(texts["memory.failcnt"]) + files.number(texts["memory.memsw.failcnt"]),
        oom_kills=files.keyed(texts["memory.oom_control"]).get("oom_kill", 0),
        pgfault=get("total_pgfault", 0),
        pgmajfault=get("total_pgmajfault", 0),
        workingset_refault_anon=get("total_workingset_refault_anon", 0),
        workingset_refault_file=get("total_workingset_refault_file", 0),
    )


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
    return PressureStats(
        *(parse_pressure(texts[f"{resource}.pressure"]) for resource in ("cpu", "memory", "io"))
    )


def parse_pressure(text: str) -> Pressure | None:
    """`some avg10=0.00 avg60=0.00 avg300=0.00 total=12` and the same with `full`."""
    totals = {line.split(" ", 1)[0]: int(line.rpartition("total=")[2]) for line in text.splitlines() if line}
    return Pressure(totals.get("some", 0), totals.get("full", 0)) if totals else None
