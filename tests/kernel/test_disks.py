"""Formatting of empty block devices, with real loop devices."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.node.model.errors import MountError
from kubelite.node.storage import block_devices, loopdev
from kubelite.node.storage.block_devices import Disk
from runtime import syscalls

MARK = f"disks {os.getpid()}".encode()
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: loop devices"),
    pytest.mark.skipif(not os.path.exists(loopdev.CONTROL), reason="the kernel has no loop devices"),
    pytest.mark.skipif(
        not shutil.which("mkfs.ext4", path="/usr/sbin:/sbin"), reason="needs mkfs.ext4 (package e2fsprogs)"
    ),
]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "disk"
    path.write_bytes(b"")
    os.truncate(path, 16 << 20)
    yield loopdev.attach(str(path), MARK)
    for volume in block_devices.mounted(str(tmp_path)):
        assert block_devices.let_go(str(tmp_path), ()) == [volume]
    for made, file in loopdev.marked(MARK):
        if file == str(path):
            loopdev.detach(made)


def place(tmp_path: Path, volume: str = "v") -> str:
    path = block_devices.mount_point(str(tmp_path), volume)
    os.makedirs(path)
    return path


def test_an_empty_device_is_formatted_once(device: str, tmp_path: Path) -> None:
    where = place(tmp_path)
    assert block_devices.content_of(device) == ""
    Disk(device).mount(where)
    assert block_devices.content_of(device) == "ext4"
    Path(where, "file").write_text("kept")
    assert block_devices.let_go(str(tmp_path), {"v"}) == [], "it is in use"
    assert block_devices.let_go(str(tmp_path), ()) == ["v"]
    assert not os.path.exists(where)
    again = place(tmp_path)
    Disk(device, "ext4", ("noatime", "errors=remount-ro")).mount(again)
    assert Path(again, "file").read_text() == "kept"
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        line = next(line for line in file if f" {again} " in line)
    assert "noatime" in line and "errors=remount-ro" in line


def test_existing_data_is_never_overwritten(device: str, tmp_path: Path) -> None:
    where = place(tmp_path)
    with open(device, "r+b") as file:  # a partition table (a boot sector with one entry)
        file.seek(446)
        file.write(
            bytes([0, 0, 2, 0, 0x83, 0, 0, 0]) + (8).to_bytes(4, "little") + (1000).to_bytes(4, "little")
        )
        file.seek(510)
        file.write(b"\x55\xaa")
    assert block_devices.content_of(device) == block_devices.PARTITIONS
    before = Path(device).read_bytes()
    words = (
        r'failed to mount the volume as "ext4", it already contains unknown data, probably partitions\. Mount'
    )
    with pytest.raises(MountError, match=words):
        Disk(device).mount(where)
    assert Path(device).read_bytes() == before


def test_another_file_system_than_requested(device: str, tmp_path: Path) -> None:
    where = place(tmp_path)
    Disk(device, "ext4").mount(where)
    syscalls.umount2(where, 0)
    with pytest.raises(MountError, match='failed to mount the volume as "xfs", it already contains ext4'):
        Disk(device, "xfs").mount(where)
    Disk(device).mount(where)


def test_a_read_only_device_is_not_formatted(device: str, tmp_path: Path) -> None:
    where = place(tmp_path)
    with pytest.raises(MountError, match="is empty, and a read-only volume is not formatted"):
        Disk(device, options=("ro",)).mount(where)
    assert block_devices.content_of(device) == ""


def test_a_file_system_without_a_mkfs_program(device: str, tmp_path: Path) -> None:
    where = place(tmp_path)
    with pytest.raises(MountError, match=r"this machine has no mkfs\.nosuchfs"):
        Disk(device, "nosuchfs").mount(where)


def test_a_damaged_file_system_is_repaired_before_mounting(device: str, tmp_path: Path) -> None:
    where = place(tmp_path)
    Disk(device).mount(where)
    Path(where, "file").write_text("kept")
    syscalls.umount2(where, 0)
    change = [
        "debugfs",
        "-w",
        "-R",
        "set_super_value state 2",
        device,
    ]  # EXT2_ERROR_FS: not checked since then
    subprocess.run(change, check=True, capture_output=True)
    Disk(device).mount(where)
    assert Path(where, "file").read_text() == "kept"
    syscalls.umount2(where, 0)
    shown = subprocess.run(["dumpe2fs", "-h", device], check=True, capture_output=True, text=True).stdout
    assert "Filesystem state:         clean" in shown
