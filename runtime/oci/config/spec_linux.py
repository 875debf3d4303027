"""Validate the `linux` object of config.json (config-linux.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from runtime.oci.config import shape
from runtime.oci.config.fields import MAX_ID, absolute, array, boolean, fail, integer, object_, string

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
PERSONALITIES: Final = {"": -1, "LINUX": 0x0000, "LINUX32": 0x0008}  # personality(2); -1: unchanged

# sysctls of the ipc namespace (ipc/ipc_sysctl.c). All others in kernel. affect the whole host. fmt: off
_IPC_SYSCTLS: Final = frozenset(
    f"kernel.{name}"
    for name in (
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    )
)
# fmt: on


def validate(linux: Mapping[str, Any], types: frozenset[str]) -> None:
    """Validate `linux` except for its namespaces and mappings.

    `types`: the namespaces that the container creates or joins. Raises SpecError that names the field.
    """
    propagation = string(linux, "rootfsPropagation", "linux.")
    if propagation not in PROPAGATIONS:
        fail("linux.rootfsPropagation", f"{propagation!r} is not one of {', '.join(PROPAGATIONS[1:])}")
    for key in ("maskedPaths", "readonlyPaths"):
        paths = array(linux, key, "linux.", str)
        if paths and "mount" not in types:
            fail(
                f"linux.{key}", "unable to restrict sys entries without a private MNT namespace"
            )  # runc's words
        for index, path in enumerate(paths):
            absolute(path, f"linux.{key}[{index}]")
    _devices(array(linux, "devices", "linux.", dict))
    _sysctls(object_(linux, "sysctl", "linux."), types)
    shape.check(linux.get("seccomp"), shape.SECCOMP, "linux.seccomp")
    _seccomp(linux.get("seccomp") or {})
    shape.check(linux.get("resources"), shape.RESOURCES, "linux.resources")
    string(linux, "cgroupsPath", "linux.")
    _personality(object_(linux, "personality", "linux."))
    _time_offsets(object_(linux, "timeOffsets", "linux."), types)
    string(linux, "mountLabel", "linux.")
    memory_policy(linux)
    _net_devices(object_(linux, "netDevices", "linux."), types)
    _intel_rdt(object_(linux, "intelRdt", "linux."))


def personality(linux: Mapping[str, Any]) -> int:
    """The argument for personality(2); -1: unchanged."""
    return PERSONALITIES[linux.get("personality", {}).get("domain", "")]


def _personality(wanted: Mapping[str, Any]) -> None:
    domain = string(wanted, "domain", "linux.personality.")
    if domain not in PERSONALITIES:
        fail("linux.personality.domain", f"{domain!r} is neither LINUX nor LINUX32")
    if array(wanted, "flags", "linux.personality.", str):
        fail("linux.personality.flags", "the specification defines no flags yet")


def _seccomp(profile: Mapping[str, Any]) -> None:
    """Validate the fields about errno and the agent. The seccomp compiler checks actions and names."""
    where = "linux.seccomp."
    _errno(profile, "defaultAction", "defaultErrnoRet", where)
    rules = array(profile, "syscalls", where, dict)
    for index, rule in enumerate(rules):
        _errno(rule, "action", "errnoRet", f"{where}syscalls[{index}].")
    path, metadata = string(profile, "listenerPath", where), string(profile, "listenerMetadata", where)
    if metadata and not path:
        fail(f"{where}listenerMetadata", "must not be set without listenerPath")
    notify = [rule for rule in rules if rule.get("action") == "SCMP_ACT_NOTIFY"]
    if profile.get("defaultAction") == "SCMP_ACT_NOTIFY":
        fail(
            f"{where}defaultAction",
            "SCMP_ACT_NOTIFY would block the runtime itself before an agent can answer",
        )
    if any("write" in (rule.get("names") or []) for rule in notify):
        fail(
            f"{where}syscalls",
            "SCMP_ACT_NOTIFY cannot be used for the write syscall, with which the runtime reports the listener",
        )
    if notify and not path:
        fail(f"{where}listenerPath", "is required with SCMP_ACT_NOTIFY")
    if notify:
        absolute(path, f"{where}listenerPath")


def _errno(holder: Mapping[str, Any], action: str, key: str, where: str) -> None:
    """config-linux.md: "When the action doesn't support an errno, the runtime MUST print and error and fail"."""
    if holder.get(key) is None:
        return
    integer(holder, key, where, 0, 0xFFFF)
    if holder.get(action) not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        fail(f"{where}{key}", f"{holder.get(action)} does not return an errno")


_MPOL_MODES: Final = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
_MPOL_FLAGS: Final = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}


def memory_policy(linux: Mapping[str, Any]) -> tuple[int, frozenset[int]] | None:
    """(mode with its flags, memory nodes) for set_mempolicy(2); None: unchanged. Source: config-linux.md, "Memory
    policy"."""
    policy = object_(linux, "memoryPolicy", "linux.")
    if linux.get("memoryPolicy") is None:  # an empty object lacks the mode, which is required
        return None
    where = "linux.memoryPolicy."
    mode = string(policy, "mode", where)
    if mode not in _MPOL_MODES:
        fail(f"{where}mode", f"{mode!r} is not one of {', '.join(_MPOL_MODES)}")
    flags = array(policy, "flags", where, str)
    for index, flag in enumerate(flags):
        if flag not in _MPOL_FLAGS:
            fail(f"{where}flags[{index}]", f"{flag!r} is not one of {', '.join(_MPOL_FLAGS)}")
    nodes = number_set(string(policy, "nodes", where), f"{where}nodes")
    return _MPOL_MODES[mode] | sum(_MPOL_FLAGS[flag] for flag in set(flags)), nodes


