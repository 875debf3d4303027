"""Every field of config.json (the specification's schema 1.3, Linux) and what becomes of it: none is passed over.

FIELDS is the table of docs/reference/oci-config.md, which `python -m tests.unit.runtime.oci.test_fields` writes. Of
each field the test asks whether it is read at all: a value of no kind that the schema has is refused, and the field
is named.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, Final

import pytest

from runtime.errors import SpecError
from runtime.oci.config import spec as oci
from tests.unit.runtime.oci.test_spec import GOOD

DOCUMENT: Final = Path(__file__).parents[4] / "docs/reference/oci-config.md"
BEGIN, END = "<!-- fields: written by tests/unit/runtime/oci/test_fields.py -->\n", "<!-- end of fields -->\n"
SUPPORTED: Final = "supported"
_IDS = "containerID, hostID, size"

# (where, fields, what becomes of them)
FIELDS: Final[list[tuple[str, str, str]]] = [
    ("", "ociVersion", "any 1.x; others are refused (runc accepts them)"),
    ("", "hostname, domainname", "supported; refused without a UTS namespace"),
    ("", "annotations", "stored in the state; `org.systemd.property.…` are passed to systemd"),
    ("root", "path, readonly", SUPPORTED),
    (
        "mounts[]",
        "destination, type, source, options",
        "supported; a relative destination is below /; a leading root.path is removed (as runc)",
    ),
    ("mounts[].uidMappings[]", _IDS, "supported on bind mounts; refused on others"),
    ("mounts[].gidMappings[]", _IDS, "supported on bind mounts; refused on others"),
    ("process", "args, cwd, env, terminal, noNewPrivileges", SUPPORTED),
    ("process", "commandLine", "refused: Windows only"),
    ("process", "oomScoreAdj", "supported; a warning without CAP_SYS_RESOURCE"),
    ("process", "apparmorProfile, selinuxLabel", "supported; refused if the kernel lacks the module"),
    ("process.consoleSize", "height, width", SUPPORTED),
    ("process.user", "uid, gid, umask, additionalGids", SUPPORTED),
    ("process.user", "username", "a warning: Windows only"),
    (
        "process.capabilities",
        "bounding, effective, permitted, inheritable, ambient",
        "supported; a warning for capabilities that the machine lacks",
    ),
    ("process.rlimits[]", "type, soft, hard", "supported; a warning without CAP_SYS_RESOURCE"),
    ("process.scheduler", "policy, nice, priority, flags, runtime, deadline, period", SUPPORTED),
    ("process.ioPriority", "class, priority", SUPPORTED),
    ("process.execCPUAffinity", "initial, final", SUPPORTED),
    ("hooks.prestart[]", "path, args, env, timeout", SUPPORTED),
    ("hooks.createRuntime[]", "path, args, env, timeout", SUPPORTED),
    ("hooks.createContainer[]", "path, args, env, timeout", SUPPORTED),
    ("hooks.startContainer[]", "path, args, env, timeout", SUPPORTED),
    ("hooks.poststart[]", "path, args, env, timeout", "supported; a failure ends the container"),
    ("hooks.poststop[]", "path, args, env, timeout", "supported; a failure is a warning"),
    ("linux.namespaces[]", "type, path", "all eight: new, joined, or the host's"),
    (
        "linux.uidMappings[]",
        _IDS,
        "supported; with a user namespace by path, optional, or equal to that namespace's",
    ),
    ("linux.gidMappings[]", _IDS, SUPPORTED),
    (
        "linux.devices[]",
        "type, path, major, minor, fileMode, uid, gid",
        "supported; refused if another file is already at the path",
    ),
    ("linux.netDevices.eth0", "name", "supported for root; refused without a network namespace"),
    ("linux", "cgroupsPath", "supported; `slice:prefix:name` with `--systemd-cgroup`"),
    ("linux", "rootfsPropagation, maskedPaths, readonlyPaths", SUPPORTED),
    ("linux", "sysctl", "namespaced ones are supported; those of the host are refused"),
    ("linux", "mountLabel", "supported; refused if the kernel has no SELinux"),
    ("linux.timeOffsets.boottime", "secs, nanosecs", "supported; needs Linux 6.1"),
    ("linux.timeOffsets.monotonic", "secs, nanosecs", "supported; needs Linux 6.1"),
    ("linux.personality", "domain", SUPPORTED),
    ("linux.personality", "flags", "refused: the specification defines no value"),
    ("linux.memoryPolicy", "mode, nodes, flags", SUPPORTED),
    (
        "linux.intelRdt",
        "closID, l3CacheSchema, memBwSchema, schemata, enableMonitoring",
        "supported; refused if resctrl is not mounted",
    ),
    (
        "linux.seccomp",
        "defaultAction, defaultErrnoRet, architectures, flags",
        "supported; an errno for an action that takes none is refused",
    ),
    (
        "linux.seccomp",
        "listenerPath, listenerMetadata",
        "supported; SCMP_ACT_NOTIFY for write, or as the default, is refused (as runc)",
    ),
    (
        "linux.seccomp.syscalls[]",
        "names, action, errnoRet",
        "supported; unknown system calls are skipped (as runc)",
    ),
    ("linux.seccomp.syscalls[].args[]", "index, value, valueTwo, op", SUPPORTED),
    (
        "linux.resources.devices[]",
        "allow, type, major, minor, access",
        "supported; refused if the kernel cannot restrict devices",
    ),
    ("linux.resources.memory", "limit, reservation, swap, checkBeforeUpdate", SUPPORTED),
    ("linux.resources.memory", "kernel, kernelTCP", "a warning: removed from the kernel"),
    ("linux.resources.memory", "swappiness, disableOOMKiller", "supported on v1; a warning on v2"),
    ("linux.resources.memory", "useHierarchy", "always true; a warning for false"),
    ("linux.resources.cpu", "shares, quota, burst, period, cpus, mems, idle", SUPPORTED),
    ("linux.resources.cpu", "realtimeRuntime, realtimePeriod", "supported on v1; a warning on v2"),
    ("linux.resources.pids", "limit", "supported; 0 means 1, -1 no limit (as runc since 1.4)"),
    ("linux.resources.blockIO", "weight", SUPPORTED),
    ("linux.resources.blockIO", "leafWeight", "refused on v1, a warning on v2: removed from the kernel"),
    (
        "linux.resources.blockIO.weightDevice[]",
        "major, minor, weight, leafWeight",
        "supported; leafWeight as above",
    ),
    *(
        (f"linux.resources.blockIO.{kind}Device[]", "major, minor, rate", SUPPORTED)
        for kind in ("throttleReadBps", "throttleWriteBps", "throttleReadIOPS", "throttleWriteIOPS")
    ),
    ("linux.resources.hugepageLimits[]", "pageSize, limit", "supported, for usage and reservations"),
    ("linux.resources.network", "classID", "supported on v1; a warning on v2"),
    ("linux.resources.network.priorities[]", "name, priority", "supported on v1; a warning on v2"),
    ("linux.resources.rdma.mlx5_0", "hcaHandles, hcaObjects", SUPPORTED),
    ("linux.resources", "unified", "supported on v2; refused on v1"),
    ("", "solaris, windows, vm, zos, freebsd", "a warning: other platforms only"),
]
# Other platforms' fields, which only give a warning.
_TOLD: Final = {"username", "solaris", "windows", "vm", "zos", "freebsd"}
ONE_BY_ONE: Final = [(where, name) for where, names, _ in FIELDS for name in names.split(", ")]


def table() -> str:
    rows = ["| object | fields | support |", "|---|---|---|"]
    rows += [f"| {where or '(top)'} | {names} | {text} |" for where, names, text in FIELDS]
    return "\n".join(rows) + "\n"


def holder_of(spec: dict[str, Any], where: str) -> dict[str, Any]:
    """The object at `where`, created if missing; for an array its first item."""
    here: Any = spec
    for part in filter(None, where.split(".")):
        name, array = part.removesuffix("[]"), part.endswith("[]")
        if here.get(name) in (None, [], {}):
            here[name] = [{}] if array else {}
        here = here[name][0] if array else here[name]
    assert isinstance(here, dict)
    return here


@pytest.mark.parametrize(("where", "name"), ONE_BY_ONE, ids=[f"{w}.{n}".lstrip(".") for w, n in ONE_BY_ONE])
def test_every_field_is_read(where: str, name: str) -> None:
    """No type in the schema accepts 3.5."""
    spec: dict[str, Any] = copy.deepcopy(GOOD)
    spec["linux"]["namespaces"] += [{"type": "user"}, {"type": "time"}]
    for key in ("uidMappings", "gidMappings"):
        spec["linux"][key] = [{"containerID": 0, "hostID": 0, "size": 1}]
    for kind, entry in (
        ("seccomp", {"defaultAction": "SCMP_ACT_LOG"}),
        ("memoryPolicy", {"mode": "MPOL_LOCAL"}),
    ):
        if f"linux.{kind}" in where:
            spec["linux"][kind] = entry
    needed: dict[str, dict[str, Any]] = {
        "rlimits": {"type": "RLIMIT_CORE", "soft": 1, "hard": 1},
        "weightDevice": {"major": 1, "minor": 1},
        "Device[]": {"major": 1, "minor": 1, "rate": 1},
        "hugepageLimits": {"pageSize": "2MB", "limit": 1},
        "priorities": {"name": "eth0", "priority": 1},
        "syscalls[].args": {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
        "seccomp.syscalls": {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"},
        "Mappings": {"containerID": 0, "hostID": 0, "size": 1},
        "hooks": {"path": "/bin/true"},
        "mounts[]": {"destination": "/x", "type": "bind", "source": "/y"},
        "linux.devices": {"type": "c", "path": "/dev/x", "major": 1, "minor": 1},
    }
    parents = where.split(".")
    for depth in range(1, len(parents) + 1):
        holder = holder_of(spec, ".".join(parents[:depth]))
        for key, values in needed.items():
            if re.search(re.escape(key).replace(r"\[\]", r"\[\]"), ".".join(parents[:depth])) and not holder:
                holder.update(values)
    holder_of(spec, where)[name] = 3.5
    if name in _TOLD:
        assert any(name in sentence for sentence in oci.without_effect(spec))
        return
    with pytest.raises(SpecError) as raised:
        oci.validate(spec)
    assert name in str(raised.value)


def test_the_document_has_the_table() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0] == table(), (
        "python -m tests.unit.runtime.oci.test_fields writes it"
    )


def write() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    write()
