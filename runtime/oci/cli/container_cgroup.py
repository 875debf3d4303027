"""Choose a container's cgroup from the global flags and from what this user may create."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from runtime.cgroups import Mode, layout, open_cgroup
from runtime.errors import CapabilityError
from runtime.oci.cli import context
from runtime.oci.cli.context import Context

if TYPE_CHECKING:
    from runtime.cgroups.systemd import Scope
    from runtime.oci.cli.store import Entry
    from runtime.oci.config.spec import Spec

_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)


def choose(at: Context, container_id: str, linux: Mapping[str, Any]) -> tuple[str, Scope | None]:
    """(the cgroup's path below the root of each hierarchy, the systemd scope to create there or None). The path is ""
    for a container without its own cgroup."""
    wanted = linux.get("cgroupsPath") or ""
    if at.no_cgroup:
        return "", None
    if at.systemd_cgroup:
        return _scope(wanted, container_id)
    path = context.cgroup_path(container_id, wanted)
    if not at.rootless or _may_create(path):
        return path, None
    if wanted:
        at.log.warning(f"linux.cgroupsPath {wanted} was not applied: this user may not create a cgroup there")
    return "", None


def _scope(wanted: str, container_id: str) -> tuple[str, Scope]:
    from runtime.cgroups import systemd

    user = os.geteuid() != 0
    if not systemd.available(user=user):
        raise CapabilityError("systemd not running on this host, cannot use systemd cgroups manager")
    scope = systemd.scope(wanted, container_id, user=user)
    return f"{systemd.own_cgroup(user=user)}{scope.path}", scope


def starter(scope: Scope, container_id: str, spec: Spec) -> Callable[[int], Callable[[], None]]:
    """The function that starts the scope, for `spawn.make_scope`."""
    from runtime.cgroups import systemd

    resources, annotations = spec.get("linux", {}).get("resources") or {}, spec.get("annotations") or {}

    def start(pid: int) -> Callable[[], None]:
        v2 = layout().mode is Mode.V2
        systemd.start(
            scope, systemd.start_properties(scope, container_id, pid, resources, annotations, v2=v2)
        )
        return lambda: systemd.stop(scope)

    return start


def stop(entry: Entry) -> None:
    """Stop the container's scope. Raises RuntimeFault."""
    from runtime.cgroups import systemd

    systemd.stop(_scope_of(entry))


def update(entry: Entry, resources: Mapping[str, Any]) -> None:
    """Pass new limits to systemd; otherwise its next reload would undo them."""
    from runtime.cgroups import systemd

    systemd.update(_scope_of(entry), systemd.properties(resources, v2=layout().mode is Mode.V2))


def _scope_of(entry: Entry) -> Scope:
    from runtime.cgroups.systemd import Scope

    return Scope(entry.unit, entry.slice, user=os.geteuid() != 0)


def _may_create(path: str) -> bool:
    """Whether this user may create the cgroup; found out by trying. It may in a cgroup that is delegated to it."""
    cgroup = open_cgroup(path)
    if cgroup.exists():
        return all(os.access(f"{place}/cgroup.procs", os.W_OK) for place in _directories(path))
    try:
        cgroup.create()
    except CapabilityError:  # the parent cgroup contains processes
        return False
    except OSError as error:
        if error.errno not in _FORBIDDEN:
            raise
        return False
    cgroup.remove()
    return True


def _directories(path: str) -> list[str]:
    found = layout()
    return [f"{point}{path}" for point in (*found.hierarchies, *([found.unified] if found.unified else []))]