def memory_policies() -> tuple[list[str], list[str]]:
    """(modes, flags), for `features`."""
    return sorted(_MPOL_MODES), sorted(_MPOL_FLAGS)


_NUMBERS_MAX: Final = 1 << 13  # the maximum of CONFIG_NR_CPUS; there are fewer memory nodes


def number_set(text: str, where: str) -> frozenset[int]:
    """The numbers in a list such as `0-3,7` (cpuset(7), "List format"); "" is the empty set."""
    numbers: set[int] = set()
    for part in filter(None, text.split(",")):
        low, dash, high = part.strip().partition("-")
        if not part.isascii() or not low.isdigit() or (dash and not high.isdigit()) or len(part) > 12:
            fail(where, f"{text!r} is not a list of numbers and ranges")
        if max(int(low), int(high or low)) >= _NUMBERS_MAX:
            fail(where, f"{text!r} contains a number out of range: it must be below {_NUMBERS_MAX}")
        numbers.update(range(int(low), int(high or low) + 1))
    return frozenset(numbers)


def _net_devices(devices: Mapping[str, Any], types: frozenset[str]) -> None:
    """config-linux.md, "Network Devices". Without a network namespace there is nowhere to move the devices to."""
    if devices and "network" not in types:
        fail("linux.netDevices", "requires a network namespace")
    for name in devices:
        where = f"linux.netDevices.{name}."
        new = string(object_(devices, name, "linux.netDevices."), "name", where)
        for text, field in ((name, f"linux.netDevices.{name}"), (new or name, f"{where}name")):
            if not _interface_name(text):
                fail(field, f"{text!r} is not a valid network interface name")
        if "%" in name:
            fail(f"linux.netDevices.{name}", "is a pattern; it must be the name of one host interface")


def _interface_name(text: str) -> bool:
    """The rule of dev_valid_name() in the kernel (net/core/dev.c)."""
    odd = text in (".", "..") or any(c.isspace() or c in "/:" for c in text)
    return 0 < len(text.encode()) < 16 and not odd


def _intel_rdt(wanted: Mapping[str, Any]) -> None:
    where = "linux.intelRdt."
    for key in ("closID", "l3CacheSchema", "memBwSchema"):
        string(wanted, key, where)
    array(wanted, "schemata", where, str)
    boolean(wanted, "enableMonitoring", where)
    bandwidth, identity = wanted.get("memBwSchema") or "", wanted.get("closID") or ""
    if bandwidth and (not bandwidth.startswith("MB:") or "\n" in bandwidth):
        fail(f"{where}memBwSchema", "must start with MB: and be one line")
    if identity in (".", "..", "info", "mon_data", "mon_groups") or "/" in identity or "\n" in identity:
        fail(f"{where}closID", f"{identity!r} is not a valid name for a resctrl directory")
    for key in ("enableCMT", "enableMBM"):  # before version 1.3 of the specification
        if wanted.get(key):
            fail(f"{where}{key}", "was replaced by enableMonitoring in specification 1.3")


