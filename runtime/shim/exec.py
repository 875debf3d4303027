"""Additional processes in running containers (exec). The requesting client gets their stdio and their exit code.

A process that joins a running container is under the container's control before it executes the program: it can be
starved of CPU, or stopped by the container's root. So nothing here waits for it. The loop watches it, and the answer is
sent once it has started.

The shim keeps only a second descriptor of an exec's terminal, for RESIZE, and closes it when the client's connection
ends. The terminal then hangs up when its last descriptor is closed, as usual. A process without a terminal would not
notice; it is killed if the request says so.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

from runtime.errors import NotFoundError, RuntimeFault, StateError
from runtime.oci import container as engine
from runtime.oci.pending import ExecHandle, PendingExec
from runtime.shim import foreign, streams
from runtime.shim.loop import Loop, Timer
from runtime.shim.protocol import EVENT_EXEC_EXIT, ExecRequest
from runtime.shim.supervisor import Supervised

START_SECONDS = 25.0  # from the request to execve; less than a client's timeout

Started = Callable[[dict[str, Any], list[int]], None]  # the answer and its descriptors
Failed = Callable[[RuntimeFault], None]


class _Starting:
    """An exec that has not reached execve yet."""

    __slots__ = ("ends", "failed", "fd", "master", "owner", "pending", "request", "started", "timer")

    def __init__(
        self,
        pending: PendingExec | foreign.Pending,
        request: ExecRequest,
        ends: streams.Ends,
        master: int,
        owner: object,
    ) -> None:
        self.pending = pending
        self.fd = pending.channel.fileno()
        self.request = request
        self.ends = ends
        self.master = master
        self.owner = owner
        self.started: Started
        self.failed: Failed
        self.timer: Timer

    @property
    def final(self) -> bool:
        """Whether `pending.pid` is the pid of the program's process, or of the command that reports it."""
        return not isinstance(self.pending, PendingExec) or self.pending.final


class _Running:
    __slots__ = ("container_id", "ends_with_client", "master", "owner", "pid", "pidfd")

    def __init__(self, request: ExecRequest, handle: ExecHandle, master: int, owner: object) -> None:
        self.container_id = request.container_id
        self.ends_with_client = request.ends_with_client
        self.pid = handle.pid
        self.pidfd = handle.pidfd
        self.master = master
        self.owner = owner

    def hang_up(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def kill(self) -> None:
        """Send SIGHUP, as a terminal that hangs up, then SIGKILL. It is our child, so its pid is not reused."""
        for number in (signal.SIGHUP, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.kill(self.pid, number)


class Execs:
    """`exited(owner, event)` is called with the exit event for the requesting client and the subscribers."""

    def __init__(self, loop: Loop, exited: Callable[[object, dict[str, Any]], None]) -> None:
        self._loop = loop
        self._exited = exited
        self._starting: dict[str, _Starting] = {}
        self._running: dict[str, _Running] = {}
        # Exit codes of children that may be execs that have not been reported yet.
        self._early: dict[int, int] = {}

    def start(
        self, found: Supervised, request: ExecRequest, owner: object, *, started: Started, failed: Failed
    ) -> None:
        """Start an exec. `started` or `failed` is called later, unless the owner disconnects first.

        `failed` gets a StartError if the program cannot be executed. Errors that are known at once are raised.
        """
        if request.exec_id in self._running or request.exec_id in self._starting:
            raise StateError(f"exec {request.exec_id} already exists", reason="AlreadyExists")
        ends = streams.Terminal(found.pid, log=False) if request.tty else streams.Pipes(request.stdin)
        keep = -1
        try:
            if request.tty:
                keep = os.dup(ends.master)
            if request.tty and request.width and request.height:
                streams.resize(ends.master, request.width, request.height)
            pending = found.handle.begin_exec(
                request.process,
                stdio=engine.Stdio(ends.stdin, ends.stdout, ends.stderr),
                console_slave=ends.stdin if request.tty else None,
            )
        except BaseException:
            ends.close()
            if keep >= 0:
                os.close(keep)
            raise
        one = _Starting(pending, request, ends, keep, owner)
        one.started, one.failed = started, failed
        one.timer = self._loop.after(START_SECONDS, lambda: self._overdue(one))
        self._starting[request.exec_id] = one
        self._loop.watch(one.fd, lambda _events: self._step(one))

    def _step(self, one: _Starting) -> None:
        try:
            handle = one.pending.step()
        except (RuntimeFault, OSError) as error:  # an OSError of ours too, such as no free descriptor
            self._forget(one)
            one.pending.abandon()
            one.failed(error if isinstance(error, RuntimeFault) else RuntimeFault(f"exec: {error}"))
            return
        if handle is None:
            return
        ends, exec_id = one.ends, one.request.exec_id
        if isinstance(one.pending, foreign.Pending) and one.pending.master >= 0:
            foreign.replace_fds(one.pending.master, ends.master, one.master)
            if one.request.width and one.request.height:
                streams.resize(ends.master, one.request.width, one.request.height)
        named = {
            "stdin": ends.stdin_w,
            "stdout": ends.stdout_r,
            "stderr": ends.stderr_r,
            "master": ends.master,
        }
        given = {name: ends.release(fd) for name, fd in named.items() if fd >= 0}
        running = _Running(one.request, handle, one.master, one.owner)
        one.master = -1
        self._forget(one)
        one.pending.done()
        self._running[exec_id] = running
        one.started({"exec_id": exec_id, "pid": handle.pid, "fds": list(given)}, list(given.values()))
        if (code := self._early.pop(handle.pid, None)) is not None:
            self.reaped(handle.pid, code)

    def _overdue(self, one: _Starting) -> None:
        self._forget(one)
        one.pending.abandon()
        one.failed(
            StateError(
                f"exec in container {one.request.container_id}: the process did not start within "
                f"{START_SECONDS:.0f} s; the container starves it of CPU or stops it",
                retriable=True,
            )
        )

    def _forget(self, one: _Starting) -> None:
        """Remove it from the starting execs, and close the descriptors that were not passed on."""
        del self._starting[one.request.exec_id]
        self._loop.unwatch(one.fd)
        one.timer.cancel()
        one.ends.close()
        if one.master >= 0:
            os.close(one.master)

    def resize(self, exec_id: str, width: int, height: int) -> None:
        running = self._running.get(exec_id)
        if running is None:
            raise NotFoundError(f"no exec {exec_id} is running")
        if running.master < 0:
            raise StateError(f"exec {exec_id} has no terminal")
        streams.resize(running.master, width, height)

    def reaped(self, pid: int, exit_code: int) -> None:
        """Handle the exit of a child. `exit_code` as from waitstatus_to_exitcode: negative if killed by that signal."""
        for one in list(self._starting.values()):
            # If the dead process is this exec's, its channel is closed and this step is the last one. An exec that has
            # not read yet which process runs its program takes a step too: that process may be the dead one.
            if one.pending.pid == pid or not one.final:
                self._step(one)
        for exec_id, running in self._running.items():
            if running.pid == pid:
                del self._running[exec_id]
                running.hang_up()
                if running.pidfd >= 0:
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
        if any(
            isinstance(one.pending, foreign.Pending) or one.pending.pid == pid
            for one in self._starting.values()
        ):
            self._early[pid] = exit_code
        elif not self._starting:
            self._early.clear()

    def owner_left(self, owner: object) -> None:
        for one in [one for one in self._starting.values() if one.owner is owner]:
            self._forget(one)
            one.pending.abandon()
        for running in self._running.values():
            if running.owner is owner:
                running.hang_up()
                running.owner = None
                if running.ends_with_client:
                    running.kill()
