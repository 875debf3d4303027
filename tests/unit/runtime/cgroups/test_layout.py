"""The cgroup mode that a mount table describes."""

from __future__ import annotations

import pytest

from runtime.cgroups import normalize, open_cgroup
from runtime.cgroups.hybrid import HybridCgroup
from runtime.cgroups.layout import Layout, Mode, mode_of, parse_mountinfo
from runtime.cgroups.v1 import V1Cgroup
from runtime.cgroups.v2 import V2Cgroup
from runtime.errors import CapabilityError, SpecError

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
CPU = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:10 - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
SYSTEMD = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
OTHER = "22 1 254:0 / / rw,noatime - ext4 /dev/vda rw\n"


@pytest.mark.parametrize(
    ("table", "unified", "v1", "mode"),
    [
        (OTHER + V2, "/sys/fs/cgroup", {}, Mode.V2),
        (
            CPU + MEMORY + SYSTEMD,
            None,
            {
                "cpu": "/sys/fs/cgroup/cpu,cpuacct",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
                "memory": "/sys/fs/cgroup/memory",
                "name=systemd": "/sys/fs/cgroup/systemd",
            },
            Mode.V1,
        ),
        (MEMORY + UNIFIED, "/sys/fs/cgroup/unified", {"memory": "/sys/fs/cgroup/memory"}, Mode.HYBRID),
        # a single named hierarchy has no controllers
        (V2 + SYSTEMD, "/sys/fs/cgroup", {"name=systemd": "/sys/fs/cgroup/systemd"}, Mode.V2),
        # a later bind mount of the same hierarchy is ignored
        (
            MEMORY + MEMORY.replace("/sys/fs/cgroup/memory", "/var/lib/x/memory"),
            None,
            {"memory": "/sys/fs/cgroup/memory"},
            Mode.V1,
        ),
        # a read-only mount cannot be used for a container
        (V2 + MEMORY.replace(" rw,relatime ", " ro,relatime "), "/sys/fs/cgroup", {}, Mode.V2),
        (V2.replace("/sys/fs/cgroup", "/mnt/a\\040b"), "/mnt/a b", {}, Mode.V2),
        # two mounts on one mount point: a path leads to the upper one
        (V2 + V2.replace("30 23", "50 30"), "/sys/fs/cgroup", {}, Mode.V2),
        # covered by a tmpfs that has its own hierarchy mounted on it
        (
            V2 + "50 30 0:50 / /sys/fs/cgroup rw - tmpfs none rw\n" + MEMORY.replace("35 31", "51 50"),
            None,
            {"memory": "/sys/fs/cgroup/memory"},
            Mode.V1,
        ),
        # a file system over the directory above hides it too; the one mounted elsewhere counts
        (
            OTHER
            + "31 22 0:29 / /sys/fs/cgroup rw - tmpfs none rw\n"
            + MEMORY
            + "60 22 0:60 / /sys rw - sysfs none rw\n"
            + V2.replace("30 23", "61 60"),
            "/sys/fs/cgroup",
            {},
            Mode.V2,
        ),
    ],
)
def test_mount_table(table: str, unified: str | None, v1: dict[str, str], mode: Mode) -> None:
    assert parse_mountinfo(table) == (unified, v1)
    assert mode_of(unified, v1) is mode


def test_missing_cgroups_are_reported() -> None:
    with pytest.raises(CapabilityError, match="mount cgroup2"):
        mode_of(*parse_mountinfo(OTHER))


def test_co_mounted_controllers_are_one_hierarchy() -> None:
    layout = Layout(Mode.V1, None, parse_mountinfo(CPU + MEMORY)[1], frozenset())
    assert layout.hierarchies == ("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory")
    assert layout.missing() == ["pids", "cpuset", "io"]


@pytest.mark.parametrize(
    ("mode", "kind"), [(Mode.V1, V1Cgroup), (Mode.HYBRID, HybridCgroup), (Mode.V2, V2Cgroup)]
)
def test_each_mode_has_its_kind(mode: Mode, kind: type) -> None:
    layout = Layout(mode, "/u", {"memory": "/m"}, frozenset())
    cgroup = open_cgroup("a//b/./c/", layout)
    assert type(cgroup) is kind
    assert cgroup.path == "/a/b/c"


@pytest.mark.parametrize("path", ["/a/../../b", "..", "/a/\0"])
def test_a_path_stays_below_the_root(path: str) -> None:
    with pytest.raises(SpecError):
        normalize(path)


@pytest.mark.parametrize("act", ["create", "kill", "remove", "freeze", "oom_kills"])
def test_the_root_cgroup_is_read_only(act: str) -> None:
    root = open_cgroup("/", Layout(Mode.V2, "/u", {}, frozenset()))
    with pytest.raises(SpecError, match="root"):
        getattr(root, act)()
