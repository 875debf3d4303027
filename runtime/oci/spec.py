"""config.json as types, and its validation: the first errors of a container are found here, before anything is made.

The TypedDicts are the OCI runtime specification 1.3 (config.md, config-linux.md), as far as Linux goes. `validate`
raises SpecError that names the field by its path (`process.rlimits[1].type: …`). Unknown keys are ignored, as the
specification asks ("Extensibility"); known ones that this engine does not carry out are refused, never skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn, TypedDict

from runtime.errors import CapabilityError, SpecError
from runtime.oci import hooks


class User(TypedDict, total=False):
    uid: int
    gid: int
    umask: int
    additionalGids: list[int]


class Box(TypedDict):
    height: int
    width: int


class Rlimit(TypedDict):
    type: str  # RLIMIT_NOFILE, …
    soft: int
    hard: int


class Capabilities(TypedDict, total=False):
    bounding: list[str]
    effective: list[str]
    permitted: list[str]
    inheritable: list[str]
    ambient: list[str]


class Scheduler(TypedDict, total=False):
    policy: str
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


class IOPriority(TypedDict, total=False):
    # "class" (IOPRIO_CLASS_*) is a keyword in Python: read it with ["class"]
    priority: int


class Process(TypedDict, total=False):
    terminal: bool
    consoleSize: Box
    user: User
    args: list[str]
    env: list[str]
    cwd: str
    capabilities: Capabilities
    rlimits: list[Rlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    selinuxLabel: str
    oomScoreAdj: int
    scheduler: Scheduler
    ioPriority: dict[str, Any]
    execCPUAffinity: dict[str, str]


class Root(TypedDict, total=False):
    path: str
    readonly: bool


class IDMapping(TypedDict):
    containerID: int
    hostID: int
    size: int


class Mount(TypedDict, total=False):
    destination: str
    type: str
    source: str
    options: list[str]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]


class Namespace(TypedDict, total=False):
    type: str
    path: str


class Device(TypedDict, total=False):
    type: str  # c, b, u, p
    path: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class Linux(TypedDict, total=False):
    namespaces: list[Namespace]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    devices: list[Device]
    cgroupsPath: str
    resources: dict[str, Any]
    rootfsPropagation: str
    seccomp: dict[str, Any]
    sysctl: dict[str, str]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    personality: dict[str, Any]
    timeOffsets: dict[str, dict[str, int]]


class Spec(TypedDict, total=False):
    ociVersion: str
    root: Root
    mounts: list[Mount]
    process: Process
    hostname: str
    domainname: str
    annotations: dict[str, str]
    hooks: dict[str, Any]
    linux: Linux


NAMESPACE_TYPES: Final = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
PROPAGATIONS: Final = (
    "",
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
)
# fmt: off
RLIMIT_NAMES: Final = frozenset(f"RLIMIT_{name}" for name in (
    "AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RSS",
    "RTPRIO", "RTTIME", "SIGPENDING", "STACK",
))
# fmt: on
PERSONALITIES: Final = {"": -1, "LINUX": 0x0000, "LINUX32": 0x0008}  # personality(2); -1 = leave it
CAPABILITY_SETS: Final = ("bounding", "effective", "permitted", "inheritable", "ambient")
MAX_ID: Final = (1 << 32) - 2  # (uid_t)-1 means "leave unchanged" to the kernel

# sysctls of the ipc namespace (ipc/ipc_sysctl.c); all else under kernel. is the whole machine's
# fmt: off
_IPC_SYSCTLS: Final = frozenset(f"kernel.{name}" for name in (
    "msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced",
))
# fmt: on


def _fail(field: str, message: str) -> NoReturn:
    raise SpecError(f"{field}: {message}")


def _object(holder: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        _fail(f"{where}{key}", f"must be an object, not {type(value).__name__}")
    return value


def _array(holder: Mapping[str, Any], key: str, where: str, of: type) -> list[Any]:
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        _fail(f"{where}{key}", f"must be an array, not {type(value).__name__}")
    for index, item in enumerate(value):
        if not isinstance(item, of) or isinstance(item, bool):
            _fail(f"{where}{key}[{index}]", f"must be {_NAMES[of]}, not {type(item).__name__}")
        if isinstance(item, str) and "\0" in item:
            _fail(f"{where}{key}[{index}]", "contains a NUL byte")
    return value


_NAMES: Final[dict[type, str]] = {str: "a string", int: "an integer", dict: "an object"}


def _string(holder: Mapping[str, Any], key: str, where: str, *, default: str = "") -> str:
    value = holder.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        _fail(f"{where}{key}", f"must be a string, not {type(value).__name__}")
    if "\0" in value:
        _fail(f"{where}{key}", "contains a NUL byte")
    return value


def _integer(
    holder: Mapping[str, Any], key: str, where: str, low: int, high: int, *, default: int = 0
) -> int:
    value = holder.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        _fail(f"{where}{key}", f"must be an integer, not {type(value).__name__}")
    if not low <= value <= high:
        _fail(f"{where}{key}", f"{value} is not within {low} … {high}")
    return value


def _boolean(holder: Mapping[str, Any], key: str, where: str) -> bool:
    value = holder.get(key)
    if value is not None and not isinstance(value, bool):
        _fail(f"{where}{key}", f"must be true or false, not {type(value).__name__}")
    return bool(value)


def _absolute(path: str, field: str) -> None:
    if not path.startswith("/"):
        _fail(field, f"{path!r} is not an absolute path")


def load(bundle: str) -> Spec:
    """Read and validate `<bundle>/config.json`."""
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            data = json.load(file)
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SpecError(f"{path} is not JSON: {error}") from error
    return validate(data)


def validate(data: Any) -> Spec:
    """The same object as a Spec when it can become a container on Linux; else SpecError with the field's path."""
    if not isinstance(data, dict):
        _fail("config.json", "must be an object")
    version = _string(data, "ociVersion", "")
    if version.split(".")[0] != "1":  # newer minor versions are accepted, as runc and crun do
        _fail("ociVersion", f"{version!r} is not a 1.x version of the OCI runtime specification")
    root = _object(data, "root", "")
    if not _string(root, "path", "root."):
        _fail("root.path", "is required")
    _boolean(root, "readonly", "root.")
    linux = _object(data, "linux", "")
    types = _namespaces(linux)
    _mounts(_array(data, "mounts", "", dict))
    if data.get("process") is None:
        _fail("process", "is required to start a container")
    process(_object(data, "process", ""))
    for key, needed in (("hostname", "uts"), ("domainname", "uts")):
        if _string(data, key, "") and needed not in types:
            _fail(key, f"cannot be set without a {needed} namespace: it would rename the machine")
    hooks.parse(_object(data, "hooks", ""))
    _linux(linux, types)
    return data  # type: ignore[return-value]


