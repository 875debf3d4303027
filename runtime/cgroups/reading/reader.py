"""Read a cgroup's statistics repeatedly, each time only the files that can have changed.

A scrape of hundreds of containers consists mostly of system calls. So descriptors are kept open (open/read/close takes
three times as long as pread), and most files of a cgroup whose tasks did not run are skipped. Only a cgroup's own tasks
change its peaks, failures, kills, throttling, process counts and v1's I/O, and a running task uses CPU time. Files that
others can change are read each time (file cache that other cgroups' reads age, kswapd, writeback on v2).

An open descriptor does not prevent rmdir. Afterwards reads fail with ENODEV, which becomes NotFoundError.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from runtime.cgroups import files
from runtime.cgroups.reading import parsers
from runtime.cgroups.reading.stats import Stats, Values, stats_v1, stats_v2
from runtime.errors import NotFoundError, SyscallError

#: Bytes requested at first. A result of this size is allocated by Python's small-object allocator, without malloc.
_SMALL = 448
#: Seconds after the last activity until all of it has been counted: PSI totals are updated every 2 s
#: (kernel/sched/psi.c, PSI_FREQ), the CPU time of a running task at each tick.
SETTLE = 3.0
#: Files for which the machine also has a total. A task that waits for memory or a disk, or that the OOM killer kills,
#: uses no CPU time meanwhile, but it changes that total.
TOTALS = ("memory.pressure", "io.pressure", "memory.oom_control")


class Join(Protocol):
    """The type of stats_v1 and stats_v2."""

    def __call__(self, values: Values, before: Stats | None = ..., changed: Iterable[str] = ...) -> Stats: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """How the files are parsed and combined, and when each is read.

    `clocks` and `signs` are read first. Files in none of these sets are read only when `clocks` or `signs` have
    changed.
    """

    parsers: Mapping[str, Callable[[bytes], Any]]
    join: Join
    clocks: frozenset[str]  # CPU time; the first existing file is sufficient
    signs: frozenset[str]
    always: frozenset[str]
    limits: frozenset[str]  # change only when written: opened for each reading, no descriptor is kept
    needs: Mapping[str, str]  # file → the limit without which it never changes
    follows: Mapping[str, str]  # file → another file that changes whenever it does


V1 = Plan(
    parsers.V1,
    stats_v1,
    frozenset({"unified.cpu.stat", "cpuacct.usage"}),
    frozenset({"memory.usage_in_bytes"}),
    frozenset({"memory.stat"}),
    frozenset({"memory.limit_in_bytes", "pids.max", "cpu.cfs_quota_us"}),
    {
        "cpu.stat": "cpu.cfs_quota_us",
        "memory.failcnt": "memory.limit_in_bytes",
        "memory.memsw.failcnt": "memory.limit_in_bytes",  # never above the limit with swap
    },
    # block/blk-throttle.c, blk_throtl_bio: an I/O is counted together with its bytes, and once more if it is split
    {"blkio.throttle.io_service_bytes_recursive": "blkio.throttle.io_serviced_recursive"},
)
V2 = Plan(
    parsers.V2,
    stats_v2,
    frozenset({"cpu.stat"}),
    frozenset({"memory.current"}),
    frozenset({"memory.stat", "memory.swap.current", "io.stat"}),
    frozenset({"memory.max", "pids.max"}),
    {},
    {},
)


@dataclass(slots=True)
class _Files:
    """Open files of a cgroup, and when they were last read (monotonic seconds)."""

    fds: list[tuple[str, int]] = field(default_factory=list)
    at: float = float("-inf")


class Reader:
    """Reads a cgroup's statistics. `paths`: file name → path, None if the file is not available.

    A context manager. close() closes the descriptors, about 15 per container.
    """

    def __init__(self, about: str, paths: Mapping[str, str | None], plan: Plan) -> None:
        self._about = about
        self._plan = plan
        self._limits = {name: path for name in plan.limits if (path := paths.get(name))}
        self._signs, self._always, self._rest = _Files(), _Files(), _Files()
        self._totals = {name: _Files() for name in TOTALS}
        self._dependent: dict[str, _Files] = {}  # limit → the files that need it
        self._following: dict[str, _Files] = {}  # file → the files that change with it
        self._ran = float("-inf")  # when `clocks` or `signs` last changed
        self._raw: dict[str, bytes] = {}
        self._values: dict[str, Any] = {}
        self._found: Stats | None = None
        self.awake = True  # whether the last reading included all files
        for name, path in paths.items():
            if path is not None and name not in plan.limits:
                self._open(name, path)
        if not self.descriptors:
            raise NotFoundError(f"no cgroup {about}")
        self._clocked = any(name in plan.clocks for name, _ in self._signs.fds)

    def _open(self, name: str, path: str) -> None:
        plan = self._plan
        if name in plan.clocks | plan.signs:
            place = self._signs
        elif name in plan.always:
            place = self._always
        elif name in plan.needs:
            place = self._dependent.setdefault(plan.needs[name], _Files())
        elif name in plan.follows:
            place = self._following.setdefault(plan.follows[name], _Files())
        else:
            place = self._totals.get(name, self._rest)
        try:
            place.fds.append((name, os.open(path, os.O_RDONLY | os.O_CLOEXEC)))
        except FileNotFoundError:
            return
        except OSError as error:
            self.close()
            raise SyscallError(error.errno or 0, "open", path) from error

    def read(
        self, now: float | None = None, *, limits: bool = False, moved: Mapping[str, float] | None = None
    ) -> Stats:
        """Read the statistics. Returns the same object as last time if nothing has changed.

        Without `now` (monotonic seconds) all files are read. With `now`, files that only the cgroup's own tasks change
        are read if those tasks ran less than SETTLE seconds before the last such reading, and limits are read if
        `limits` is set. A file of TOTALS is skipped if its last reading was at least SETTLE seconds after
        `moved[name]`, when the machine's own total last changed. Raises NotFoundError once the cgroup is removed.
        """
        changed: set[str] = set()
        whole = now is None or self._found is None
        self._read_files(self._signs, changed)
        if changed and now is not None:
            self._ran = now
        self.awake = whole or not self._clocked or self._rest.at < self._ran + SETTLE
        if limits or whole:
            self._read_limits(changed)  # first, because they tell which files cannot have changed
        self._read_files(self._always, changed)
        if self.awake:
            self._read_rest(changed, whole=whole)
            self._rest.at = now if now is not None else self._rest.at
        for name, place in self._totals.items():
            if now is None or moved is None or place.at < moved.get(name, now) + SETTLE:
                self._read_files(place, changed)
                place.at = now if now is not None else place.at
        if changed or self._found is None:
            self._found = self._plan.join(self._values, self._found, changed)
        return self._found

    def stalls(self) -> dict[str, dict[str, parsers.Stalls]]:
        """Read the PSI files with their averages: resource → kind → line. They decay while nothing runs, so that they
        are read each time. Resources for which this kernel has no PSI are left out."""
        found = {}
        for name, fd in [one for place in self._places() for one in place.fds]:
            if not name.endswith(".pressure"):
                continue
            try:
                found[name.removesuffix(".pressure")] = parsers.stalls(os.pread(fd, _SMALL, 0))
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.EOPNOTSUPP):
                    raise SyscallError(
                        error.errno or 0, "pread", f"{name} of cgroup {self._about}"
                    ) from error
        return found

    def _read_rest(self, changed: set[str], *, whole: bool) -> None:
        self._read_files(self._rest, changed)
        for limit, place in self._dependent.items():
            if whole or self._values.get(limit):
                self._read_files(place, changed)
        for name, place in self._following.items():
            if whole or name in changed:
                self._read_files(place, changed)

    def _read_files(self, place: _Files, changed: set[str]) -> None:
        raw, pread, name = self._raw, os.pread, ""
        try:
            for name, fd in place.fds:
                text = pread(fd, _sizes.get(name, _SMALL), 0)
                if raw.get(name) != text:
                    self._take(name, text if len(text) < _SMALL else _whole(name, fd, text), changed)
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise NotFoundError(f"cgroup {self._about} is gone") from error
            if error.errno != errno.EOPNOTSUPP:
                what = f"{name} of cgroup {self._about}"
                raise SyscallError(error.errno or 0, "pread", what) from error
            self._drop(place, name)  # PSI is disabled at boot: treat the file as missing
            self._read_files(place, changed)

    def _take(self, name: str, text: bytes, changed: set[str]) -> None:
        self._raw[name] = text
        self._values[name] = self._plan.parsers.get(name, parsers.number)(text)
        changed.add(name)

    @staticmethod
    def _drop(place: _Files, name: str) -> None:
        for one in [one for one in place.fds if one[0] == name]:
            place.fds.remove(one)
            os.close(one[1])

    def _read_limits(self, changed: set[str]) -> None:
        for name, path in self._limits.items():
            text = files.read_or(path).encode()
            if self._raw.get(name) != text:
                self._take(name, text, changed)

    @property
    def descriptors(self) -> int:
        """How many descriptors are open."""
        return sum(len(place.fds) for place in self._places())

    def _places(self) -> Iterable[_Files]:
        more = (self._totals, self._dependent, self._following)
        return (self._signs, self._always, self._rest, *(place for each in more for place in each.values()))

    def close(self) -> None:
        for place in self._places():
            for _, fd in place.fds:
                os.close(fd)
            place.fds.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


#: File name → bytes to request, for files that were longer than `_SMALL`.
_sizes: dict[str, int] = {}


def _whole(name: str, fd: int, text: bytes) -> bytes:
    """The whole text of a long file. `text`: its beginning."""
    while len(text) >= _sizes.get(name, _SMALL):
        _sizes[name] = 2 * len(text)
        text = os.pread(fd, _sizes[name], 0)
    return text
