"""The daemon's side of the DNS server: starts its supervisor, publishes zones, reads the server's counters.

The supervisor outlives the daemon. A later daemon finds it by the lock in its directory, and goes on with it if it
serves the same addresses; otherwise it ends it and starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import runtime
from runtime.dns.supervisor import CONTROL, LOCK
from runtime.dns.zone import ZONE_FILE, Zone
from runtime.errors import NetworkError

log = logging.getLogger(__name__)

START = 15.0  # seconds for a supervisor to say that it is ready
END = 5.0  # seconds for a supervisor to end after SIGTERM
ANSWER = 3.0  # seconds for the server to answer a command
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))
_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from runtime.dns.supervisor import main; "
    "sys.exit(main(sys.argv[2], sys.argv[3:]))"
)


class DnsClient:
    """One node's DNS server, in `directory`. Addresses may end with #PORT. `ensure` and `publish` may be called again
    at any time, and raise NetworkError."""

    def __init__(self, directory: str, addresses: Sequence[str]) -> None:
        self.directory = directory
        self.addresses = tuple(addresses)
        self._pidfd = -1
        self._process: subprocess.Popen[bytes] | None = None  # to be reaped when it ends

    async def ensure(self) -> None:
        """Return when a supervisor of these addresses runs, which may be one of an earlier daemon."""
        if self.alive():
            return
        os.makedirs(self.directory, exist_ok=True)
        os.chmod(self.directory, 0o755)  # the server has no privileges, and the daemon may have any umask
        pid, addresses = self._recorded()
        if pid and addresses == self.addresses and self._follow(pid):
            return
        await self.stop()
        await self._start()

    def alive(self) -> bool:
        """Does the supervisor that `ensure` found or started still run?"""
        return self._pidfd >= 0 and not select.select([self._pidfd], [], [], 0)[0]

    async def ended(self) -> None:
        """Return when the supervisor has ended."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        if not self.alive():
            return
        loop.add_reader(self._pidfd, done.set)
        try:
            await done.wait()
        finally:
            loop.remove_reader(self._pidfd)

    async def publish(self, zone: Zone) -> dict[str, Any]:
        """Write the zone and have the server read it. Returns the server's status after it. If no server answers, the
        next one begins with this zone nevertheless."""
        await asyncio.to_thread(self._write, zone)
        status = await self._command("reload")
        if status["problem"]:
            raise NetworkError(f"the DNS server {status['problem']}")
        return status

    async def status(self) -> dict[str, Any]:
        """The server's counters, and the serial of its zone."""
        return await self._command("status")

    async def stop(self) -> bool:
        """End the supervisor that holds the directory's lock, and its server. Returns whether there was one."""
        self.close()
        pid, _ = self._recorded()
        if not pid:
            return False
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(fd, signal.SIGTERM)
                if not (await asyncio.to_thread(select.select, [fd], [], [], END))[0]:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    await asyncio.to_thread(select.select, [fd], [], [], END)
            finally:
                os.close(fd)
        return True

    def close(self) -> None:
        """Forget the supervisor, which goes on."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._process is not None and self._process.poll() is not None:
            self._process = None

    def _recorded(self) -> tuple[int, tuple[str, ...]]:
        """The pid and addresses of the supervisor that holds the lock; 0 if none does."""
        return recorded(self.directory)

    def _follow(self, pid: int) -> bool:
        self.close()
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        return self._recorded()[0] == pid  # the pid was not given to another process meanwhile

    async def _start(self) -> None:
        line, pid = await asyncio.to_thread(self._spawn)
        if line != "ready" or not self._follow(pid):
            raise NetworkError(line or "the DNS server ended before it was ready")
        log.info("the DNS server answers on %s", ", ".join(self.addresses))

    def _spawn(self) -> tuple[str, int]:
        """Start a supervisor. Returns the line that it said, and its pid; it has ended if that is not `ready`."""
        arguments = [json.dumps([_ROOT, *filter(None, sys.path)]), self.directory, *self.addresses]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
            env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}, cwd="/",
        )  # fmt: skip
        self._process = process
        assert process.stdout is not None
        with process.stdout:
            if select.select([process.stdout], [], [], START)[0]:
                line = process.stdout.readline().decode(errors="replace").strip()
            else:
                line = f"the DNS server did not start in {START:.0f} s"
        if line != "ready":
            process.kill()
            process.wait()
        return line, process.pid

    def _write(self, zone: Zone) -> None:
        fd, temporary = tempfile.mkstemp(dir=self.directory, prefix=".zone-")
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(zone.to_json(), file, separators=(",", ":"))
                os.fchmod(file.fileno(), 0o644)
            os.rename(temporary, f"{self.directory}/{ZONE_FILE}")
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    async def _command(self, command: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(ANSWER):
                reader, writer = await asyncio.open_unix_connection(
                    f"{self.directory}/{CONTROL}", limit=1 << 20
                )
                try:
                    writer.write(f"{command}\n".encode())
                    answer: dict[str, Any] = json.loads(await reader.readline())
                    return answer
                finally:
                    writer.close()
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            raise NetworkError(
                f"the DNS server does not answer: {error or 'timed out'}", retriable=True
            ) from error


def recorded(directory: str) -> tuple[int, tuple[str, ...]]:
    """The pid and addresses of the supervisor that holds a directory's lock; 0 if none does."""
    try:
        with open(f"{directory}/{LOCK}", "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                lines = file.read().decode(errors="replace").splitlines()
                return int(lines[0]), tuple(lines[1].split())
    except (OSError, ValueError, IndexError):
        pass
    return 0, ()
