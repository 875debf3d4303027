"""The interpreter as a file no container can write to (CVE-2019-5736).

A container's entry point may be a script whose interpreter is /proc/self/exe: execve then runs our own executable once
more, inside, with the container's libraries, and that process holds a way to write to the host's file. So whoever makes
containers runs the interpreter from a read-only, detached bind mount of it: the file is the same and shares its pages,
but what is opened through /proc/<pid>/exe is on a mount that is nowhere to be remounted, and writing is EROFS.
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
    """Once, first thing in a process that will make containers: execute ourselves again, sealed, with the same
    arguments and environment. Returns when we are sealed already, or may not mount (then a root of ours that could
    write the file is not there either)."""
    if is_sealed():
        return
    try:
        tree = sc.open_tree(sc.AT_FDCWD, "/proc/self/exe", sc.OPEN_TREE_CLONE)
        sc.mount_setattr(tree, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_RDONLY, about="/proc/self/exe")
    except SyscallError:
        return
    os.execve(f"/proc/self/fd/{tree}", sys.orig_argv, os.environ)
