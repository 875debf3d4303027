"""The procfs of a pid namespace, for a process that is not in it (runtime/oci/pid_entry.py says why)."""

from __future__ import annotations

import os
from typing import NamedTuple

from runtime import syscalls as sc


class Procfs(NamedTuple):
    """A procfs of a pid namespace, mounted in a mount namespace where no path leads to it."""

    tree: int  # O_PATH descriptor of its mount
    holder: int  # pidfd of a process in that mount namespace

    def cloned(self) -> int:
        """A detached mount of it, for the caller to attach and close.

        open_tree(2) clones only mounts of the caller's mount namespace, so this process briefly enters the holder's.
        Afterwards its root and cwd are the root of its own mount namespace (setns(2)).
        """
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            sc.setns(self.holder, sc.CLONE_NEWNS, about="of the pod's pause process")
            try:
                return sc.open_tree(self.tree, "", sc.OPEN_TREE_CLONE | sc.AT_EMPTY_PATH)
            finally:
                sc.setns(own, sc.CLONE_NEWNS, about="our own mount namespace")
        finally:
            os.close(own)
