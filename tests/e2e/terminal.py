"""Runs a command on its own terminal, as for a user."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.e2e.node import PATIENCE, REPO

TIMEOUT = 30.0 * PATIENCE
# the child takes the terminal itself: a test's process has threads, and must not run Python between fork and exec
_TAKE = (
    "import fcntl, os, sys, termios\n"
    "os.setsid()\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


@dataclass(slots=True)
class Terminal:
    process: subprocess.Popen[bytes]
    master: int
    seen: str = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until the output since the last match matches, and consume it."""
        until = time.monotonic() + TIMEOUT
        while True:
            match = re.search(pattern, self.seen)
            if match is not None:
                self.seen = self.seen[match.end() :]
                return match
            if not self._read(until):
                raise AssertionError(f"waited for {pattern!r} on the terminal; got {self.seen!r}")

    def wait(self) -> int:
        """Read the remaining output and return the exit code."""
        until = time.monotonic() + TIMEOUT
        while self._read(until):
            pass
        return self.process.wait(TIMEOUT)

    def read(self, seconds: float) -> bool:
        """Read output for up to `seconds`. Return False if there is none."""
        return self._read(time.monotonic() + seconds)

    def _read(self, until: float) -> bool:
        left = until - time.monotonic()
        if left <= 0 or not select.select([self.master], [], [], left)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # EIO: the last process on the other side has exited
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str], environ: Mapping[str, str], *, columns: int = 80, lines: int = 24
) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    process: subprocess.Popen[bytes] | None = None
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TAKE, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environ),
            cwd=REPO,
        )
        os.close(slave)
        slave = -1
        yield Terminal(process, master)
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        if slave >= 0:
            os.close(slave)
        os.close(master)
