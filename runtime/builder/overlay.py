"""Snapshots of layers as detached overlay mounts: fsmount(2) descriptors that are never attached.

Only the descriptor refers to a snapshot. Files below it are opened by openat2(2). The kernel unmounts it when the last
descriptor closes, however the process ends.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runtime import syscalls as sc
from runtime.errors import SyscallError
from runtime.images.layers.lower import copy_metadata

IN_ROOT = sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_MAGICLINKS
# An upper directory must express every change by whiteouts and opaque directories, whatever the machine's defaults are.
PORTABLE = (("redirect_dir", "off"), ("metacopy", "off"), ("index", "off"))


def mount_overlay(lower: Sequence[str], *, upper: str = "", work: str = "", scratch: str = "") -> int:
    """Mount a detached overlay of `lower` (topmost first); read-only without an `upper`. `scratch` is an empty
    directory that serves as a further layer if the kernel needs one. Returns a descriptor. Raises SyscallError."""
    layers = [*lower] if len(lower) > (0 if upper else 1) else [*lower, *([scratch] * (2 - len(lower)))]
    layers = list(dict.fromkeys(layers))
    if not upper and len(layers) < 2:  # an empty snapshot
        return os.open(scratch, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    context = sc.fsopen("overlay")
    try:
        sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "source", "kubelite-build")
        for layer in layers:
            sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "lowerdir+", layer)
        if upper:
            sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "upperdir", upper)
            sc.fsconfig(context, sc.FSCONFIG_SET_STRING, "workdir", work)
            sc.fsconfig(
                context, sc.FSCONFIG_SET_FLAG, "volatile"
            )  # skips fsync: the layer is synced as a whole later
            for key, value in PORTABLE:
                sc.fsconfig(context, sc.FSCONFIG_SET_STRING, key, value)
        sc.fsconfig(context, sc.FSCONFIG_CMD_CREATE)
        return sc.fsmount(context)
    except SyscallError as error:
        if error.errno == errno.EINVAL and error.about.startswith("lowerdir+"):
            return _before_6_5(layers, upper, work, scratch)
        raise SyscallError(
            error.errno or 0, "mount overlay", sc.fs_messages(context) or error.about
        ) from error
    finally:
        os.close(context)


def _before_6_5(layers: Sequence[str], upper: str, work: str, scratch: str) -> int:
    """mount(2), before Linux 6.5. All options must fit in one page, so the layers are named by descriptor. The mount is
    attached for a moment."""
    fds = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*layers, *((upper, work) if upper else ()))]
    try:
        names = [f"/proc/self/fd/{fd}" for fd in fds]
        data = "lowerdir=" + ":".join(names[: len(layers)])
        if upper:
            options = "".join(f",{key}={value}" for key, value in PORTABLE)
            data += f",upperdir={names[-2]},workdir={names[-1]}{options}"
        sc.mount("kubelite-build", scratch, "overlay", 0 if upper else sc.MS_RDONLY, data)
    finally:
        for fd in fds:
            os.close(fd)
    tree = sc.open_tree(sc.AT_FDCWD, scratch, sc.OPEN_TREE_CLONE)
    sc.umount2(scratch, sc.MNT_DETACH)
    return tree


@contextmanager
def mounted_overlay(
    lower: Sequence[str], *, upper: str = "", work: str = "", scratch: str = ""
) -> Iterator[int]:
    """`mount_overlay` as a context manager: closes the descriptor at the end, which unmounts the snapshot."""
    fd = mount_overlay(lower, upper=upper, work=work, scratch=scratch)
    try:
        yield fd
    finally:
        os.close(fd)


def make_upper(directory: str, lower: Sequence[str]) -> tuple[str, str]:
    """Create (upper, work) in `directory`. The merged root shows the upper's root, so that gets owner, mode and times
    of the root below."""
    upper, work = f"{directory}/upper", f"{directory}/work"
    os.makedirs(upper)
    os.mkdir(work)
    if lower:
        fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            copy_metadata(os.fsencode(lower[0]), os.stat(lower[0]), fd)
        finally:
            os.close(fd)
    else:
        os.chmod(upper, 0o755)
        os.utime(upper, (0, 0))
    return upper, work


def open_beneath(root: int, path: str, flags: int) -> int:
    """Open `path` below the descriptor `root`, as after a chroot: symbolic links stay inside. Raises OSError."""
    return sc.openat2(root, path.lstrip("/") or ".", flags, 0, IN_ROOT)


def lookup(root: int, path: str, *, follow: bool = True) -> os.stat_result | None:
    """The status of `path`, or None if it does not exist."""
    try:
        fd = open_beneath(root, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def read_file(root: int, path: str, limit: int = 1 << 20) -> bytes:
    """The first `limit` bytes of a regular file; b"" if it is missing or not a regular file."""
    found = lookup(root, path)
    if found is None or (found.st_mode & 0o170000) != 0o100000:
        return b""
    fd = open_beneath(root, path, os.O_RDONLY)
    with open(fd, "rb") as file:
        return file.read(limit)
