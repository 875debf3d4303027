"""Loop devices: files as block devices (loop(4)). Each has a mark that identifies its creator, so that no other device
is ever detached. All functions raise OSError; on a node without loop devices it names /dev/loop-control.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

MARK_SIZE: Final = 63  # bytes of lo_file_name, which may contain any text
CONTROL: Final = "/dev/loop-control"
MAJOR: Final = 7
_SET_FD, _CLR_FD, _SET_STATUS64, _GET_STATUS64, _GET_FREE = 0x4C00, 0x4C01, 0x4C04, 0x4C05, 0x4C82
#: struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt type, key size, flags; file name,
#: crypt name, key; two words.
_INFO: Final = struct.Struct("=QQQQQIIII64s64s32sQQ")
_TRIES = 16  # another process may take the free device first


class _Info(NamedTuple):
    device: int  # of the file's file system
    inode: int
    name: bytes


def attach(path: str, mark: bytes) -> str:
    """The path of a loop device over this file. An existing one with this mark is reused."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        status = os.fstat(file)
        for device in _every():
            found = _info(device)
            if found is not None and found == (status.st_dev, status.st_ino, mark):
                return device
        for _ in range(_TRIES):
            if _set(device := _free(), file, mark):
                return device
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), CONTROL)
    finally:
        os.close(file)


def detach(device: str) -> bool:
    """Detach a device. Return whether it is free, or will be when its last user closes it."""
    with contextlib.suppress(OSError):
        with _opened(device) as descriptor:
            fcntl.ioctl(descriptor, _CLR_FD, 0)
        return True
    return False


def marked(mark: bytes) -> Iterator[tuple[str, str]]:
    """(device, file behind it) of the loop devices with this mark."""
    for device in _every():
        found = _info(device)
        if found is not None and found.name == mark:
            yield device, _backing(device)


def _every() -> list[str]:
    """The loop devices that have a file."""
    try:
        names = sorted(os.listdir("/sys/block"))
    except FileNotFoundError:
        return []
    return [f"/dev/{n}" for n in names if n.startswith("loop") and os.path.exists(f"/sys/block/{n}/loop")]


def _backing(device: str) -> str:
    try:
        with open(f"/sys/block/{os.path.basename(device)}/loop/backing_file", encoding="utf-8") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def _free() -> str:
    with _opened(CONTROL) as control:
        number = fcntl.ioctl(control, _GET_FREE, 0)
    device = f"/dev/loop{number}"
    if not os.path.exists(device):  # no udev or devtmpfs creates device nodes here
        os.mknod(device, 0o060600, os.makedev(MAJOR, number))
    return device


def _set(device: str, file: int, mark: bytes) -> bool:
    """Attach the file; False if another process has taken the device."""
    with _opened(device) as descriptor:
        try:
            fcntl.ioctl(descriptor, _SET_FD, file)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
        try:
            info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, mark[:MARK_SIZE], b"", b"", 0, 0)
            fcntl.ioctl(descriptor, _SET_STATUS64, info)
        except OSError:
            fcntl.ioctl(descriptor, _CLR_FD, 0)
            raise
    return True


def _info(device: str) -> _Info | None:
    try:
        with _opened(device, os.O_RDONLY) as descriptor:
            data = fcntl.ioctl(descriptor, _GET_STATUS64, bytes(_INFO.size))
    except OSError:  # it has no file, or may not be opened
        return None
    fields = _INFO.unpack(data)
    return _Info(fields[0], fields[1], fields[9].rstrip(b"\0"))


@contextlib.contextmanager
def _opened(path: str, flags: int = os.O_RDWR) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
