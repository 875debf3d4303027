"""What files of the Container Device Interface change in config.json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.devices.cdi import CdiFile, edited, resolve
from kubelite.node.model.errors import CreateError
from kubelite.node.storage.cdi_files import cdi_edits

SPEC: dict[str, Any] = {
    "process": {"env": ["A=1", "B=2"], "user": {"uid": 1000, "gid": 0, "additionalGids": [5]}},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": []},
        {"destination": "/a/b", "type": "bind", "source": "/old", "options": ["rbind"]},
    ],
    "linux": {"devices": [{"path": "/dev/x", "type": "b"}], "resources": {"devices": [{"allow": False}]}},
}
NODE = {"path": "/dev/x", "hostPath": "/dev/x0", "type": "c", "major": 1, "minor": 3, "permissions": "rw"}


def file(path: str, priority: int = 0, kind: str = "v.com/gpu", **more: Any) -> CdiFile:
    devices = [{"name": "0", "containerEdits": {"env": [f"{path}=0"]}}, {"name": "1"}]
    return CdiFile(path, priority, {"kind": kind, "devices": devices, **more})


def test_the_edits_of_a_file_come_once_before_those_of_its_devices() -> None:
    shared = file("s", containerEdits={"env": ["ALL=1"]})
    found = resolve(["v.com/gpu=0", "v.com/gpu=1", "o.com/nic=0"], [shared, file("o", kind="o.com/nic")])
    assert found == [{"env": ["ALL=1"]}, {"env": ["s=0"]}, {"env": ["o=0"]}]


def test_a_later_directory_replaces_a_device() -> None:
    assert resolve(["v.com/gpu=0"], [file("etc", 0), file("run", 1)]) == [{"env": ["run=0"]}]


@pytest.mark.parametrize(
    "name, files, words",
    [
        ("v.com/gpu=7", [file("a")], "unresolvable CDI device v.com/gpu=7"),
        ("v.com/nic=0", [file("a")], "unresolvable CDI device v.com/nic=0"),
        ("v.com/gpu=0", [file("a"), file("b")], "conflicting CDI device v.com/gpu=0: a and b define it"),
    ],
)
def test_devices_that_cannot_be_found_are_named(name: str, files: list[CdiFile], words: str) -> None:
    with pytest.raises(CreateError, match=words):
        resolve([name], files)


def test_edits_change_the_whole_of_config_json() -> None:
    before = json.dumps(SPEC)
    hook = {"hookName": "createContainer", "path": "/usr/bin/hook", "args": ["hook", "x"], "timeout": 3}
    made = edited(
        SPEC,
        [
            {
                "env": ["B=3", "C=4"],
                "additionalGids": [0, 5, 7],
                "deviceNodes": [NODE],
                "mounts": [
                    {"containerPath": "/a/b", "hostPath": "/new", "options": ["ro", "rbind"]},
                    {"containerPath": "/a", "hostPath": "/parent"},
                    {"containerPath": "/t", "hostPath": "tmpfs", "type": "tmpfs"},
                ],
                "hooks": [hook],
                "intelRdt": {"closID": "gold"},
                "netDevices": [{"hostInterfaceName": "eth7", "name": "eth1"}],
            }
        ],
    )
    assert made["process"]["env"] == ["A=1", "B=3", "C=4"]
    assert made["process"]["user"]["additionalGids"] == [5, 7]
    own = {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": 1000}
    rule = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}
    assert made["linux"] == {
        "devices": [own],
        "resources": {"devices": [{"allow": False}, rule]},
        "intelRdt": {"closID": "gold"},
        "netDevices": {"eth7": {"name": "eth1"}},
    }
    assert [(m["destination"], m["type"], m["source"], m["options"]) for m in made["mounts"]] == [
        ("/proc", "proc", "proc", []),
        ("/a", "bind", "/parent", ["bind"]),
        ("/t", "tmpfs", "tmpfs", []),
        ("/a/b", "bind", "/new", ["ro", "rbind"]),
    ]
    called = {"path": "/usr/bin/hook", "args": ["hook", "x"], "timeout": 3}
    assert made["hooks"] == {"createContainer": [called]}
    assert json.dumps(SPEC) == before, "the argument is not changed"


def test_a_device_of_a_pod_with_own_users_is_mounted() -> None:
    spec = {**SPEC, "linux": {**SPEC["linux"], "uidMappings": []}}
    made = edited(spec, [{"deviceNodes": [NODE], "mounts": [{"containerPath": "/m", "hostPath": "/h"}]}])
    assert made["linux"]["devices"] == []
    by_path = {m["destination"]: m for m in made["mounts"]}
    assert by_path["/dev/x"]["source"] == "/dev/x0" and by_path["/dev/x"]["options"] == ["bind", "rprivate"]
    assert by_path["/m"]["options"] == ["bind", "idmap"]


@pytest.mark.parametrize("given, access", [("", "rwm"), (None, "rwm"), ("none", ""), ("r", "r")])
def test_permissions_have_a_default(given: str | None, access: str) -> None:
    made = edited(SPEC, [{"deviceNodes": [{**NODE, "permissions": given}]}])
    assert made["linux"]["resources"]["devices"][-1]["access"] == access


def test_unknown_hooks_are_refused() -> None:
    with pytest.raises(CreateError, match="OCI has no hook 'someday'"):
        edited(SPEC, [{"hooks": [{"hookName": "someday", "path": "/x"}]}])


@pytest.mark.parametrize(
    "text", [b"at: 2024-99-99", b"\xff", b"{", b"[" * 5000], ids=["a date", "not UTF-8", "cut off", "deep"]
)
def test_a_file_that_cannot_be_read_does_not_keep_others_from_being_used(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "bad.yaml").write_bytes(text)
    good = {"kind": "v.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["A=0"]}}]}
    (tmp_path / "good.json").write_text(json.dumps(good))
    assert [made["env"] for made in cdi_edits(["v.com/gpu=0"], [str(tmp_path)])] == [["A=0"]]


def test_files_are_read_and_completed_from_the_host(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.yaml").write_text("kind: a\n")
    edits = {"deviceNodes": [{"path": "/dev/gpu", "hostPath": "/dev/null"}]}
    doc = {"cdiVersion": "0.7.0", "kind": "v.com/gpu", "devices": [{"name": "0", "containerEdits": edits}]}
    (tmp_path / "v.yaml").write_text(json.dumps(doc))
    [found] = cdi_edits(["v.com/gpu=0"], ["/none-such", str(tmp_path)])
    mode = os.stat("/dev/null").st_mode & 0o7777
    numbers = {"type": "c", "major": 1, "minor": 3, "fileMode": mode}
    assert found == {"deviceNodes": [{"path": "/dev/gpu", "hostPath": "/dev/null", **numbers}]}


@pytest.mark.parametrize(
    "node, words",
    [
        ({"path": "/dev/none-such"}, "CDI device /dev/none-such: No such file or directory"),
        ({"path": "/dev/null", "type": "b"}, "no device of the type"),
        ({"path": "/etc"}, "no device of the type"),
        ({}, "a CDI file that defines one of v.com/gpu=0 is invalid"),
    ],
)
def test_wrong_nodes_are_refused_in_words(tmp_path: Path, node: dict[str, str], words: str) -> None:
    devices = [{"name": "0", "containerEdits": {"deviceNodes": [node]}}]
    (tmp_path / "v.json").write_text(json.dumps({"kind": "v.com/gpu", "devices": devices}))
    with pytest.raises(CreateError, match=words):
        cdi_edits(["v.com/gpu=0"], [str(tmp_path)])


def test_a_described_device_need_not_exist_yet(tmp_path: Path) -> None:
    node = {"path": "/dev/none-such", "type": "c", "major": 195, "minor": 0}
    devices = [{"name": "0", "containerEdits": {"deviceNodes": [node]}}]
    (tmp_path / "v.json").write_text(json.dumps({"kind": "v.com/gpu", "devices": devices}))
    [found] = cdi_edits(["v.com/gpu=0"], [str(tmp_path)])
    assert found["deviceNodes"] == [{**node, "hostPath": "/dev/none-such"}]
