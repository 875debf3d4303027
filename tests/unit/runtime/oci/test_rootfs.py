"""The mount plan: the operations and their order for a config.json. Also Root on an ordinary directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runtime import syscalls as sc
from runtime.cgroups.layout import Layout, Mode
from runtime.errors import SpecError, SyscallError
from runtime.oci.rootfs import rootfs
from runtime.oci.rootfs.binds import BindMount
from runtime.oci.rootfs.operations import CgroupMount, DeviceNode, FsMount, MaskPaths, Readonly
from runtime.oci.rootfs.root import Root
from runtime.oci.rootfs.rootfs import Host
from runtime.shim.protocol import RootfsOverlay

V1 = Layout(
    Mode.V1, None, {"cpu": "/c/cpu,cpuacct", "cpuacct": "/c/cpu,cpuacct", "pids": "/c/pids"}, frozenset()
)
HYBRID = Layout(Mode.HYBRID, "/c/unified", {"pids": "/c/pids", "name=systemd": "/c/systemd"}, frozenset())
V2 = Layout(Mode.V2, "/c", {}, frozenset({"pids"}))
BARE = {"null", "zero", "full", "random", "urandom", "tty"}


def plan(
    mounts: list[dict[str, Any]], *, host: Host | None = None, console: int | None = None, **linux: Any
) -> Any:
    namespaces = linux.pop("namespaces", ["mount", "pid", "cgroup"])
    root = linux.pop("root", {"path": "rootfs"})
    spec: Any = {
        "root": root,
        "process": {"cwd": linux.pop("cwd", "/")},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in namespaces], **linux},
    }
    overlay = RootfsOverlay(["/top", "/base"], "/u", "/w")
    return rootfs.plan(spec, bundle="/bundle", overlay=overlay, host=host, console=console)


def entry(destination: str, fstype: str, *options: str, source: str = "") -> dict[str, Any]:
    return {"destination": destination, "type": fstype, "source": source, "options": list(options)}


def test_order() -> None:
    made = plan(
        [entry("/proc", "proc"), entry("/dev", "tmpfs", "ro"), entry("/data", "bind", "rbind", source="vol")],
        cwd="/srv",
        console=7,
        readonlyPaths=["/proc/sys"],
        maskedPaths=["/proc/kcore", "/proc/keys"],
        root={"path": "rootfs", "readonly": True},
    )
    assert made.describe() == [
        "overlay on /bundle/rootfs",
        "mount proc on /proc",
        "mount tmpfs on /dev",
        "bind /bundle/vol on /data",
        "device /dev/null 1:3",
        "device /dev/zero 1:5",
        "device /dev/full 1:7",
        "device /dev/random 1:8",
        "device /dev/urandom 1:9",
        "device /dev/tty 5:0",
        "links in /dev",
        "bind the terminal on /dev/console",
        "make working directory /srv",
        "make /dev read-only",
        "make path /proc/sys read-only",
        "mask /proc/kcore, /proc/keys",
        "make / read-only",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("destination", "target"),
    [
        ("/bundle/rootfs/mnt/x", "/mnt/x"),
        ("/bundle/rootfs", "/"),
        ("/bundle//./rootfs/a/../b", "/b"),
        ("bundle/rootfs/mnt", "/mnt"),
        ("/bundle/rootfs2/mnt", "/bundle/rootfs2/mnt"),
        ("/mnt/bundle/rootfs", "/mnt/bundle/rootfs"),
        ("mnt", "/mnt"),
    ],
)
def test_destination_with_the_path_of_the_root(destination: str, target: str) -> None:
    assert plan([entry(destination, "tmpfs")]).operations[0].target == target


def test_overlay_or_bind() -> None:
    made = plan([])
    assert (made.root.lower, made.root.upper, made.root.work) == (("/top", "/base"), "/u", "/w")
    spec: Any = {"root": {"path": "/abs"}, "process": {}, "linux": {"namespaces": [{"type": "mount"}]}}
    assert rootfs.plan(spec, bundle="/bundle").describe()[0] == "bind /abs as the root"


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("", sc.MS_SLAVE | sc.MS_REC, 0),
        ("rslave", sc.MS_SLAVE | sc.MS_REC, sc.MS_SLAVE | sc.MS_REC),
        ("rshared", sc.MS_SHARED | sc.MS_REC, sc.MS_SHARED | sc.MS_REC),
        ("shared", sc.MS_SHARED | sc.MS_REC, sc.MS_SHARED),
        ("private", sc.MS_SLAVE | sc.MS_REC, sc.MS_PRIVATE),
    ],
)
def test_root_propagation(wanted: str, first: int, last: int) -> None:
    made = plan([], rootfsPropagation=wanted)
    assert (made.root.propagation, made.propagation) == (first, last)


def test_a_bound_dev_is_the_callers_own() -> None:
    made = plan([entry("/dev", "bind", "rbind", source="/dev")])
    assert not [op for op in made.operations if isinstance(op, DeviceNode)]
    made = plan([entry("/dev", "tmpfs"), entry("/dev/shm", "bind", "rbind", source="/dev/shm")])
    assert {os.path.basename(op.path) for op in made.operations if isinstance(op, DeviceNode)} == BARE


def test_a_device_of_the_specification_replaces_the_default() -> None:
    device = {
        "type": "c",
        "path": "/dev/../dev/null",
        "major": 1,
        "minor": 3,
        "fileMode": 0o600,
        "uid": 4,
        "gid": 5,
    }
    nodes = [op for op in plan([], devices=[device]).operations if isinstance(op, DeviceNode)]
    assert [(n.mode & 0o7777, n.uid, n.gid) for n in nodes if n.path == "/dev/null"] == [(0o600, 4, 5)]
    assert len(nodes) == len(BARE)


def test_only_tmpfs_and_dev_become_readonly_late() -> None:
    made = plan([entry("/sys", "sysfs", "ro"), entry("/x", "tmpfs", "ro"), entry("/y", "tmpfs")])
    late = [op.late_readonly for op in made.operations if isinstance(op, FsMount)]
    assert late == [False, True, False]
    assert [op.target for op in made.operations if isinstance(op, Readonly)] == ["/x"]


@pytest.mark.parametrize(
    ("layout", "hierarchies", "links"),
    [
        (V2, (("", "cgroup2", ""),), ()),
        (V1, (("cpu,cpuacct", "cgroup", "cpu,cpuacct"), ("pids", "cgroup", "pids")),
         (("cpu", "cpu,cpuacct"), ("cpuacct", "cpu,cpuacct"))),
        (HYBRID, (("pids", "cgroup", "pids"), ("systemd", "cgroup", "none,name=systemd"), ("unified", "cgroup2", "")),
         ()),
    ],
)  # fmt: skip
def test_cgroup_mounts(layout: Layout, hierarchies: Any, links: Any) -> None:
    made = plan([entry("/sys/fs/cgroup", "cgroup", "ro")], host=Host(layout))
    (found,) = [op for op in made.operations if isinstance(op, CgroupMount)]
    assert (found.hierarchies, found.links, found.binds) == (hierarchies, links, ())


def test_cgroup_binds_without_a_cgroup_namespace() -> None:
    host = Host(HYBRID, {"/c/pids": "/c/pids/x", "/c/systemd": "/c/systemd/x", "/c/unified": "/c/unified/x"})
    made = plan([entry("/sys/fs/cgroup", "cgroup")], host=host, namespaces=["mount"])
    (found,) = [op for op in made.operations if isinstance(op, CgroupMount)]
    assert found.binds == ("/c/pids/x", "/c/systemd/x", "/c/unified/x")


@pytest.mark.parametrize("bad", [entry("/x", "bind"), entry("/x", ""), entry("/x", "none")])
def test_invalid_mounts(bad: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="/x"):
        plan([bad])


def test_relative_destination_is_below_the_root() -> None:
    (bind,) = [
        op for op in plan([entry("data", "bind", source="/v")]).operations if isinstance(op, BindMount)
    ]
    assert (bind.target, bind.source) == ("/data", "/v")


def test_no_mask_no_operation() -> None:
    assert not [op for op in plan([]).operations if isinstance(op, MaskPaths)]


# --- Root, on a directory of ours (openat2 needs no privilege) ---


@pytest.fixture
def root(tmp_path: Path) -> Any:
    (tmp_path / "r").mkdir()
    fd = os.open(tmp_path / "r", os.O_PATH)
    yield Root(fd)
    os.close(fd)


def where(fd: int) -> str:
    path = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    return path


def test_make_creates_parents(root: Root, tmp_path: Path) -> None:
    assert where(root.make("/a/b/c", directory=True)) == f"{tmp_path}/r/a/b/c"
    assert where(root.make("a/b/./file", directory=False)) == f"{tmp_path}/r/a/b/file"
    assert (tmp_path / "r/a/b/file").is_file()
    assert where(root.make("/", directory=True)) == f"{tmp_path}/r"


@pytest.mark.parametrize(
    ("link", "asked", "made"),
    [
        ("l -> /abs/there", "l/x", "abs/there/x"),
        ("l -> ../../../../up", "l", "up"),
        ("l -> rel/../other", "l/x", "other/x"),
        ("d/l -> ../sideways/deep", "d/l/x", "sideways/deep/x"),
        ("l -> l2", "l/x", "l2/x"),
    ],
)
def test_make_follows_dangling_links_inside(
    root: Root, tmp_path: Path, link: str, asked: str, made: str
) -> None:
    name, _, target = link.partition(" -> ")
    path = tmp_path / "r" / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    assert where(root.make(asked, directory=True)) == f"{tmp_path}/r/{made}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r"]


@pytest.mark.parametrize("escape", ["../../etc", "/../../etc", "/etc", "a/../../../etc"])
def test_no_path_leads_out_of_the_root(root: Root, tmp_path: Path, escape: str) -> None:
    assert where(root.make(escape, directory=True)).startswith(f"{tmp_path}/r/")


def test_make_errors(root: Root, tmp_path: Path) -> None:
    (tmp_path / "r/loop").symlink_to("loop")
    (tmp_path / "r/file").touch()
    (tmp_path / "r/dir").mkdir()
    (tmp_path / "r/magic").symlink_to("/proc/self/cwd")
    for path, directory, number in (
        ("loop/x", True, 40),
        ("file/x", True, 20),
        ("file", True, 20),
        ("dir", False, 21),
    ):
        with pytest.raises(SyscallError) as caught:
            root.make(path, directory=directory)
        assert caught.value.errno == number, path
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SyscallError):
        root.make("file/x", directory=True)
    assert len(os.listdir("/proc/self/fd")) == before
