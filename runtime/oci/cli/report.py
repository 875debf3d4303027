"""state, list, events, features, spec: what is said about containers and about this runtime."""

from __future__ import annotations

import json
import os
import pwd
import time
from typing import Any, Final

from runtime.errors import NotFoundError, RuntimeFault, StateError
from runtime.oci import hooks, mounts
from runtime.oci import spec as oci
from runtime.oci.cli import store
from runtime.oci.cli.context import Context
from runtime.oci.cli.options import UsageError
from runtime.oci.cli.store import Entry

Flags = dict[str, Any]


def _described(entry: Entry) -> dict[str, Any]:
    status = entry.status()
    return {
        "ociVersion": entry.oci_version,
        "id": entry.id,
        "pid": 0 if status == store.STOPPED else entry.pid,
        "status": status,
        "bundle": entry.bundle,
        "rootfs": entry.rootfs,
        "created": entry.created,
        "owner": "",
    }


def state(at: Context, _flags: Flags, arguments: list[str]) -> int:
    entry = store.load(at.root, arguments[0])
    described = _described(entry)
    if entry.annotations:
        described["annotations"] = entry.annotations
    print(json.dumps(described, indent=2))
    return 0


def list_(at: Context, flags: Flags, _arguments: list[str]) -> int:
    entries = store.all_entries(at.root, at.log.warning)
    style = flags.get("format", "table")
    if flags.get("quiet"):
        print("".join(f"{entry.id}\n" for entry in entries), end="")
        return 0
    if style == "json":
        rows = [{**_described(entry), "owner": _owner(entry)} for entry in entries]
        print(json.dumps([{**row, **_annotated(e)} for row, e in zip(rows, entries, strict=True)]))
        return 0
    if style != "table":
        raise UsageError(f"list: invalid format option {style!r}: table or json")
    head = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
    table = [head]
    for entry in entries:
        one = _described(entry)
        table.append(
            (one["id"], str(one["pid"]), one["status"], one["bundle"], one["created"], _owner(entry))
        )
    widths = [max(12, *(len(row[n]) + 2 for row in table)) for n in range(len(head))]
    for row in table:
        print("".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _annotated(entry: Entry) -> dict[str, Any]:
    return {"annotations": entry.annotations} if entry.annotations else {}


def _owner(entry: Entry) -> str:
    uid = os.stat(entry.directory).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


# --- events ---


def events(at: Context, flags: Flags, arguments: list[str]) -> int:
    """One line of statistics now (--stats), or one each --interval and one for each OOM kill, until it stops."""
    entry = store.load(at.root, arguments[0])
    if entry.status() == store.STOPPED:
        raise StateError(f"container with id {entry.id} is not running")
    interval = _seconds(flags.get("interval", "5s"))
    if flags.get("stats"):
        _print_event("stats", entry.id, _statistics(entry))
        return 0
    killed = entry.cgroup.oom_kills()
    due = time.monotonic()
    while entry.status() != store.STOPPED:
        try:
            if (now_killed := entry.cgroup.oom_kills()) > killed:
                killed = now_killed
                _print_event("oom", entry.id, None)
            if time.monotonic() >= due:
                due += interval
                _print_event("stats", entry.id, _statistics(entry))
        except NotFoundError:
            break
        time.sleep(min(0.1, interval))
    return 0


_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str) -> float:
    """A Go duration of one unit: `5s`, `500ms`."""
    number = text.rstrip("nusmh")
    try:
        seconds = float(number) * _UNITS[text[len(number) :]]
    except (ValueError, KeyError):
        raise UsageError(f"events: --interval {text!r}: 5s, 500ms, …") from None
    if seconds <= 0:
        raise UsageError("events: duration interval must be greater than 0")
    return seconds


def _print_event(kind: str, container_id: str, data: Any) -> None:
    event = {"type": kind, "id": container_id}
    print(json.dumps(event if data is None else {**event, "data": data}), flush=True)


def _statistics(entry: Entry) -> dict[str, Any]:
    """runc's shape (types.Stats), from what the kernel counts here."""
    found = entry.cgroup.stats()
    cpu, memory = found.cpu, found.memory
    limit = memory.limit or (1 << 63) - 1
    usage = {"usage": memory.usage, "max": memory.max_usage, "limit": limit, "failcnt": memory.failcnt}
    return {
        "cpu": {
            "usage": {"total": cpu.usage_ns, "kernel": cpu.system_ns, "user": cpu.user_ns},
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
        },
        "memory": {"cache": memory.cache, "usage": usage},
        "pids": {"current": found.pids.current, "limit": found.pids.limit},
        "blkio": {
            "ioServiceBytesRecursive": [
                {"major": one.major, "minor": one.minor, "op": op, "value": value}
                for one in found.io
                for op, value in (("Read", one.rbytes), ("Write", one.wbytes))
            ]
        },
    }


# --- features ---


def features(_at: Context, _flags: Flags, _arguments: list[str]) -> int:
    """features.md and features-linux.md of the runtime specification."""
    from runtime.security import capabilities, seccomp

    linux = {
        "namespaces": sorted(oci.NAMESPACE_TYPES),
        "capabilities": list(capabilities.NAMES[: capabilities.last_cap() + 1]),
        "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
        "seccomp": {
            "enabled": True,
            "actions": sorted(seccomp.ACTIONS),
            "operators": sorted(seccomp.OPERATORS),
            "archs": sorted(seccomp.architectures()),
            "knownFlags": sorted(seccomp.FLAGS),
            "supportedFlags": sorted(seccomp.FLAGS),
        },
        "apparmor": {"enabled": os.path.isdir("/sys/kernel/security/apparmor")},
        "selinux": {"enabled": os.path.isdir("/sys/fs/selinux")},
        "intelRdt": {"enabled": False},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": False},
    }
    said = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": list(hooks.KINDS),
        "mountOptions": sorted(mounts.known()),
        "linux": linux,
        "annotations": {"io.kubelite.oci.version": version()},
        "potentiallyUnsafeConfigAnnotations": [],
    }
    print(json.dumps(said, indent=4))
    return 0


def version() -> str:
    return _VERSION


_VERSION: Final = "0.1.0"


# --- spec ---

_NAMESPACES: Final = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_CAPS: Final = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_MASKED: Final = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
)  # fmt: skip
_READONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def spec(_at: Context, flags: Flags, _arguments: list[str]) -> int:
    """A config.json in --bundle (or here), never over one that is there."""
    path = f"{flags.get('bundle') or '.'}/config.json"
    rootless = bool(flags.get("rootless"))
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(json.dumps(_example(rootless=rootless), indent="\t"))
    except FileExistsError:
        raise RuntimeFault(f"File {path} exists. Remove it first") from None
    return 0


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _example(*, rootless: bool) -> dict[str, Any]:
    kinds = [kind for kind in _NAMESPACES if not (rootless and kind == "network")]
    sysfs = _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro")
    devpts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    if rootless:
        sysfs = _mount("/sys", "none", "/sys", "rbind", "nosuid", "noexec", "nodev", "ro")
        devpts.pop()
    linux: dict[str, Any] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READONLY),
    }
    if rootless:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
        del linux["resources"]
    return {
        "ociVersion": store.OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(_CAPS) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "kubelite",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "devpts", *devpts),
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            sysfs,
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
        ],
        "linux": linux,
    }
