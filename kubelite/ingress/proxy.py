"""The files of the proxy on the host, and its master's socket.

`DIRECTORY/config/N/` is a generation of the configuration, and `config/current` a link to the one that counts, so that
a change is one rename. `run/` is the proxy's own directory, with the socket of its master.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

from kubelite.ingress.proxy_pod import SOCKET, USER, check_command
from kubelite.node.model.cri import ExecResult

CHECK_TIMEOUT = 20.0  # seconds
ANSWER_TIMEOUT = 20.0  # of the master: a reload ends when the new worker is ready
_KILLED = 128  # an exit code above it: a signal, 128 + its number
_KEPT = 2  # generations beside the current one

Execute = Callable[[str, str, list[str], float], Awaitable[ExecResult]]  # uid, container id, command, seconds


class ProxyError(Exception):
    """The proxy does not answer, or refuses what it is told."""


class ProxyFiles:
    """`execute` runs a command in the proxy's container."""

    def __init__(self, directory: Path, execute: Execute) -> None:
        self.directory = directory
        self._config = directory / "config"
        self._run = directory / "run"
        self._execute = execute

    def write(self, files: Mapping[str, bytes]) -> str:
        """Write a generation that does not count yet. Return its name."""
        self._prepare()
        generation = str(max((int(name) for name in self._generations()), default=0) + 1)
        place = self._config / generation
        with contextlib.ExitStack() as undo:
            place.mkdir(mode=0o750)
            undo.callback(self.discard, generation)
            os.chown(place, 0, USER)
            for name, content in files.items():
                path = place / name
                path.touch(mode=0o640)
                os.chown(path, 0, USER)
                path.write_bytes(content)
            undo.pop_all()
        return generation

    def publish(self, generation: str) -> None:
        """Make a generation the current one, and remove old ones."""
        link = self._config / "next"
        link.unlink(missing_ok=True)
        link.symlink_to(generation)
        link.rename(self._config / "current")
        for old in sorted(self._generations(), key=int)[: -1 - _KEPT]:
            self.discard(old)

    def current(self) -> str:
        """Return the name of the generation that counts, "" if there is none."""
        try:
            return os.readlink(self._config / "current")
        except FileNotFoundError:
            return ""

    def discard(self, generation: str) -> None:
        """Remove a generation that does not count. What cannot be removed goes with a later one."""
        shutil.rmtree(self._config / generation, ignore_errors=True)

    def remove(self) -> None:
        """Remove all but the default certificate."""
        for path in (self._config, self._run):
            shutil.rmtree(path, ignore_errors=True)

    async def check(self, uid: str, container: str, generation: str) -> str:
        """Return what the proxy says is wrong with a generation, "" if it accepts it. Raises RuntimeFault,
        and ProxyError if the check came to no result: that says nothing about the generation."""
        found = await self._execute(uid, container, check_command(generation), CHECK_TIMEOUT)
        if found.timed_out:
            raise ProxyError(f"the check of a new configuration took more than {CHECK_TIMEOUT:.0f} seconds")
        if found.exit_code > _KILLED:
            raise ProxyError(
                f"the check of a new configuration was killed by signal {found.exit_code - _KILLED}: "
                "its container may have too little memory"
            )
        return (found.output.strip() or f"exit code {found.exit_code}") if found.exit_code else ""

    async def reload(self) -> None:
        """Have the proxy read the current generation. The old worker serves until the new one does, and ends when its
        connections have. Raises ProxyError."""
        answer = await self._ask("reload")
        if "Success=1" not in answer:
            raise ProxyError(f"the proxy keeps its old configuration: {answer.strip() or 'no answer'}")

    async def run(self, command: str) -> None:
        """Have the worker carry out a command that answers nothing. Raises ProxyError."""
        answer = (await self._ask(f"@1 {command}")).strip()
        # "IP changed from …" tells what was done.
        if answer and "changed" not in answer and "no need to change" not in answer:
            raise ProxyError(f"{command}: {answer}")

    async def _ask(self, command: str) -> str:
        """Send a line to the master, and return its answer. The path of the socket may be longer than an address can
        be, so it is reached through its directory. What is no socket was put there by a proxy that is not to be
        trusted."""
        try:
            directory = os.open(self._run, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError as error:
            raise ProxyError("the proxy has not started") from error
        try:
            if not stat.S_ISSOCK(os.stat(SOCKET, dir_fd=directory, follow_symlinks=False).st_mode):
                raise ProxyError(f"{SOCKET} is no socket")
            async with asyncio.timeout(ANSWER_TIMEOUT):
                reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{SOCKET}")
                try:
                    writer.write(f"{command}\n".encode())
                    writer.write_eof()  # the master would wait for the next command
                    return (await reader.read(1 << 16)).decode(errors="replace")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise ProxyError(f"the proxy does not answer: {error or 'timeout'}") from error
        finally:
            os.close(directory)

    def _prepare(self) -> None:
        for path, mode, owner in ((self._config, 0o750, 0), (self._run, 0o700, USER)):
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, owner, USER)
            path.chmod(mode)

    def _generations(self) -> Iterator[str]:
        return (path.name for path in self._config.iterdir() if path.name.isdecimal())
