"""Run the interpreter from a file that no container can write to (CVE-2019-5736).

A container's entry point may be a script whose interpreter is /proc/self/exe. execve then runs our own executable
again, inside the container and with its libraries, and that process could write to the host's file. So a process that
creates containers runs the interpreter from a read-only, detached bind mount. The file is the same and shares its
pages, but what is opened through /proc/<pid>/exe is on a mount that cannot be remounted, so writing fails with EROFS.
"""

from __future__ import annotations

import os
import sys

from runtime import syscalls as sc
from runtime.errors import SyscallError


def is_sealed() -> bool:
    """Whether our executable is on a read-only mount."""
    fd = os.open("/proc/self/exe", os.O_PATH | os.O_CLOEXEC)
    try:
        return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
    finally:
        os.close(fd)


def reexecute() -> None:
    """Execute ourselves again from a sealed file, with the same arguments and environment.

    Call this once, first, in a process that will create containers. Returns if we are already sealed or may not mount;
    in the latter case we are not a root that could write to the file either.
    """
    if is_sealed():
        return
    try:
        tree = sc.open_tree(sc.AT_FDCWD, "/proc/self/exe", sc.OPEN_TREE_CLONE)
        sc.mount_setattr(tree, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY, about="/proc/self/exe")
    except SyscallError:
        return
    os.execve(f"/proc/self/fd/{tree}", sys.orig_argv, os.environ)
