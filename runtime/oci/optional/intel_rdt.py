"""linux.intelRdt: limit cache and memory bandwidth with resctrl (config-linux.md, "IntelRdt"; filesystems/resctrl.rst).

A class of service (CLOS) is a directory of the resctrl file system, named by `closID` or by the container's ID. A new
class gets the schemata of config.json; an existing class must already have them. The container's init is written to
`tasks`, and its descendants inherit the class.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from runtime.cgroups import files
from runtime.errors import CapabilityError, SpecError, SyscallError


def mount_point(mountinfo: str) -> str:
    """The mount point of resctrl, from the text of mountinfo. CapabilityError if it is not mounted, as the
    specification requires."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("resctrl "):
            return before.split()[4].replace("\\040", " ")
    how = "mount -t resctrl resctrl /sys/fs/resctrl"
    raise CapabilityError(f"linux.intelRdt: no resctrl file system is mounted; mount it: {how}")


def root() -> str:
    return mount_point(files.read("/proc/self/mountinfo"))


def lines(wanted: Mapping[str, Any]) -> list[str]:
    """The lines for the class's `schemata` file, in order: l3CacheSchema, without its MB lines if memBwSchema is set;
    then memBwSchema; then `schemata`."""
    bandwidth = wanted.get("memBwSchema") or ""
    cache = [line for line in (wanted.get("l3CacheSchema") or "").splitlines() if line.strip()]
    if bandwidth:
        cache = [line for line in cache if not line.strip().startswith("MB:")]
    return [*cache, *([bandwidth] if bandwidth else []), *(wanted.get("schemata") or [])]


def enter(wanted: Mapping[str, Any], container_id: str, pid: int, where: str, undo: ExitStack) -> None:
    """Move the container's init to its class, which is created if missing. `undo` removes what is created here."""
    group = f"{where}/{wanted.get('closID') or container_id}"
    text = lines(wanted)
    there = os.path.isdir(group)
    if not there and wanted.get("closID") and not text:
        raise SpecError(
            f"linux.intelRdt.closID: {group} does not exist, and config.json has no schema to create it"
        )
    if there and text:
        _compare(group, text)
    if not there:
        _make(group, undo)
        for line in text:
            _write(f"{group}/schemata", f"{line}\n")
    if wanted.get("enableMonitoring"):
        monitor = f"{group}/mon_groups/{container_id}"
        _make(monitor, undo)
        _write(f"{monitor}/tasks", str(pid))
    _write(f"{group}/tasks", str(pid))


def join(wanted: Mapping[str, Any], container_id: str, pid: int, where: str) -> None:
    """Move an additional process to the container's class (exec); it is not a child of the container's init."""
    group = f"{where}/{wanted.get('closID') or container_id}"
    if wanted.get("enableMonitoring"):
        _write(f"{group}/mon_groups/{container_id}/tasks", str(pid))
    _write(f"{group}/tasks", str(pid))


def leave(wanted: Mapping[str, Any], container_id: str, where: str) -> None:
    """Remove the container's own directories: its monitoring group, and its class if that is named by its ID."""
    group = f"{where}/{wanted.get('closID') or container_id}"
    if wanted.get("enableMonitoring"):
        _remove(f"{group}/mon_groups/{container_id}")
    if not wanted.get("closID"):
        _remove(group)


def update(wanted: Mapping[str, Any], changes: Mapping[str, Any], container_id: str, where: str) -> None:
    """Write new schemata to the container's class (`update --l3-cache-schema, --mem-bw-schema`)."""
    group = f"{where}/{wanted.get('closID') or container_id}"
    for line in lines(changes):
        _write(f"{group}/schemata", f"{line}\n")


def _compare(group: str, wanted: list[str]) -> None:
    have = {_normal(line) for line in files.read(f"{group}/schemata").splitlines()}
    for line in wanted:
        if _normal(line) not in have:
            raise SpecError(
                f"linux.intelRdt: the class exists already, and {group}/schemata does not contain {line!r}"
            )


def _normal(line: str) -> str:
    """Normalize a line, because the kernel pads names and masks: `L3: 0=00f;1=f` and ` L3:0=f;1=f` are equal."""
    name, _, rest = line.strip().partition(":")
    parts = (part.strip().partition("=") for part in rest.split(";"))
    return f"{name.strip()}:" + ";".join(
        sorted(f"{a.strip()}={b.strip().lstrip('0') or '0'}" for a, _, b in parts)
    )


def _make(path: str, undo: ExitStack) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    except OSError as error:  # ENOSPC: all of the hardware's classes are in use
        raise SyscallError(error.errno or 0, "mkdir", path) from error
    undo.callback(_remove, path)


def _write(path: str, text: str) -> None:
    try:
        files.write(path, text)
    except SyscallError as error:
        said = files.read_or(f"{os.path.dirname(path)}/../info/last_cmd_status").strip()
        about = f"{error.about}: {said}" if said and said != "ok" else error.about
        raise SyscallError(error.errno or 0, "write", about) from error


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SyscallError(error.errno or 0, "rmdir", path) from error
