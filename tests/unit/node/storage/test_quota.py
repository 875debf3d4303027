"""Project quotas, on a fake file system with the kernel's structures (linux/quota.h, if_dqblk; linux/dqblk_xfs.h,
fs_quota_statv; linux/fs.h, fsxattr). tests/kernel/test_quota.py uses the real ones."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.storage import quota
from kubelite.node.storage.usage import bytes_of
from kubelite.telemetry.sampling import disk_usage
from runtime import syscalls
from runtime.errors import SyscallError

PROJECT, INHERIT, COUNTS, HOLDS = quota.FIRST_PROJECT, 0x200, 0x10, 0x20


@dataclass
class Disk:
    """A fake file system with project quotas."""

    flags: int = COUNTS | HOLDS
    of: dict[int, tuple[int, int]] = field(default_factory=dict)  # inode → its flags, its project
    uses: dict[int, tuple[int, int]] = field(default_factory=dict)  # project → bytes, inodes
    limits: dict[int, int] = field(default_factory=dict)  # KiB
    valid: int = 0x3F

    def ioctl(self, fd: int, request: int, attributes: bytearray | bytes) -> int:
        inode = os.fstat(fd).st_ino
        if request == 0x801C581F:  # FS_IOC_FSGETXATTR
            assert isinstance(attributes, bytearray)
            flags, project = self.of.get(inode, (0, 0))
            struct.pack_into("=5I8x", attributes, 0, flags, 0, 0, project, 0)
        else:
            assert request == 0x401C5820  # FS_IOC_FSSETXATTR
            flags, _, _, project, _ = struct.unpack_from("=5I", attributes)
            self.of[inode] = (flags, project)
            space, inodes = self.uses.get(project, (0, 0))
            self.uses[project] = (space, inodes + 1)
        return 0

    def syscall(
        self, name: str, _fd: int, command: int, project: int, found: ctypes.Array[ctypes.c_char] | bytes
    ) -> int:
        assert (name, command & 0xFF) == ("quotactl_fd", 2), "of projects"
        match command >> 8:
            case 0x5808:  # Q_XGETQSTATV
                if not self.flags:
                    raise SyscallError(errno.ENOSYS, name)
                assert not isinstance(found, bytes)
                struct.pack_into("=H", found, 2, self.flags)
            case 0x800007:  # Q_GETQUOTA
                assert not isinstance(found, bytes)
                if project not in self.uses:
                    raise SyscallError(errno.ENOENT, name)
                space, inodes = self.uses[project]
                found.raw = struct.pack("=8QI4x", 8192, 8192, space, 0, 0, inodes, 0, 0, self.valid)
            case 0x800008:  # Q_SETQUOTA
                assert isinstance(found, bytes)
                hard, soft, *_, valid = struct.unpack("=8QI4x", found)
                assert (hard, valid) == (soft, 1)
                self.limits[project] = hard
        return 0


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found, kernel = Disk(), syscalls.syscall

    def syscall(name: str, *args: Any, **options: Any) -> int:
        return found.syscall(name, *args) if name == "quotactl_fd" else kernel(name, *args, **options)

    monkeypatch.setattr(fcntl, "ioctl", found.ioctl)
    monkeypatch.setattr(syscalls, "syscall", syscall)
    return found


def with_project(disk: Disk, place: Path, flags: int = INHERIT, project: int = PROJECT) -> None:
    disk.of[place.stat().st_ino] = (flags, project)


def test_the_usage_of_a_project(disk: Disk, tmp_path: Path) -> None:
    with_project(disk, tmp_path)
    disk.uses[PROJECT] = (5 << 20, 7)
    size = (5 << 20) - tmp_path.stat().st_blocks * 512
    assert quota.used(str(tmp_path)) == (size, 6)
    found = disk_usage.measure(str(tmp_path))
    assert found is not None
    assert (found.bytes, found.inodes) == (size, 6)
    assert bytes_of("volume", [str(tmp_path)]) == size


@pytest.mark.parametrize(
    "other",
    [{"project": 0}, {"flags": 0}, {"around": PROJECT}, {"valid": 1}, {"keeps": 0}],
    ids=lambda other: next(iter(other)),
)
def test_a_directory_without_a_project_is_walked(disk: Disk, tmp_path: Path, other: dict[str, int]) -> None:
    with_project(disk, tmp_path, other.get("flags", INHERIT), other.get("project", PROJECT))
    with_project(disk, tmp_path.parent, INHERIT, other.get("around", 0))
    disk.uses[PROJECT] = (5 << 20, 7)
    disk.valid, disk.flags = other.get("valid", 0x3F), other.get("keeps", COUNTS)
    assert quota.used(str(tmp_path)) is None
    (tmp_path / "file").write_bytes(b"x" * 100)
    found = disk_usage.measure(str(tmp_path))
    assert found is not None and found.inodes == 1
    assert bytes_of("volume", [str(tmp_path)]) == (tmp_path / "file").stat().st_blocks * 512


_WALKED = ("main/0/upper/file", "logs/0.log", "main/1/termination-log")


def test_the_usage_of_a_container_has_its_instances_and_logs(disk: Disk, tmp_path: Path) -> None:
    for attempt, counted in (("0", False), ("1", True)):
        for name in ("upper", "work/work"):
            (tmp_path / "main" / attempt / name).mkdir(parents=True)
        if counted:
            with_project(disk, tmp_path / "main" / attempt / "upper")
    (tmp_path / "main/0/upper/file").write_bytes(bytes(10_000))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/0.log").write_bytes(bytes(20_000))
    (tmp_path / "main/1/termination-log").write_bytes(bytes(30_000))  # the container has it mounted
    (tmp_path / "main/1/config.json").write_bytes(bytes(40_000))
    disk.uses[PROJECT] = (5 << 20, 9)
    own = sum((tmp_path / "main/1" / n).stat().st_blocks * 512 for n in ("upper", "work", "work/work"))
    walked = [(tmp_path / n).stat().st_blocks * 512 for n in _WALKED]
    paths = [str(tmp_path / "main"), str(tmp_path / "logs")]
    assert bytes_of("container/main", paths) == (5 << 20) - own + sum(walked)


def test_the_first_free_project(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "_turns", iter([0, 3]))
    disk.uses = {PROJECT: (0, 1), PROJECT + 1: (4096, 1), PROJECT + 2: (0, 0)}
    disk.limits[PROJECT + 2] = 77
    quota.count(str(tmp_path))
    assert disk.of[tmp_path.stat().st_ino] == (INHERIT, PROJECT + 2)
    assert disk.limits[PROJECT + 2] == 0, "left by who had it before"
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").touch()
    assert quota.set_quota(str(tmp_path / "data"), 5 << 20) == ""
    assert disk.limits[PROJECT + 3] == 5 << 10
    assert disk.of[(tmp_path / "data/file").stat().st_ino] == (0, PROJECT + 3)
    quota.lift(str(tmp_path / "data"))
    assert disk.limits[PROJECT + 3] == 0


@pytest.mark.parametrize("flags", [0, COUNTS])
def test_an_unenforced_quota_is_reported(disk: Disk, tmp_path: Path, flags: int) -> None:
    disk.flags = flags
    assert "has no project quotas" in quota.set_quota(str(tmp_path), 1 << 20)
    assert not disk.limits


def test_a_directory_without_quota_support(tmp_path: Path) -> None:
    assert quota.used(str(tmp_path)) is None
    quota.count(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        quota.used(str(tmp_path / "gone"))
    assert disk_usage.measure(str(tmp_path / "gone")) is None
