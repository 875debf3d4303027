"""Parsers for a cgroup's statistics files: bytes → a number, a tuple, devices.

They are optimized for a scrape of hundreds of cgroups. A file is parsed only when its bytes have changed, and of the
forty lines of memory.stat only the needed ones are converted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

_NO_LIMIT = 1 << 62  # v1's value for "no limit" is close to 2^63


class IoStats(NamedTuple):
    """The I/O of a block device."""

    major: int
    minor: int
    rbytes: int = 0
    wbytes: int = 0
    rios: int = 0
    wios: int = 0
    dbytes: int = 0
    dios: int = 0
    sync_bytes: int = 0  # only v1 counts sync and async separately
    async_bytes: int = 0
    cost_usage_us: int = 0  # v2's io.cost controller, if enabled
    cost_wait_us: int = 0
    cost_indebt_us: int = 0
    cost_indelay_us: int = 0


class Pressure(NamedTuple):
    """The total stall times of a resource (accounting/psi.rst)."""

    some_us: int = 0
    full_us: int = 0


class Stalls(NamedTuple):
    """A line of a PSI file: averages over 10, 60 and 300 seconds in percent, and the total in microseconds."""

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    total_us: int = 0


class KeyedValues:
    """Extracts the values of given keys from `key value` lines, in the order of the keys; 0 for a missing key.

    A kernel writes the lines in a fixed order, so their positions are determined once per number of lines.
    """

    def __init__(self, *keys: str) -> None:
        self._keys = [key.encode() for key in keys]
        self.zeros = (0,) * len(keys)
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
    """Parse a single value. `max`, an empty file and v1's value for "no limit" are 0."""
    if not text[:1].isdigit():
        return 0
    value = int(text)
    return 0 if value >= _NO_LIMIT else value


def pressure(text: bytes) -> Pressure | None:
    """Parse `some avg10=0.00 avg60=0.00 avg300=0.00 total=12` and the same with `full`, which old kernels lack for CPU.
    None if empty."""
    if not text:
        return None
    some, _, full = text.partition(b"full")
    return Pressure(int(some.rpartition(b"total=")[2]), int(full.rpartition(b"total=")[2] or 0))


def stalls(text: bytes) -> dict[str, Stalls]:
    """Parse a PSI file with its averages: "some" and, unless an old kernel has none for CPU, "full"."""
    found = {}
    for line in text.decode("ascii", "replace").splitlines():
        kind, *words = line.split()
        value = dict(word.split("=", 1) for word in words)
        found[kind] = Stalls(
            float(value["avg10"]), float(value["avg60"]), float(value["avg300"]), int(value["total"])
        )
    return found


def io_stat(text: bytes) -> tuple[IoStats, ...]:
    """Parse io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`, optionally with cost.*. A line without
    numbers is a device without I/O; it is left out."""
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
    """Parse blkio.throttle.io_*: (device, operation, number) of each line such as `8:0 Read 4096`, without the final
    `Total`."""
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


CPU = KeyedValues(
    "usage_usec",
    "user_usec",
    "system_usec",
    "nr_periods",
    "nr_throttled",
    "throttled_usec",
    "nr_bursts",
    "burst_usec",
)
CPU_V1 = KeyedValues("nr_periods", "nr_throttled", "throttled_time", "nr_bursts", "burst_time")
TICKS = KeyedValues("user", "system")
MEMORY = KeyedValues(
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
#: The total_* keys include descendants, like usage_in_bytes.
MEMORY_V1 = KeyedValues(
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
EVENTS = KeyedValues("high", "max", "oom_kill")
KILLS = KeyedValues("oom_kill", "under_oom")

_PRESSURES: dict[str, Callable[[bytes], Any]] = {
    "cpu.pressure": pressure,
    "memory.pressure": pressure,
    "io.pressure": pressure,
}
#: File name → parser. Files that are not listed contain a single number.
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
