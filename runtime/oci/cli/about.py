"""The commands `features` and `spec`."""

from __future__ import annotations

import json
import os
from typing import Any, Final

from runtime.cgroups import Mode, layout
from runtime.errors import RuntimeFault
from runtime.oci import hooks
from runtime.oci.cli import store
from runtime.oci.cli.context import Context
from runtime.oci.config import spec_linux
from runtime.oci.rootfs import mount_options

Flags = dict[str, Any]


def features(_at: Context, _flags: Flags, _arguments: list[str]) -> int:
    """Print what this runtime supports, regardless of the machine (features.md and features-linux.md of the runtime
    specification)."""
    from runtime.security import capabilities, capability_names, seccomp

    linux = {
        "namespaces": sorted(spec_linux.NAMESPACE_TYPES),
        "capabilities": list(capability_names.NAMES[: capabilities.last_cap() + 1]),
        "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
        "seccomp": {
            "enabled": True,
            "actions": sorted(seccomp.ACTIONS),
            "operators": sorted(seccomp.OPERATORS),
            "archs": sorted(seccomp.architectures()),
            "knownFlags": sorted(seccomp.FLAGS),
            "supportedFlags": sorted(seccomp.FLAGS),
        },
        "apparmor": {"enabled": True},
        "selinux": {"enabled": True},
        "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": True},
        "memoryPolicy": dict(zip(("modes", "flags"), spec_linux.memory_policies(), strict=True)),
    }
    said = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": list(hooks.KINDS),
        "mountOptions": sorted(mount_options.known()),
        "linux": linux,
        "annotations": {
            "io.github.seccomp.libseccomp.version": seccomp.library_version(),
            "io.kubelite.oci.version": store.VERSION,
        },
        # A prefix: these annotations set any property of the container's systemd unit (systemd.annotated)
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
    }
    print(json.dumps(said, indent=4))
    return 0


# --- spec ---

_NAMESPACES: Final = ("pid", "network", "ipc", "uts", "mount", "cgroup")
_CAPS: Final = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_MASKED: Final = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
)  # fmt: skip
_READONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def spec(_at: Context, flags: Flags, _arguments: list[str]) -> int:
    """Write a config.json to --bundle or the current directory. RuntimeFault if it already exists."""
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
    # as in runc: on v1 a container sees its place in the host's hierarchies
    if not rootless and layout().mode is not Mode.V2:
        kinds.remove("cgroup")
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
