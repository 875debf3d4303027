"""A directory and all below it watched by inotify(7) on the event loop: nothing runs while nothing changes.

Only what could matter wakes anybody: names that the caller wants, directories, and links that are swapped behind them
(`..data`). What cannot be told apart (a queue
that overflowed, a directory that moved) counts as a change; whoever is woken looks at everything anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator

# include/uapi/linux/inotify.h
_IN_MODIFY, _IN_ATTRIB, _IN_CLOSE_WRITE, _IN_MOVED, _IN_CREATE, _IN_DELETE = 0x2, 0x4, 0x8, 0xC0, 0x100, 0x200
_IN_DELETE_SELF, _IN_MOVE_SELF, _IN_UNMOUNT, _IN_Q_OVERFLOW, _IN_IGNORED = (
    0x400,
    0x800,
    0x2000,
    0x4000,
    0x8000,
)
_IN_ONLYDIR, _IN_ISDIR = 0x01000000, 0x40000000
_SELF = _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_UNMOUNT
_MASK = _IN_MODIFY | _IN_ATTRIB | _IN_CLOSE_WRITE | _IN_MOVED | _IN_CREATE | _IN_DELETE | _IN_ONLYDIR
_EVENT = struct.Struct("iIII")  # wd, mask, cookie, length of the name that follows
_READ = 64 * 1024


class TreeWatch:
    """Watches from its making until `close()`. `on_change()` is called after changes to files whose name `wanted`
    takes and to directories, `on_unlink(path)` before it for each such file that was unlinked (to be renamed away, as
    editors do it, is not that); `gone` is set once the top itself was removed, moved or unmounted: make a new watch.

    OSError when the top cannot be watched (ENOENT; ENOSPC, EMFILE: the user's limits in /proc/sys/fs/inotify)."""

    def __init__(
        self,
        top: str,
        wanted: Callable[[str], bool],
        on_change: Callable[[], None],
        on_unlink: Callable[[str], None] = lambda _path: None,
    ) -> None:
        self.gone = asyncio.Event()
        self._wanted = wanted
        self._on_change = on_change
        self._on_unlink = on_unlink
        self._paths: dict[int, str] = {}  # watch descriptor → directory
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _error("inotify")
        try:
            self._top = self._add(top, _SELF)
            self._add_below(top)
        except BaseException:
            os.close(self._fd)
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._readable)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _add(self, path: str, more: int = 0) -> int:
        found: int = self._libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(_MASK | more))
        if found < 0:
            raise _error(path)
        self._paths[found] = path
        return found

    def _add_below(self, directory: str) -> None:
        """Sub-directories, those that hidden names leave out excepted. One that goes meanwhile is no loss; one that
        cannot be watched is an error: changes in it would go unseen."""
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError),
            os.scandir(directory) as found,
        ):
            for entry in found:
                if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                    continue
                with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    self._add(entry.path)
                    self._add_below(entry.path)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        changed = False
        for wd, mask, name in _events(data):
            changed = self._changed(wd, mask, name) or changed
        if changed:
            self._on_change()

    def _changed(self, wd: int, mask: int, name: str) -> bool:
        if mask & _IN_Q_OVERFLOW or (wd == self._top and mask & (_SELF | _IN_IGNORED)):
            self.gone.set()  # an overflow too: directories may have come unseen, so all is watched anew
            return True
        if mask & _IN_IGNORED:
            self._paths.pop(wd, None)
            return True
        if not mask & _IN_ISDIR:
            if mask & _IN_DELETE and self._wanted(name) and (parent := self._paths.get(wd)):
                self._on_unlink(f"{parent}/{name}")
            # a volume of a ConfigMap (or what writes as its writer does): all its files change with the link `..data`
            return self._wanted(name) or (name.startswith("..") and bool(mask & _IN_MOVED))
        if name.startswith("."):
            return False
        if mask & (_IN_CREATE | _IN_MOVED) and (parent := self._paths.get(wd)):
            path = f"{parent}/{name}"
            try:
                self._add(path)
                self._add_below(path)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM):
                    self.gone.set()  # making the watch anew says why it cannot be
        return True


def _events(data: bytes) -> Iterator[tuple[int, int, str]]:
    offset = 0
    while offset < len(data):
        wd, mask, _cookie, length = _EVENT.unpack_from(data, offset)
        offset += _EVENT.size
        yield wd, mask, os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
        offset += length


def _error(path: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)
