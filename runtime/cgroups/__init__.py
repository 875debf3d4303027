"""Control groups, whatever kind the machine has, behind one Protocol.

    group = open_cgroup("/kubelite/burstable/pod1/abc")
    group.create()                                    # parents too; controllers enabled on the way (v2)
    warnings = group.apply(spec["linux"]["resources"])  # what this kernel lacks comes back as sentences
    group.attach(pid)                                 # v2: better clone3(…, cgroup=group.into_fd())
    group.stats(), group.oom_kills()                  # before remove(): the counters go with it
    group.remove()                                    # kills what is inside

A path is below the root of every hierarchy, "/a/b". The root itself can be looked at (stats, pids) but neither
limited, killed nor removed.
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
    """What a process is put into."""

    path: str

    def attach(self, pid: int) -> None:
        """Move a process in; pid 0 is the caller (single-threaded: much cheaper on v1)."""

    def clone_fd(self) -> int | None:
        """An O_PATH descriptor for CLONE_INTO_CGROUP, which the caller closes, where there is a cgroup2 side: also on
        hybrid, for the caller whose child then always does attach(0). The child is born in the cgroup2 side, and
        attach(0) does the rest, without the global lock."""


class Cgroup(Place, Protocol):
    """One path. The methods raise SyscallError (with the file's name) when the kernel refuses."""

    def create(self) -> None:
        """Make it and its parents; idempotent; thaws a frozen leftover. Fails as if never tried."""

    def apply(self, resources: Mapping[str, Any]) -> list[str]:
        """Set OCI `linux.resources`; only what is named changes. Returns warnings for what this kernel lacks.

        `devices`: absent = untouched; a list (also an empty one) = nothing but the list and the default devices.
        `unified` works on v2 alone, but "memory.oom.group", which v1 ignores.
        Raises SpecError (contradictory values), CapabilityError (net_cls, net_prio, leafWeight, unified: an error
        when asked for and not there), StateError (checkBeforeUpdate).
        """

    def delegate(self, uid: int) -> None:
        """v2: give the host's user `uid` what kernfs says a delegatee may have (config-linux.md, "Cgroup ownership").
        Nothing on v1, where delegation is not secure."""

    def pids(self, recursive: bool = True) -> list[int]:
        """Host pids inside, sorted; with descendants' unless told otherwise."""

    def exists(self) -> bool: ...

    def into_fd(self) -> int | None:
        """v2: an O_PATH descriptor for CLONE_INTO_CGROUP, the caller closes it. None: attach() instead."""

    def freeze(self) -> None:
        """Stop every process inside; returns when they stand."""

    def thaw(self) -> None: ...

    def frozen(self) -> bool: ...

    def kill(self, timeout: float = 2.0) -> bool:
        """SIGKILL to everything inside and below, forks included, also when frozen; waits. True: nothing is left."""

    def remove(self, timeout: float = 2.0) -> None:
        """Kill the rest and remove it with its descendants; missing is fine. SyscallError(EBUSY) when it stays."""

    def oom_kills(self) -> int:
        """Processes taken by the kernel's OOM killer, here and below, so far."""

    def reader(self) -> Reader:
        """Statistics with kept descriptors, for the one who asks again and again; close() it."""

    def stats(self) -> Stats:
        """Statistics once. NotFoundError when there is no such cgroup."""

    def directory(self, controller: str) -> str | None:
        """Where a controller's files of this cgroup are; None when it is not available."""


def normalize(path: str) -> str:
    """`a//b/` → `/a/b`. Raises SpecError for what could leave the hierarchy."""
    parts = [part for part in path.split("/") if part and part != "."]
    if ".." in parts or "\0" in path:
        raise SpecError(f"cgroup path {path!r} leaves its hierarchy")
    return "".join(f"/{part}" for part in parts)


def open_cgroup(path: str, layout: Layout | None = None) -> Cgroup:
    """A handle; touches nothing yet. `layout`: the machine's own unless given."""
    where = layout or _machine()
    clean = normalize(path)
    handle = _of(where.mode, clean, where)
    return handle if clean else _Root(handle)


_machine = layout


def _of(mode: Mode, path: str, layout: Layout) -> Cgroup:
    """Only the kind that the machine has is imported."""
    if mode == Mode.V2:
        from runtime.cgroups.v2 import V2Cgroup

        return V2Cgroup(path, layout)
    if mode == Mode.V1:
        from runtime.cgroups.v1 import V1Cgroup

        return V1Cgroup(path, layout)
    from runtime.cgroups.hybrid import HybridCgroup

    return HybridCgroup(path, layout)


def warm() -> None:
    """All of the machine's kind, now: for who forks afterwards."""
    from runtime.cgroups import devices, resources_v1, resources_v2, writes  # noqa: F401
    from runtime.cgroups.reading import stats  # noqa: F401

    open_cgroup("/")


class _Root:
    """The root of the hierarchies: to be looked at only."""

    path = "/"

    def __init__(self, inner: Cgroup) -> None:
        self.pids = inner.pids
        self.exists = inner.exists
        self.reader = inner.reader
        self.stats = inner.stats
        self.directory = inner.directory

    def _refuse(self, *_: object) -> Any:
        raise SpecError("the root cgroup is not ours to change")

    create = apply = delegate = attach = into_fd = clone_fd = freeze = thaw = frozen = kill = remove = (
        oom_kills
    ) = _refuse
