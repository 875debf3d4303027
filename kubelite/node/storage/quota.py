"""Measures and limits how much of a disk a directory uses, with project quotas of ext4 and xfs (quotactl_fd(2),
ioctl_xfs_fsgetxattr(2), which ext4 supports too). New files in a directory inherit the directory's project.

Projects are recorded nowhere else: an attribute of the directory names its project, and a project is in use as long as
it has inodes. It is therefore free again as soon as its files are removed, no matter by whom.
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
from runtime.tree import walk

FIRST_PROJECT = 1 << 20  # administrators usually number their own projects from 1
_PROJECTS = 1 << 20
_WINDOW = 4096  # the first ids to try lie in this range, because xfs keeps a record of each id ever used

_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_XATTR = struct.Struct("=5I8s")  # struct fsxattr: xflags, extsize, nextents, projid, cowextsize, pad
_PROJINHERIT = 0x200  # new files in the directory inherit its project
_Q_GETQUOTA, _Q_SETQUOTA, _Q_XGETQSTATV, _PRJQUOTA = 0x800007, 0x800008, 0x5808, 2
_STATV = struct.Struct("=BxH156x")  # struct fs_quota_statv: version, flags, …
_COUNTED, _ENFORCED = 0x10, 0x20  # of these flags: FS_QUOTA_PDQ_ACCT, FS_QUOTA_PDQ_ENFD
_DQBLK = struct.Struct("=8QI4x")  # struct if_dqblk: hard and soft limit in KiB, …, mask of the valid fields
_BLOCK_LIMITS = 1
_BLOCK = 512  # bytes of st_blocks (stat(2))
_USE = 2 | 8  # QIF_SPACE, QIF_INODES: the fields of an if_dqblk that must be valid

_lock = threading.Lock()  # held from the search for a free project until the project is in use
_turns = itertools.cycle(range(_WINDOW))


class Use(NamedTuple):
    """What a project uses on its disk."""

    bytes: int
    inodes: int


def set_quota(directory: str, size: int) -> str:
    """Limit all present and future content of a directory to `size` bytes. Return why its file system cannot do that;
    "" if it can."""
    try:
        with _opened(directory) as fd:
            if _state(fd) & (_COUNTED | _ENFORCED) != _COUNTED | _ENFORCED:
                return "its file system has no project quotas (mount option prjquota)"
            project = _own(fd) or _take(fd)
            _limit(fd, project, max(1, size // 1024))
            _give_all(directory, project)
    except OSError as error:
        return str(error)
    return ""


def count(*directories: str) -> None:
    """Make the file system count the content of these new directories together, as one project. Does nothing if the
    file system does not count projects. Raises OSError."""
    with _opened(directories[0]) as fd:
        if not _state(fd) & _COUNTED or _own(fd):
            return
        project = _take(fd)
        _limit(fd, project, 0)  # a limit may remain from an earlier use of this id
        for directory in directories[1:]:
            _give(directory, project)


def lift(directory: str) -> None:
    """Remove the limit of a directory before the directory is removed, so that nothing remains of its project."""
    with contextlib.suppress(OSError), _opened(directory) as fd:
        if _state(fd) & _COUNTED and (project := _own(fd)):
            _limit(fd, project, 0)


def used(directory: str, work: str = "") -> Use | None:
    """What the project of a directory uses; None if the directory has none of its own, or the file system does not
    count projects. `work`: the work directory of an overlay, which has the same project but is not counted. Raises
    OSError if the directory does not exist."""
    with _opened(directory) as fd:
        try:
            if not _state(fd) & _COUNTED or not (project := _own(fd)):
                return None
            space, inodes = _use(fd, project)
            own = [os.fstat(fd)]
            if work:  # a few files of the kernel: `work` itself, and the marker of a volatile mount
                own.append(os.stat(work))
                own += [status for _, _, status in walk(work)]
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
    """Whether projects are counted and limits are enforced. Without prjquota, ext4 accepts limits but does not enforce
    them."""
    found = ctypes.create_string_buffer(_STATV.size)
    found[0] = b"\x01"  # FS_QSTATV_VERSION1
    try:
        syscalls.syscall("quotactl_fd", fd, _Q_XGETQSTATV << 8 | _PRJQUOTA, 0, found)
    except SyscallError:
        return 0  # ENOSYS, ENOTTY, …: the file system has no quotas, or no project quotas
    _, flags = _STATV.unpack(found.raw)
    return int(flags)


def _own(fd: int) -> int:
    """A directory's own project; 0 if it has none, or only inherits that of its parent: such a project may be an
    administrator's and limit the whole node."""
    flags, project = _project(fd)
    if not project or not flags & _PROJINHERIT:
        return 0
    around = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        return project if _project(around)[1] != project else 0
    except OSError:
        return project  # the parent is on another file system, which has no projects
    finally:
        os.close(around)


def _take(fd: int) -> int:
    """Give the directory a free project. The number of inodes shows whether another process took the same one."""
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
        raise OSError(errno.ENOTSUP, "the file system does not report the use of a project")
    return Use(space, inodes)


def _limit(fd: int, project: int, blocks: int) -> None:
    """Limit a project to this many KiB; 0 removes the limit."""
    limits = _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS)
    syscalls.syscall("quotactl_fd", fd, _Q_SETQUOTA << 8 | _PRJQUOTA, project, limits)


def _project(fd: int) -> tuple[int, int]:
    """The flags and the project of a file."""
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
    """Set the project of existing content. Links and devices cannot have one, and have no size."""
    for fd, name, found in walk(directory):
        if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
            with contextlib.suppress(FileNotFoundError):
                _give(name, project, fd)
