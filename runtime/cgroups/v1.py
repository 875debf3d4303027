"""One cgroup on v1: the same path in every mounted hierarchy (admin-guide/cgroup-v1/)."""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import time
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from runtime.cgroups import files, killing
from runtime.cgroups.layout import Layout
from runtime.errors import CapabilityError, StateError, SyscallError

if TYPE_CHECKING:
    from runtime.cgroups import devices
    from runtime.cgroups.reading.reader import Reader
    from runtime.cgroups.reading.stats import Stats

_FREEZE_SECONDS = 2.0
_THAW_EVERY = 50  # looks at FREEZING before a thaw lets the one process through that blocks it

_STAT_FILES = {
    "cpuacct.usage": "cpuacct",
    "cpuacct.stat": "cpuacct",
    "cpu.stat": "cpu",
    "cpu.cfs_quota_us": "cpu",
    "memory.usage_in_bytes": "memory",
    "memory.stat": "memory",
    "memory.limit_in_bytes": "memory",
    "memory.max_usage_in_bytes": "memory",
    "memory.kmem.usage_in_bytes": "memory",
    "memory.failcnt": "memory",
    "memory.memsw.failcnt": "memory",
    "memory.oom_control": "memory",
    "pids.current": "pids",
    "pids.max": "pids",
    "blkio.throttle.io_service_bytes_recursive": "blkio",
    "blkio.throttle.io_serviced_recursive": "blkio",
}


class V1Cgroup:
    """Implements `Cgroup` over the v1 hierarchies of a layout."""

    def __init__(self, path: str, layout: Layout) -> None:
        self.path = path
        self._dirs = {name: mount + path for name, mount in layout.v1.items()}
        self._places = tuple(mount + path for mount in layout.hierarchies)
        self._memory_mount = layout.v1.get("memory", "")
        self._new = False  # made by us and not limited since: it has the kernel's defaults
        # The freezer sees all processes; without one (rare) any other hierarchy does.
        self._main = self._dirs.get("freezer") or self._places[0]

    def directory(self, controller: str) -> str | None:
        return self._dirs.get(controller)

    def create(self) -> None:
        """mkdir -p everywhere. A half-made one is taken back. One that was there is reused, but never frozen: a
        frozen leftover would stop its next user without a word."""
        made: list[str] = []
        try:
            for place in self._places:
                new = files.make(place, made)
                if not new and place == self._dirs.get("freezer"):
                    self._thaw_leftover()
            self._prepare(made)
            self._new = set(self._places).issubset(made)
        except BaseException:
            for place in reversed(made):
                with contextlib.suppress(OSError):
                    os.rmdir(place)
            raise

    def _prepare(self, made: list[str]) -> None:
        """What a new v1 cgroup needs before a process may enter: CPUs and memory nodes, and hierarchical accounting
        on kernels before 5.11 that do not have it always."""
        cpuset, memory = self._dirs.get("cpuset"), self._dirs.get("memory")
        if cpuset:  # made now or before: its maker may have been killed between mkdir and this
            _inherit_cpuset(cpuset, new=cpuset in made)
        for place in () if _always_hierarchical(self._memory_mount) else made:
            if (
                memory
                and memory.startswith(place)
                and files.read_or(f"{place}/memory.use_hierarchy", "1")[0] == "0"
            ):
                files.write(f"{place}/memory.use_hierarchy", "1")

    def apply(self, resources: Mapping[str, Any]) -> list[str]:
        from runtime.cgroups import devices, resources_v1, writes

        plan = resources_v1.plan(resources)
        if self._new:
            plan = resources_v1.without_defaults(plan)
            self._new = False
        _check_before_update(resources, self._dirs.get("memory"))
        warnings = writes.execute(plan, self.directory)
        if "devices" in resources:
            warnings += self._apply_devices(devices.resolve(resources["devices"] or []))
        return _without_needless(warnings)

    def _apply_devices(self, wanted: devices.Access) -> list[str]:
        from runtime.cgroups import devices

        place = self._dirs.get("devices")
        if place is None:
            if wanted == devices.Access(True, {}):
                return []
            return [f"{devices.UNRESTRICTED}: the devices controller is not available here"]
        todo = devices.v1_writes(files.read(f"{place}/devices.list"), wanted)
        for file, pairs in itertools.groupby(todo, key=operator.itemgetter(0)):
            files.write_each(f"{place}/{file}", (value for _, value in pairs))
        return []

    def delegate(self, uid: int) -> None:
        """Not on v1."""

    def attach(self, pid: int) -> None:
        """Move a process; 0 is the caller. A single-threaded caller moving itself goes through `tasks`, the one way
        that does not take the kernel's global thread-group lock (milliseconds when it is cold)."""
        own = pid in (0, os.getpid())
        file, value = ("tasks", "0") if own else ("cgroup.procs", str(pid))
        for place in self._places:
            files.write(f"{place}/{file}", value)

    def pids(self, recursive: bool = True) -> list[int]:
        return files.pids(self._main, recursive=recursive)

    def exists(self) -> bool:
        return os.path.isdir(self._main)

    def into_fd(self) -> int | None:
        return None

    def clone_fd(self) -> int | None:
        return None

    def freeze(self) -> None:
        """Stop all processes; returns when they stand. Raises StateError when the kernel does not get there."""
        place = self._freezer()
        deadline = time.monotonic() + _FREEZE_SECONDS
        looks = 0
        while True:
            # Written again at each look: this catches what was forked meanwhile.
            files.write(f"{place}/freezer.state", "FROZEN")
            if files.read(f"{place}/freezer.state").strip() == "FROZEN":
                return
            looks += 1
            if time.monotonic() >= deadline:
                files.write(f"{place}/freezer.state", "THAWED")
                raise StateError(
                    f"cgroup {self.path} did not freeze in {_FREEZE_SECONDS:g} s", retriable=True
                )
            if looks % _THAW_EVERY == 0:
                files.write(f"{place}/freezer.state", "THAWED")
            time.sleep(killing.STEP)

    def thaw(self) -> None:
        files.write(f"{self._freezer()}/freezer.state", "THAWED")

    def frozen(self) -> bool:
        return files.read_or(f"{self._dirs.get('freezer', '')}/freezer.state").strip() in (
            "FROZEN",
            "FREEZING",
        )

    def _freezer(self) -> str:
        place = self._dirs.get("freezer")
        if place is None:
            raise CapabilityError("pausing needs the freezer controller, which is not mounted")
        return place

    def _thaw_leftover(self) -> None:
        if self.frozen():
            self.thaw()

    def kill(self, timeout: float = 2.0) -> bool:
        """SIGKILL to everything inside and below; True when nothing is left. Frozen first, so that no fork slips
        between the look and the kill; thawed so that they can die."""
        return killing.until_empty(self._all_pids, time.monotonic() + timeout, round_=self._kill_round)

    def _all_pids(self) -> list[int]:
        """From every hierarchy: a process may have been moved out of one of them."""
        found: set[int] = set()
        for place in self._places:
            found.update(files.pids(place, recursive=True))
        return sorted(found)

    def _kill_round(self, seen: list[int]) -> None:
        if os.getpid() in seen:
            raise StateError(f"refusing to kill cgroup {self.path}: the calling process is in it")
        with contextlib.suppress(OSError, StateError, CapabilityError):
            self.freeze()
        try:
            killing.signal_all(self._all_pids())
        finally:
            self.thaw_all()

    def thaw_all(self) -> None:
        """Descendants too: a container may have frozen its own children, and what is frozen here does not die."""
        place = self._dirs.get("freezer")
        for directory in reversed(files.tree(place)) if place else ():
            with contextlib.suppress(OSError):
                files.write(f"{directory}/freezer.state", "THAWED")

    def remove(self, timeout: float = 2.0) -> None:
        """Kill what is inside and rmdir everywhere, descendants first. Missing is fine. Raises SyscallError(EBUSY)
        when something does not go within `timeout` seconds."""
        if self.remove_empty():
            return
        deadline = time.monotonic() + timeout
        busy: SyscallError | None = None
        if self._all_pids():
            self.kill(timeout)
        for place in self._places:
            try:
                killing.remove_tree(place, deadline)
            except SyscallError as error:
                busy = busy or error
        if busy:
            raise busy

    def remove_empty(self) -> bool:
        """The short way, for a cgroup that nothing is left in, as nearly all are. False: it is still there, maybe not
        everywhere."""
        return all(killing.remove_empty(place) for place in self._places)

    def oom_kills(self) -> int:
        """Processes the kernel's OOM killer took here and below. v1 counts each cgroup by itself; 0 on kernels before
        4.13, which do not count."""
        memory = self._dirs.get("memory")
        if memory is None:
            return 0
        return sum(_oom_kills(place) for place in files.tree(memory))

    def stat_paths(self) -> dict[str, str | None]:
        """File name → path, what `stats.stats_v1` is made of."""
        return {
            name: f"{place}/{name}" if (place := self._dirs.get(controller)) else None
            for name, controller in _STAT_FILES.items()
        }

    def reader(self) -> Reader:
        from runtime.cgroups.reading import reader

        return reader.Reader(self.path, self.stat_paths(), reader.V1)

    def stats(self) -> Stats:
        with self.reader() as reader:
            return reader.read()