def process(data: Mapping[str, Any], where: str = "process.") -> Process:
    """Validate a process object (config.md, "Process"), of config.json or of an exec request."""
    args = _array(data, "args", where, str)
    if not args:
        _fail(f"{where}args", "must name a program")
    if data.get("commandLine"):
        _fail(f"{where}commandLine", "is for Windows only")
    _absolute(_string(data, "cwd", where) or "missing", f"{where}cwd")
    for index, entry in enumerate(_array(data, "env", where, str)):
        if "=" not in entry or entry.startswith("="):
            _fail(f"{where}env[{index}]", f"{entry!r} is not NAME=value")
    _user(_object(data, "user", where), where)
    for key in ("terminal", "noNewPrivileges"):
        _boolean(data, key, where)
    capabilities = _object(data, "capabilities", where)
    for key in CAPABILITY_SETS:
        _array(capabilities, key, f"{where}capabilities.", str)
    _integer(data, "oomScoreAdj", where, -1000, 1000)
    _rlimits(_array(data, "rlimits", where, dict), f"{where}rlimits")
    for key in ("apparmorProfile", "selinuxLabel"):
        _string(data, key, where)
    for key in ("scheduler", "ioPriority"):
        _object(data, key, where)
    size = _object(data, "consoleSize", where)
    for key in ("height", "width"):
        _integer(size, key, f"{where}consoleSize.", 0, 0xFFFF)
    affinity = _object(data, "execCPUAffinity", where)
    for key in ("initial", "final"):
        cpu_set(_string(affinity, key, f"{where}execCPUAffinity."), f"{where}execCPUAffinity.{key}")
    return data  # type: ignore[return-value]


