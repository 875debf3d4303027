"""Mount the container's terminal on /dev/console (config-linux.md, "Default Devices")."""

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
    """Create the file on which the terminal will be mounted, while /dev and the root are still writable."""

    def describe(self) -> str:
        return f"make {_PATH}"

    def execute(self, root: Root) -> None:
        os.close(root.make(_PATH, directory=False))


@dataclass(frozen=True, slots=True)
class Console:
    """Mount the terminal on /dev/console.

    It is looked up by the slave's path, on the host or (`within`) in the container's own /dev/pts. It must be the same
    device as `slave`.
    """

    slave: int
    within: bool = False

    def describe(self) -> str:
        return "bind the terminal on /dev/console"

    def execute(self, root: Root) -> None:
        path = os.readlink(proc_path(self.slave))
        if self.within:  # by descriptor: if the root is mounted over "/", no path leads to it
            source = root.open(f"/dev/pts/{os.path.basename(path)}", resolve=IN_ROOT | sc.RESOLVE_NO_SYMLINKS)
            tree = sc.open_tree(source, "", sc.OPEN_TREE_CLONE | sc.AT_EMPTY_PATH)
            os.close(source)
        else:
            tree = sc.open_tree(sc.AT_FDCWD, path, sc.OPEN_TREE_CLONE)
        there, wanted = os.fstat(tree), os.fstat(self.slave)
        if (there.st_rdev, there.st_ino, there.st_dev) != (wanted.st_rdev, wanted.st_ino, wanted.st_dev):
            raise SpecError(f"console: {path} is not the terminal that the caller passed")
        os.close(root.make(_PATH, directory=False))
        try:
            target = root.open(_PATH, resolve=IN_ROOT | sc.RESOLVE_NO_SYMLINKS)
        except SyscallError as error:
            raise SpecError("console: /dev/console of the image is not a plain file") from error
        if not stat.S_ISREG(os.fstat(target).st_mode):
            # CVE-2025-52565: mount only over a plain file that we created, never over the target of a link or another
            # mount.
            raise SpecError("console: /dev/console of the image is not a plain file")
        sc.attach_mount(tree, target, about=self.describe())
        os.close(tree)
        os.close(target)
