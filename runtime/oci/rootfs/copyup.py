"""tmpcopyup: copy the image's content at a tmpfs's mount point into the tmpfs (as runc and Docker volumes do)."""

from __future__ import annotations

import os
import stat

from runtime import syscalls as sc
from runtime.oci.rootfs.root import proc_path

_CHUNK = 1 << 20


def copy(source: int, target: int) -> None:
    """Copy everything in the directory `source` to the directory `target`; both are descriptors.

    Owners, modes, times and extended attributes are preserved. Hard links become separate files. Symbolic links are not
    followed.
    """
    for name in os.listdir(proc_path(source)):
        _copy_one(source, target, name)
    _copy_attributes(source, target)


def _copy_one(source: int, target: int, name: str) -> None:
    info = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        return
    if not (stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode)):
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        return
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    below = os.open(name, flags, dir_fd=source)
    try:
        if stat.S_ISDIR(info.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            made = os.open(name, flags | os.O_DIRECTORY, dir_fd=target)
        else:
            made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            if stat.S_ISDIR(info.st_mode):
                copy(below, made)
            else:
                while data := os.read(below, _CHUNK):
                    sc.write_all(made, data)
                _copy_attributes(below, made)
        finally:
            os.close(made)
    finally:
        os.close(below)


def _copy_attributes(source: int, target: int) -> None:
    info, place = os.stat(proc_path(source)), proc_path(target)
    os.chown(place, info.st_uid, info.st_gid)
    for name in os.listxattr(proc_path(source)):
        try:
            sc.note("setxattr")
            os.setxattr(place, name, os.getxattr(proc_path(source), name))
        except OSError:
            continue  # tmpfs does not support every kind, and a missing attribute must not prevent the start
    os.chmod(place, stat.S_IMODE(info.st_mode))  # after chown, which clears the set-ID bits
    os.utime(place, ns=(info.st_atime_ns, info.st_mtime_ns))
