"""Reads a cgroup's statistics again and again, each time only what can have changed since.

A scrape of hundreds of containers is all system calls, so descriptors are kept (open/read/close is three times a pread)
and most files of a cgroup in which nothing ran are left alone: peaks, failures, kills, throttling, processes and a
v1's I/O are counted by its own tasks only, and a task that runs uses processor time. What others can change (file cache
that another cgroup's reader ages, kswapd, writeback on v2) is read each time.

A kept descriptor does not hold the cgroup back from rmdir; afterwards it gives ENODEV, told as NotFoundError.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from runtime.cgroups import files
from runtime.cgroups.reading import texts
from runtime.cgroups.reading.stats import Stats, Values, stats_v1, stats_v2
from runtime.errors import NotFoundError, SyscallError

#: Bytes that are asked for at first: what fits where small objects lie, so that no reading goes through malloc.
_SMALL = 448
#: Seconds after the last sign of life until all that it did has been counted: PSI's totals are brought up to date every
#: 2 s (kernel/sched/psi.c, PSI_FREQ), the time of a task that still runs at each tick.
SETTLE = 3.0
#: Files of which the machine has a total: one that waits for memory or a disk, or is killed for want of memory, uses no
#: processor time meanwhile, but is counted there.
TOTALS = ("memory.pressure", "io.pressure", "memory.oom_control")


class Join(Protocol):
    """stats_v1, stats_v2."""

    def __call__(self, values: Values, before: Stats | None = ..., changed: Iterable[str] = ...) -> Stats: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What takes the files apart, what their values come to, and when which are read: `clocks` and `signs` first, what
    is not named at all only when these moved."""

    apart: Mapping[str, Callable[[bytes], Any]]
    join: Join
    clocks: frozenset[str]  # processor time; the first that is there is enough
    signs: frozenset[str]
    always: frozenset[str]
    limits: frozenset[str]  # change when somebody writes them: opened when asked for, no descriptor is kept
    needs: Mapping[str, str]  # file → the limit without which it never moves
    follows: Mapping[str, str]  # file → the one that moves whenever it does


V1 = Plan(
    texts.V1,
    stats_v1,
    frozenset({"unified.cpu.stat", "cpuacct.usage"}),
    frozenset({"memory.usage_in_bytes"}),
    frozenset({"memory.stat"}),
    frozenset({"memory.limit_in_bytes", "pids.max", "cpu.cfs_quota_us"}),
    {
        "cpu.stat": "cpu.cfs_quota_us",
        "memory.failcnt": "memory.limit_in_bytes",
        "memory.memsw.failcnt": "memory.limit_in_bytes",  # which is never above the limit with swap
    },
    # block/blk-throttle.c, blk_throtl_bio: an I/O is counted with its bytes, or once more when it is split
    {"blkio.throttle.io_service_bytes_recursive": "blkio.throttle.io_serviced_recursive"},
)
V2 = Plan(
    texts.V2,
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
    """Some of a cgroup's files, open, and when (monotonic seconds) they were last read."""

    fds: list[tuple[str, int]] = field(default_factory=list)
    at: float = float("-inf")


class Reader:
    """A cgroup's statistics. `paths`: each file by its name, None where there is none.

    Context manager; close() gives the descriptors back (about 15 a container: spend them knowingly).
    """

    def __init__(self, about: str, paths: Mapping[str, str | None], plan: Plan) -> None:
        self._about = about
        self._plan = plan
        self._limits = {name: path for name in plan.limits if (path := paths.get(name))}
        self._signs, self._always, self._rest = _Files(), _Files(), _Files()
        self._totals = {name: _Files() for name in TOTALS}
        self._needing: dict[str, _Files] = {}  # limit → what it is needed for
        self._following: dict[str, _Files] = {}  # file → what moves with it
        self._ran = float("-inf")  # when a sign was last seen to have moved
        self._raw: dict[str, bytes] = {}
        self._values: dict[str, Any] = {}
        self._found: Stats | None = None
        self.awake = True  # whether the last look read everything
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
            place = self._needing.setdefault(plan.needs[name], _Files())
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
        """The very same object as last time when nothing has changed. Without `now` (monotonic seconds) everything is
        read. With it, what only the cgroup's own tasks change is read when they ran less than `SETTLE` before the last
        such reading, limits when `limits` says so, and a file of `TOTALS` unless the machine's own total last moved at
        `moved` of its name. Raises NotFoundError once the cgroup is removed."""
        changed: set[str] = set()
        whole = now is None or self._found is None
        self._look(self._signs, changed)
        if changed and now is not None:
            self._ran = now
        self.awake = whole or not self._clocked or self._rest.at < self._ran + SETTLE
        if limits or whole:
            self._look_at_limits(changed)  # first: they say what cannot move
        self._look(self._always, changed)
        if self.awake:
            self._look_at_rest(changed, whole=whole)
            self._rest.at = now if now is not None else self._rest.at
        for name, place in self._totals.items():
            if now is None or moved is None or place.at < moved.get(name, now) + SETTLE:
                self._look(place, changed)
                place.at = now if now is not None else place.at
        if changed or self._found is None:
            self._found = self._plan.join(self._values, self._found, changed)
        return self._found

    def _look_at_rest(self, changed: set[str], *, whole: bool) -> None:
        self._look(self._rest, changed)
        for limit, place in self._needing.items():
            if whole or self._values.get(limit):
                self._look(place, changed)
        for name, place in self._following.items():
            if whole or name in changed:
                self._look(place, changed)

    def _look(self, place: _Files, changed: set[str]) -> None:
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
            self._leave_out(place, name)  # PSI switched off at boot: as if the file were not there
            self._look(place, changed)

    def _take(self, name: str, text: bytes, changed: set[str]) -> None:
        self._raw[name] = text
        self._values[name] = self._plan.apart.get(name, texts.number)(text)
        changed.add(name)

    @staticmethod
    def _leave_out(place: _Files, name: str) -> None:
        for one in [one for one in place.fds if one[0] == name]:
            place.fds.remove(one)
            os.close(one[1])

    def _look_at_limits(self, changed: set[str]) -> None:
        for name, path in self._limits.items():
            text = files.read_or(path).encode()
            if self._raw.get(name) != text:
                self._take(name, text, changed)

    @property
    def descriptors(self) -> int:
        """How many it keeps."""
        return sum(len(place.fds) for place in self._places())

    def _places(self) -> Iterable[_Files]:
        more = (self._totals, self._needing, self._following)
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


#: Files that were longer than `_SMALL`, with the bytes to ask for.
_sizes: dict[str, int] = {}


def _whole(name: str, fd: int, text: bytes) -> bytes:
    """A long file's text, of which `text` is the beginning or all."""
    while len(text) >= _sizes.get(name, _SMALL):
        _sizes[name] = 2 * len(text)
        text = os.pread(fd, _sizes[name], 0)
    return text
