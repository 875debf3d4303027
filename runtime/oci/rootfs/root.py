"""A container's root directory as a descriptor, and the only ways to what is below it.

No path inside the root is ever given to the kernel as a string to follow: it is resolved by
openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS) and mounts go onto the resulting descriptor. A symlink in an image
(/proc → /etc, /dev/shm → /) or one swapped in through a shared volume can therefore point nowhere but into the same
root (CVE-2019-16884, CVE-2021-30465, CVE-2025-31133, CVE-2025-52565).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, Final, Protocol

from runtime import syscalls as sc
from runtime.errors import SyscallError

IN_ROOT: Final = sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
_SYMLINKS_MAX: Final = 40  # as the kernel's own MAXSYMLINKS


class Root:
    """An open root directory, and safe ways to reach and to make what is below it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.map_ids = _nobody_maps
        self.warnings: list[str] = []
        self._held: dict[str, int] = {}

    def open(self, path: str, flags: int = os.O_PATH, *, resolve: int = IN_ROOT) -> int:
        """`path` as seen from inside; symlinks are followed and stay inside."""
        return sc.openat2(self.fd, path.lstrip("/") or ".", flags, 0, resolve)

    def make(self, path: str, *, directory: bool, mode: int = 0o755) -> int:
        """An O_PATH descriptor of `path`, made (with its parents) where missing; dangling symlinks are made good
        inside the root, as an image's /etc/resolv.conf → ../run/resolvconf/… asks for."""
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
            except FileExistsError:  # a symlink to nowhere: go where it points
                links += 1
                if links > _SYMLINKS_MAX:
                    raise SyscallError(errno.ELOOP, "openat2", path) from None
                target = os.readlink(part, dir_fd=parent)
                todo = [p for p in target.split("/") if p not in ("", ".")] + todo
                done = "" if target.startswith("/") else done
            finally:
                os.close(parent)
        return self._checked(self.open(done), path, directory)

    def held(self, path: str) -> int:
        """The descriptor of a directory, made where missing; kept, for the next who asks. For after the mounts: what
        is mounted on it later is not seen through it."""
        if path not in self._held:
            self._held[path] = self.make(path, directory=True)
        return self._held[path]

    def _make_last(self, path: str, directory: bool, mode: int) -> int:
        """What is lacking is most often the last part alone. -1: it is not that simple, nothing was made."""
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
        except FileExistsError:  # a symlink to nowhere
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
    """A path of the object behind `fd` for mount(2). /proc is the host's own until pivot_root."""
    return f"/proc/self/fd/{fd}"


def _nobody_maps(tree: int, wanted: dict[str, Any]) -> None:
    """Until somebody is there who can id-map a mount of the container's."""
    raise SyscallError(errno.EPERM, "mount_setattr", wanted["about"])


class Operation(Protocol):
    """One step of the plan."""

    def describe(self) -> str: ...

    def execute(self, root: Root) -> None: ...
