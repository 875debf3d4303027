"""The command update: set new resource limits from flags or from linux.resources JSON."""

from __future__ import annotations

import os
from typing import Any, Final

from runtime.errors import SpecError, StateError
from runtime.oci.cli import store
from runtime.oci.cli.context import Context
from runtime.oci.config import shape

Flags = dict[str, Any]

# flag → (object, key) in linux.resources
_PLACES: Final = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-shares": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "cpuset-cpus": ("cpu", "cpus"),
    "cpuset-mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "kernel-memory": ("memory", "kernel"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
    "pids-limit": ("pids", "limit"),
}
_BYTES: Final = ("memory", "memory-reservation", "memory-swap", "kernel-memory", "kernel-memory-tcp")
_SIZES: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def update(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`update ID`: change the limits of a container. Limits that are not given stay unchanged. Raises RuntimeFault."""
    entry = store.load(at.root, arguments[0])
    if entry.status() == store.STOPPED:
        raise StateError("container not running")
    wanted = _without_devices(_wanted(flags))
    for warning in entry.cgroup.apply(wanted):
        at.log.warning(warning)
    _update_class(entry, flags)
    if entry.unit:
        from runtime.oci.cli import container_cgroup

        container_cgroup.update(entry, wanted)
    return 0


def _update_class(entry: store.Entry, flags: Flags) -> None:
    changes = {"l3CacheSchema": flags.get("l3-cache-schema"), "memBwSchema": flags.get("mem-bw-schema")}
    if not any(changes.values()):
        return
    from runtime.oci.optional import intel_rdt

    wanted = entry.spec().get("linux", {}).get("intelRdt")
    if wanted is None:
        raise StateError(
            "the container was created without linux.intelRdt, so it has no resctrl class to update"
        )
    intel_rdt.update(wanted, changes, entry.id, intel_rdt.root())


def _without_devices(resources: dict[str, Any]) -> dict[str, Any]:
    """Ignore device access, which update does not change (as in runc). podman and docker send an empty or a complete
    list."""
    return {key: value for key, value in resources.items() if key != "devices"}


def _wanted(flags: Flags) -> dict[str, Any]:
    if path := flags.get("resources"):
        return _read(path)
    wanted: dict[str, Any] = {}
    for flag, (group, key) in _PLACES.items():
        if flag in flags:
            value = flags[flag]
            wanted.setdefault(group, {})[key] = _size(flag, value) if flag in _BYTES else value
    return wanted


def _read(path: str) -> dict[str, Any]:
    try:
        with open(0 if path == "-" else os.path.abspath(path), "rb") as file:
            found: dict[str, Any] = shape.parse(file.read(), "stdin" if path == "-" else path)
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    shape.check([] if found is None else found, shape.RESOURCES, "linux.resources")
    return found


def _size(flag: str, text: str) -> int:
    """The bytes of a size such as `-1`, `1048576`, `64m`, `1Gi` or `1gb` (docker's go-units: powers of 1024)."""
    lower = text.strip().lower().removesuffix("b").removesuffix("i")
    number, unit = (lower[:-1], lower[-1:]) if lower[-1:].isalpha() else (lower, "")
    try:
        return int(float(number) * _SIZES[unit]) if number != "-1" else -1
    except (ValueError, KeyError):
        raise SpecError(f"invalid value {text!r} for {flag}") from None