def _inherit_cpuset(place: str, *, new: bool = False) -> None:
    """A new v1 cpuset is empty and takes no process; give it its parent's, after the parent (cpusets.rst). Its own
    children get theirs from the kernel (cgroup.clone_children, which they inherit too): nothing is to do for them."""
    if new and files.read_or(f"{place}/cpuset.mems").strip():
        return
    above = os.path.dirname(place)
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not new and files.read(f"{place}/{file}").strip():
            continue
        if (value := files.read_or(f"{above}/{file}").strip()) == "" and os.path.exists(f"{above}/{file}"):
            _inherit_cpuset(above)
            value = files.read(f"{above}/{file}").strip()
        if value:
            files.write(f"{place}/{file}", value)
    with contextlib.suppress(SyscallError):
        files.write(f"{place}/cgroup.clone_children", "1")


@cache
def _always_hierarchical(mount: str) -> bool:
    """Whether memory is accounted hierarchically from the root down: always since Linux 5.11. Children inherit it."""
    return files.read_or(f"{mount}/memory.use_hierarchy", "1")[:1] == "1"


def _oom_kills(place: str) -> int:
    lines = files.read_or(f"{place}/memory.oom_control").split()
    return int(lines[lines.index("oom_kill") + 1]) if "oom_kill" in lines else 0


def _check_before_update(resources: Mapping[str, Any], place: str | None) -> None:
    """runtime-spec memory.checkBeforeUpdate: refuse a limit below what is in use, instead of trying."""
    memory = resources.get("memory") or {}
    limit = memory.get("limit") or 0
    if not memory.get("checkBeforeUpdate") or limit <= 0 or place is None:
        return
    usage = files.number(files.read(f"{place}/memory.usage_in_bytes"))
    if usage > limit:
        raise StateError(f"memory.limit {limit} is below the {usage} bytes in use (checkBeforeUpdate)")


def _without_needless(warnings: list[str]) -> list[str]:
    """No swap accounting matters only to a machine that swaps."""
    if any("memsw" in warning for warning in warnings) and files.read_or("/proc/swaps").count("\n") <= 1:
        return [warning for warning in warnings if "memsw" not in warning]
    return warnings
