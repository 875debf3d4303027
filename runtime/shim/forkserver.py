"""The warm process shims are forked from: started by the daemon once, imports everything once, then only forks.

Started as `python -I -S -c "…main(fd)"` with an environment of its own, so that shims carry neither the daemon's
memory nor its secrets. Speaks JSON packets on an inherited seqpacket socket:

    ← {"ready": {"pid": …}}                    once, when warm
    → {"id": n, "sandbox": SandboxConfig}
    ← {"id": n, "ok": {"sandbox": SandboxRecord, "warnings": […]}} | {"id": n, "error": {…}}

A shim is forked once, with SIGCHLD ignored here: the kernel reaps it should it fail, no zombie can stay, and the day
this process ends the shim belongs to init. (A second fork would hand it to init at once, at half a millisecond a pod.)
End of file on the socket: the daemon is gone, and so is this process; shims stay.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault, StateError
from runtime.shim import sandbox, shim, state
from runtime.shim.immortal import immortalise
from runtime.shim.protocol import MAX_PACKET, SandboxConfig

SPAWN_SECONDS = 20.0  # a shim that has not reported by then is killed and cleaned up after


class _Spawn:
    """A shim that has not reported yet."""

    def __init__(self, number: object, config: SandboxConfig, pidfd: int, report: int) -> None:
        self.number = number
        self.config = config
        self.pidfd = pidfd
        self.report = report
        self.deadline = time.monotonic() + SPAWN_SECONDS
        self.heard = b""


class Forkserver:
    def __init__(self, daemon: socket.socket) -> None:
        self._daemon = daemon
        self._poll = select.poll()
        self._poll.register(daemon.fileno(), select.POLLIN)
        self._spawns: dict[int, _Spawn] = {}
        self._inheritance: sandbox.Inheritance | None = None

    def announce(self) -> None:
        """Tell the daemon that we are warm."""
        self._send({"ready": {"pid": os.getpid()}})

    def serve(self) -> None:
        """Until the daemon is gone."""
        while True:
            for fd, _ in self._poll.poll(self._timeout()):
                if fd != self._daemon.fileno():
                    self._reported(self._spawns[fd])
                elif not self._request():
                    return
            for spawn in [s for s in self._spawns.values() if s.deadline <= time.monotonic()]:
                self._overdue(spawn)

    def _timeout(self) -> float | None:
        if not self._spawns:
            return None
        return max(min(s.deadline for s in self._spawns.values()) - time.monotonic(), 0.0) * 1000 + 1

    def _request(self) -> bool:
        try:
            packet = self._daemon.recv(MAX_PACKET)
        except ConnectionError:
            return False
        if not packet:
            return False
        request = json.loads(packet)
        number = request.get("id")
        try:
            self._spawn(number, SandboxConfig.from_json(request["sandbox"]))
        except RuntimeFault as fault:
            self._answer_error(number, fault)
        except (OSError, TypeError, KeyError) as error:
            self._answer_error(
                number, RuntimeFault(f"the sandbox cannot be made: {error}", reason="CreatePodSandboxError")
            )
        return True

    def _spawn(self, number: object, config: SandboxConfig) -> None:
        self._inheritance, warnings = sandbox.bequeath(config, self._inheritance)
        for warning in warnings:
            print(f"kubelite forkserver: {warning}", file=sys.stderr)  # noqa: T201
        with contextlib.ExitStack() as undo:
            listener = prepare_run_dir(config, undo)
            undo.enter_context(listener)
            report_r, report_w = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, report_r)
            with os.fdopen(report_w, "wb", buffering=0):
                pid = os.fork()
                if pid == 0:
                    _become_shim(config, listener, report_w, self._inheritance)
            undo.pop_all()
        listener.close()
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            pidfd = -1  # dead already: its report, or the lack of it, tells
        self._spawns[report_r] = _Spawn(number, config, pidfd, report_r)
        self._poll.register(report_r, select.POLLIN)

    def _reported(self, spawn: _Spawn) -> None:
        part = os.read(spawn.report, MAX_PACKET)
        spawn.heard += part
        if part:
            return
        self._forget(spawn)
        try:
            message = json.loads(spawn.heard)
        except ValueError:
            message = None
        if message is None:
            clean_up(spawn.config)
            fault = RuntimeFault(
                "the shim died before its sandbox was ready", reason="CreatePodSandboxError", retriable=True
            )
            self._answer_error(spawn.number, fault)
            return
        if "error" in message:
            clean_up(spawn.config)
        self._send({"id": spawn.number, **message})

    def _overdue(self, spawn: _Spawn) -> None:
        if spawn.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(spawn.pidfd, signal.SIGKILL)
        self._forget(spawn)
        clean_up(spawn.config)
        fault = RuntimeFault(
            f"the shim was not ready within {SPAWN_SECONDS:.0f} seconds",
            reason="CreatePodSandboxError",
            retriable=True,
        )
        self._answer_error(spawn.number, fault)

    def _forget(self, spawn: _Spawn) -> None:
        self._poll.unregister(spawn.report)
        del self._spawns[spawn.report]
        os.close(spawn.report)
        if spawn.pidfd >= 0:
            os.close(spawn.pidfd)

    def _answer_error(self, number: object, fault: RuntimeFault) -> None:
        error = {"reason": fault.reason, "message": str(fault), "retriable": fault.retriable}
        self._send({"id": number, "error": error})

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # the daemon is gone: the end of file is next
            self._daemon.send(json.dumps(message).encode())


def prepare_run_dir(config: SandboxConfig, undo: contextlib.ExitStack) -> socket.socket:
    """Make the run directory with its socket, listening. StateError if it belongs to another sandbox, alive or dead."""
    os.makedirs(os.path.dirname(config.run_dir), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(config.run_dir, 0o700)
    if os.listdir(config.run_dir):
        if state.answers(config.run_dir):
            raise StateError(
                f"pod {config.uid} has a living shim already ({config.run_dir})", reason="AlreadyExists"
            )
        raise StateError(
            f"{config.run_dir} is what a dead shim left: clean it up first", reason="StaleSandbox"
        )
    undo.callback(state.remove_run_dir, config.run_dir)
    state.write_json(config.run_dir, state.CONFIG, config.to_json())
    return state.listen(config.run_dir)


def clean_up(config: SandboxConfig) -> None:
    """After a shim that failed: whatever it could not undo itself."""
    with contextlib.suppress(OSError, RuntimeFault):
        open_cgroup(config.cgroup).remove()
    with contextlib.suppress(OSError):
        state.remove_run_dir(config.run_dir)


def _become_shim(
    config: SandboxConfig, listener: socket.socket, report: int, inherited: sandbox.Inheritance
) -> NoReturn:
    code = 1
    try:
        code = shim.run(config, listener, report, inherited)
    finally:
        os._exit(code)


def warm_up() -> None:
    """Do once what every shim or container would do again: compile the default seccomp profile, find the cgroups."""
    from runtime.cgroups import layout
    from runtime.security import seccomp
    from runtime.security.capabilities import DEFAULT_CAPS

    layout()
    try:
        seccomp.compile(seccomp.default_profile(frozenset(DEFAULT_CAPS)))
    except RuntimeFault as fault:
        print(f"kubelite forkserver: no seccomp here: {fault}", file=sys.stderr)  # noqa: T201


def main(fd: int) -> None:
    """Entry point; `fd` is the daemon's socketpair end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the daemon's terminal: the daemon decides
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    daemon = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    warm_up()
    server = Forkserver(daemon)
    gc.collect()
    immortalise()
    gc.freeze()  # shims share these pages for ever: the collector must never write into them either
    server.announce()
    server.serve()
    os._exit(0)
