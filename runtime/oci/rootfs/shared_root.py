"""A container's root in a mount namespace that is not its own: what of it others see, and how it is taken back.

Without a mount namespace of its own a container lives in its maker's, in a chroot(2): pivot_root(2) would take the
root from all that live there. As with runc the root is mounted over itself and all else below it, in everybody's
sight; unlike runc nothing else of that namespace is changed (runc makes all of it a slave, or what rootfsPropagation
says), and the end of the container takes it away. Who is to do that finds it in `mounted`, which is written down before
the mount is made.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from runtime import syscalls as sc
from runtime.cgroups.layout import unescaped
from runtime.errors import SpecError, StateError, SyscallError
from runtime.oci.rootfs.root import proc_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from runtime.oci.rootfs.rootfs import RootMount


def check_not_the_machines(namespace: int) -> None:
    """A mount namespace that is joined gets another root, for all that are in it (pivot_root(2)): as runc does it, but
    never to process 1. SpecError."""
    theirs = os.fstat(namespace)
    try:
        first = os.stat("/proc/1/ns/mnt")
    except PermissionError:  # then whoever named it here could not have it from there
        return
    if (theirs.st_dev, theirs.st_ino) == (first.st_dev, first.st_ino):
        raise SpecError(
            "linux.namespaces: the mount namespace to join is that of process 1, and would get another root"
        )


def mount(
    root: RootMount, tell: Callable[[str], None] | None, undo: ExitStack, always: ExitStack
) -> tuple[RootMount, str]:
    """(the same, mounted by us in our own mount namespace; what `unmount` needs to know). `tell` is called with that
    before anything is mounted; `undo` unmounts. SpecError for a root that nobody could unmount."""
    place = os.open(root.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    always.callback(os.close, place)
    ours, wanted = os.stat("/"), os.fstat(place)
    if (ours.st_dev, ours.st_ino) == (wanted.st_dev, wanted.st_ino):
        raise SpecError(
            "root.path: the machine's own root needs a mount namespace: it would be mounted over itself"
        )
    tree = root.tree_at(place)
    always.callback(os.close, tree)
    _keep_apart(tree)
    mounted = f"{_mount_id(tree)} {os.readlink(proc_path(place))}"
    if tell is not None:
        tell(mounted)
    undo.callback(unmount, mounted)
    sc.attach_mount(tree, place, about=root.describe())
    _keep_apart(tree)  # attached to a shared mount, it has become one
    return root.in_place(tree), mounted


def _keep_apart(tree: int) -> None:
    """What is mounted in it later is seen nowhere else."""
    flags = sc.AT_EMPTY_PATH | sc.AT_RECURSIVE
    sc.mount_setattr(tree, "", flags, propagation=sc.MS_SLAVE, about="the root")
    sc.mount_setattr(tree, "", sc.AT_EMPTY_PATH, propagation=sc.MS_PRIVATE, about="the root")


def unmount(mounted: str) -> None:
    """Take away what `mount` told of, with all that is mounted below it. Missing is fine: it is looked for by its id
    and its mount point. StateError when something else has been mounted over it."""
    number, _, point = mounted.partition(" ")
    if not _is_mounted(number, point):
        return
    fd = os.open(point, os.O_PATH | os.O_CLOEXEC)
    try:
        if _mount_id(fd) != number:
            raise StateError(
                f"{point}: something else is mounted over the container's root: unmount that first"
            )
        sc.umount2(proc_path(fd), sc.MNT_DETACH)
    finally:
        os.close(fd)


def _is_mounted(number: str, point: str) -> bool:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        fields = (line.split(" ", 5) for line in file)
        return any(line[0] == number and unescaped(line[4]) == point for line in fields)


def _mount_id(fd: int) -> str:
    """As mountinfo has it (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as file:
        return next(line.split()[1] for line in file if line.startswith("mnt_id:"))


def check_proc(proc: int) -> None:
    """In a mount namespace that was joined: mounts go to /proc/self/fd/N, so /proc must be the one that shows us.
    `proc`: a descriptor of ours, of anything. SpecError."""
    with contextlib.suppress(OSError):
        seen, own = os.stat(proc_path(proc)), os.fstat(proc)
        if (seen.st_dev, seen.st_ino, stat.S_IFMT(seen.st_mode)) == (
            own.st_dev,
            own.st_ino,
            stat.S_IFMT(own.st_mode),
        ):
            return
    raise SpecError(
        "linux.namespaces: the mount namespace to join has no /proc in which its processes see themselves"
    )


def undo_mounts(root: int) -> None:
    """The root of a container that is not to be, in a mount namespace that outlives it."""
    with contextlib.suppress(SyscallError):
        sc.umount2(proc_path(root), sc.MNT_DETACH)
