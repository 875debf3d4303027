"""Attend a process in the foreground: forward signals, relay its terminal, and return its exit code."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import signal
from contextlib import ExitStack
from typing import Any, Final

from runtime import syscalls as sc
from runtime.errors import SyscallError

# Signals that we handle ourselves or that concern only us (runc: SIGCHLD, and SIGURG of Go's scheduler). We get SIGTTIN
# and SIGTTOU when we read or write in our terminal's background; the container's process has not done so.
_JOB_CONTROL: Final = frozenset({signal.SIGTTIN, signal.SIGTTOU})
_NOT_FORWARDED: Final = _JOB_CONTROL | frozenset(
    {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGWINCH, signal.SIGURG}
)
_LIBCS: Final = frozenset({32, 33})  # reserved by the C library (pthreads(7))
_FORWARDED: Final = frozenset(range(1, signal.NSIG)) - _NOT_FORWARDED - _LIBCS
_CHUNK: Final = 65536


def hold_signals() -> None:
    """Block signals until `attend` forwards them.

    Call this before anything is created. Then no signal is lost, and none kills us half-way (runc also installs its
    handler before it creates the container).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)


def attend(pid: int, pidfd: int, master: int = -1) -> int:
    """Wait for our child; returns its exit code, or 128 + the number of the signal that killed it.

    Closes both descriptors. Also reaps orphans of the child meanwhile, because this process is the subreaper.
    """
    gc.freeze()  # existing objects stay alive, so the collector need not examine them
    gc.enable()  # boot.py disabled it; from here on we may run for long
    with ExitStack() as undo:
        undo.callback(os.close, pidfd)
        wakeup = _catch_signals(undo)
        relay = _Relay(master, undo) if master >= 0 else None
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(wakeup, select.POLLIN)
        if relay is not None:
            relay.register(poll)
        while True:
            for fd, _ in poll.poll():
                if fd == wakeup:
                    _forward(os.read(wakeup, 64), pidfd, relay, poll)
                elif relay is not None and fd != pidfd:
                    relay.move(fd, poll)
            _reap_orphans(pid)
            if _ended(pid):
                if relay is not None:
                    relay.drain()
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                return code if code >= 0 else 128 - code


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _reap_orphans(pid: int) -> None:
    while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
        if found.si_pid == pid:
            return
        os.waitpid(found.si_pid, 0)


def _catch_signals(undo: ExitStack) -> int:
    """Install handlers that write each signal's number to a pipe as a byte (signal.set_wakeup_fd); returns its reading
    end."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    undo.callback(os.close, read)
    undo.callback(os.close, write)
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP, *_JOB_CONTROL, *_LIBCS):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, lambda *_: None)
    previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    undo.callback(signal.set_wakeup_fd, previous)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    return read


def _forward(numbers: bytes, pidfd: int, relay: _Relay | None, poll: select.poll) -> None:
    for number in numbers:
        if number == signal.SIGCONT and relay is not None:
            relay.resume(poll)
        if number == signal.SIGWINCH and relay is not None:
            relay.resize()
        elif number not in _NOT_FORWARDED:
            with contextlib.suppress(SyscallError):
                sc.pidfd_send_signal(pidfd, number)


def disable_onlcr(master: int) -> None:
    """Turn off ONLCR before anything is written, as runc does (tty.go, recvtty): lines then end as the program writes
    them. If our stdout is a terminal, it adds the carriage returns."""
    import termios

    settings = termios.tcgetattr(master)
    settings[1] &= ~termios.ONLCR
    termios.tcsetattr(master, termios.TCSANOW, settings)


class _Relay:
    """Copies our stdin and stdout to and from a terminal's master. Our own terminal is raw meanwhile."""

    def __init__(self, master: int, undo: ExitStack) -> None:
        self.master = master
        import termios

        undo.callback(os.close, master)
        os.set_blocking(master, False)
        self._tty, self._background = os.isatty(0), False
        if self._tty:
            before = termios.tcgetattr(0)
            # With these blocked, we can change the settings and get EIO from reads while in the terminal's background,
            # where `timeout` puts us.
            signal.pthread_sigmask(signal.SIG_BLOCK, _JOB_CONTROL)
            undo.callback(termios.tcsetattr, 0, termios.TCSANOW, before)
            termios.tcsetattr(0, termios.TCSANOW, _raw(before))
            self.resize()

    def resize(self) -> None:
        import termios

        with contextlib.suppress(termios.error):
            termios.tcsetwinsize(self.master, termios.tcgetwinsize(0))

    def register(self, poll: select.poll) -> None:
        poll.register(0, select.POLLIN)
        poll.register(self.master, select.POLLIN)

    def resume(self, poll: select.poll) -> None:
        """After SIGCONT we may be in the foreground, so read stdin again. Input typed before was for another
        process."""
        if self._background:
            self._background = False
            poll.register(0, select.POLLIN)

    def move(self, fd: int, poll: select.poll) -> None:
        source, sink = (0, self.master) if fd == 0 else (self.master, 1)
        try:
            data = os.read(source, _CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            # EIO: the slave's last descriptor is closed, or we are in the background
            if error.errno != errno.EIO:
                raise
            data, self._background = b"", self._background or (fd == 0 and self._tty)
        if not data:
            poll.unregister(fd)
            return
        _write_all(sink, data)

    def drain(self) -> None:
        """Copy the rest of the program's output after it has exited."""
        with contextlib.suppress(OSError):
            while data := os.read(self.master, _CHUNK):
                _write_all(1, data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def _raw(attributes: list[Any]) -> list[Any]:
    """The attributes of cfmakeraw(3), but with output processing: the inner terminal does none (`disable_onlcr`)."""
    import termios

    iflag, oflag, cflag, lflag, *rest = attributes
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    oflag |= termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = (cflag & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    return [iflag, oflag, cflag, lflag, *rest]