def cpu_set(text: str, where: str) -> frozenset[int]:
    """`0-3,7` → the CPUs (cpuset(7), "List format"); "" → none."""
    cpus: set[int] = set()
    for part in filter(None, text.split(",")):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or len(part) > 12:
            _fail(where, f"{text!r} is no list of CPUs")
        cpus.update(range(int(low), min(int(high or low), 1 << 13) + 1))
    return frozenset(cpus)


def _user(user: Mapping[str, Any], where: str) -> None:
    for key in ("uid", "gid"):
        _integer(user, key, f"{where}user.", 0, MAX_ID)
    _integer(user, "umask", f"{where}user.", 0, 0o7777)
    for index, gid in enumerate(_array(user, "additionalGids", f"{where}user.", int)):
        if not 0 <= gid <= MAX_ID:
            _fail(f"{where}user.additionalGids[{index}]", f"{gid} is not a group id")


def _rlimits(entries: list[dict[str, Any]], where: str) -> None:
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        field = f"{where}[{index}]."
        name = _string(entry, "type", field)
        if name not in RLIMIT_NAMES:
            _fail(f"{field}type", f"{name!r} is no resource limit")
        if name in seen:  # config.md: "duplicated entries MUST generate an error"
            _fail(f"{field}type", f"{name} is given twice")
        seen.add(name)
        soft = _integer(entry, "soft", field, 0, (1 << 64) - 1)
        if soft > _integer(entry, "hard", field, 0, (1 << 64) - 1):
            _fail(f"{field}soft", "is above the hard limit")


def _namespaces(linux: Mapping[str, Any]) -> frozenset[str]:
    seen: set[str] = set()
    for index, entry in enumerate(_array(linux, "namespaces", "linux.", dict)):
        field = f"linux.namespaces[{index}]."
        kind = _string(entry, "type", field)
        if kind not in NAMESPACE_TYPES:
            _fail(f"{field}type", f"{kind!r} is no namespace; one of {', '.join(NAMESPACE_TYPES)}")
        if kind in seen:
            _fail(f"{field}type", f"{kind} is given twice")
        seen.add(kind)
        if path := _string(entry, "path", field):
            _absolute(path, f"{field}path")
        if kind == "user" and path:
            raise CapabilityError(f"{field}path: joining a user namespace is not supported by this engine")
        if kind == "mount" and path:
            _fail(f"{field}path", "a container's root is made in a mount namespace of its own")
    if "mount" not in seen:
        _fail("linux.namespaces", "a mount namespace is required: the root file system is mounted in it")
    if "user" in seen:
        _mappings(linux)
    return frozenset(seen)


def _mappings(linux: Mapping[str, Any]) -> None:
    for key in ("uidMappings", "gidMappings"):
        entries = _array(linux, key, "linux.", dict)
        if not entries:  # runc's side: crun accepts a user namespace without mappings
            _fail(f"linux.{key}", "is required with a user namespace")
        _mapping_entries(entries, f"linux.{key}")


def _mapping_entries(entries: list[dict[str, Any]], where: str) -> None:
    for index, entry in enumerate(entries):
        for name in ("containerID", "hostID", "size"):
            if entry.get(name) is None:
                _fail(f"{where}[{index}].{name}", "is required")
            _integer(entry, name, f"{where}[{index}].", int(name == "size"), MAX_ID + 1)


def _mounts(entries: list[dict[str, Any]]) -> None:
    for index, entry in enumerate(entries):
        field = f"mounts[{index}]."
        destination = _string(entry, "destination", field)
        if not destination:
            _fail(f"{field}destination", "is required")
        # config.md wants it absolute; runc takes a relative one as below "/", so old bundles keep working
        for key in ("type", "source"):
            _string(entry, key, field)
        _array(entry, "options", field, str)
        for key in ("uidMappings", "gidMappings"):
            _mapping_entries(_array(entry, key, field, dict), f"{field}{key}")


