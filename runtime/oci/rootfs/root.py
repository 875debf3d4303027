"""A container's root directory as a descriptor, with the only permitted ways to access paths in it.

The kernel never follows a path inside the root as a string. Every path is resolved with openat2(RESOLVE_IN_ROOT |
RESOLVE_NO_MAGICLINKS), and mounts are attached to the resulting descriptor. So a symlink in an image (/proc → /etc,
/dev/shm → /), or one swapped in through a shared volume, can only point into the same root (CVE-2019-16884,
CVE-2021-30465, CVE-2025-31133, CVE-2025-52565).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any, Final, Protocol

from runtime import syscalls as sc
from runtime.errors import SyscallError

if TYPE_CHECKING:
    from runtime.oci.rootfs.procfs import Procfs

IN_ROOT: Final = sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
_SYMLINKS_MAX: Final = 40  # the kernel's MAXSYMLINKS


class Root:
    """An open root directory, and safe ways to open and create paths in it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.map_ids = _no_id_mapping
        self.procfs: Procfs | None = None  # what to mount where a procfs is wanted; None: a new one
        self.warnings: list[str] = []
        self._cached: dict[str, int] = {}

    def open(self, path: str, flags: int = os.O_PATH, *, resolve: int = IN_ROOT) -> int:
        """Open `path` as seen from inside the root. Symlinks are followed but cannot leave the root."""
        return sc.openat2(self.fd, path.lstrip("/") or ".", flags, 0, resolve)

    def make(self, path: str, *, directory: bool, mode: int = 0o755) -> int:
        """An O_PATH descriptor of `path`, which is created with its parents if missing.

        The missing target of a dangling symlink is created inside the root, as needed for an image's /etc/resolv.conf →
        ../run/resolvconf/….
        """
        try:
            return self._checked(self.open(path), path, directory)
        except SyscallError as error:
            if error.errno != errno.ENOENT:
                raise
        if (made := self._make_last(path, directory, mode)) >= 0:
            return made
        done, todo, links = "", [part for part in path.split("/") if part not in ("", ".")], 0
        while todo:
            part = todo.pop(0)
            here = f"{done}/{part}"
            parent = self.open(done, os.O_PATH | os.O_DIRECTORY)
            try:
                if part != ".." and not self.exists(here):
                    _make_one(parent, part, directory=directory or bool(todo), mode=mode)
                done = here
            except FileExistsError:  # a dangling symlink: continue with its target
                links += 1
                if links > _SYMLINKS_MAX:
                    raise SyscallError(errno.ELOOP, "openat2", path) from None
                target = os.readlink(part, dir_fd=parent)
                todo = [p for p in target.split("/") if p not in ("", ".")] + todo
                done = "" if target.startswith("/") else done
            finally:
                os.close(parent)
        return self._checked(self.open(done), path, directory)

    def cached_directory(self, path: str) -> int:
        """A cached descriptor of a directory, which is created if missing.

        Use this only after all mounts: the descriptor does not show what is mounted on the directory later.
        """
        if path not in self._cached:
            self._cached[path] = self.make(path, directory=True)
        return self._cached[path]

    def _make_last(self, path: str, directory: bool, mode: int) -> int:
        """The common case that only the last component is missing: create it. -1: another case; nothing was created."""
        above, _, name = path.strip("/").rpartition("/")
        if name in ("", ".", ".."):
            return -1
        try:
            parent = self.open(above, os.O_PATH | os.O_DIRECTORY)
        except SyscallError as error:
            if error.errno != errno.ENOENT:
                raise
            return -1
        try:
            _make_one(parent, name, directory=directory, mode=mode)
            return sc.openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, 0, IN_ROOT | sc.RESOLVE_NO_SYMLINKS)
        except FileExistsError:  # a dangling symlink
            return -1
        finally:
            os.close(parent)

    def exists(self, path: str) -> bool:
        try:
            os.close(self.open(path))
        except SyscallError as error:
            if error.errno != errno.ENOENT:
                raise
            return False
        return True

    @staticmethod
    def _checked(fd: int, path: str, directory: bool) -> int:
        if stat.S_ISDIR(os.fstat(fd).st_mode) == directory:
            return fd
        os.close(fd)
        raise SyscallError(errno.ENOTDIR if directory else errno.EISDIR, "mount", path)


def _make_one(parent: int, name: str, *, directory: bool, mode: int) -> None:
    if directory:
        os.mkdir(name, mode, dir_fd=parent)
        return
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o644, dir_fd=parent))


def proc_path(fd: int) -> str:
    """A path to the object behind `fd`, for mount(2). Until pivot_root, /proc is the host's."""
    return f"/proc/self/fd/{fd}"


def _no_id_mapping(tree: int, wanted: dict[str, Any]) -> None:
    """The default of Root.map_ids: id-mapping is not available."""
    raise SyscallError(errno.EPERM, "mount_setattr", wanted["about"])


class Operation(Protocol):
    """One step of a mount plan."""

    def describe(self) -> str: ...

    def execute(self, root: Root) -> None: ...
