"""Prepare the mounts for another OCI runtime: the container's root, and bind mount sources that it must not open
itself.

There are two cases. First, a source that must stay below a directory (`x-beneath`, a volume's subPath): a runtime would
follow links in its path. Second, all sources in a pod with its own user namespace (`hostUsers: false`): they are
mounted by the root of that namespace, which may not search the host's directories, and only recent runtimes support
id-mapped mounts (runc since 1.2). Therefore these sources are cloned, id-mapped and attached in the bundle before the
command runs, as the host's root, in a mount namespace that ends with the command.
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

SOURCES = "mounts"  # a directory in the bundle, with an entry per bind mount, named by its number
_OURS = ("idmap", "ridmap", "remount")


@dataclass(frozen=True, slots=True)
class Stage:
    """The mounts for one command.

    `userns`: a descriptor of the pod's user namespace; -1: the host's. `ids`: host uid and gid of its root.
    """

    plan: rootfs.Plan
    bundle: str
    runtime: str
    resolved: bool = False  # whether the sources of bind mounts are attached in the bundle
    userns: int = -1
    ids: tuple[int, int] = (0, 0)

    def execute(self) -> None:
        """Mount everything. Runs in the command's process, in a new mount namespace. Raises SyscallError, SpecError."""
        if self.userns < 0:
            os.close(self.plan.root.execute().fd)
            plan = self.plan.with_open_sources() if self.resolved else self.plan
        else:
            propagation = self.plan.root.propagation
            sc.mount(None, "/", None, propagation)
            plan = self.plan.mapped(self.userns, self.ids)
            self._expose_bundle()
            sc.move_mount(plan.root.tree, "", sc.AT_FDCWD, plan.root.path, sc.MOVE_MOUNT_F_EMPTY_PATH)
        for number, tree in enumerate(plan.sources):
            place = f"{self.bundle}/{SOURCES}/{number}"
            if stat.S_ISDIR(os.fstat(tree).st_mode):
                os.mkdir(place)
            else:
                os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            sc.move_mount(tree, "", sc.AT_FDCWD, place, sc.MOVE_MOUNT_F_EMPTY_PATH)

    def _expose_bundle(self) -> None:
        """Make the bundle reachable by its path for the pod's root.

        If a directory on the path is not searchable by others, mount a tmpfs over it, and mount the bundle and the
        runtime there again.
        """
        closed = _first_closed(os.path.dirname(self.bundle))
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
    """The mounts for a container, and its config.json adapted to them. The caller closes the stage's `userns`. Raises
    SpecError, SyscallError."""
    valid = oci.validate(spec)
    plan = rootfs.plan(valid, bundle=bundle, overlay=overlay)
    users = oci.namespaces(valid).get("user")
    binds = [op for op in plan.operations if isinstance(op, BindMount)]
    if not users and not any(op.options.beneath for op in binds):
        return Stage(plan, bundle, runtime), {
            **spec,
            "mounts": [_portable(m) for m in spec.get("mounts", [])],
        }
    os.makedirs(f"{bundle}/{SOURCES}", mode=0o711, exist_ok=True)
    config = {**spec, "mounts": list(_resolved(spec["mounts"], binds, bundle))}
    if not users:
        return Stage(plan, bundle, runtime, resolved=True), config
    os.chmod(bundle, 0o711)
    root: Any = {"user": {"uid": 0, "gid": 0}}
    ids = (prepare.host_id(valid, root), prepare.host_id(valid, root, group=True))
    return Stage(plan, bundle, runtime, True, open_namespace(users), ids), config


def _resolved(mounts: list[dict[str, Any]], binds: list[BindMount], bundle: str) -> Iterator[dict[str, Any]]:
    """The mounts with their sources replaced by those in the bundle. `binds`: the plan's bind mounts, in order. A
    source inside the root is left to the runtime."""
    number, planned = 0, iter(binds)
    for mount in mounts:
        options = mount.get("options") or []
        if mount.get("type") != "bind" and not {"bind", "rbind"} & set(options):
            yield mount
            continue
        if next(planned).inside:
            yield mount
            continue
        yield {**_portable(mount), "source": f"{bundle}/{SOURCES}/{number}"}
        number += 1


def _portable(mount: dict[str, Any]) -> dict[str, Any]:
    """The mount without the options of a bind that other runtimes do not have, or not with our meaning: "remount"."""
    options = mount.get("options") or []
    kept = [option for option in options if option not in _OURS and not option.startswith("x-beneath=")]
    return mount if kept == options else {**mount, "options": kept}


def _first_closed(path: str) -> str:
    """The topmost directory on the path, including `path` itself, that others may not search; "" if there is none."""
    above = ""
    for part in path.strip("/").split("/"):
        above = f"{above}/{part}"
        if not os.stat(above).st_mode & stat.S_IXOTH:
            return above
    return ""
