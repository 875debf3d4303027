"""The host's devices that device plugins name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubelite.node.devices.model import DeviceNode
from kubelite.node.model.errors import CreateError
from kubelite.node.spec.users import ResolvedUser
from kubelite.node.storage.host_nodes import host_nodes

ROOT, USER = ResolvedUser(0, 0), ResolvedUser(1000, 1001)


def test_a_device_is_found_by_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    found = os.stat("/dev/null")
    for path in ("/dev/null", str(tmp_path / "link")):
        [made] = host_nodes([DeviceNode("/dev/gpu", path, "rw")], ROOT)
        assert made.access == "rw"
        assert made.node == {
            "type": "c", "path": "/dev/gpu", "major": 1, "minor": 3,
            "fileMode": found.st_mode & 0o7777, "uid": found.st_uid, "gid": found.st_gid,
        }  # fmt: skip


def test_a_user_owns_the_devices_of_its_container() -> None:
    [made] = host_nodes([DeviceNode("", "/dev/null", "")], USER)
    assert (made.node["uid"], made.node["gid"]) == (1000, 1001)
    assert (made.node["path"], made.access) == ("/dev/null", "rwm")


def test_a_directory_stands_for_its_devices(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert host_nodes([DeviceNode("/dev/x", str(tmp_path), "rw")], ROOT) == []
    found = {made.node["path"] for made in host_nodes([DeviceNode("/x", "/dev", "r")], ROOT)}
    assert {"/x/null", "/x/zero"} <= found


def test_what_is_no_device_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        CreateError, match=r"device /dev/none-such of a device plugin: No such file or directory"
    ):
        host_nodes([DeviceNode("/dev/x", "/dev/none-such", "rw")], ROOT)
    (tmp_path / "file").touch()
    with pytest.raises(CreateError, match="neither a device nor a directory"):
        host_nodes([DeviceNode("/dev/x", str(tmp_path / "file"), "rw")], ROOT)
    with pytest.raises(CreateError, match=r"device '/dev/null\\x00' of a device plugin: .* a NUL byte"):
        host_nodes([DeviceNode("/dev/x", "/dev/null\0", "rw")], ROOT)
