"""Mount images for inspection: read-only overlays of their layers, recognised by their mount source.

The mounts are nosuid and nodev, so that no file of an image gives a user of the node privileges or access to a device.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from runtime import syscalls as sc
from runtime.errors import SyscallError

_ATTRIBUTES = sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
SOURCE = "kubelite-image:"  # plus the image id: the mount source in /proc/self/mountinfo


def mount_image(identity: str, layers: Sequence[str], target: str) -> None:
    """Mount the layers (topmost first) read-only at `target`, an empty directory.

    Raises OSError (ENOTEMPTY), or SyscallError with the kernel's message."""
    if os.listdir(target):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), target)
    # An overlay needs two lower directories. The mount point itself is empty, so it serves as the second one.
    lower = [*layers, target] if len(layers) < 2 else list(layers)
    context = sc.fsopen("overlay")
    try:
        sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "source", SOURCE + identity)
        for layer in lower:
            sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "lowerdir+", layer)
        sc.fsconfig(context, sc.FSCONFIG_CMD_CREATE)
        tree = sc.fsmount(context, sc.FSMOUNT_CLOEXEC, _ATTRIBUTES)
    except SyscallError as error:
        if error.errno == errno.EINVAL and error.about.startswith("lowerdir+"):
            _mount_by_options(identity, lower, target)
            return
        raise SyscallError(
            error.errno or 0, "mount overlay", f"{target} ({sc.fs_messages(context) or error.about})"
        ) from error
    finally:
        os.close(context)
    try:
        sc.move_mount(tree, "", sc.AT_FDCWD, target, sc.MOVE_MOUNT_F_EMPTY_PATH, about=target)
    finally:
        os.close(tree)


def _mount_by_options(identity: str, layers: Sequence[str], target: str) -> None:
    """mount(2), before Linux 6.5. All options must fit in one page, so the layers are named by descriptor."""
    fds = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in layers]
    try:
        data = "lowerdir=" + ":".join(f"/proc/self/fd/{fd}" for fd in fds)
        sc.mount(SOURCE + identity, target, "overlay", sc.MS_RDONLY | sc.MS_NOSUID | sc.MS_NODEV, data)
    finally:
        for fd in fds:
            os.close(fd)


def mounts() -> Iterator[tuple[str, str]]:
    """(mount point, image id) of every image mounted in this mount namespace (proc_pid_mountinfo(5))."""
    with (
        suppress(FileNotFoundError),
        open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file,
    ):
        for line in file:
            before, _, after = line.partition(" - ")
            fields = after.split()
            if len(fields) > 1 and fields[0] == "overlay" and fields[1].startswith(SOURCE):
                yield before.split()[4].replace("\\040", " "), fields[1].removeprefix(SOURCE)


def mounted_images() -> set[str]:
    return {identity for _, identity in mounts()}


def unmount(target: str) -> None:
    sc.umount2(target)
