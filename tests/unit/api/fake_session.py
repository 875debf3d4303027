"""A local process in place of an exec, for tests of the API and the CLI."""

from __future__ import annotations

import asyncio
import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

from runtime.errors import StartError

TAKE_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "os.setsid()\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


class FakeSession:
    """A local process in place of an exec: with pipes, or on a pty."""

    def __init__(self, command: list[str], *, tty: bool, width: int, height: int) -> None:
        self.tty = tty
        self.stdin: int | None
        self.stdout: int | None
        self.stderr: int | None = None
        try:
            if tty:
                master, slave = pty.openpty()
                self._master = master
                if width:
                    self._size(width, height)
                # a controlling terminal has to be taken by the process itself
                self._process = subprocess.Popen(
                    [sys.executable, "-c", TAKE_TERMINAL, *command], stdin=slave, stdout=slave, stderr=slave
                )
                os.close(slave)
                self.stdin = self.stdout = master
            else:
                pipes = subprocess.PIPE
                self._process = subprocess.Popen(command, stdin=pipes, stdout=pipes, stderr=pipes, bufsize=0)
                assert self._process.stdin and self._process.stdout and self._process.stderr
                self.stdin = os.dup(self._process.stdin.fileno())
                self.stdout = os.dup(self._process.stdout.fileno())
                self.stderr = os.dup(self._process.stderr.fileno())
                for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                    stream.close()
        except FileNotFoundError as error:
            raise StartError(f'exec: "{command[0]}": executable file not found in $PATH') from error

    def _size(self, width: int, height: int) -> None:
        ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def close_stdin(self) -> None:
        if self.stdin is not None and not self.tty:
            os.close(self.stdin)
            self.stdin = None

    async def resize(self, width: int, height: int) -> None:
        if self.tty:
            self._size(width, height)

    async def wait(self) -> int:
        while self._process.poll() is None:
            await asyncio.sleep(0.005)
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    async def close(self, *, kill: bool = True) -> None:
        if kill and self._process.poll() is None:
            self._process.kill()
        for fd in {self.stdin, self.stdout, self.stderr} - {None}:
            assert fd is not None
            os.close(fd)
        self.stdin = self.stdout = self.stderr = None
        while self._process.poll() is None:
            await asyncio.sleep(0.005)
