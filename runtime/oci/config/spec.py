"""The types of config.json and its validation, which runs before anything is created.

The TypedDicts are the Linux part of the OCI runtime specification 1.3 (config.md, config-linux.md). `validate` raises
SpecError that names the field by its path (`process.rlimits[1].type: …`). Unknown keys are ignored, as the
specification requires ("Extensibility"). Known keys that this engine does not implement are rejected, never skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from runtime.errors import SpecError
from runtime.oci import hooks
from runtime.oci.config import shape, spec_linux
from runtime.oci.config.fields import MAX_ID, absolute, array, boolean, fail, integer, object_, string
from runtime.oci.config.spec_linux import number_set


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
    mountLabel: str
    memoryPolicy: dict[str, Any]
    netDevices: dict[str, dict[str, str]]
    intelRdt: dict[str, Any]


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


# fmt: off
RLIMIT_NAMES: Final = frozenset(f"RLIMIT_{name}" for name in (
    "AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RSS",
    "RTPRIO", "RTTIME", "SIGPENDING", "STACK",
))
# fmt: on
CAPABILITY_SETS: Final = ("bounding", "effective", "permitted", "inheritable", "ambient")


def load(bundle: str) -> Spec:
    """Read and validate `<bundle>/config.json`."""
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            return validate(shape.parse(file.read(), path))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error


def validate(data: Any) -> Spec:
    """Check that the object can become a container on Linux, and return it as a Spec. Otherwise SpecError with the
    field's path."""
    if not isinstance(data, dict):
        fail("config.json", "must be an object")
    version = string(data, "ociVersion", "")
    if version.split(".")[0] != "1":  # newer minor versions are accepted, as by runc and crun
        fail("ociVersion", f"{version!r} is not a 1.x version of the OCI runtime specification")
    root = object_(data, "root", "")
    if not string(root, "path", "root."):
        fail("root.path", "is required")
    boolean(root, "readonly", "root.")
    linux = object_(data, "linux", "")
    types = spec_linux.namespaces(linux)
    _mounts(array(data, "mounts", "", dict))
    if data.get("process") is None:
        fail("process", "is required to start a container")
    process(object_(data, "process", ""))
    for key, needed in (("hostname", "uts"), ("domainname", "uts")):
        if string(data, key, "") and needed not in types:
            fail(key, f"cannot be set without a {needed} namespace: it would rename the host")
    hooks.parse(object_(data, "hooks", ""))
    shape.check(data.get("annotations"), shape.Each(str), "annotations")
    spec_linux.validate(linux, types)
    return data  # type: ignore[return-value]


def process(data: Mapping[str, Any], where: str = "process.") -> Process:
    """Validate a process object (config.md, "Process") of config.json or of an exec request. Raises SpecError."""
    args = array(data, "args", where, str)
    if not args:
        fail(f"{where}args", "must name a program")
    if data.get("commandLine"):
        fail(f"{where}commandLine", "is for Windows only")
    absolute(string(data, "cwd", where) or "missing", f"{where}cwd")
    for index, entry in enumerate(array(data, "env", where, str)):
        if "=" not in entry or entry.startswith("="):
            fail(f"{where}env[{index}]", f"{entry!r} is not NAME=value")
    _user(object_(data, "user", where), where)
    for key in ("terminal", "noNewPrivileges"):
        boolean(data, key, where)
    capabilities = object_(data, "capabilities", where)
    for key in CAPABILITY_SETS:
        array(capabilities, key, f"{where}capabilities.", str)
    integer(data, "oomScoreAdj", where, -1000, 1000)
    _rlimits(array(data, "rlimits", where, dict), f"{where}rlimits")
    for key in ("apparmorProfile", "selinuxLabel"):
        string(data, key, where)
    shape.check(data.get("scheduler"), shape.SCHEDULER, f"{where}scheduler")
    shape.check(data.get("ioPriority"), shape.IO_PRIORITY, f"{where}ioPriority")
    size = object_(data, "consoleSize", where)
    for key in ("height", "width"):
        integer(size, key, f"{where}consoleSize.", 0, 0xFFFF)
    affinity = object_(data, "execCPUAffinity", where)
    for key in ("initial", "final"):
        number_set(string(affinity, key, f"{where}execCPUAffinity."), f"{where}execCPUAffinity.{key}")
    return data  # type: ignore[return-value]


def _user(user: Mapping[str, Any], where: str) -> None:
    for key in ("uid", "gid"):
        integer(user, key, f"{where}user.", 0, MAX_ID)
    integer(user, "umask", f"{where}user.", 0, 0o7777)
    for index, gid in enumerate(array(user, "additionalGids", f"{where}user.", int)):
        if not 0 <= gid <= MAX_ID:
            fail(f"{where}user.additionalGids[{index}]", f"{gid} is not a group id")


def _rlimits(entries: list[dict[str, Any]], where: str) -> None:
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        field = f"{where}[{index}]."
        name = string(entry, "type", field)
        if name not in RLIMIT_NAMES:
            fail(f"{field}type", f"{name!r} is not a resource limit")
        if name in seen:  # config.md: "duplicated entries MUST generate an error"
            fail(f"{field}type", f"{name} is specified twice")
        seen.add(name)
        soft = integer(entry, "soft", field, 0, (1 << 64) - 1)
        if soft > integer(entry, "hard", field, 0, (1 << 64) - 1):
            fail(f"{field}soft", "is above the hard limit")


def _mounts(entries: list[dict[str, Any]]) -> None:
    for index, entry in enumerate(entries):
        field = f"mounts[{index}]."
        destination = string(entry, "destination", field)
        if not destination:
            fail(f"{field}destination", "is required")
        # config.md requires an absolute path; as in runc, a relative one is taken relative to "/", for old bundles
        for key in ("type", "source"):
            string(entry, key, field)
        array(entry, "options", field, str)
        for key in ("uidMappings", "gidMappings"):
            spec_linux.mapping_entries(array(entry, key, field, dict), f"{field}{key}")


_OTHER_PLATFORMS: Final = ("solaris", "windows", "vm", "zos", "freebsd")


def without_effect(spec: Mapping[str, Any]) -> list[str]:
    """A warning for each field that is known but has no effect on Linux."""
    unused = [key for key in _OTHER_PLATFORMS if spec.get(key)]
    if (spec.get("process") or {}).get("user", {}).get("username"):
        unused.append("process.user.username")
    return [f"{key} was not applied: it is not for Linux" for key in unused]


def namespaces(spec: Spec) -> dict[str, str]:
    """The namespaces that the container creates or joins: type → path ("" for a new one)."""
    return {entry["type"]: entry.get("path", "") for entry in spec.get("linux", {}).get("namespaces", [])}
