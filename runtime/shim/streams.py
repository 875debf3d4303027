"""A container's stdio: its pipes or terminal, and reading their output into the log."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import termios
import time
from collections.abc import Callable

from runtime import syscalls
from runtime.shim.logs import LineSplitter, LogFile
from runtime.shim.loop import Loop

READ_SIZE = 32 * 1024  # per stream and turn: limits memory, and keeps one stream from starving the others
# Bytes to read at once from a pipe after its container has died. (A pipe holds at most 1 MiB.)
DRAIN_LIMIT = 2 * 1024 * 1024

_PTMX = os.makedev(5, 2)
# asm-generic/ioctls.h. ppc, sparc, mips and alpha have other numbers, so there the host's pty is used.
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


class Stream:
    """The read end of a stdout or stderr. `on_end` is called once, when no writer remains."""

    def __init__(
        self, loop: Loop, fd: int, name: str, log: LogFile | None, on_end: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._fd = fd
        self._log = log
        self._splitter = LineSplitter(name)
        self._on_end = on_end
        self._taps: list[int] = []
        os.set_blocking(fd, False)
        loop.watch(fd, self._readable)

    @property
    def open(self) -> bool:
        return self._fd >= 0

    def _readable(self, _events: int) -> None:
        self._read()

    def _read(self) -> int:
        """Read once; returns the number of bytes. 0: nothing available, or end of file."""
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the last process has closed the terminal
                raise
            data = b""
        if not data:
            self.close()
            self._on_end()
        else:
            for tap in self._taps[:]:
                self._give(tap, data)
            if self._log is not None:
                self._log.write(self._splitter.feed(data, time.time_ns()))
        return len(data)

    def tap(self) -> int:
        """A descriptor that receives all further output. A reader that falls behind is disconnected, because neither
        the container nor its log may wait for it."""
        read, write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(write, False)
        if self.open:
            self._taps.append(write)
        else:
            os.close(write)
        return read

    def _give(self, tap: int, data: bytes) -> None:
        try:
            done = os.write(tap, data) == len(data)
        except OSError:  # the pipe is full, or its reader has closed it
            done = False
        if not done:
            self._taps.remove(tap)
            os.close(tap)

    def drain(self) -> None:
        """Read what is available now, without waiting."""
        left = DRAIN_LIMIT
        while self.open and left > 0:
            done = self._read()
            if not done:
                return
            left -= done

    def close(self) -> None:
        """Stop reading, and write an unfinished line as it is. Idempotent."""
        if self._fd < 0:
            return
        self._loop.unwatch(self._fd)
        os.close(self._fd)
        self._fd = -1
        for tap in self._taps:
            os.close(tap)
        self._taps.clear()
        if self._log is not None:
            self._log.write(self._splitter.finish(time.time_ns()))


class Ends:
    """Both ends of a process's stdio; -1: not present. close() closes what has not been released."""

    def __init__(self) -> None:
        self._owned: set[int] = set()
        self.stdin = self.stdout = self.stderr = -1  # the process's
        self.stdin_w = self.stdout_r = self.stderr_r = self.master = -1  # ours

    def own(self, *fds: int) -> None:
        self._owned.update(fds)

    def release(self, fd: int) -> int:
        """Give up ownership of `fd`: the caller closes it."""
        self._owned.discard(fd)
        return fd

    def close(self) -> None:
        for fd in self._owned:
            os.close(fd)
        self._owned.clear()


class Pipes(Ends):
    """Three pipes; without `stdin`, stdin is the null device. (The engine makes the process's user their owner.)"""

    def __init__(self, stdin: bool) -> None:
        super().__init__()
        try:
            if stdin:
                self.stdin, self.stdin_w = self._pipe()
            else:
                self.stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
                self.own(self.stdin)
            self.stdout_r, self.stdout = self._pipe()
            self.stderr_r, self.stderr = self._pipe()
        except BaseException:
            self.close()
            raise

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self.own(*ends)
        return ends


class Terminal(Ends):
    """A terminal, if possible in the devpts of the container whose init is `pid`, so that `tty` prints a name that
    exists there. Otherwise it is in the host's devpts. `log` adds a read end for the log."""

    def __init__(self, pid: int, *, log: bool) -> None:
        super().__init__()
        found = _container_terminal(pid) if pid else None
        self.master, slave = found or os.openpty()
        self.stdin = self.stdout = self.stderr = slave
        self.own(self.master, slave)
        try:
            if log:
                self.stdout_r = os.dup(self.master)
                self.own(self.stdout_r)
        except BaseException:
            self.close()
            raise


class GivenTerminal(Ends):
    """A terminal that the engine or runtime opens in the container. `take` receives its master."""

    def take(self, master: int) -> None:
        os.set_inheritable(master, False)
        self.own(master)
        self.master = master
        self.stdout_r = os.dup(master)
        self.own(self.stdout_r)


def _container_terminal(pid: int) -> tuple[int, int] | None:
    """(master, slave) of a new terminal in the container's devpts, or None.

    The path is resolved inside the container's root. The file's type is checked before the real open(2), because the
    container controls what is at /dev/pts/ptmx.
    """
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        place = syscalls.openat2(root, "dev/pts/ptmx", os.O_PATH, 0, syscalls.RESOLVE_IN_ROOT)
    except OSError:
        return None
    finally:
        os.close(root)
    try:
        found = os.fstat(place)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _PTMX:
            return None
        master = os.open(f"/proc/self/fd/{place}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    finally:
        os.close(place)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        return None
    return master, slave


def resize(master: int, width: int, height: int) -> None:
    """Set the terminal's size (TIOCSWINSZ). The kernel sends SIGWINCH to the foreground process group."""
    limit = 0xFFFF
    size = struct.pack("HHHH", min(max(height, 0), limit), min(max(width, 0), limit), 0, 0)
    fcntl.ioctl(master, termios.TIOCSWINSZ, size)
