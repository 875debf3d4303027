"""What a project's quota says, as the kernel lays it out (linux/quota.h, if_dqblk; linux/fs.h, fsxattr)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
from pathlib import Path

import pytest

from kubelite import quota
from kubelite.telemetry import diskusage
from runtime import syscalls
from runtime.errors import SyscallError

PROJECT, INHERIT = 1 << 20, 0x200


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A file system that counts projects."""
    said = {"flags": INHERIT, "project": PROJECT, "space": 5 << 20, "inodes": 7, "valid": 0x3F}

    def ioctl(_fd: int, request: int, attributes: bytearray) -> int:
        assert request == 0x801C581F  # FS_IOC_FSGETXATTR
        struct.pack_into("=5I8x", attributes, 0, said["flags"], 0, 0, said["project"], 0)
        return 0

    def syscall(
        name: str, _fd: int, command: int, project: int, found: ctypes.Array[ctypes.c_char], about: str
    ) -> int:
        assert (name, command) == ("quotactl_fd", 0x800007 << 8 | 2), about
        if project != PROJECT:
            raise SyscallError(errno.ESRCH, name, about)
        limits = (8192, 8192, said["space"], 0, 0, said["inodes"], 0, 0)
        found.raw = struct.pack("=8QI4x", *limits, said["valid"])
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(syscalls, "syscall", syscall)
    return said


def test_what_a_project_has(kernel: dict[str, int], tmp_path: Path) -> None:
    assert quota.used(str(tmp_path)) == (5 << 20, 7)
    found = diskusage.measure(str(tmp_path))
    assert found is not None
    assert (found.bytes, found.inodes) == ((5 << 20) - tmp_path.stat().st_blocks * 512, 6)


@pytest.mark.parametrize("other", [{"project": 0}, {"flags": 0}, {"project": 77}, {"valid": 1}])
def test_one_that_is_not_counted_is_walked(
    kernel: dict[str, int], tmp_path: Path, other: dict[str, int]
) -> None:
    kernel |= other
    assert quota.used(str(tmp_path)) is None
    (tmp_path / "file").write_bytes(b"x" * 100)
    found = diskusage.measure(str(tmp_path))
    assert found is not None and found.inodes == 1


def test_an_ordinary_directory(tmp_path: Path) -> None:
    assert quota.used(str(tmp_path)) is None
    with pytest.raises(FileNotFoundError):
        quota.used(str(tmp_path / "gone"))
    assert diskusage.measure(str(tmp_path / "gone")) is None
