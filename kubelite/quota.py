"""Effects: a directory's size and use by project quota: quotactl_fd(2), ioctl_xfs_fsgetxattr(2) (ext4 has it)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from runtime import syscalls
from runtime.errors import SyscallError

_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_XATTR = struct.Struct("=5I8s")  # struct fsxattr: xflags, extsize, nextents, projid, cowextsize, pad
_PROJINHERIT = 0x200  # what is made in the directory belongs to its project, too
_Q_GETQUOTA, _Q_SETQUOTA, _PRJQUOTA = 0x800007, 0x800008, 2
_DQBLK = struct.Struct("=8QI4x")  # struct if_dqblk: hard and soft limit in KiB, …, which of them are valid
_BLOCK_LIMITS = 1
_USE = 2 | 8  # QIF_SPACE, QIF_INODES: what of an if_dqblk is valid


def set_quota(directory: str, project: int, size: int) -> str:
    """Hold all that is made below a directory to `size` bytes, as project `project`. "" when it was done, else why this
    file system does not."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        blocks = max(1, size // 1024)
        limits = _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS)
        syscalls.syscall("quotactl_fd", fd, _Q_SETQUOTA << 8 | _PRJQUOTA, project, limits, about=directory)
        attributes = bytearray(_XATTR.size)
        fcntl.ioctl(fd, _FSGETXATTR, attributes)
        flags, extent, count, _, copy, pad = _XATTR.unpack(attributes)
        fcntl.ioctl(fd, _FSSETXATTR, _XATTR.pack(flags | _PROJINHERIT, extent, count, project, copy, pad))
    except SyscallError as error:
        if error.errno in (
            errno.ESRCH,
            errno.ENOSYS,
            errno.ENOTSUP,
            errno.ENOTTY,
            errno.ENODEV,
            errno.EINVAL,
        ):
            return "its file system keeps no project quotas (mount option prjquota)"
        return str(error)
    except OSError as error:
        return str(error)
    finally:
        os.close(fd)
    return ""


def used(directory: str) -> tuple[int, int] | None:
    """Bytes and inodes that the project of a directory has on its disk, the directory itself among them; None where the
    directory has none, or its file system counts none. Raises OSError when it is not there."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attributes = bytearray(_XATTR.size)
        fcntl.ioctl(fd, _FSGETXATTR, attributes)
        flags, _, _, project, _, _ = _XATTR.unpack(attributes)
        if not project or not flags & _PROJINHERIT:
            return None
        found = ctypes.create_string_buffer(_DQBLK.size)
        syscalls.syscall("quotactl_fd", fd, _Q_GETQUOTA << 8 | _PRJQUOTA, project, found, about=directory)
    except OSError:
        return None
    finally:
        os.close(fd)
    _, _, space, _, _, inodes, _, _, valid = _DQBLK.unpack(found.raw)
    return (space, inodes) if valid & _USE == _USE else None
