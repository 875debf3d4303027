"""An additional process in a container, from clone3 until its program runs."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.errors import RuntimeFault, StateError
from runtime.oci import spawn
from runtime.oci.handshake import next_message

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class ExecHandle:
    """An additional process in a container. It is a child of the caller, who reaps it and closes `pidfd`."""

    pid: int
    pidfd: int
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class PendingExec:
    """A process that has been cloned but has not yet executed its program. When `channel` is readable, call `step`.

    Until `final`, `pid` and `pidfd` are those of a first process, which clones the program's (pid_entry.py).
    """

    pid: int
    pidfd: int
    channel: socket.socket
    who: str
    warnings: list[str]
    # Sends the seccomp listener of the process (pid, pidfd) to the agent.
    listener: Callable[[tuple[int, int], int], None] | None = None
    program: str = ""
    final: bool = True
    announced: Callable[[int], None] | None = None  # called with the cloned process's pid (_take_over)
    first: int = -1  # the pidfd of the first process, once it has announced the program's

    def step(self) -> ExecHandle | None:
        """Process pending messages without waiting. Returns the handle once execve has succeeded, None before.

        After a handle or an exception, the caller calls `done` or `abandon`.
        """
        self.channel.setblocking(False)
        try:
            while (message := next_message(self.channel, self.who, self.program)) is not None:
                self._take(message)
        except BlockingIOError:
            return None
        if not self.final:
            raise StateError(f"{self.who}: its process was killed before it was created")
        return ExecHandle(self.pid, self.pidfd, tuple(self.warnings))

    def _take(self, message: dict[str, Any]) -> None:
        if "fd" in message:
            self._take_over(message.get("cloned") if not self.final else None, message["fd"])
            if message.get("waits"):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # killed already
                    self.channel.send(b"go")
        self.warnings += message.get("warnings", [])
        if message.get("listener") and self.listener is not None:
            self.listener((self.pid, self.pidfd), message["listener"])
            self.channel.send(b"listened")

    def wait(self, seconds: float) -> ExecHandle:
        """Wait until execve has succeeded. StateError after `seconds`; on any exception the process is killed."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        deadline = time.monotonic() + seconds
        try:
            while (handle := self.step()) is None:
                if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
                    raise StateError(f"{self.who}: the process did not start within {seconds:.0f} s")
        except BaseException:
            self.abandon()
            raise
        self.done()
        return handle

    def _take_over(self, pid: Any, pidfd: int) -> None:
        """Continue with the process that the first one has cloned. Only one is accepted."""
        spawn.check_clone(pid, pidfd, self.who)
        self.first, self.pid, self.pidfd, self.final = self.pidfd, pid, pidfd, True
        if self.announced is not None:
            self.announced(pid)

    def _reap_first(self) -> None:
        if self.first >= 0:
            spawn.kill_and_reap(self.first)  # it has exited, or is about to
            self.first = -1

    def done(self) -> None:
        """Close the channel after a successful execve."""
        self.channel.close()
        self._reap_first()

    def abandon(self) -> None:
        """Close the channel, and kill and reap the process."""
        if not self.final:
            with contextlib.suppress(RuntimeFault, OSError, ValueError):
                self.step()  # it may have announced its clone
        self.channel.close()
        self._reap_first()
        spawn.kill_and_reap(self.pidfd)
