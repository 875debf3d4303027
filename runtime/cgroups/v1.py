"""A cgroup on v1: the same path in every mounted hierarchy (admin-guide/cgroup-v1/)."""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import time
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from runtime.cgroups import files, kill
from runtime.cgroups.layout import Layout
from runtime.errors import CapabilityError, StateError, SyscallError

if TYPE_CHECKING:
    from runtime.cgroups import devices
    from runtime.cgroups.reading.reader import Reader
    from runtime.cgroups.reading.stats import Stats

_FREEZE_SECONDS = 2.0
_THAW_EVERY = 50  # checks that find FREEZING before a short thaw, which lets a blocking process continue

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
        self._new = False  # created by us and not limited since, so it has the kernel's defaults
        # The freezer hierarchy contains all processes. Without one (rare), use any other.
        self._main = self._dirs.get("freezer") or self._places[0]

    def directory(self, controller: str) -> str | None:
        return self._dirs.get(controller)

    def create(self) -> None:
        """mkdir -p in every hierarchy; a failure removes what was created.

        An existing cgroup is reused and thawed, because a frozen leftover would silently stop its next user.
        """
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
        """Set what a new v1 cgroup needs before a process can join: CPUs and memory nodes, and before Linux 5.11
        hierarchical memory accounting."""
        cpuset, memory = self._dirs.get("cpuset"), self._dirs.get("memory")
        if cpuset:  # also if it existed: its creator may have been killed between mkdir and this
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
        """No effect: delegation is not secure on v1."""

    def attach(self, pid: int) -> None:
        """Move a process in; pid 0 is the caller.

        A single-threaded caller is moved through `tasks`, because only that avoids the kernel's global thread-group
        lock, which can take milliseconds.
        """
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
        """Freeze all processes; returns once they are frozen. StateError if that takes longer than _FREEZE_SECONDS."""
        place = self._freezer()
        deadline = time.monotonic() + _FREEZE_SECONDS
        looks = 0
        while True:
            # Write it again for each check, to freeze what was forked meanwhile.
            files.write(f"{place}/freezer.state", "FROZEN")
            if files.read(f"{place}/freezer.state").strip() == "FROZEN":
                return
            looks += 1
            if time.monotonic() >= deadline:
                files.write(f"{place}/freezer.state", "THAWED")
                raise StateError(
                    f"cgroup {self.path} did not freeze within {_FREEZE_SECONDS:g} s", retriable=True
                )
            if looks % _THAW_EVERY == 0:
                files.write(f"{place}/freezer.state", "THAWED")
            time.sleep(kill.STEP)

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
        """Kill all processes here and below; True if none remains.

        The cgroup is frozen first, so that no process forks between listing and killing, and thawed so that they can
        die.
        """
        return kill.until_empty(self._all_pids, time.monotonic() + timeout, round_=self._kill_round)

    def _all_pids(self) -> list[int]:
        """The pids in every hierarchy, because a process may have been moved out of one of them."""
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
            kill.signal_all(self._all_pids())
        finally:
            self.thaw_all()

    def thaw_all(self) -> None:
        """Thaw the cgroup and its descendants. A container may have frozen its own child cgroups, and frozen processes
        do not die."""
        place = self._dirs.get("freezer")
        for directory in reversed(files.tree(place)) if place else ():
            with contextlib.suppress(OSError):
                files.write(f"{directory}/freezer.state", "THAWED")

    def remove(self, timeout: float = 2.0) -> None:
        """Kill the remaining processes and remove the cgroup from every hierarchy, descendants first.

        Do nothing if it is missing. SyscallError(EBUSY) if it cannot be removed within `timeout` seconds.
        """
        if self.remove_empty():
            return
        deadline = time.monotonic() + timeout
        busy: SyscallError | None = None
        if self._all_pids():
            self.kill(timeout)
        for place in self._places:
            try:
                kill.remove_tree(place, deadline)
            except SyscallError as error:
                busy = busy or error
        if busy:
            raise busy

    def remove_empty(self) -> bool:
        """The fast path for a cgroup without processes and descendants, as most are. False: at least one hierarchy
        still has it."""
        return all(kill.remove_empty(place) for place in self._places)

    def oom_kills(self) -> int:
        """How many processes the OOM killer has killed here and below. v1 counts per cgroup, so they are added up. 0
        before Linux 4.13, which does not count them."""
        memory = self._dirs.get("memory")
        if memory is None:
            return 0
        return sum(_oom_kills(place) for place in files.tree(memory))

    def stat_paths(self) -> dict[str, str | None]:
        """The files that `stats.stats_v1` needs: name → path, None if not available."""
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
    """Copy the parent's CPUs and memory nodes to a new v1 cpuset, parents first (cpusets.rst).

    A new cpuset has none and accepts no process. cgroup.clone_children, which is inherited, makes the kernel do the
    same for its children.
    """
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
    """Whether memory accounting is hierarchical at the root, as always since Linux 5.11. Children inherit it."""
    return files.read_or(f"{mount}/memory.use_hierarchy", "1")[:1] == "1"


def _oom_kills(place: str) -> int:
    lines = files.read_or(f"{place}/memory.oom_control").split()
    return int(lines[lines.index("oom_kill") + 1]) if "oom_kill" in lines else 0


def _check_before_update(resources: Mapping[str, Any], place: str | None) -> None:
    """memory.checkBeforeUpdate of the runtime-spec: reject a limit below the present usage instead of trying to set
    it."""
    memory = resources.get("memory") or {}
    limit = memory.get("limit") or 0
    if not memory.get("checkBeforeUpdate") or limit <= 0 or place is None:
        return
    usage = files.number(files.read(f"{place}/memory.usage_in_bytes"))
    if usage > limit:
        raise StateError(f"memory.limit {limit} is below the {usage} bytes in use (checkBeforeUpdate)")


def _without_needless(warnings: list[str]) -> list[str]:
    """Drop the warning about missing swap accounting on a machine without swap."""
    if any("memsw" in warning for warning in warnings) and files.read_or("/proc/swaps").count("\n") <= 1:
        return [warning for warning in warnings if "memsw" not in warning]
    return warnings
