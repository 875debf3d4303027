"""config.json: what is accepted, and that errors name the field."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import RuntimeFault, SpecError
from runtime.oci.config import spec as oci
from runtime.oci.config import spec_linux

GOOD: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "process": {
        "args": ["/bin/true"],
        "env": ["PATH=/bin", "EMPTY="],
        "cwd": "/",
        "user": {"uid": 1, "gid": 2, "additionalGids": [3], "umask": 18},
        "capabilities": {"bounding": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
        "oomScoreAdj": -997,
        "noNewPrivileges": True,
    },
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]}],
    "linux": {
        "namespaces": [
            {"type": "mount"},
            {"type": "uts"},
            {"type": "ipc"},
            {"type": "network", "path": "/n"},
        ],
        "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmax": "1", "fs.mqueue.msg_max": "10"},
        "maskedPaths": ["/proc/kcore"],
        "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}],
    },
    "annotations": {"a": "b"},
    "somethingNew": {"of": "a later version"},
}


LOG = {"defaultAction": "SCMP_ACT_LOG"}


def changed(path: str, value: Any) -> dict[str, Any]:
    spec = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    holder: Any = spec
    for key in parents:
        holder = holder[int(key) if isinstance(holder, list) else key]
    holder[int(last) if isinstance(holder, list) else last] = value
    return spec


def test_a_valid_config_is_returned() -> None:
    assert oci.validate(GOOD) is GOOD
    assert oci.namespaces(oci.validate(GOOD)) == {"mount": "", "uts": "", "ipc": "", "network": "/n"}


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("ociVersion", "2.0.0", "ociVersion"),
        ("ociVersion", 1, "ociVersion"),
        ("root", {}, "root.path"),
        ("root", [], "root"),
        ("root/readonly", "yes", "root.readonly"),
        ("process", None, "process"),
        ("process/args", [], "process.args"),
        ("process/args", ["a", 1], "process.args[1]"),
        ("process/args", ["a\0b"], "process.args[0]"),
        ("process/args", "sh", "process.args"),
        ("process/cwd", "relative", "process.cwd"),
        ("process/cwd", "", "process.cwd"),
        ("process/env", ["novalue"], "process.env[0]"),
        ("process/env", ["A=1", "=x"], "process.env[1]"),
        ("process/user/uid", -1, "process.user.uid"),
        ("process/user/uid", 2**32 - 1, "process.user.uid"),
        ("process/user/gid", True, "process.user.gid"),
        ("process/user/additionalGids", [1, -1], "process.user.additionalGids[1]"),
        ("process/user/umask", 0o10000, "process.user.umask"),
        ("process/capabilities/ambient", "CAP_KILL", "process.capabilities.ambient"),
        ("process/rlimits/0/type", "RLIMIT_FUN", "process.rlimits[0].type"),
        ("process/rlimits/0/soft", 3, "process.rlimits[0].soft"),
        ("process/oomScoreAdj", 1001, "process.oomScoreAdj"),
        ("process/terminal", 1, "process.terminal"),
        ("process/commandLine", "cmd", "process.commandLine"),
        ("mounts/0/destination", "", "mounts[0].destination"),
        ("mounts/0/options", "ro", "mounts[0].options"),
        ("mounts", {}, "mounts"),
        ("linux/namespaces/0/type", "mnt", "linux.namespaces[0].type"),
        ("linux/namespaces/3", {"type": "uts"}, "linux.namespaces[3].type"),
        ("linux/namespaces/3/path", "n", "linux.namespaces[3].path"),
        ("linux/namespaces/0/path", "ns/mnt", "linux.namespaces[0].path"),
        ("linux/namespaces/3", {"type": "user"}, "linux.uidMappings"),
        ("linux/maskedPaths", ["proc"], "linux.maskedPaths[0]"),
        ("linux/rootfsPropagation", "sideways", "linux.rootfsPropagation"),
        ("linux/personality", {"domain": "BSD"}, "linux.personality.domain"),
        ("process/consoleSize", {"height": -1}, "process.consoleSize.height"),
        ("linux/devices/0/type", "x", "linux.devices[0].type"),
        ("linux/devices/0/path", "dev", "linux.devices[0].path"),
        ("linux/devices/0/major", None, "linux.devices[0].major"),
        ("linux/sysctl", {"vm.swappiness": "1"}, "linux.sysctl.vm.swappiness"),
        ("linux/sysctl", {"kernel.hostname": "x"}, "linux.sysctl.kernel.hostname"),
        ("linux/sysctl", {"net.a": 1}, "linux.sysctl.net.a"),
        ("linux/sysctl", {"net.ipv4/../../kernel.x": "1"}, "linux.sysctl.net.ipv4/../../kernel.x"),
    ],
)
def test_errors_name_the_field(path: str, value: Any, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        oci.validate(changed(path, value))
    assert str(caught.value).startswith(f"{field}: ")


def test_fields_that_need_a_mount_namespace() -> None:
    """A joined mount namespace is sufficient, but a user namespace may not mount in the host's."""
    linux: Any = {"namespaces": [{"type": "pid"}]}
    spec: Any = {**{key: GOOD[key] for key in ("ociVersion", "root", "process")}, "linux": linux}
    assert oci.validate(spec) is spec
    for wrong, field in (
        ({"maskedPaths": ["/proc/kcore"]}, "linux.maskedPaths"),
        ({"readonlyPaths": ["/proc/sys"]}, "linux.readonlyPaths"),
        ({"namespaces": [{"type": "user", "path": "/u"}]}, "linux.namespaces"),
    ):
        with pytest.raises(SpecError) as caught:
            oci.validate({**spec, "linux": {**linux, **wrong}})
        assert str(caught.value).startswith(f"{field}: ")
        kinds = [*(wrong.get("namespaces") or linux["namespaces"]), {"type": "mount", "path": "/m"}]
        oci.validate({**spec, "linux": {**linux, **wrong, "namespaces": kinds}})


