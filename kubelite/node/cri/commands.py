"""Run commands in containers to completion, for probes and hooks, over the daemon's connection to the shim."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
from typing import Any

from kubelite.node.model.cri import ExecResult
from runtime.errors import NotFoundError
from runtime.shim.client import ExecSession, ShimClient
from runtime.shim.protocol import ExecRequest

MAX_OUTPUT = 10 * 1024  # bytes retained (Kubernetes prober.go maxReadLength); the rest is discarded
_CHUNK = 64 * 1024


def exec_process(bundle: str, command: list[str], *, tty: bool = False) -> dict[str, Any]:
    """Return the OCI process of a command that runs beside the container's own process, with the same user,
    environment, capabilities and working directory."""
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        process: dict[str, Any] = dict(json.load(file)["process"])
    process.pop("consoleSize", None)
    environment = list(process.get("env") or ())
    if tty and not any(entry.startswith("TERM=") for entry in environment):
        process["env"] = [*environment, "TERM=xterm"]  # as docker and containerd set it
    return {**process, "args": list(command), "terminal": tty}


class Commands:
    """The commands that are running. The caller passes on a shim's events: `ended` when a command has exited, `hung_up`
    when the connection to the shim is lost."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[str, asyncio.Future[int]]] = {}  # exec id → (uid, exit code)

    def ended(self, event: dict[str, Any]) -> None:
        _, future = self._waiting.get(str(event.get("exec_id")), ("", None))
        if future is not None and not future.done():
            future.set_result(int(event["exit_code"]))

    def hung_up(self, uid: str) -> None:
        for owner, future in list(self._waiting.values()):
            if owner == uid and not future.done():
                future.set_exception(NotFoundError("the sandbox ended while the command ran"))

    async def run(
        self, uid: str, client: ShimClient, container_id: str, process: dict[str, Any], timeout: float | None
    ) -> ExecResult:
        """See Cri.exec. A cancelled run ends the command."""
        exec_id = secrets.token_hex(16)
        exit_code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[exec_id] = uid, exit_code
        output = _Output()
        found: ExecSession | None = None
        try:
            async with asyncio.timeout(timeout):
                # A probe is of no use without its daemon, but a hook runs to its end.
                probe = timeout is not None
                request = ExecRequest(container_id, exec_id, process, stdin=False, ends_with_client=probe)
                found = await client.exec(request)
                output.read(found.stdout, found.stderr)
                code = await exit_code
            output.drain()
            return ExecResult(code, output.text)
        except TimeoutError:
            output.drain()
            return ExecResult(128 + signal.SIGKILL, output.text, timed_out=True)
        finally:
            del self._waiting[exec_id]
            output.close()
            if found is not None:
                if not exit_code.done() or exit_code.cancelled():
                    _kill(found.pid)
                found.close()
            exit_code.cancel()


def _kill(pid: int) -> None:
    """Kill a command. The pid cannot have been reused: the process is the shim's child, and the shim reports its exit
    before reaping it."""
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)


class _Output:
    """Collects the output of a command from its pipes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._open: set[int] = set()
        self._data = bytearray()

    @property
    def text(self) -> str:
        return bytes(self._data[:MAX_OUTPUT]).decode(errors="replace")

    def read(self, *descriptors: int) -> None:
        for fd in descriptors:
            if fd >= 0:
                os.set_blocking(fd, False)
                self._open.add(fd)
                self._loop.add_reader(fd, self._readable, fd)

    def drain(self) -> None:
        """Read what the pipes contain, without waiting for their end: a process that the command left behind may hold
        them open."""
        for fd in list(self._open):
            while fd in self._open and self._readable(fd):
                pass

    def close(self) -> None:
        for fd in list(self._open):
            self._forget(fd)

    def _readable(self, fd: int) -> bool:
        """Read once. Return whether there may be more to read now."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:
            self._forget(fd)
        self._data += chunk[: max(0, MAX_OUTPUT - len(self._data))]
        return len(chunk) == _CHUNK

    def _forget(self, fd: int) -> None:
        self._open.discard(fd)
        self._loop.remove_reader(fd)
