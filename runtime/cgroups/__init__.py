"""Control groups of v1, hybrid and v2 machines behind one Protocol.

    group = open_cgroup("/kubelite/burstable/pod1/abc")
    group.create()                                    # with parents; on v2 also enables controllers in them
    warnings = group.apply(spec["linux"]["resources"])  # a warning for each limit that this kernel lacks
    group.attach(pid)                                 # on v2, prefer clone3(…, cgroup=group.into_fd())
    group.stats(), group.oom_kills()                  # before remove(), which deletes the counters
    group.remove()                                    # kills the processes inside

A path such as "/a/b" is relative to the root of every hierarchy. The root cgroup itself can be read (stats, pids) but
not limited, killed or removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from runtime.cgroups.layout import Layout, Mode, layout
from runtime.errors import SpecError

if TYPE_CHECKING:
    from runtime.cgroups.reading.reader import Reader
    from runtime.cgroups.reading.stats import Stats

__all__ = ["Cgroup", "Layout", "Mode", "Place", "layout", "open_cgroup", "warm"]


class Place(Protocol):
    """A cgroup that a process can be moved to."""

    path: str

    def attach(self, pid: int) -> None:
        """Move a process into the cgroup. Pid 0 is the caller; for a single-threaded caller that is much cheaper on
        v1."""

    def clone_fd(self) -> int | None:
        """An O_PATH descriptor for CLONE_INTO_CGROUP, which the caller closes. None without a cgroup2 side.

        It is also available on hybrid, if the child then always calls attach(0). The child starts in the cgroup2 side,
        and attach(0) joins the v1 hierarchies without the kernel's global lock.
        """


class Cgroup(Place, Protocol):
    """One cgroup path. The methods raise SyscallError with the file's name if the kernel reports an error."""

    def create(self) -> None:
        """Create the cgroup and its parents. Idempotent. Thaws a frozen leftover. A failure leaves nothing behind."""

    def apply(self, resources: Mapping[str, Any]) -> list[str]:
        """Set OCI `linux.resources`. Limits that are not given stay unchanged. Returns warnings for what this kernel
        lacks.

        `devices`: if absent, device access is unchanged. A list, even an empty one, allows only its devices and the
        default devices. `unified` works only on v2; v1 ignores "memory.oom.group" in it. Raises SpecError for
        contradictory values; CapabilityError for net_cls, net_prio, leafWeight and unified, if requested but not
        available; StateError (checkBeforeUpdate).
        """

    def delegate(self, uid: int) -> None:
        """v2: make the host user `uid` the owner of the files that the kernel lists for delegation (config-linux.md,
        "Cgroup ownership"). No effect on v1, where delegation is not secure."""

    def pids(self, recursive: bool = True) -> list[int]:
        """The host pids in the cgroup, sorted; by default including those in descendants."""

    def exists(self) -> bool: ...

    def into_fd(self) -> int | None:
        """v2: an O_PATH descriptor for CLONE_INTO_CGROUP, which the caller closes. None: use attach() instead."""

    def freeze(self) -> None:
        """Freeze all processes in the cgroup; returns once they are frozen."""

    def thaw(self) -> None: ...

    def frozen(self) -> bool: ...

    def thaw_all(self) -> None:
        """v1: thaw the cgroup and its descendants, so that killed processes in them can die. No effect on v2, where
        frozen processes die, too."""

    def kill(self, timeout: float = 2.0) -> bool:
        """Kill all processes in the cgroup and its descendants, also frozen ones and new forks, and wait up to
        `timeout` seconds. True: no process remains."""

    def remove(self, timeout: float = 2.0) -> None:
        """Kill the remaining processes and remove the cgroup with its descendants. Do nothing if it is missing.
        SyscallError(EBUSY) if it cannot be removed within `timeout` seconds."""

    def oom_kills(self) -> int:
        """How many processes the kernel's OOM killer has killed so far in the cgroup and its descendants."""

    def reader(self) -> Reader:
        """A reader that keeps descriptors open for repeated readings. The caller calls close()."""

    def stats(self) -> Stats:
        """A single reading of the statistics. NotFoundError if the cgroup does not exist."""

    def directory(self, controller: str) -> str | None:
        """The directory of this cgroup that holds a controller's files; None if the controller is not available."""


def normalize(path: str) -> str:
    """`a//b/` → `/a/b`. Raises SpecError for a path that could leave the hierarchy."""
    parts = [part for part in path.split("/") if part and part != "."]
    if ".." in parts or "\0" in path:
        raise SpecError(f"cgroup path {path!r} leaves its hierarchy")
    return "".join(f"/{part}" for part in parts)


def open_cgroup(path: str, layout: Layout | None = None) -> Cgroup:
    """A handle for the cgroup; does not access the file system. `layout`: by default this machine's."""
    where = layout or _machine()
    clean = normalize(path)
    handle = _of(where.mode, clean, where)
    return handle if clean else _Root(handle)


_machine = layout


def _of(mode: Mode, path: str, layout: Layout) -> Cgroup:
    """Import and create the implementation for this machine's mode only."""
    if mode == Mode.V2:
        from runtime.cgroups.v2 import V2Cgroup

        return V2Cgroup(path, layout)
    if mode == Mode.V1:
        from runtime.cgroups.v1 import V1Cgroup

        return V1Cgroup(path, layout)
    from runtime.cgroups.hybrid import HybridCgroup

    return HybridCgroup(path, layout)


def warm() -> None:
    """Import everything for this machine's mode now, for a process that forks later."""
    from runtime.cgroups import devices, resources_v1, resources_v2, writes  # noqa: F401
    from runtime.cgroups.reading import stats  # noqa: F401

    open_cgroup("/")


class _Root:
    """The root cgroup, which is read-only."""

    path = "/"

    def __init__(self, inner: Cgroup) -> None:
        self.pids = inner.pids
        self.exists = inner.exists
        self.reader = inner.reader
        self.stats = inner.stats
        self.directory = inner.directory

    def _refuse(self, *_: object) -> Any:
        raise SpecError("the root cgroup cannot be changed")

    create = apply = delegate = attach = into_fd = clone_fd = freeze = thaw = thaw_all = frozen = kill = (
        remove
    ) = oom_kills = _refuse
