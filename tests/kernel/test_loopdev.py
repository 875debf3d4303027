"""Loop devices over files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.node.storage import loopdev

MARK = f"test {os.getpid()}".encode()
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: loop devices"),
    pytest.mark.skipif(not os.path.exists(loopdev.CONTROL), reason="the kernel has no loop devices"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    yield path
    for device, file in loopdev.marked(MARK):
        if file == str(path):
            loopdev.detach(device)


def test_a_file_gets_one_device(disk: Path) -> None:
    device = loopdev.attach(str(disk), MARK)
    assert loopdev.attach(str(disk), MARK) == device, "the one that is there is taken"
    assert (device, str(disk)) in list(loopdev.marked(MARK))
    with open(device, "r+b") as file:
        assert file.seek(0, os.SEEK_END) == 1 << 20
        file.seek(0)
        file.write(b"written to the device")
        file.flush()
        os.fsync(file.fileno())
    assert disk.read_bytes().startswith(b"written to the device")
    assert loopdev.detach(device)
    assert (device, str(disk)) not in list(loopdev.marked(MARK))


def test_other_devices_are_left_alone(disk: Path) -> None:
    made = subprocess.run(["losetup", "--show", "-f", str(disk)], capture_output=True, text=True, check=True)
    theirs = made.stdout.strip()
    try:
        assert loopdev.attach(str(disk), b"another node") not in [theirs, loopdev.attach(str(disk), MARK)]
        for device, _ in list(loopdev.marked(b"another node")):
            assert loopdev.detach(device)
        assert theirs not in [device for device, _ in loopdev.marked(MARK)]
        mine = loopdev.attach(str(disk), MARK)
        assert mine != theirs
        assert loopdev.detach(mine)
    finally:
        subprocess.run(["losetup", "-d", theirs], check=True)


def test_without_a_file_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        loopdev.attach(str(tmp_path / "none"), MARK)
