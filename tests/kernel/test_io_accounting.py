"""Block I/O of a cgroup on cgroup v1: the kernel counts it exactly, once it is asked to count a disk's I/O at all."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.node.storage import loopdev
from runtime import cgroups
from runtime.cgroups import files, io_accounting
from runtime.cgroups.io_accounting import IoAccounting
from tests.kernel.cgroup_kit import MIB, spawn

NAME = f"/kubelite-test-io-{os.getpid()}"
LOOP_SET_FD, LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C00, 0x4C80, 0x4C81  # include/uapi/linux/loop.h
NUMBER = 200 + os.getpid() % 100_000  # of a disk whose I/O nobody has had counted
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: loop devices"),
    pytest.mark.skipif(not os.path.exists(loopdev.CONTROL), reason="the kernel has no loop devices"),
    pytest.mark.skipif("blkio" not in cgroups.layout().v1, reason="needs v1 controllers: this machine is v2"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A new disk of 4 MiB."""
    path = tmp_path / "disk"
    path.write_bytes(bytes(4 * MIB))
    control = os.open(loopdev.CONTROL, os.O_RDWR)
    try:
        fcntl.ioctl(control, LOOP_CTL_ADD, NUMBER)
        device = f"/dev/loop{NUMBER}"
        file, opened = os.open(path, os.O_RDWR), os.open(device, os.O_RDWR)
        fcntl.ioctl(opened, loopdev._SET_FD, file)
        os.close(file)
        os.close(opened)
        yield device
    finally:
        loopdev.detach(f"/dev/loop{NUMBER}")
        fcntl.ioctl(control, LOOP_CTL_REMOVE, NUMBER)
        os.close(control)


def read_all(device: str) -> None:
    """Read the disk past the page cache, in this process."""
    buffer = mmap.mmap(-1, MIB)
    descriptor = os.open(device, os.O_RDONLY | os.O_DIRECT)
    while os.readv(descriptor, [buffer]):
        pass
    os._exit(0)


def counted(group: cgroups.Cgroup, device: str) -> int:
    """The bytes that a process of the cgroup has read from the disk, as the metrics page gets them."""
    assert os.waitstatus_to_exitcode(os.waitpid(spawn(group, lambda: read_all(device)), 0)[1]) == 0
    number = os.stat(device).st_rdev
    place = os.major(number), os.minor(number)
    return sum(one.rbytes for one in group.stats().io if (one.major, one.minor) == place)


def test_bytes_are_counted_exactly(disk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    group = cgroups.open_cgroup(NAME)
    group.create()
    try:
        assert counted(group, disk) == 0, "the kernel counts nothing by itself"
        accounting = IoAccounting(f"{NAME}-rule")
        accounting.enable()
        assert counted(group, disk) == 4 * MIB
        directory = f"{cgroups.layout().v1['blkio']}{NAME}-rule"
        assert not os.path.exists(directory)
        assert files.read_or(f"{group.directory('blkio')}/{io_accounting.RULE}").strip() == "", (
            "nothing is limited"
        )
        monkeypatch.setattr(files, "write", None)
        accounting.enable()  # every disk has its rule: nothing to do
    finally:
        group.remove()
