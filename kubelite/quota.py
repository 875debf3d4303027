"""Effects: a directory's size by project quota: quotactl_fd(2), ioctl_xfs_fsgetxattr(2) (which ext4 has too)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from runtime import syscalls
from runtime.errors import SyscallError

_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_XATTR = struct.Struct("=5I8s")  # struct fsxattr: xflags, extsize, nextents, projid, cowextsize, pad
_PROJINHERIT = 0x200  # what is made in the directory belongs to its project, too
_Q_SETQUOTA, _PRJQUOTA = 0x800008, 2
_DQBLK = struct.Struct("=8QI4x")  # struct if_dqblk: hard and soft limit in KiB, …, which of them are valid
_BLOCK_LIMITS = 1


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
