"""Which cgroup a container gets, by the global flags and by what this user may make."""

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


def place(at: Context, container_id: str, linux: Mapping[str, Any]) -> tuple[str, Scope | None]:
    """(a path below the root of each hierarchy, the scope that systemd makes there); "" for a container without a
    cgroup of its own."""
    wanted = linux.get("cgroupsPath") or ""
    if at.no_cgroup:
        return "", None
    if at.systemd_cgroup:
        return _scope(wanted, container_id)
    path = context.cgroup_path(container_id, wanted)
    if not at.rootless or _may_make(path):
        return path, None
    if wanted:
        at.log.warning(f"linux.cgroupsPath {wanted} was not applied: this user may make no cgroup there")
    return "", None


def _scope(wanted: str, container_id: str) -> tuple[str, Scope]:
    from runtime.cgroups import systemd

    user = os.geteuid() != 0
    if not systemd.available(user=user):
        raise CapabilityError("systemd not running on this host, cannot use systemd cgroups manager")
    scope = systemd.scope(wanted, container_id, user=user)
    return f"{systemd.own_cgroup(user=user)}{scope.path}", scope


def starter(scope: Scope, container_id: str, spec: Spec) -> Callable[[int], Callable[[], None]]:
    """For `spawn.make_scope`."""
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
    """systemd is told of new limits, or its next reload would undo them."""
    from runtime.cgroups import systemd

    systemd.update(_scope_of(entry), systemd.properties(resources, v2=layout().mode is Mode.V2))


def _scope_of(entry: Entry) -> Scope:
    from runtime.cgroups.systemd import Scope

    return Scope(entry.unit, entry.slice, user=os.geteuid() != 0)


def _may_make(path: str) -> bool:
    """By trying. A cgroup that has been delegated to this user is made; another user's is not."""
    cgroup = open_cgroup(path)
    if cgroup.exists():
        return all(os.access(f"{place}/cgroup.procs", os.W_OK) for place in _places(path))
    try:
        cgroup.create()
    except CapabilityError:  # processes live in what would be its parent
        return False
    except OSError as error:
        if error.errno not in _FORBIDDEN:
            raise
        return False
    cgroup.remove()
    return True


def _places(path: str) -> list[str]:
    found = layout()
    return [f"{point}{path}" for point in (*found.hierarchies, *([found.unified] if found.unified else []))]
