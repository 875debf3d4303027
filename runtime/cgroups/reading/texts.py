"""What each of a cgroup's statistics files says: bytes → a number, a tuple, devices.

Written for a scrape that reads hundreds of cgroups: a file is taken apart only when its bytes are others than before,
and of the forty lines of memory.stat only those are looked at that somebody wants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

_NO_LIMIT = 1 << 62  # v1 says "none" with a number close to 2^63


class IoStats(NamedTuple):
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


class Pressure(NamedTuple):
    """Total stall times of one resource (admin-guide: accounting/psi.rst)."""

    some_us: int = 0
    full_us: int = 0


class Picked:
    """The values of some keys of `key value` lines, in the order in which the keys are named; 0 for one that is not
    there. A kernel says its lines in one order, so where each stands is found once for each number of lines."""

    def __init__(self, *keys: str) -> None:
        self._keys = [key.encode() for key in keys]
        self.nothing = (0,) * len(keys)
        self._known: dict[int, tuple[list[bytes], Callable[[list[bytes]], tuple[bytes, ...]]]] = {}

    def __call__(self, text: bytes) -> tuple[int, ...]:
        words = text.split()
        words.append(b"0")
        known = self._known.get(len(words))
        if known is None or known[0] != words[::2]:
            known = self._learn(words)
        return tuple(map(int, known[1](words)))

    def _learn(self, words: list[bytes]) -> tuple[list[bytes], Callable[[list[bytes]], tuple[bytes, ...]]]:
        names = words[::2]
        places = [2 * names.index(key) + 1 if key in names else len(words) - 1 for key in self._keys]
        found = self._known[len(words)] = names, itemgetter(*places)
        return found


def number(text: bytes) -> int:
    """A single value; `max`, an empty file and v1's "no limit" are 0."""
    if not text[:1].isdigit():
        return 0
    value = int(text)
    return 0 if value >= _NO_LIMIT else value


def pressure(text: bytes) -> Pressure | None:
    """`some avg10=0.00 avg60=0.00 avg300=0.00 total=12` and, but for old kernels' CPU, the same with `full`."""
    if not text:
        return None
    some, _, full = text.partition(b"full")
    return Pressure(int(some.rpartition(b"total=")[2]), int(full.rpartition(b"total=")[2] or 0))


def io_stat(text: bytes) -> tuple[IoStats, ...]:
    """io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0` and perhaps cost.*; a line without numbers is
    a device that never did anything."""
    found = []
    for line in text.decode("ascii", "replace").splitlines():
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


Operations = tuple[tuple[str, str, int], ...]


def blkio(text: bytes) -> Operations:
    """blkio.throttle.io_*: (device, operation, number) of each `8:0 Read 4096` line; not the `Total` of all."""
    if text.startswith(b"Total"):
        return ()
    lines = (line.split() for line in text.decode("ascii", "replace").splitlines())
    return tuple((words[0], words[1], int(words[2])) for words in lines if len(words) == 3)


_KINDS = {
    "Read": ("rbytes", "rios"),
    "Write": ("wbytes", "wios"),
    "Discard": ("dbytes", "dios"),
    "Sync": ("sync_bytes", ""),
    "Async": ("async_bytes", ""),
}


def io_v1(service_bytes: Operations, serviced: Operations) -> tuple[IoStats, ...]:
    devices: dict[tuple[int, int], dict[str, int]] = {}
    for at, operations in enumerate((service_bytes, serviced)):
        for device, kind, value in operations:
            if kind in _KINDS and (name := _KINDS[kind][at]):
                major, _, minor = device.partition(":")
                devices.setdefault((int(major), int(minor)), {})[name] = value
    return tuple(IoStats(*device, **numbers) for device, numbers in sorted(devices.items()))


CPU = Picked(
    "usage_usec",
    "user_usec",
    "system_usec",
    "nr_periods",
    "nr_throttled",
    "throttled_usec",
    "nr_bursts",
    "burst_usec",
)
CPU_V1 = Picked("nr_periods", "nr_throttled", "throttled_time", "nr_bursts", "burst_time")
TICKS = Picked("user", "system")
MEMORY = Picked(
    "anon",
    "file",
    "file_mapped",
    "kernel",
    "active_file",
    "inactive_file",
    "file_dirty",
    "file_writeback",
    "pgfault",
    "pgmajfault",
    "pgscan",
    "pgsteal",
    "workingset_refault_anon",
    "workingset_refault_file",
)
#: The total_* keys include descendants, as usage_in_bytes does.
MEMORY_V1 = Picked(
    "total_rss",
    "total_cache",
    "total_swap",
    "total_mapped_file",
    "total_active_file",
    "total_inactive_file",
    "total_dirty",
    "total_writeback",
    "total_pgfault",
    "total_pgmajfault",
    "total_workingset_refault_anon",
    "total_workingset_refault_file",
)
EVENTS = Picked("high", "max", "oom_kill")
KILLS = Picked("oom_kill", "under_oom")

_PRESSURES: dict[str, Callable[[bytes], Any]] = {
    "cpu.pressure": pressure,
    "memory.pressure": pressure,
    "io.pressure": pressure,
}
#: File → what takes it apart; one that is not here is a single number.
V2: Mapping[str, Callable[[bytes], Any]] = {
    "cpu.stat": CPU,
    "memory.stat": MEMORY,
    "memory.events": EVENTS,
    "io.stat": io_stat,
    **_PRESSURES,
}
V1: Mapping[str, Callable[[bytes], Any]] = {
    "unified.cpu.stat": CPU,
    "cpu.stat": CPU_V1,
    "cpuacct.stat": TICKS,
    "memory.stat": MEMORY_V1,
    "memory.oom_control": KILLS,
    "blkio.throttle.io_service_bytes_recursive": blkio,
    "blkio.throttle.io_serviced_recursive": blkio,
    **_PRESSURES,
}
