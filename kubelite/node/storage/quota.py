"""Effects: how much of a disk a directory has, kept by the file system: project quotas of ext4 and xfs (quotactl_fd(2),
ioctl_xfs_fsgetxattr(2), which ext4 has too). What is made in a directory belongs to the directory's project.

Nothing is remembered: a directory says which project it has, the file system which ones are in use, by their inodes. So
a project is given back by the removal of what it had, whoever removes it and whenever.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import stat
import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

from runtime import syscalls
from runtime.errors import SyscallError

FIRST_PROJECT = 1 << 20  # people number theirs from below
_PROJECTS = 1 << 20
_WINDOW = 4096  # where the search begins again: xfs keeps a record of each id that was ever used

_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_XATTR = struct.Struct("=5I8s")  # struct fsxattr: xflags, extsize, nextents, projid, cowextsize, pad
_PROJINHERIT = 0x200  # what is made in the directory belongs to its project, too
_Q_GETQUOTA, _Q_SETQUOTA, _Q_XGETQSTATV, _PRJQUOTA = 0x800007, 0x800008, 0x5808, 2
_STATV = struct.Struct("=BxH156x")  # struct fs_quota_statv: version, flags, …
_COUNTED, _ENFORCED = 0x10, 0x20  # of its flags: FS_QUOTA_PDQ_ACCT, FS_QUOTA_PDQ_ENFD
_DQBLK = struct.Struct("=8QI4x")  # struct if_dqblk: hard and soft limit in KiB, …, which of them are valid
_BLOCK_LIMITS = 1
_BLOCK = 512  # bytes of st_blocks (stat(2))
_USE = 2 | 8  # QIF_SPACE, QIF_INODES: what of an if_dqblk is valid

_lock = threading.Lock()  # from the search for a project until it is in use
_turns = itertools.cycle(range(_WINDOW))


class Use(NamedTuple):
    """What a project has on its disk."""

    bytes: int
    inodes: int


def set_quota(directory: str, size: int) -> str:
    """Hold all that is and will be in a directory to `size` bytes. "" when it was done, else why this file system does
    not."""
    try:
        with _opened(directory) as fd:
            if _state(fd) & (_COUNTED | _ENFORCED) != _COUNTED | _ENFORCED:
                return "its file system keeps no project quotas (mount option prjquota)"
            project = _own(fd) or _take(fd)
            _limit(fd, project, max(1, size // 1024))
            _give_all(directory, project)
    except OSError as error:
        return str(error)
    return ""


def count(*directories: str) -> None:
    """Have the file system count what will be in these directories, which are new, as one project; where it counts
    none, nothing is done. Raises OSError."""
    with _opened(directories[0]) as fd:
        if not _state(fd) & _COUNTED or _own(fd):
            return
        project = _take(fd)
        _limit(fd, project, 0)  # one may be left of who had it before
        for directory in directories[1:]:
            _give(directory, project)


def lift(directory: str) -> None:
    """Take away the limit of a directory that is about to be removed: nothing is left of its project then."""
    with contextlib.suppress(OSError), _opened(directory) as fd:
        if _state(fd) & _COUNTED and (project := _own(fd)):
            _limit(fd, project, 0)


def used(directory: str, work: str = "") -> Use | None:
    """What is in a directory that has a project of its own; None where it has none, or its file system counts none.
    `work`: what an overlay has beside its upper directory, of the same project and not counted. Raises OSError when it
    is not there."""
    with _opened(directory) as fd:
        try:
            if not _state(fd) & _COUNTED or not (project := _own(fd)):
                return None
            space, inodes = _use(fd, project)
            own = [os.fstat(fd)]
            if work:  # the kernel's, a handful: `work`, and the mark of a volatile mount
                own.append(os.stat(work))
                for _, directories, names, inside in os.fwalk(work):
                    own += [os.lstat(name, dir_fd=inside) for name in (*directories, *names)]
        except OSError:
            return None
    blocks = sum(status.st_blocks for status in own)
    return Use(max(0, space - blocks * _BLOCK), max(0, inodes - len(own)))


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _state(fd: int) -> int:
    """Whether projects are counted, and held to limits; ext4 takes limits that it does not keep, mounted without
    prjquota."""
    found = ctypes.create_string_buffer(_STATV.size)
    found[0] = b"\x01"  # FS_QSTATV_VERSION1
    try:
        syscalls.syscall("quotactl_fd", fd, _Q_XGETQSTATV << 8 | _PRJQUOTA, 0, found)
    except SyscallError:
        return 0  # ENOSYS, ENOTTY, …: it has none, or none of these
    _, flags = _STATV.unpack(found.raw)
    return int(flags)


def _own(fd: int) -> int:
    """A directory's project, 0 where it has none but that of the directory around it: somebody else's, who may hold all
    of the node by it."""
    flags, project = _project(fd)
    if not project or not flags & _PROJINHERIT:
        return 0
    around = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        return project if _project(around)[1] != project else 0
    except OSError:
        return project  # of another file system, which has no projects
    finally:
        os.close(around)


def _take(fd: int) -> int:
    """Make a project that nothing belongs to the directory's. Its inodes tell whether another node took the same."""
    with _lock:
        first = next(_turns)
        for step in range(_PROJECTS):
            project = FIRST_PROJECT + (first + step) % _PROJECTS
            if _use(fd, project).inodes:
                continue
            _set_project(fd, project)
            if _use(fd, project).inodes == 1:
                return project
    raise OSError(errno.EUSERS, "no project id is free")


def _use(fd: int, project: int) -> Use:
    found = ctypes.create_string_buffer(_DQBLK.size)
    try:
        syscalls.syscall("quotactl_fd", fd, _Q_GETQUOTA << 8 | _PRJQUOTA, project, found)
    except SyscallError as error:
        if error.errno == errno.ENOENT:  # xfs: never used
            return Use(0, 0)
        raise
    _, _, space, _, _, inodes, _, _, valid = _DQBLK.unpack(found.raw)
    if valid & _USE != _USE:
        raise OSError(errno.ENOTSUP, "the file system does not say what a project has")
    return Use(space, inodes)


def _limit(fd: int, project: int, blocks: int) -> None:
    """KiB; 0: none."""
    limits = _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS)
    syscalls.syscall("quotactl_fd", fd, _Q_SETQUOTA << 8 | _PRJQUOTA, project, limits)


def _project(fd: int) -> tuple[int, int]:
    """Its flags and its project."""
    attributes = bytearray(_XATTR.size)
    fcntl.ioctl(fd, _FSGETXATTR, attributes)
    flags, _, _, project, _, _ = _XATTR.unpack(attributes)
    return flags, project


def _set_project(fd: int, project: int) -> None:
    attributes = bytearray(_XATTR.size)
    fcntl.ioctl(fd, _FSGETXATTR, attributes)
    flags, extent, extents, _, copy, pad = _XATTR.unpack(attributes)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        flags |= _PROJINHERIT
    fcntl.ioctl(fd, _FSSETXATTR, _XATTR.pack(flags, extent, extents, project, copy, pad))


def _give(name: str, project: int, dir_fd: int | None = None) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        if _project(fd)[1] != project:
            _set_project(fd, project)
    finally:
        os.close(fd)


def _give_all(directory: str, project: int) -> None:
    """What was in the directory before it had the project. Links and devices have none to be given, and no size."""
    device = os.stat(directory).st_dev
    for _, directories, names, fd in os.fwalk(directory, follow_symlinks=False):
        for name in (*directories, *names):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if found.st_dev == device and (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                    _give(name, project, fd)
