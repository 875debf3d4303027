"""The terminal of a container in its file system: /dev/console (config-linux.md, "Default Devices")."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

from runtime import syscalls as sc
from runtime.errors import SpecError, SyscallError
from runtime.oci.rootfs.root import IN_ROOT, Root, proc_path

_PATH: Final = "/dev/console"


@dataclass(frozen=True, slots=True)
class ConsolePlace:
    """The file that a terminal will be bound on, made while /dev and the root may still be written to."""

    def describe(self) -> str:
        return f"make {_PATH}"

    def execute(self, root: Root) -> None:
        os.close(root.make(_PATH, directory=False))


@dataclass(frozen=True, slots=True)
class Console:
    """The terminal as /dev/console. It is found by the slave's path, on the host or (`within`) in the container's own
    /dev/pts, and checked to be the very device of `slave`."""

    slave: int
    within: bool = False

    def describe(self) -> str:
        return "bind the terminal on /dev/console"

    def execute(self, root: Root) -> None:
        path = os.readlink(proc_path(self.slave))
        if self.within:  # by descriptor: the root may have been put over "/", which no path crosses
            source = root.open(f"/dev/pts/{os.path.basename(path)}", resolve=IN_ROOT | sc.RESOLVE_NO_SYMLINKS)
            tree = sc.open_tree(source, "", sc.OPEN_TREE_CLONE | sc.AT_EMPTY_PATH)
            os.close(source)
        else:
            tree = sc.open_tree(sc.AT_FDCWD, path, sc.OPEN_TREE_CLONE)
        there, wanted = os.fstat(tree), os.fstat(self.slave)
        if (there.st_rdev, there.st_ino, there.st_dev) != (wanted.st_rdev, wanted.st_ino, wanted.st_dev):
            raise SpecError(f"console: {path} is not the terminal that was given")
        os.close(root.make(_PATH, directory=False))
        try:
            target = root.open(_PATH, resolve=IN_ROOT | sc.RESOLVE_NO_SYMLINKS)
        except SyscallError as error:
            raise SpecError("console: /dev/console of the image is not a plain file") from error
        if not stat.S_ISREG(os.fstat(target).st_mode):
            # CVE-2025-52565: only a plain file of ours may be covered, never what a link or a mount put there
            raise SpecError("console: /dev/console of the image is not a plain file")
        sc.attach_mount(tree, target, about=self.describe())
        os.close(tree)
        os.close(target)
