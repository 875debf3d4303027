"""Restrict what a random config.json can do to the machine: no root but the bundle's, no bind sources outside their
directory, no foreign cgroups or namespaces, no host programs as hooks. Everything else stays as invalid as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

HOOKS = ("/bin/true", "/bin/false")


def leashed(raw: bytes, base: Path, cgroup: str) -> bytes:
    """The same case with dangerous values replaced by paths below `base` and `cgroup`. Text that is not JSON is
    harmless."""
    try:
        made = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    if not isinstance(made, dict):
        return raw
    root = made.get("root")
    if isinstance(root, dict) and isinstance(path := root.get("path"), str) and not _inside(path, base):
        root["path"] = "rootfs"
    for entry in _dicts(made.get("mounts")):
        if isinstance(source := entry.get("source"), str) and not _inside(source, base):
            entry["source"] = str(base / "source") if os.path.exists(source) else f"{source}-nosuch"
    hooks = made.get("hooks")
    for kind in hooks.values() if isinstance(hooks, dict) else ():
        for hook in _dicts(kind):
            if isinstance(path := hook.get("path"), str) and path not in HOOKS and os.path.lexists(path):
                hook["path"] = "/bin/true"
    linux = made.get("linux")
    if isinstance(linux, dict):
        _leash_linux(linux, cgroup)
    return json.dumps(made).encode()


def _leash_linux(linux: dict[str, Any], cgroup: str) -> None:
    path = linux.get("cgroupsPath")
    if path is None:
        linux["cgroupsPath"] = cgroup  # absent is below our own: that may be where others are
    elif isinstance(path, str) and path.count(":") != 2 and not path.startswith(f"{cgroup}"):
        linux["cgroupsPath"] = f"{cgroup}/{path}"
    for entry in _dicts(linux.get("namespaces")):
        if isinstance(path := entry.get("path"), str) and not path.startswith("/proc/self/ns/") and path:
            entry["path"] = "/nowhere"


def leashed_state(raw: bytes, cgroup: str) -> bytes:
    """A state.json that names no cgroup but `cgroup`, because delete kills the processes in the named cgroup."""
    try:
        made = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    if isinstance(made, dict) and isinstance(made.get("cgroup_path"), str):
        made["cgroup_path"] = cgroup
    return json.dumps(made).encode()


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _inside(path: str, base: Path) -> bool:
    if "\0" in path or not path.isprintable():
        return True  # refused, or the name of nothing
    real = os.path.realpath(base / "bundle" / path)
    return real.startswith(f"{base}/")