def _linux(linux: Mapping[str, Any], types: frozenset[str]) -> None:
    propagation = _string(linux, "rootfsPropagation", "linux.")
    if propagation not in PROPAGATIONS:
        _fail("linux.rootfsPropagation", f"{propagation!r} is none of {', '.join(PROPAGATIONS[1:])}")
    for key in ("maskedPaths", "readonlyPaths"):
        for index, path in enumerate(_array(linux, key, "linux.", str)):
            _absolute(path, f"linux.{key}[{index}]")
    _devices(_array(linux, "devices", "linux.", dict))
    _sysctls(_object(linux, "sysctl", "linux."), types)
    _object(linux, "seccomp", "linux.")
    _object(linux, "resources", "linux.")
    _string(linux, "cgroupsPath", "linux.")
    if (
        domain := _string(_object(linux, "personality", "linux."), "domain", "linux.personality.")
    ) not in PERSONALITIES:
        _fail("linux.personality.domain", f"{domain!r} is neither LINUX nor LINUX32")
    _time_offsets(_object(linux, "timeOffsets", "linux."), types)
    for key in ("intelRdt", "memoryPolicy", "netDevices", "mountLabel"):
        if linux.get(key):
            raise CapabilityError(f"linux.{key}: not supported by this engine")


def _time_offsets(offsets: Mapping[str, Any], types: frozenset[str]) -> None:
    """config-linux.md, "Offset for Time Namespace"."""
    if offsets and "time" not in types:
        _fail("linux.timeOffsets", "needs a time namespace")
    for clock in offsets:
        if clock not in ("monotonic", "boottime"):
            _fail(f"linux.timeOffsets.{clock}", "is neither monotonic nor boottime")
        one = _object(offsets, clock, "linux.timeOffsets.")
        _integer(one, "secs", f"linux.timeOffsets.{clock}.", -(1 << 63), (1 << 63) - 1)
        _integer(one, "nanosecs", f"linux.timeOffsets.{clock}.", 0, 999_999_999)


def _devices(entries: list[dict[str, Any]]) -> None:
    for index, entry in enumerate(entries):
        field = f"linux.devices[{index}]."
        kind = _string(entry, "type", field)
        if kind not in ("c", "b", "u", "p"):
            _fail(f"{field}type", f"{kind!r} is none of c, b, u, p")
        _absolute(_string(entry, "path", field) or "missing", f"{field}path")
        for key, high in (
            ("major", (1 << 12) - 1),
            ("minor", (1 << 20) - 1),
            ("uid", MAX_ID),
            ("gid", MAX_ID),
        ):
            if kind != "p" and key in ("major", "minor") and entry.get(key) is None:
                _fail(f"{field}{key}", "is required")
            _integer(entry, key, field, 0, high)
        _integer(entry, "fileMode", field, 0, 0o177777)


def _sysctls(entries: Mapping[str, Any], types: Iterable[str]) -> None:
    """Only what is namespaced, and only with a namespace of its own: the rest would change the machine."""
    for name, value in entries.items():
        field = f"linux.sysctl.{name}"
        if not isinstance(value, str):
            _fail(field, "must be a string")
        dotted = sysctl_name(name)
        if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
            needed = "ipc"
        elif dotted.startswith("net."):
            needed = "network"
        elif dotted == "kernel.domainname":
            needed = "uts"
        elif dotted == "kernel.hostname":
            _fail(field, "is set by `hostname`")
        else:
            _fail(field, "is not namespaced: it would change the whole machine")
        if needed not in types:
            _fail(field, f"needs a {needed} namespace of the container's own")
        if ".." in dotted.split("/") or "" in dotted.split("."):
            _fail(field, "is no sysctl name")


def sysctl_name(name: str) -> str:
    """sysctl.d(5): whichever of "." and "/" comes first is the separator; the dotted form of `name`."""
    slash, dot = name.find("/"), name.find(".")
    if slash != -1 and (dot == -1 or slash < dot):
        return name.translate({ord("/"): ".", ord("."): "/"})
    return name


def sysctl_path(name: str) -> str:
    """Its file below /proc/sys."""
    return sysctl_name(name).translate({ord("/"): ".", ord("."): "/"})


def namespaces(spec: Spec) -> dict[str, str]:
    """type → path ("" = a new one) of the namespaces that the container gets or joins."""
    return {entry["type"]: entry.get("path", "") for entry in spec.get("linux", {}).get("namespaces", [])}
