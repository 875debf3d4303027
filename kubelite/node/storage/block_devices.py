"""Block devices with a file system: `local` PersistentVolumes on a device (Kubernetes pkg/volume/local and
mount-utils). The node mounts each device once, and all containers that use the claim get this mount.

A device is formatted only if it is empty. Anything that blkid(8) recognizes stays, including a partition table; if
blkid cannot decide, that is an error. mkfs(8), fsck(8) and blkid are the machine's own programs.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import subprocess
from collections.abc import Collection, Mapping
from typing import Any

from kubelite.node.model.errors import MountError
from kubelite.node.spec.volume_plans import BlockDevice
from kubelite.node.storage.slow_mounts import options
from runtime import syscalls
from runtime.errors import SyscallError

log = logging.getLogger(__name__)
DEFAULT_TYPE = "ext4"
PARTITIONS = "unknown data, probably partitions"
_MOUNTS = "plugins/kubernetes.io/local-volume/mounts"  # the same directory as kubelet's
_FORCE = {"ext3": ("-F", "-m0"), "ext4": ("-F", "-m0"), "xfs": ("-f",)}  # as in mount-utils
_NOTHING_FOUND, _UNCORRECTED = 2, 4  # exit codes of blkid and of fsck
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Disk(BlockDevice):
    """A block device as a slow mount (see `slow_mounts.Slow`)."""

    __slots__ = ()

    @property
    def source(self) -> str:
        return self.device

    @property
    def step(self) -> str:
        return "MountDevice"

    @property
    def delay(self) -> str:
        return "it is being formatted or checked"

    def mount(self, path: str) -> None:
        """Check the device, or format it if it is empty, and mount it. Raises MountError, SyscallError, OSError."""
        flags, data = options(self.options)
        found = content_of(self.device)
        kind = self.fs_type or (found if found != PARTITIONS else "") or DEFAULT_TYPE
        if found and not flags & syscalls.MS_RDONLY:
            _check(self.device)
        elif not found:
            if flags & syscalls.MS_RDONLY:
                raise MountError("the device is empty, and a read-only volume is not formatted")
            _format(self.device, kind)
        try:
            syscalls.mount(self.device, path, kind, flags, ",".join(data), waits=True)
        except SyscallError as error:
            why = os.strerror(error.errno or 0)
            if found not in ("", kind):
                words = (
                    f'failed to mount the volume as "{kind}", it already contains {found}. Mount error: {why}'
                )
                raise MountError(words) from error
            if error.errno == errno.ENODEV:
                raise MountError(f"this kernel has no file system {kind}") from error
            raise

    def words(self, error: OSError) -> str:
        return os.strerror(error.errno or 0)


def content_of(device: str) -> str:
    """The file system on the device, `PARTITIONS`, or "" if it is empty. Raises MountError if blkid cannot tell."""
    done = _run("blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device)
    if done.returncode == _NOTHING_FOUND:
        return ""
    if done.returncode:
        words = f"blkid ended with {done.returncode}: the content of {device} is unknown, so nothing is written to it"
        raise MountError(words)
    said = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    return PARTITIONS if said.get("PTTYPE") else said.get("TYPE", "") or "unknown data"


def _check(device: str) -> None:
    """Check and repair the file system. Raises MountError if fsck cannot repair it. If fsck cannot run at all (the
    device is in use, or the file system has no fsck), the device is mounted anyway."""
    if shutil.which("fsck", path=_PATH) is None:
        return
    done = _run("fsck", "-a", device)
    if done.returncode == _UNCORRECTED:
        said = done.stdout.strip()[-500:]
        raise MountError(f"'fsck' found errors on device {device} but could not correct them: {said}")
    if done.returncode:
        log.info("fsck of %s ended with %d: %s", device, done.returncode, done.stdout.strip()[-500:])


def _format(device: str, kind: str) -> None:
    log.info("%s is empty: formatting it with %s", device, kind)
    done = _run(f"mkfs.{kind}", *_FORCE.get(kind, ()), device)
    if done.returncode:
        raise MountError(f"mkfs.{kind} ended with {done.returncode}: {done.stdout.strip()[-500:]}")


def _run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which(program, path=_PATH)
    if found is None:
        raise MountError(f"this machine has no {program}")
    return subprocess.run(
        [found, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={"PATH": _PATH, "LC_ALL": "C"},
        check=False,
    )


def is_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def mount_point(root: str, volume: str) -> str:
    """Pure: where the node with this root directory mounts the PersistentVolume's device."""
    return f"{root}/{_MOUNTS}/{volume}"


def place_of(root: str, volume: Mapping[str, Any]) -> str:
    """The directory of a `local` PersistentVolume."""
    path = str(volume["spec"]["local"]["path"])
    return mount_point(root, volume["metadata"]["name"]) if is_device(path) else path


def mounted(root: str) -> list[str]:
    """The volumes whose devices the node has mounted."""
    try:
        return os.listdir(f"{root}/{_MOUNTS}")
    except FileNotFoundError:
        return []


def let_go(root: str, in_use: Collection[str]) -> list[str]:
    """Unmount all devices of the node except those of volumes in use. Return the unmounted volumes."""
    gone = [name for name in mounted(root) if name not in in_use]
    for name in gone:
        _unmount(mount_point(root, name))
    return gone


def _unmount(path: str) -> None:
    """Unmount at once, so that the device becomes free. If it is busy, detach the mount, which ends with its last
    user."""
    for flags in (syscalls.UMOUNT_NOFOLLOW, syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH):
        try:
            syscalls.umount2(path, flags, waits=True)
            break
        except SyscallError as error:
            if error.errno == errno.EINVAL:  # not mounted
                break
            if error.errno != errno.EBUSY:
                raise
    os.rmdir(path)
