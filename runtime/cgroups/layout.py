"""Which cgroup world this machine lives in: v1, hybrid (v1 controllers beside a cgroup2 mount), or v2.

Found once from /proc/self/mountinfo (proc_pid_mountinfo(5), cgroups(7)); nothing is configured.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from runtime.cgroups import files
from runtime.errors import CapabilityError

# Options of a v1 mount that are controllers; a named hierarchy shows as name=…
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
    """Where the hierarchies are mounted. Only writable mounts count: the others cannot hold a container."""

    mode: Mode
    unified: str | None  # mount point of the cgroup2 hierarchy
    v1: dict[str, str]  # v1 controller, or name=systemd → mount point (co-mounted ones share it)
    v2_controllers: frozenset[str]  # what the cgroup2 hierarchy can control (often nothing on hybrid)

    @property
    def hierarchies(self) -> tuple[str, ...]:
        """Mount points of the v1 hierarchies, each once, in mount order."""
        return tuple(dict.fromkeys(self.v1.values()))

    def missing(self) -> list[str]:
        """Controllers that limits need and neither side has."""
        have = {"io" if name == "blkio" else name for name in self.v1} | self.v2_controllers
        return [name for name in ("cpu", "memory", "pids", "cpuset", "io") if name not in have]


def parse_mountinfo(text: str) -> tuple[str | None, dict[str, str]]:
    """(cgroup2 mount point or None, v1 controller → mount point). The first mount of each that can be reached wins:
    later ones are bind mounts made by other container tools; one that another mount covers leads a path, and the
    descriptor that clone3 gets, somewhere else."""
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
    """A field of mountinfo: space, tab, newline and backslash are octal in it (proc_pid_mountinfo(5))."""
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def _in_sight(wanted: _Mount, by_id: dict[str, _Mount], below: dict[str, list[_Mount]]) -> bool:
    """Whether a walk to its mount point ends on it: nothing is mounted over it, and on the way down no mount of any
    of those that hold it comes first (/sys/fs/cgroup covered, with all below)."""
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
    """A lone name=systemd hierarchy beside cgroup2 controls nothing: that machine is v2."""
    controllers = V1_CONTROLLERS.intersection(v1)
    if unified is None:
        if not controllers:
            raise CapabilityError(
                "no writable cgroup file system is mounted: mount cgroup2 on /sys/fs/cgroup"
            )
        return Mode.V1
    return Mode.HYBRID if controllers else Mode.V2


def detect() -> Layout:
    """Read it from the kernel now. Raises CapabilityError when no hierarchy is mounted writable."""
    unified, v1 = parse_mountinfo(files.read("/proc/self/mountinfo"))
    mode = mode_of(unified, v1)
    offered = files.read_or(f"{unified}/cgroup.controllers").split() if unified else []
    # A controller that v1 has bound never shows up in cgroup.controllers; subtract for certainty.
    return Layout(mode, unified, {} if mode is Mode.V2 else v1, frozenset(offered) - set(v1))


@cache
def layout() -> Layout:
    """The machine's layout, detected once per process."""
    return detect()
