"""The warm process shims are forked from: started by the daemon once, imports everything once, then only forks.

Started as `python -I -S -c "…main(fd)"` with an environment of its own, so that shims carry neither the daemon's
memory nor its secrets. Speaks JSON packets on an inherited seqpacket socket:

    ← {"ready": {"pid": …}}                    once, when warm
    ← {"spare": {"pid": …}}                    each time another one stands by
    ← {"warning": sentence}                      for the node's log
    → {"prepare": {"shim_cgroup": …, "oom_score_adj": …}}   optional: be there and have a spare before the first spawn
    → {"id": n, "sandbox": SandboxConfig}
    ← {"id": n, "ok": {"sandbox": SandboxRecord, "warnings": […]}} | {"id": n, "error": {…}}

One spare shim is kept, forked and in new namespaces already: the kernel's part of that is more than half of what a
spawn costs, and it waits for nobody. It learns whose sandbox it is over a socket, with the listening socket of the run
directory; a spawn that finds no (fitting) spare forks one and tells it at once.

A shim is forked once, with SIGCHLD ignored here: the kernel reaps it should it fail, no zombie can stay, and the day
this process ends the shim belongs to init. (A second fork would hand it to init at once, at half a millisecond a pod.)
End of file on the socket: the daemon is gone, and so is this process; shims stay.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from runtime import syscalls
from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault, StateError
from runtime.shim import sandbox, shim, state
from runtime.shim.protocol import MAX_PACKET, SandboxConfig
from runtime.shim.warm.immortal import immortalise, supported
from runtime.shim.warm.packing import fill_gaps, learnt, pack
from runtime.shim.warm.rehearsal import rehearse

SPARE_NAMESPACES = (
    syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
)  # what nearly every pod has
SPARE_PAUSE_MS = 5  # of quiet before a spare is made: in a burst of pods it would be in the way
SPAWN_SECONDS = 20.0  # a shim that has not reported by then is killed and cleaned up after


class _Birth:
    """A forked shim that has not reported yet. Before `assign` it is a spare: in namespaces, but nobody's."""

    def __init__(self, flags: int, inherited: sandbox.Inheritance) -> None:
        self.flags = flags
        self.inherited = inherited
        self.was_spare = False
        self.number: object = None
        self.config: SandboxConfig | None = None
        self.deadline = math.inf
        self.heard = b""
        with contextlib.ExitStack() as undo:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(ours.close)
            self.report, report_w = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, self.report)
            os.set_blocking(self.report, False)
            with theirs, os.fdopen(report_w, "wb", buffering=0):
                # Not os.fork: what the interpreter does after it (locks and threads that we do not have) would cost
                # each shim fifty pages of its own.
                self.pid, self.pidfd = syscalls.clone3(0, exit_signal=signal.SIGCHLD)
                if self.pid == 0:
                    _become_shim(theirs, report_w, flags, inherited)
            undo.pop_all()
        self.control = ours

    def assign(self, number: object, config: SandboxConfig, listener: socket.socket) -> None:
        """OSError (EPIPE, ECONNRESET) when it is dead."""
        packet = json.dumps(config.to_json(), separators=(",", ":")).encode()
        socket.send_fds(self.control, [packet], [listener.fileno()])
        self.number, self.config = number, config
        self.deadline = time.monotonic() + SPAWN_SECONDS

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it; a spare that is not assigned ends by that."""
        self.control.close()
        os.close(self.report)
        os.close(self.pidfd)


class Forkserver:
    def __init__(self, daemon: socket.socket) -> None:
        self._daemon = daemon
        self._poll = select.poll()
        self._poll.register(daemon.fileno(), select.POLLIN)
        self._births: dict[int, _Birth] = {}  # by the descriptor of the report
        self._spare: _Birth | None = None
        self._inheritance: sandbox.Inheritance | None = None
        self._rehearsed = False

    def _warn(self, sentence: str) -> None:
        self._send({"warning": sentence})

    def announce(self, warnings: Sequence[str] = ()) -> None:
        """Tell the daemon that we are warm, and what there is to be said about it."""
        for warning in warnings:
            self._warn(warning)
        self._send({"ready": {"pid": os.getpid()}})

    def serve(self) -> None:
        """Until the daemon is gone."""
        while True:
            ready = self._poll.poll(self._timeout())
            for fd, _ in ready:
                if fd == self._daemon.fileno():
                    if not self._request():
                        return
                elif fd in self._births:  # else forgotten earlier in this round
                    self._reported(self._births[fd])
            for birth in [b for b in self._births.values() if b.deadline <= time.monotonic()]:
                self._overdue(birth)
            if not ready and self._spare is None and self._inheritance is not None:
                self._rehearse(self._inheritance.shim_cgroup)
                self._spare = self._fork(SPARE_NAMESPACES, self._inheritance)
                self._send({"spare": {"pid": self._spare.pid}})

    def _rehearse(self, cgroup: str) -> None:
        """Once, and only where it lasts: without immortal objects a shim copies the pages all the same."""
        if not self._rehearsed and supported():
            before = learnt()
            rehearse(cgroup, self._warn)
            pack(before)
            rehearse(cgroup, self._warn)
            share()
        self._rehearsed = True

    def _timeout(self) -> float | None:
        """Milliseconds; a moment when a spare is to be made, so that it is made when there is nothing else to do."""
        if self._spare is None and self._inheritance is not None:
            return SPARE_PAUSE_MS
        first = min((b.deadline for b in self._births.values()), default=math.inf)
        return None if first == math.inf else max(first - time.monotonic(), 0.0) * 1000 + 1

    def _request(self) -> bool:
        try:
            packet = self._daemon.recv(MAX_PACKET)
        except ConnectionError:
            return False
        if not packet:
            return False
        request = json.loads(packet)
        number = request.get("id")
        if "prepare" in request:
            with contextlib.suppress(OSError, RuntimeFault):  # the first spawn tries again, and tells
                self._bequeath(**request["prepare"])
            return True
        try:
            config = SandboxConfig.from_json(request["sandbox"])
        except (TypeError, KeyError) as error:
            self._answer_error(number, RuntimeFault(f"not a sandbox: {error}", reason="BadRequest"))
            return True
        self._spawn_or_answer(number, config)
        return True

    def _spawn_or_answer(self, number: object, config: SandboxConfig) -> None:
        try:
            self._spawn(number, config)
        except RuntimeFault as fault:
            self._answer_error(number, fault)
        except OSError as error:
            sentence = f"the sandbox cannot be made: {error}"
            self._answer_error(number, RuntimeFault(sentence, reason="CreatePodSandboxError"))

    def _bequeath(self, shim_cgroup: str, oom_score_adj: int) -> sandbox.Inheritance:
        self._inheritance, warnings = sandbox.bequeath(shim_cgroup, oom_score_adj, self._inheritance)
        for warning in warnings:
            self._warn(warning)
        return self._inheritance

    def _spawn(self, number: object, config: SandboxConfig) -> None:
        inherited = self._bequeath(config.shim_cgroup, config.oom_score_adj)
        with contextlib.ExitStack() as undo:
            listener = prepare_run_dir(config, undo)
            with listener:
                self._assign(number, config, listener, inherited)
            undo.pop_all()

    def _assign(
        self, number: object, config: SandboxConfig, listener: socket.socket, inherited: sandbox.Inheritance
    ) -> None:
        flags, spare = sandbox.namespaces(config), self._spare
        if spare is not None and spare.flags == flags and spare.inherited == inherited:
            self._spare = None
            try:
                spare.assign(number, config, listener)
                spare.was_spare = True
                return
            except OSError:
                self._forget(spare)  # somebody killed it
        birth = self._fork(flags, inherited)
        try:
            birth.assign(number, config, listener)
        except OSError as error:
            self._forget(birth)
            if not isinstance(error, ConnectionError):
                raise
            raise _failed("the shim died before it was asked for its sandbox") from error

    def _fork(self, flags: int, inherited: sandbox.Inheritance) -> _Birth:
        birth = _Birth(flags, inherited)
        self._births[birth.report] = birth
        self._poll.register(birth.report, select.POLLIN)
        return birth

    def _reported(self, birth: _Birth) -> None:
        try:
            part = os.read(birth.report, MAX_PACKET)
        except BlockingIOError:
            return
        birth.heard += part
        if part:
            return
        self._forget(birth)
        if birth.config is None:
            self._inheritance = (
                None  # no other spare before the next spawn, which will hear why if it goes on
            )
            return
        try:
            message = json.loads(birth.heard)
        except ValueError:
            clean_up(birth.config)
            if birth.was_spare:  # it may have been dead before it was asked: a fresh one gets a try
                self._spawn_or_answer(birth.number, birth.config)
            else:
                self._answer_error(birth.number, _failed("the shim died before its sandbox was ready"))
            return
        if "error" in message:
            clean_up(birth.config)
        self._send({"id": birth.number, **message})

    def _overdue(self, birth: _Birth) -> None:
        birth.kill()
        self._forget(birth)
        if birth.config is not None:
            clean_up(birth.config)
        self._answer_error(
            birth.number, _failed(f"the shim was not ready within {SPAWN_SECONDS:.0f} seconds")
        )

    def _forget(self, birth: _Birth) -> None:
        if birth is self._spare:
            self._spare = None
        self._poll.unregister(birth.report)
        del self._births[birth.report]
        birth.close()

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
        if state.occupied(config.run_dir):
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


def _failed(sentence: str) -> RuntimeFault:
    return RuntimeFault(sentence, reason="CreatePodSandboxError", retriable=True)


def _become_shim(control: socket.socket, report: int, flags: int, inherited: sandbox.Inheritance) -> NoReturn:
    code = 1
    try:
        code = shim.run(control, report, flags, inherited)
    finally:
        os._exit(code)


def warm_up() -> list[str]:
    """Do once what every shim or container would do again: compile the default seccomp profile, find the cgroups.
    Returns sentences about what this machine lacks for it."""
    from runtime import cgroups
    from runtime.security import seccomp
    from runtime.security.capabilities import last_cap
    from runtime.security.capability_names import DEFAULT_CAPS

    cgroups.warm()
    last_cap()
    # what most containers have, and `drop: [ALL]`
    profiles = [seccomp.default_profile(frozenset(caps)) for caps in (DEFAULT_CAPS, ())]
    try:
        seccomp.compile_apart(profiles)
    except RuntimeFault as fault:
        return [f"no seccomp here: {fault}"]
    return []


def share() -> None:
    """What there is now is the shims' too, for ever: neither they nor the collector shall write into its pages."""
    gc.collect()
    immortalise()
    fill_gaps()
    gc.freeze()


def main(fd: int) -> None:
    """Entry point; `fd` is the daemon's socketpair end."""
    with open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write("forkserver")  # what ps and top show; a sealed interpreter was executed as /proc/self/fd/N
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the daemon's terminal: the daemon decides
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    daemon = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    warnings = warm_up()
    server = Forkserver(daemon)
    share()
    server.announce(warnings)
    server.serve()
    os._exit(0)
