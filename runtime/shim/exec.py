"""Further processes in running containers: their pipes or terminal go to the client that asked, their exit code too.

The shim holds nothing of an exec but a second descriptor of its terminal, for RESIZE, and lets go of that when the
client's connection ends: then the last one to close the terminal hangs it up, as anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from runtime.errors import NotFoundError, StateError
from runtime.oci import container as engine
from runtime.shim import streams
from runtime.shim.protocol import EVENT_EXEC_EXIT, ExecRequest
from runtime.shim.supervisor import Supervised


class _Running:
    __slots__ = ("container_id", "master", "owner", "pid", "pidfd")

    def __init__(self, container_id: str, handle: engine.ExecHandle, master: int, owner: object) -> None:
        self.container_id = container_id
        self.pid = handle.pid
        self.pidfd = handle.pidfd
        self.master = master
        self.owner = owner

    def hang_up(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


class Execs:
    """`exited(owner, event)` is called with the packet for the one who asked and for the subscribers."""

    def __init__(self, exited: Callable[[object, dict[str, Any]], None]) -> None:
        self._exited = exited
        self._running: dict[str, _Running] = {}

    def start(
        self, found: Supervised, request: ExecRequest, owner: object
    ) -> tuple[dict[str, Any], list[int]]:
        """The answer and the descriptors that go with it (the sender closes them). StartError: cannot be executed."""
        if request.exec_id in self._running:
            raise StateError(f"exec {request.exec_id} exists already", reason="AlreadyExists")
        ends = streams.Terminal(found.pid, log=False) if request.tty else streams.Pipes(request.stdin)
        try:
            if request.tty and request.width and request.height:
                streams.resize(ends.master, request.width, request.height)
            handle = found.handle.exec(
                request.process,
                stdio=engine.Stdio(ends.stdin, ends.stdout, ends.stderr),
                console_slave=ends.stdin if request.tty else None,
            )
            keep = os.dup(ends.master) if request.tty else -1
            self._running[request.exec_id] = _Running(request.container_id, handle, keep, owner)
            named = {
                "stdin": ends.stdin_w,
                "stdout": ends.stdout_r,
                "stderr": ends.stderr_r,
                "master": ends.master,
            }
            given = {name: ends.release(fd) for name, fd in named.items() if fd >= 0}
        finally:
            ends.close()
        answer = {"exec_id": request.exec_id, "pid": handle.pid, "fds": list(given)}
        return answer, list(given.values())

    def resize(self, exec_id: str, width: int, height: int) -> None:
        running = self._running.get(exec_id)
        if running is None:
            raise NotFoundError(f"no exec {exec_id} is running")
        if running.master < 0:
            raise StateError(f"exec {exec_id} has no terminal")
        streams.resize(running.master, width, height)

    def reaped(self, pid: int, exit_code: int) -> None:
        """`exit_code` as waitstatus_to_exitcode gives it: negative = killed by that signal."""
        for exec_id, running in self._running.items():
            if running.pid == pid:
                del self._running[exec_id]
                running.hang_up()
                os.close(running.pidfd)
                code = 128 - exit_code if exit_code < 0 else exit_code
                event = {
                    "event": EVENT_EXEC_EXIT,
                    "exec_id": exec_id,
                    "exit_code": code,
                    "container_id": running.container_id,
                }
                self._exited(running.owner, event)
                return

    def owner_left(self, owner: object) -> None:
        for running in self._running.values():
            if running.owner is owner:
                running.hang_up()
                running.owner = None