def test_mappings_of_a_user_namespace() -> None:
    """A new user namespace needs mappings that include id 0; a joined one has its own."""
    kinds: Any = {"namespaces": [{"type": "mount"}, {"type": "user", "path": "/proc/1/ns/user"}]}
    assert spec_linux.namespaces(kinds) == {"mount", "user"}
    kinds["namespaces"][1]["path"] = ""
    entry = {"containerID": 1000, "hostID": 100000, "size": 1}
    for mappings, text in (([], "is required"), ([entry], "must map id 0")):
        with pytest.raises(SpecError, match=f"linux.uidMappings: {text}"):
            spec_linux.namespaces({**kinds, "uidMappings": mappings, "gidMappings": mappings})
    both = [entry, {"containerID": 0, "hostID": 0, "size": 1}]
    assert spec_linux.namespaces({**kinds, "uidMappings": both, "gidMappings": both})


def test_doubled_rlimit() -> None:
    twice = GOOD["process"]["rlimits"] * 2
    with pytest.raises(SpecError, match=r"process\.rlimits\[1\]\.type: RLIMIT_NOFILE is specified twice"):
        oci.validate(changed("process/rlimits", twice))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("linux/personality", {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}),
        ("linux/intelRdt", {"memBwSchema": "L3:0=f"}),
        ("linux/intelRdt", {"closID": "../x"}),
        ("linux/intelRdt", {"enableCMT": True}),
        ("linux/memoryPolicy", {"mode": "MPOL_SOMEWHERE"}),
        ("linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0-x"}),
        ("linux/memoryPolicy", {"mode": "MPOL_BIND", "flags": ["MPOL_F_ODD"]}),
        ("linux/netDevices", {"": {}}),
        ("linux/netDevices", {"eth0": {"name": "a name of blanks"}}),
        ("linux/netDevices", {"eth%d": {}}),
        ("linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
        ("linux/seccomp", {"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/s"}),
        ("linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
        (
            "linux/seccomp",
            {
                "defaultAction": "SCMP_ACT_LOG",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
            },
        ),
        (
            "linux/seccomp",
            {
                "defaultAction": "SCMP_ACT_LOG",
                "listenerPath": "/s",
                "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}],
            },
        ),
        (
            "linux/seccomp",
            {
                "defaultAction": "SCMP_ACT_LOG",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "errnoRet": 2}],
            },
        ),
    ],
)
def test_unsupported_values_are_rejected(path: str, value: Any) -> None:
    with pytest.raises(SpecError, match=path.replace("/", r"\.")):
        oci.validate(changed(path, value))


def test_fields_of_other_platforms_are_reported() -> None:
    assert oci.without_effect(GOOD) == []
    spec = changed("process/user", {"username": "ContainerUser"})
    said = oci.without_effect({**spec, "windows": {"layerFolders": ["x"]}})
    assert [sentence.split(" ")[0] for sentence in said] == ["windows", "process.user.username"]


def test_memory_policy_is_what_the_kernel_takes() -> None:
    policy = {"mode": "MPOL_INTERLEAVE", "nodes": "0-2,5", "flags": ["MPOL_F_STATIC_NODES"]}
    assert spec_linux.memory_policy({"memoryPolicy": policy}) == (3 | 1 << 15, frozenset({0, 1, 2, 5}))
    assert spec_linux.memory_policy({}) is None


@pytest.mark.parametrize(("key", "kind"), [("hostname", "uts"), ("linux", "network"), ("linux", "ipc")])
def test_hostname_and_sysctls_of_the_host_are_rejected(key: str, kind: str) -> None:
    spec = copy.deepcopy(GOOD)
    spec["linux"]["namespaces"] = [n for n in GOOD["linux"]["namespaces"] if n["type"] != kind]
    with pytest.raises(SpecError, match=f"^{key}.*{kind} namespace"):
        oci.validate(spec)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
    ],
)
def test_sysctl_names(name: str, path: str) -> None:
    assert spec_linux.sysctl_path(name) == path


def test_load(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        oci.load(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SpecError, match="not JSON"):
        oci.load(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(GOOD))
    assert oci.load(str(tmp_path)) == GOOD


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PATHS = [
    *(
        "ociVersion",
        "root",
        "root/path",
        "process",
        "process/args",
        "process/env",
        "process/user",
        "process/user/uid",
    ),
    *(
        "process/rlimits",
        "process/rlimits/0",
        "process/capabilities",
        "mounts",
        "mounts/0",
        "mounts/0/options",
    ),
    *(
        "linux",
        "linux/namespaces",
        "linux/namespaces/0",
        "linux/sysctl",
        "linux/devices/0",
        "linux/devices",
        "hooks",
    ),
]


@given(path=st.sampled_from(PATHS), value=JSON)
def test_anything_is_accepted_or_a_clean_error(path: str, value: Any) -> None:
    try:
        oci.validate(changed(path, value))
    except RuntimeFault as error:
        assert str(error)
