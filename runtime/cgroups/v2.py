"""A cgroup on v2: a directory of the unified hierarchy (admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runtime.cgroups import files, kill
from runtime.cgroups.layout import Layout
from runtime.errors import CapabilityError, StateError, SyscallError

if TYPE_CHECKING:
    from runtime.cgroups.reading.reader import Reader
    from runtime.cgroups.reading.stats import Stats

# The controllers to enable for children if available. (perf_event is always enabled; misc has no OCI limits.)
_WANTED = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma")
_FREEZE_SECONDS = 2.0
# for kernels before 4.15, which do not list them
_DELEGATED = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]

STAT_FILES = (
    "cpu.stat",
    "memory.current",
    "memory.stat",
    "memory.events",
    "memory.max",
    "memory.peak",
    "memory.swap.current",
    "pids.current",
    "pids.max",
    "io.stat",
    "cpu.pressure",
    "memory.pressure",
    "io.pressure",
)


class V2Cgroup:
    """Implements `Cgroup` over a layout's cgroup2 mount. On hybrid it has few or no controllers."""

    def __init__(self, path: str, layout: Layout) -> None:
        if layout.unified is None:
            raise CapabilityError("no cgroup2 file system is mounted")
        self.path = path
        self._root = layout.unified
        self._offered = layout.v2_controllers
        self._dir = layout.unified + path

    def directory(self, controller: str) -> str | None:
        """The cgroup's directory if the controller is enabled in it, otherwise None."""
        return self._dir if controller in self._enabled() else None

    def _enabled(self) -> list[str]:
        """The controllers enabled here (cgroup.controllers). The root has all available ones."""
        return files.read_or(f"{self._dir}/cgroup.controllers").split()

    def create(self, *, controllers: bool = True) -> None:
        """mkdir -p, then `enable` if `controllers`. A failure removes what was created."""
        made: list[str] = []
        try:
            if not files.make(self._dir, made):
                self._thaw_leftover()
            if controllers:
                self.enable()
        except BaseException:
            for place in reversed(made):
                with contextlib.suppress(OSError):
                    os.rmdir(place)
            raise

    def enable(self) -> None:
        """Enable the controllers in cgroup.subtree_control of every ancestor, from the top.

        Ancestors must not contain processes, and we place none there (the no-internal-process rule).
        """
        if not self._offered:
            return
        wanted = self._offered.intersection(_WANTED)
        todo: list[str] = []
        place = self._dir
        while place != self._root and not wanted.issubset(files.read(f"{place}/cgroup.controllers").split()):
            place = os.path.dirname(place)
            todo.append(place)  # it may need to enable some, or to get them first
        for place in reversed(todo):
            enable_controllers(place)

    def apply(self, resources: Mapping[str, Any]) -> list[str]:
        from runtime.cgroups import devices, resources_v2, writes

        bfq = bool(resources.get("blockIO")) and os.path.exists(f"{self._dir}/io.bfq.weight")
        plan = resources_v2.plan(resources, bfq=bfq)
        _check_before_update(resources, self._dir)
        enabled = self._enabled() if plan.writes else []
        warnings = writes.execute(plan, lambda controller: self._dir if controller in enabled else None)
        if "devices" in resources:
            refusal = devices.attach_v2(self._dir, devices.resolve(resources["devices"] or []))
            warnings += [refusal] if refusal else []
        return warnings

    def delegate(self, uid: int) -> None:
        """Change the owner of the directory and of the files listed in /sys/kernel/cgroup/delegate; not of the limit
        files."""
        listed = files.read_or("/sys/kernel/cgroup/delegate").split() or _DELEGATED
        for path in (self._dir, *(f"{self._dir}/{name}" for name in listed)):
            try:
                os.chown(path, uid, -1)
            except FileNotFoundError:  # not every cgroup has all of them
                continue
            except OSError as error:
                raise SyscallError(error.errno or 0, "chown", path) from error

    def attach(self, pid: int) -> None:
        """Move a process in; pid 0 is the caller.

        Do nothing if clone3 has already started the caller here: a move takes a global lock (up to 5 ms), but
        CLONE_INTO_CGROUP does not.
        """
        if pid == 0 and self._holds_caller():
            return
        files.write(f"{self._dir}/cgroup.procs", str(pid))

    def _holds_caller(self) -> bool:
        lines = files.read_or("/proc/self/cgroup").splitlines()
        return any(line.startswith("0::") and line.endswith(self.path) for line in lines)

    def pids(self, recursive: bool = True) -> list[int]:
        return files.pids(self._dir, recursive=recursive)

    def exists(self) -> bool:
        return os.path.isdir(self._dir)

    def into_fd(self) -> int | None:
        """An O_PATH descriptor for clone3's CLONE_INTO_CGROUP; the caller closes it."""
        try:
            return os.open(self._dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SyscallError(error.errno or 0, "open", self._dir) from error

    def clone_fd(self) -> int | None:
        return self.into_fd()

    def freeze(self) -> None:
        """Freeze all processes here and below; returns once they are frozen (cgroup.events: frozen 1). Needs Linux
        5.2."""
        self._freeze_write("1")
        if not kill.wait_event(f"{self._dir}/cgroup.events", "frozen", 1, time.monotonic() + _FREEZE_SECONDS):
            self._freeze_write("0")
            raise StateError(
                f"cgroup {self.path} did not freeze within {_FREEZE_SECONDS:g} s", retriable=True
            )

    def thaw(self) -> None:
        self._freeze_write("0")

    def thaw_all(self) -> None:
        """No effect: frozen processes die when killed."""

    def frozen(self) -> bool:
        return files.read_or(f"{self._dir}/cgroup.freeze").strip() == "1"

    def _freeze_write(self, value: str) -> None:
        try:
            files.write(f"{self._dir}/cgroup.freeze", value)
        except SyscallError as error:
            if error.errno == errno.ENOENT and self.exists():
                raise CapabilityError("pausing needs cgroup.freeze, Linux 5.2 or newer") from error
            raise

    def _thaw_leftover(self) -> None:
        if self.frozen():
            self.thaw()

    def kill(self, timeout: float = 2.0) -> bool:
        """Kill all processes here and below with one write that no fork escapes (cgroup.kill, Linux 5.14). Frozen
        processes die too. True if none remains."""
        deadline = time.monotonic() + timeout
        if not self.send_kill():
            return kill.until_empty(self.pids, deadline, round_=self._kill_round)
        return self.wait_empty(deadline)

    def send_kill(self) -> bool:
        """Write cgroup.kill without waiting. False if that file or the cgroup does not exist."""
        if os.getpid() in self.pids():
            raise StateError(f"refusing to kill cgroup {self.path}: the calling process is in it")
        try:
            files.write(f"{self._dir}/cgroup.kill", "1")
        except SyscallError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                raise
            return False
        return True

    def wait_empty(self, deadline: float) -> bool:
        return kill.wait_event(f"{self._dir}/cgroup.events", "populated", 0, deadline)

    def _kill_round(self, seen: list[int]) -> None:
        """For kernels before 5.14: freeze to prevent forks, signal, thaw."""
        with contextlib.suppress(OSError, StateError, CapabilityError):
            self.freeze()
        try:
            kill.signal_all(sorted({*seen, *self.pids()}))
        finally:
            with contextlib.suppress(OSError, CapabilityError):
                self.thaw()

    def remove(self, timeout: float = 2.0) -> None:
        """Kill the remaining processes and remove the cgroup, descendants first.

        Do nothing if it is missing. SyscallError(EBUSY) if it cannot be removed within `timeout` seconds.
        """
        if kill.remove_empty(self._dir):
            return
        deadline = time.monotonic() + timeout
        if files.keyed(files.read_or(f"{self._dir}/cgroup.events")).get("populated"):
            self.kill(timeout)
        kill.remove_tree(self._dir, deadline)

    def oom_kills(self) -> int:
        """How many processes the OOM killer has killed here and below, for any cgroup's limit (memory.events oom_kill;
        `oom` also counts events that killed nothing)."""
        return files.keyed(files.read_or(f"{self._dir}/memory.events")).get("oom_kill", 0)

    def stat_paths(self) -> dict[str, str | None]:
        return {name: f"{self._dir}/{name}" for name in STAT_FILES}

    def reader(self) -> Reader:
        from runtime.cgroups.reading import reader

        return reader.Reader(self.path, self.stat_paths(), reader.V2)

    def stats(self) -> Stats:
        with self.reader() as reader:
            return reader.read()


def enable_controllers(place: str) -> None:
    """Enable for the children of the cgroup at `place` the controllers that it has itself.

    Tries one write for all. If the kernel refuses some (a controller used by v1, or cpu while real-time processes run),
    enables each separately.
    """
    have = set(files.read(f"{place}/cgroup.subtree_control").split())
    offered = files.read(f"{place}/cgroup.controllers").split()
    lacking = [name for name in _WANTED if name in offered and name not in have]
    if not lacking:
        return
    file = f"{place}/cgroup.subtree_control"
    try:
        files.write(file, " ".join(f"+{name}" for name in lacking))
        return
    except SyscallError as error:
        if error.errno == errno.EBUSY and files.pids(place, recursive=False):
            raise CapabilityError(
                f"{place} itself contains processes, so the kernel enables no controllers for its children "
                "(no-internal-process rule): run kubelite in a cgroup of its own"
            ) from error
    for name in lacking:
        with contextlib.suppress(SyscallError):  # a limit that needs a missing controller gets a warning
            files.write(file, f"+{name}")


def _check_before_update(resources: Mapping[str, Any], place: str) -> None:
    """memory.checkBeforeUpdate of the runtime-spec: v2 kills processes instead of refusing a limit, so check first."""
    memory = resources.get("memory") or {}
    limit = memory.get("limit") or 0
    if not memory.get("checkBeforeUpdate") or limit <= 0:
        return
    usage = files.number(files.read_or(f"{place}/memory.current"))
    if usage > limit:
        raise StateError(f"memory.limit {limit} is below the {usage} bytes in use (checkBeforeUpdate)")
