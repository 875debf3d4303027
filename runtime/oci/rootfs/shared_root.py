"""Mount and unmount the root of a container that has no mount namespace of its own.

Such a container shares its creator's mount namespace and runs in a chroot(2), because pivot_root(2) would change the
root of all processes in that namespace. As in runc, the root is mounted over itself with all else below it, visible to
everybody in the namespace. Unlike runc, nothing else in the namespace is changed (runc makes all of it a slave, or what
rootfsPropagation says), and deleting the container unmounts the root. The identity of the mount is recorded in the file
`mounted` before the mount is made, so that `delete` can find it.
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


def check_not_the_hosts(namespace: int) -> None:
    """Refuse to join the mount namespace of process 1. Raises SpecError.

    pivot_root(2) changes the root for all processes in a joined mount namespace. runc does it anyway; here it is
    allowed for other mount namespaces only.
    """
    theirs = os.fstat(namespace)
    try:
        first = os.stat("/proc/1/ns/mnt")
    except PermissionError:  # then the caller cannot have got the namespace from there
        return
    if (theirs.st_dev, theirs.st_ino) == (first.st_dev, first.st_ino):
        raise SpecError(
            "linux.namespaces: cannot join the mount namespace of process 1: its root would change"
        )


def mount(
    root: RootMount, tell: Callable[[str], None] | None, undo: ExitStack, always: ExitStack
) -> tuple[RootMount, str]:
    """Mount the root in our own mount namespace.

    Returns (the mounted root, a description of the mount for `unmount`). `tell` is called with the description before
    anything is mounted. `undo` unmounts it. SpecError if root.path is "/", which could not be unmounted.
    """
    place = os.open(root.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    always.callback(os.close, place)
    ours, wanted = os.stat("/"), os.fstat(place)
    if (ours.st_dev, ours.st_ino) == (wanted.st_dev, wanted.st_ino):
        raise SpecError(
            "root.path: the host's own root needs a mount namespace: it would be mounted over itself"
        )
    tree = root.tree_at(place)
    always.callback(os.close, tree)
    _isolate(tree)
    mounted = f"{_mount_id(tree)} {os.readlink(proc_path(place))}"
    if tell is not None:
        tell(mounted)
    undo.callback(unmount, mounted)
    sc.attach_mount(tree, place, about=root.describe())
    _isolate(tree)  # attaching it to a shared mount has made it shared
    return root.in_place(tree), mounted


def _isolate(tree: int) -> None:
    """Keep later mounts in the tree from propagating out of it."""
    flags = sc.AT_EMPTY_PATH | sc.AT_RECURSIVE
    sc.mount_setattr(tree, "", flags, propagation=sc.MS_SLAVE, about="the root")
    sc.mount_setattr(tree, "", sc.AT_EMPTY_PATH, propagation=sc.MS_PRIVATE, about="the root")


def unmount(mounted: str) -> None:
    """Unmount what `mount` described, with everything mounted below it.

    The mount is looked up by its id and its mount point; do nothing if it is missing. StateError if something else is
    mounted over it.
    """
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
    """The mount id as in mountinfo (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as file:
        return next(line.split()[1] for line in file if line.startswith("mnt_id:"))


def check_proc(proc: int) -> None:
    """Check that /proc of a joined mount namespace shows this process; mounts use /proc/self/fd/N.

    `proc`: any open descriptor of this process. Raises SpecError.
    """
    with contextlib.suppress(OSError):
        seen, own = os.stat(proc_path(proc)), os.fstat(proc)
        if (seen.st_dev, seen.st_ino, stat.S_IFMT(seen.st_mode)) == (
            own.st_dev,
            own.st_ino,
            stat.S_IFMT(own.st_mode),
        ):
            return
    raise SpecError("linux.namespaces: /proc of the mount namespace to join does not show its own processes")


def undo_mounts(root: int) -> None:
    """Unmount the root of a container that failed, in a mount namespace that outlives it."""
    with contextlib.suppress(SyscallError):
        sc.umount2(proc_path(root), sc.MNT_DETACH)
