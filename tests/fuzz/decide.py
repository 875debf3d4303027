"""All decisions about a config.json before a process is created, in this process: thousands per second."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from runtime.cgroups import devices, open_cgroup, resources_v1, resources_v2
from runtime.errors import RuntimeFault
from runtime.oci import hooks, prepare
from runtime.oci.cli import context, create
from runtime.oci.rootfs import idmap
from runtime.security import rlimits

CONTAINER = "container"  # as far as can be decided, it becomes a container


class Unclean(AssertionError):
    """Neither a container nor one clean error."""


def decide(path: Path) -> str:
    """Return CONTAINER, or the error message. Raises Unclean."""
    try:
        _decide(str(path), str(path.parent))
    except RuntimeFault as fault:
        sentence = str(fault)
        if not sentence or "\n" in sentence:
            raise Unclean(f"the error is no sentence of one line: {sentence!r}") from fault
        return sentence
    except Exception as error:
        raise Unclean(f"{type(error).__name__}: {error}") from error
    return CONTAINER


def _decide(path: str, bundle: str) -> None:
    """Decide in the order of `create`."""
    _, spec = create._read_spec(path)
    loose: Any = spec
    process, linux = spec["process"], spec.get("linux", {})
    create.check_console({}, terminal=bool(process.get("terminal")), foreground=False)
    os.path.join(bundle, spec["root"]["path"])
    cgroup = context.cgroup_path("fuzz", linux.get("cgroupsPath", ""))
    prepare.plan(spec, bundle, None, cgroup, None)
    hooks.parse(loose.get("hooks") or {})
    prepare.hook_state(spec, "fuzz", bundle, "creating")
    prepare.caps(process, in_user_namespace=False)
    prepare.compile_filter(linux)
    open_cgroup(cgroup)
    resources = linux.get("resources", {})
    for plan in (resources_v1.plan, resources_v2.plan):
        try:
            plan(resources)
        except RuntimeFault:
            continue  # only for this cgroup version
    devices.resolve(resources.get("devices") or [])
    prepare.from_spec(spec)
    rlimits.parse(process.get("rlimits", []))
    for entry in (linux.get("uidMappings", []), linux.get("gidMappings", [])):
        idmap.lines(entry)
