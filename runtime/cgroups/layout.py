"""Detect the cgroup mode of this machine: v1, hybrid (v1 controllers and also a cgroup2 mount), or v2.

The mode is read once from /proc/self/mountinfo (proc_pid_mountinfo(5), cgroups(7)). There is no setting for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from runtime.cgroups import files
from runtime.errors import CapabilityError

# The mount options of v1 that are controllers. A named hierarchy has name=… instead.
V1_CONTROLLERS = frozenset(
    {
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "hugetlb",
        "net_cls",
        "net_prio",
        "perf_event",
        "rdma",
        "misc",
    }
)


class Mode(StrEnum):
    V1 = "v1"
    HYBRID = "hybrid"
    V2 = "v2"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the hierarchies are mounted. Only writable mounts count, because a container needs those."""

    mode: Mode
    unified: str | None  # mount point of the cgroup2 hierarchy
    v1: dict[str, str]  # v1 controller or name=systemd → mount point; co-mounted ones share it
    v2_controllers: frozenset[str]  # controllers of the cgroup2 hierarchy (often none on hybrid)

    @property
    def hierarchies(self) -> tuple[str, ...]:
        """The distinct mount points of the v1 hierarchies, in mount order."""
        return tuple(dict.fromkeys(self.v1.values()))

    def missing(self) -> list[str]:
        """The controllers that limits need but neither side has."""
        have = {"io" if name == "blkio" else name for name in self.v1} | self.v2_controllers
        return [name for name in ("cpu", "memory", "pids", "cpuset", "io") if name not in have]


def parse_mountinfo(text: str) -> tuple[str | None, dict[str, str]]:
    """(cgroup2 mount point or None, v1 controller → mount point).

    The first reachable mount of each wins. Later ones are bind mounts made by other container tools. A mount covered by
    another one does not count, because its path, and the descriptor for clone3, lead somewhere else.
    """
    unified: str | None = None
    v1: dict[str, str] = {}
    mounts = [_parse(line) for line in text.splitlines()]
    below: dict[str, list[_Mount]] = {}
    for mount in mounts:
        below.setdefault(mount.parent, []).append(mount)
    by_id = {mount.id: mount for mount in mounts}
    for mount in mounts:
        fields, _, rest = mount.line.partition(" - ")
        kind, _, options = rest.partition(" ")
        if kind not in ("cgroup", "cgroup2") or "ro" in fields.split()[5].split(","):
            continue
        if not _in_sight(mount, by_id, below):
            continue
        if kind == "cgroup2":
            unified = unified or mount.point
            continue
        for option in options.split()[-1].split(","):
            if option in V1_CONTROLLERS or option == "name=systemd":
                v1.setdefault(option, mount.point)
    return unified, v1


class _Mount(NamedTuple):
    """A line of mountinfo."""

    id: str
    parent: str
    point: str
    line: str


def _parse(line: str) -> _Mount:
    number, parent, _, _, point, _ = line.split(" ", 5)
    return _Mount(number, parent, unescaped(point), line)


def unescaped(text: str) -> str:
    """Decode a field of mountinfo, where space, tab, newline and backslash are octal escapes
    (proc_pid_mountinfo(5))."""
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def _in_sight(wanted: _Mount, by_id: dict[str, _Mount], below: dict[str, list[_Mount]]) -> bool:
    """Whether the path of its mount point leads to this mount.

    It does not if another mount is on top of it, or covers a directory above it (such as /sys/fs/cgroup).
    """
    if any(other.point == wanted.point for other in below.get(wanted.id, ())):
        return False
    here: _Mount | None = wanted
    while here is not None:
        for other in below[here.parent]:
            if len(other.point) < len(here.point) and other is not here and _leads(other.point, wanted.point):
                return False
        above = by_id.get(here.parent)
        here = above if above is not here else None
    return True


def _leads(above: str, path: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")


def mode_of(unified: str | None, v1: dict[str, str]) -> Mode:
    """The mode of these mounts. cgroup2 with only name=systemd counts as v2, because name=systemd has no controllers.
    CapabilityError without any mount."""
    controllers = V1_CONTROLLERS.intersection(v1)
    if unified is None:
        if not controllers:
            raise CapabilityError(
                "no writable cgroup file system is mounted: mount cgroup2 on /sys/fs/cgroup"
            )
        return Mode.V1
    return Mode.HYBRID if controllers else Mode.V2


def detect() -> Layout:
    """Read the layout from the kernel now. Raises CapabilityError if no hierarchy is mounted writable."""
    unified, v1 = parse_mountinfo(files.read("/proc/self/mountinfo"))
    mode = mode_of(unified, v1)
    offered = files.read_or(f"{unified}/cgroup.controllers").split() if unified else []
    # The kernel does not list controllers in use by v1 in cgroup.controllers; subtract them to be sure.
    return Layout(mode, unified, {} if mode is Mode.V2 else v1, frozenset(offered) - set(v1))


@cache
def layout() -> Layout:
    """This machine's layout, detected once per process. Raises CapabilityError."""
    return detect()
