"""inotify(7) on the event loop: watches directories without a thread, and without any work while nothing changes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple

# include/uapi/linux/inotify.h
IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED, IN_CREATE, IN_DELETE = (
    0x2,
    0x4,
    0x8,
    0x40 | 0x80,
    0x100,
    0x200,
)
IN_DELETE_SELF, IN_MOVE_SELF, IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
IN_ONLYDIR, IN_MASK_ADD, IN_ISDIR = 0x01000000, 0x20000000, 0x40000000

_CONTENTS = IN_MODIFY | IN_MOVED | IN_CREATE | IN_DELETE
_EVENT = struct.Struct("iIII")  # wd, mask, cookie, length of the name that follows
_READ = 64 * 1024


class Event(NamedTuple):
    wd: int  # the watch descriptor that `Inotify.add` returned
    mask: int
    name: str  # the entry of the directory; "" for the directory itself


class Inotify:
    """One inotify instance, open from construction to `close()`. `on_events` is called on the running event loop.

    Raises OSError if the limit of instances is reached (EMFILE: fs.inotify.max_user_instances, ENFILE, ENOMEM).
    """

    def __init__(self, on_events: Callable[[Iterator[Event]], None]) -> None:
        self._on_events = on_events
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _error("inotify")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._readable)

    def add(self, path: str, mask: int) -> int:
        """Watch a path and return its watch descriptor. Raises OSError (ENOENT, or ENOSPC: max_user_watches)."""
        found: int = self._libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(mask))
        if found < 0:
            raise _error(path)
        return found

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        self._on_events(_events(data))


class DirectoryWatch:
    """A context manager that calls `on_change` when the contents of one directory change.

    `active` is False if the directory cannot be watched (limits reached, no such directory). The caller then polls.
    """

    def __init__(self, directory: str, on_change: Callable[[], None]) -> None:
        self._directory = directory
        self._on_change = on_change
        self._inotify: Inotify | None = None

    @property
    def active(self) -> bool:
        return self._inotify is not None

    def __enter__(self) -> DirectoryWatch:
        try:
            inotify = Inotify(lambda _: self._on_change())
        except OSError:
            return self
        try:
            inotify.add(self._directory, _CONTENTS)
        except OSError:
            inotify.close()
            return self
        self._inotify = inotify
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None


def _events(data: bytes) -> Iterator[Event]:
    offset = 0
    while offset < len(data):
        wd, mask, _cookie, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size
        yield Event(wd, mask, os.fsdecode(data[offset : offset + length].rstrip(b"\0")))
        offset += length


def _error(path: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)
