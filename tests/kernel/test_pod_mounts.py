"""Volumes on a real kernel: tmpfs that is mounted once and always unmounted, and sub-paths that cannot leave their
volume."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.node.spec.volume_plans import Kind, VolumePlan
from kubelite.node.storage import mounts
from runtime import syscalls
from runtime.errors import SyscallError
from runtime.oci.rootfs.binds import BindMount
from runtime.oci.rootfs.mount_options import parse

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts on the host"),
]


@pytest.fixture
def pod_dir(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "a pod"  # a blank: mountinfo writes it as \040
    path.mkdir()
    yield path
    mounts.unmount_below(str(path))


def mounted(below: Path) -> list[str]:
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split(" ")[4].replace("\\040", " ") for line in table]
    return sorted(point for point in points if point.startswith(f"{below}/"))


def test_a_volume_in_memory_is_mounted_once_with_its_size(pod_dir: Path) -> None:
    plan = VolumePlan("v", Kind.MEMORY, str(pod_dir / "volumes/v"), size=4 << 20, fs_group=12)
    mounts.set_up(plan)
    Path(plan.path, "kept").write_text("x")
    mounts.set_up(plan)
    assert mounted(pod_dir) == [plan.path]
    found = os.statvfs(plan.path)
    assert found.f_blocks * found.f_frsize == 4 << 20
    assert os.stat(plan.path).st_gid == 12
    assert os.stat(plan.path).st_mode & 0o7777 == 0o3777
    assert Path(plan.path, "kept").read_text() == "x"


def test_everything_is_unmounted(pod_dir: Path) -> None:
    for name in ("v", "shm"):
        mounts.set_up(VolumePlan(name, Kind.MEMORY, str(pod_dir / f"volumes/{name}")))
    with open(pod_dir / "volumes/v/busy", "w") as busy:
        busy.write("in use")
        mounts.unmount_below(str(pod_dir))
        assert mounted(pod_dir) == []
    mounts.unmount_below(str(pod_dir))
    assert os.listdir(pod_dir / "volumes/v") == []


def test_unmounting_affects_no_other_pod(pod_dir: Path) -> None:
    neighbour = pod_dir.with_name("a pod too")
    plan = VolumePlan("v", Kind.MEMORY, str(neighbour / "volumes/v"))
    mounts.set_up(plan)
    try:
        mounts.unmount_below(str(pod_dir))
        assert mounted(neighbour) == [plan.path]
    finally:
        mounts.unmount_below(str(neighbour))


def test_the_engine_opens_a_sub_path_below_its_volume_only(pod_dir: Path) -> None:
    volume = pod_dir / "volume"
    (volume / "data").mkdir(parents=True)
    (volume / "inside").symlink_to("data")
    (volume / "outside").symlink_to("/etc")

    def opened(name: str) -> str:
        bind = BindMount(f"{volume}/{name}", "/v", parse(["rbind", f"x-beneath={volume}"]))
        fd = bind._clone(syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
        try:
            return str(os.fstat(fd).st_ino)
        finally:
            os.close(fd)

    assert opened("data") == opened("inside") == str((volume / "data").stat().st_ino)
    for name in ("outside", "outside/passwd", "../volume/../.."):
        with pytest.raises(SyscallError) as error:
            opened(name)
        assert error.value.errno == errno.EXDEV


@pytest.mark.parametrize("whole", [True, False])
def test_fs_group_applies_to_existing_files(tmp_path: Path, whole: bool) -> None:
    volume, outside = tmp_path / "v", tmp_path / "outside"
    (volume / "in").mkdir(parents=True)
    outside.write_text("x")
    outside.chmod(0o600)
    (volume / "in/file").write_text("x")
    (volume / "in/file").chmod(0o600)
    (volume / "link").symlink_to(outside)
    mounts.give_to_group(str(volume), 4321, whole_tree=whole, fresh=False)
    assert [
        (p.stat().st_gid, p.stat().st_mode & 0o7777) for p in (volume, volume / "in", volume / "in/file")
    ] == [
        (4321, 0o2775),
        (4321, 0o2775),
        (4321, 0o660),
    ]
    assert (volume / "link").lstat().st_gid == 4321
    assert (outside.stat().st_gid, outside.stat().st_mode & 0o777) == (0, 0o600)
    (volume / "in/file").chmod(0o600)
    (tmp_path / "v.fsgroup").unlink()  # another pod
    mounts.give_to_group(str(volume), 4321, whole_tree=whole, fresh=False)
    walked = (volume / "in/file").stat().st_mode & 0o777 == 0o660
    assert walked is whole, "OnRootMismatch believes a root that is right"
    (volume / "in/file").chmod(0o600)
    mounts.give_to_group(str(volume), 4321, whole_tree=True, fresh=False)
    assert (volume / "in/file").stat().st_mode & 0o777 == 0o600, "once for a pod"
