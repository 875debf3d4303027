"""One directory watched by inotify(7) on the event loop: `on_change` is called when anything in it changes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable
from types import TracebackType

# include/uapi/linux/inotify.h
_IN_MODIFY, _IN_MOVED, _IN_CREATE, _IN_DELETE = 0x2, 0x40 | 0x80, 0x100, 0x200
_MASK = _IN_MODIFY | _IN_MOVED | _IN_CREATE | _IN_DELETE


class DirectoryWatch:
    """A context manager. Where inotify is not to be had (limits reached), `active` is False: the caller polls."""

    def __init__(self, directory: str, on_change: Callable[[], None]) -> None:
        self._directory = directory
        self._on_change = on_change
        self._fd = -1

    @property
    def active(self) -> bool:
        return self._fd >= 0

    def __enter__(self) -> DirectoryWatch:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            return self
        if libc.inotify_add_watch(fd, os.fsencode(self._directory), ctypes.c_uint32(_MASK)) < 0:
            os.close(fd)
            return self
        self._fd = fd
        asyncio.get_running_loop().add_reader(fd, self._read)
        return self

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 64 * 1024)
        self._on_change()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
