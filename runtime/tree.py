"""Walk a directory tree, or open a directory in it, whose content may be hostile and may change meanwhile.

A container can nest directories as deeply as its disk has inodes. A walk that recurses (os.walk before Python 3.12),
that keeps a descriptor per level (os.fwalk) or that names files by their whole path (PATH_MAX) fails on such a tree or
does not see its content. Here neither depth nor width matters: KEPT levels have a descriptor each, the way back up from
deeper ones is "..", checked against what was there on the way down. No link is followed, and no other file system that
is mounted in the tree is entered or even asked, because a server may not answer.
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


@contextmanager
def directory_of(path: str, *, create: bool = False) -> Iterator[int]:
    """A descriptor of the directory of a container's log, <pod's directory>/<container>/<attempt>.log.

    Neither of the two directories may be a symbolic link, which a pod that has the log directory mounted could put
    there; what is above them belongs to the node's administrator. `create`: create what is missing. Raises OSError.
    """
    above, container = os.path.split(os.path.dirname(path))
    above, pod = os.path.split(above)
    if create:
        os.makedirs(above, mode=0o755, exist_ok=True)
    fd = os.open(above or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in filter(None, (pod, container)):
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=fd)
            below = os.open(name, _FLAGS, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def walk(path: str) -> Iterator[tuple[int, str, os.stat_result]]:
    """Everything below the directory `path`: (descriptor of its directory, name, status). Directories precede their
    content.

    The descriptor is valid until the next step. What disappears meanwhile is left out; a directory that is moved
    meanwhile may be. Raises OSError if `path` is not a directory that can be opened.
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
            except SyscallError:  # it is gone, no directory any more, or another file system (EXDEV)
                continue
            status = os.fstat(below)
            levels.down(below, name, status)
            yield here, name, status
            levels.thin_out()
    finally:
        levels.close()


class _Levels:
    """The directories from the top to the present one: for each its name, inode and the names of directories in it that
    are still to be visited. Deep levels without the present one have no descriptor (-1)."""

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
        """Close the descriptor of the directory above the present one, if it is deep."""
        above = len(self.descriptors) - 2
        if above >= KEPT and self.descriptors[above] >= 0:
            os.close(self.descriptors[above])
            self.descriptors[above] = -1

    def up(self) -> None:
        """Leave the present directory. If it has been moved, and so has the way to it, continue where there is one."""
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
        """Open the present directory from the deepest one that has a descriptor, or else leave it."""
        wanted = len(self.descriptors)
        held = max(level for level, fd in enumerate(self.descriptors) if fd >= 0)
        fd, level = os.dup(self.descriptors[held]), held
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
