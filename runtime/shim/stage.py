"""What another OCI runtime finds mounted when it makes a container: the root, and the sources of its bind mounts where
they are not for it to open.

Two kinds are not. One that must lie beneath a directory (`x-beneath`, a volume's subPath): a runtime would follow the
links of its path. And all of them in a pod with users of its own (`hostUsers: false`): there a runtime mounts as the
root of the pod's user namespace, who may not search the host's directories, and only the newest runtimes map the ids of
mounts (runc from 1.2 on). So they are cloned, mapped and attached in the bundle before the command begins, as the
host's root, in the mount namespace that goes with the command.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from runtime import syscalls as sc
from runtime.oci import prepare
from runtime.oci.config import spec as oci
from runtime.oci.nsfile import open_namespace
from runtime.oci.rootfs import rootfs
from runtime.oci.rootfs.binds import BindMount
from runtime.shim.protocol import RootfsOverlay

SOURCES = "mounts"  # in the bundle: one for each bind mount, by its number
_OURS = ("idmap", "ridmap")


@dataclass(frozen=True, slots=True)
class Stage:
    """The mounts for one command. `userns`: a descriptor of the pod's user namespace, -1 = the host's; `ids`: whom of
    the host its root is."""

    plan: rootfs.Plan
    bundle: str
    runtime: str
    resolved: bool = False  # the sources of bind mounts are attached in the bundle
    userns: int = -1
    ids: tuple[int, int] = (0, 0)

    def execute(self) -> None:
        """In the command's process, in a mount namespace that is new. Raises SyscallError, SpecError."""
        if self.userns < 0:
            os.close(self.plan.root.execute().fd)
            plan = self.plan.with_open_sources() if self.resolved else self.plan
        else:
            propagation = self.plan.root.propagation
            sc.mount(None, "/", None, propagation)
            plan = self.plan.mapped(self.userns, self.ids)
            self._uncover()
            sc.move_mount(plan.root.tree, "", sc.AT_FDCWD, plan.root.path, sc.MOVE_MOUNT_F_EMPTY_PATH)
        for number, tree in enumerate(plan.sources):
            place = f"{self.bundle}/{SOURCES}/{number}"
            if stat.S_ISDIR(os.fstat(tree).st_mode):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            sc.move_mount(tree, "", sc.AT_FDCWD, place, sc.MOVE_MOUNT_F_EMPTY_PATH)

    def _uncover(self) -> None:
        """The bundle where the pod's root can get to it by its path: a directory on the way that is closed to others is
        covered, and what lies below it for this command is mounted there again."""
        closed = _closed(os.path.dirname(self.bundle))
        if not closed:
            return
        kept = [path for path in (self.bundle, self.runtime) if path.startswith(f"{closed}/")]
        trees = [sc.open_tree(sc.AT_FDCWD, path, sc.OPEN_TREE_CLONE) for path in kept]
        sc.mount("tmpfs", closed, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755,size=64k")
        for path, tree in zip(kept, trees, strict=True):
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            if stat.S_ISDIR(os.fstat(tree).st_mode):
                os.mkdir(path)
            else:
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o755))
            sc.move_mount(tree, "", sc.AT_FDCWD, path, sc.MOVE_MOUNT_F_EMPTY_PATH)
            os.close(tree)


def stage(
    spec: dict[str, Any], *, bundle: str, runtime: str, overlay: RootfsOverlay
) -> tuple[Stage, dict[str, Any]]:
    """The mounts of a container, and its config.json with them. The stage's `userns` is the caller's to close. Raises
    SpecError, SyscallError."""
    valid = oci.validate(spec)
    plan = rootfs.plan(valid, bundle=bundle, overlay=overlay)
    users = oci.namespaces(valid).get("user")
    binds = [op for op in plan.operations if isinstance(op, BindMount)]
    if not users and not any(op.options.beneath for op in binds):
        return Stage(plan, bundle, runtime), spec
    os.makedirs(f"{bundle}/{SOURCES}", mode=0o711, exist_ok=True)
    config = {**spec, "mounts": list(_resolved(spec["mounts"], binds, bundle))}
    if not users:
        return Stage(plan, bundle, runtime, resolved=True), config
    os.chmod(bundle, 0o711)
    root: Any = {"user": {"uid": 0, "gid": 0}}
    ids = (prepare.host_id(valid, root), prepare.host_id(valid, root, group=True))
    return Stage(plan, bundle, runtime, True, open_namespace(users), ids), config


def _resolved(mounts: list[dict[str, Any]], binds: list[BindMount], bundle: str) -> Iterator[dict[str, Any]]:
    """`binds`: what the plan has of them, in their order. One of what is in the root is the runtime's to find."""
    number, planned = 0, iter(binds)
    for mount in mounts:
        options = mount.get("options") or []
        if mount.get("type") != "bind" and not {"bind", "rbind"} & set(options):
            yield mount
            continue
        if next(planned).inside:
            yield mount
            continue
        kept = [option for option in options if option not in _OURS and not option.startswith("x-beneath=")]
        yield {**mount, "source": f"{bundle}/{SOURCES}/{number}", "options": kept}
        number += 1


def _closed(path: str) -> str:
    """The first directory from the top on the way to `path`, it included, that others may not search; "" = none."""
    above = ""
    for part in path.strip("/").split("/"):
        above = f"{above}/{part}"
        if not os.stat(above).st_mode & stat.S_IXOTH:
            return above
    return ""