def _time_offsets(offsets: Mapping[str, Any], types: frozenset[str]) -> None:
    """config-linux.md, "Offset for Time Namespace"."""
    if offsets and "time" not in types:
        fail("linux.timeOffsets", "needs a time namespace")
    for clock in offsets:
        if clock not in ("monotonic", "boottime"):
            fail(f"linux.timeOffsets.{clock}", "is neither monotonic nor boottime")
        one = object_(offsets, clock, "linux.timeOffsets.")
        integer(one, "secs", f"linux.timeOffsets.{clock}.", -(1 << 63), (1 << 63) - 1)
        integer(one, "nanosecs", f"linux.timeOffsets.{clock}.", 0, 999_999_999)


def _devices(entries: list[dict[str, Any]]) -> None:
    for index, entry in enumerate(entries):
        field = f"linux.devices[{index}]."
        kind = string(entry, "type", field)
        if kind not in ("c", "b", "u", "p"):
            fail(f"{field}type", f"{kind!r} is not one of c, b, u, p")
        absolute(string(entry, "path", field) or "missing", f"{field}path")
        for key, high in (
            ("major", (1 << 12) - 1),
            ("minor", (1 << 20) - 1),
            ("uid", MAX_ID),
            ("gid", MAX_ID),
        ):
            if kind != "p" and key in ("major", "minor") and entry.get(key) is None:
                fail(f"{field}{key}", "is required")
            integer(entry, key, field, 0, high)
        integer(entry, "fileMode", field, 0, 0o177777)


def _sysctls(entries: Mapping[str, Any], types: Iterable[str]) -> None:
    """Allow only namespaced sysctls, and only with the matching namespace. The others would affect the host."""
    shape.check(entries, shape.Each(str), "linux.sysctl")
    for name in entries:
        field = f"linux.sysctl.{name}"
        dotted = sysctl_name(name)
        if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
            needed = "ipc"
        elif dotted.startswith("net."):
            needed = "network"
        elif dotted == "kernel.domainname":
            needed = "uts"
        elif dotted == "kernel.hostname":
            fail(field, "use the field `hostname` instead")
        else:
            fail(field, "is not namespaced: it would affect the whole host")
        if needed not in types:
            fail(field, f"requires a {needed} namespace")
        if ".." in dotted.split("/") or "" in dotted.split("."):
            fail(field, "is not a sysctl name")


def sysctl_name(name: str) -> str:
    """The dotted form of `name`. As in sysctl.d(5), the first of "." and "/" is the separator."""
    slash, dot = name.find("/"), name.find(".")
    if slash != -1 and (dot == -1 or slash < dot):
        return name.translate({ord("/"): ".", ord("."): "/"})
    return name


def sysctl_path(name: str) -> str:
    """The sysctl's file, relative to /proc/sys."""
    return sysctl_name(name).translate({ord("/"): ".", ord("."): "/"})


def namespaces(linux: Mapping[str, Any]) -> frozenset[str]:
    seen: set[str] = set()
    joined: set[str] = set()
    for index, entry in enumerate(array(linux, "namespaces", "linux.", dict)):
        field = f"linux.namespaces[{index}]."
        kind = string(entry, "type", field)
        if kind not in NAMESPACE_TYPES:
            fail(f"{field}type", f"{kind!r} is not one of {', '.join(NAMESPACE_TYPES)}")
        if kind in seen:
            fail(f"{field}type", f"{kind} is specified twice")
        seen.add(kind)
        if path := string(entry, "path", field):
            absolute(path, f"{field}path")
            joined.add(kind)
    _mappings(linux, needed="user" in seen - joined)
    if "user" in seen and "mount" not in seen:
        fail(
            "linux.namespaces",
            "a user namespace needs a mount namespace: it has no right to mount in another one",
        )
    return frozenset(seen)


def _mappings(linux: Mapping[str, Any], *, needed: bool) -> None:
    for key in ("uidMappings", "gidMappings"):
        entries = array(linux, key, "linux.", dict)
        if needed and not entries:  # as in runc; crun accepts a user namespace without mappings
            fail(f"linux.{key}", "is required with a new user namespace")
        mapping_entries(entries, f"linux.{key}")
        if needed and all(entry["containerID"] for entry in entries):
            fail(f"linux.{key}", "must map id 0, which creates the container's root file system")


def mapping_entries(entries: list[dict[str, Any]], where: str) -> None:
    """Check that uidMappings or gidMappings are complete and in range. SpecError that names the field."""
    for index, entry in enumerate(entries):
        for name in ("containerID", "hostID", "size"):
            if entry.get(name) is None:
                fail(f"{where}[{index}].{name}", "is required")
            integer(entry, name, f"{where}[{index}].", int(name == "size"), MAX_ID + 1)
