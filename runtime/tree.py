"""Walk or open directories whose content may be hostile and may change meanwhile.

A container can nest directories as deeply as its disk has inodes. A walk that recurses (os.walk before Python 3.12),
that keeps a descriptor per level (os.fwalk) or that names files by their whole path (PATH_MAX) fails on such a tree or
misses its content. This walk handles any depth and width. Only the current directory and the first KEPT levels have a
descriptor. The way up from deeper levels is "..", whose inode must equal the one seen on the way down. Links are not
followed. Directories on which other file systems are mounted are neither entered nor examined, because a server may not
answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from runtime import syscalls as sc
from runtime.errors import SyscallError

KEPT = 32  # levels that keep their descriptors
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_SYMLINKS | sc.RESOLVE_NO_XDEV


def make_directories(path: str, mode: int = 0o755) -> None:
    """Create a directory with this mode, and its missing parents with 0755, whatever the umask is. Raises OSError."""
    if os.path.isdir(path):
        return
    if above := os.path.dirname(path.rstrip("/")):
        make_directories(above)
    with suppress(FileExistsError):
        os.mkdir(path, mode)
        fd = os.open(path, _FLAGS)  # somebody may have replaced it by a link meanwhile
        try:
            os.fchmod(fd, mode)
        finally:
            os.close(fd)


@contextmanager
def directory_of(path: str, *, create: bool = False) -> Iterator[int]:
    """A descriptor of the directory of a container's log, <pod's directory>/<container>/<attempt>.log.

    Neither of the two directories may be a symbolic link, because a pod that mounts the log directory could create one.
    The directories above them belong to the node's administrator. `create`: create missing directories. Raises OSError.
    """
    above, container = os.path.split(os.path.dirname(path))
    above, pod = os.path.split(above)
    if create:
        make_directories(above)
    fd = os.open(above or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in filter(None, (pod, container)):
            made = False
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=fd)
                    made = True
            below = os.open(name, _FLAGS, dir_fd=fd)
            if made:
                os.fchmod(below, 0o755)  # whatever the umask: collectors of logs are not always root
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def walk(path: str) -> Iterator[tuple[int, str, os.stat_result]]:
    """Everything below the directory `path`: (descriptor of its directory, name, status). Directories precede their
    content.

    The descriptor is valid until the next step. Entries that disappear meanwhile are left out; directories that are
    moved meanwhile may be left out. Raises OSError if `path` is not a directory that can be opened.
    """
    levels = _Levels(os.open(path, _FLAGS))
    try:
        while levels.descriptors:
            here = levels.descriptors[-1]
            if levels.todo[-1] is None:
                found: list[str] = []
                levels.todo[-1] = found
                with suppress(OSError), os.scandir(here) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            found.append(entry.name)
                            continue
                        with suppress(OSError):
                            status = os.stat(entry.name, dir_fd=here, follow_symlinks=False)
                            if status.st_dev == levels.device:
                                yield here, entry.name, status
            if not (todo := levels.todo[-1]):
                levels.up()
                continue
            name = todo.pop()
            try:
                below = sc.openat2(here, name, _FLAGS, resolve=_RESOLVE)
            except SyscallError:  # it is gone, is no longer a directory, or is another file system (EXDEV)
                continue
            status = os.fstat(below)
            levels.down(below, name, status)
            yield here, name, status
            levels.thin_out()
    finally:
        levels.close()


class _Levels:
    """The directories from the top to the current one: the name and inode of each, and the names of its subdirectories
    that are still to be visited. Levels from KEPT on have no descriptor (-1), except the current one."""

    def __init__(self, top: int) -> None:
        status = os.fstat(top)
        self.device = status.st_dev
        self.descriptors = [top]
        self.todo: list[list[str] | None] = [None]
        self._names = [""]
        self._inodes = [status.st_ino]

    def down(self, descriptor: int, name: str, status: os.stat_result) -> None:
        self.descriptors.append(descriptor)
        self.todo.append(None)
        self._names.append(name)
        self._inodes.append(status.st_ino)

    def thin_out(self) -> None:
        """Close the parent's descriptor, if the parent is at level KEPT or deeper."""
        above = len(self.descriptors) - 2
        if above >= KEPT and self.descriptors[above] >= 0:
            os.close(self.descriptors[above])
            self.descriptors[above] = -1

    def up(self) -> None:
        """Go up to the parent directory. If the current directory was moved, find the parent by its path instead."""
        below = self._drop()
        try:
            if not self.descriptors or self.descriptors[-1] >= 0:
                return
            with suppress(OSError):
                if (above := self._opened(below, "..", self._inodes[-1])) >= 0:
                    self.descriptors[-1] = above
                    return
        finally:
            os.close(below)
        self._again()

    def _again(self) -> None:
        """Reopen the current directory by name, from the deepest level that has a descriptor. If that fails, drop all
        levels below that one."""
        wanted = len(self.descriptors)
        held = max(level for level, fd in enumerate(self.descriptors) if fd >= 0)
        fd = os.dup(self.descriptors[held])
        with suppress(OSError):
            for level in range(held + 1, wanted):
                below = self._opened(fd, self._names[level], self._inodes[level])
                if below < 0:
                    break
                os.close(fd)
                fd = below
            else:
                self.descriptors[-1] = fd
                return
        os.close(fd)
        while len(self.descriptors) - 1 > held:
            self._drop()

    def _opened(self, directory: int, name: str, inode: int) -> int:
        fd = os.open(name, _FLAGS, dir_fd=directory)
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) == (self.device, inode):
            return fd
        os.close(fd)
        return -1

    def _drop(self) -> int:
        self._names.pop()
        self._inodes.pop()
        self.todo.pop()
        return self.descriptors.pop()

    def close(self) -> None:
        while self.descriptors:
            if (fd := self._drop()) >= 0:
                os.close(fd)
