"""The forkserver: a process that imports everything once and from which shims are forked. The daemon starts it.

It runs as `python -I -S -c "…main(fd)"` with a minimal environment, so shims contain neither the daemon's memory nor
its secrets. It exchanges JSON packets over an inherited seqpacket socket:

    ← {"ready": {"pid": …}}                    once, when everything is imported
    ← {"spare": {"pid": …}}                    each time a new spare shim is ready
    ← {"warning": sentence}                    for the node's log
    → {"prepare": {"shim_cgroup": …, "oom_score_adj": …}}   optional: prepare a spare shim before the first spawn
    → {"id": n, "fork": program}               see beside.py
    → {"id": n, "sandbox": SandboxConfig}
    ← {"id": n, "ok": {"sandbox": SandboxRecord, "warnings": […]}} | {"id": n, "error": {…}}

One spare shim is kept that is already forked and in new namespaces, because the kernel's part of that takes more than
half of a spawn. It receives its sandbox's config over a socket, with the listening socket of the run directory. If
there is no suitable spare, a spawn forks a new shim and assigns it at once.

A shim is forked only once, and SIGCHLD is ignored here, so the kernel reaps a failed shim and no zombie remains. When
this process exits, its shims become children of init. (A second fork would do that at once, but take half a millisecond
per pod.) At end of file on the socket the daemon has exited, and this process exits too; shims continue.
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
from runtime.shim.warm.beside import Origin, fork
from runtime.shim.warm.immortal import immortalise, supported
from runtime.shim.warm.packing import fill_gaps, pack, snapshot
from runtime.shim.warm.rehearsal import rehearse
from runtime.shim.warm.trial import trial

# The namespaces of nearly every pod.
SPARE_NAMESPACES = syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
SPARE_PAUSE_MS = 5  # idle time before a spare is created, so that it does not delay a burst of pods
SPAWN_SECONDS = 20.0  # a shim that has not reported by then is killed and cleaned up


class _PendingShim:
    """A forked shim that has not reported yet. Before `assign` it is a spare: it has namespaces but no sandbox."""

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
                # Not os.fork: its after-fork work in the interpreter, which we do not need without threads, would cost
                # each shim fifty pages.
                self.pid, self.pidfd = syscalls.clone3(0, exit_signal=signal.SIGCHLD)
                if self.pid == 0:
                    _become_shim(theirs, report_w, flags, inherited)
            undo.pop_all()
        self.control = ours

    def assign(self, number: object, config: SandboxConfig, listener: socket.socket) -> None:
        """Send the shim its sandbox's config. OSError (EPIPE, ECONNRESET) if it is dead."""
        packet = json.dumps(config.to_json(), separators=(",", ":")).encode()
        socket.send_fds(self.control, [packet], [listener.fileno()])
        self.number, self.config = number, config
        self.deadline = time.monotonic() + SPAWN_SECONDS

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Close our descriptors. A spare that is not assigned then exits."""
        self.control.close()
        os.close(self.report)
        os.close(self.pidfd)


class Forkserver:
    def __init__(self, daemon: socket.socket, origin: Origin) -> None:
        self._daemon = daemon
        self._origin = origin
        self._poll = select.poll()
        self._poll.register(daemon.fileno(), select.POLLIN)
        self._pending: dict[int, _PendingShim] = {}  # by the descriptor of the report pipe
        self._spare: _PendingShim | None = None
        self._inheritance: sandbox.Inheritance | None = None
        self._rehearsed = False

    def _warn(self, sentence: str) -> None:
        self._send({"warning": sentence})

    def announce(self, warnings: Sequence[str] = ()) -> None:
        """Report to the daemon that we are ready, with warnings."""
        for warning in warnings:
            self._warn(warning)
        self._send({"ready": {"pid": os.getpid()}})

    def serve(self) -> None:
        """Serve requests until the daemon exits."""
        while True:
            ready = self._poll.poll(self._timeout())
            for fd, _ in ready:
                if fd == self._daemon.fileno():
                    if not self._request():
                        return
                elif fd in self._pending:  # otherwise removed earlier in this round
                    self._reported(self._pending[fd])
            for pending in [p for p in self._pending.values() if p.deadline <= time.monotonic()]:
                self._overdue(pending)
            if not ready and self._spare is None and self._inheritance is not None:
                self._rehearse(self._inheritance)
                self._spare = self._fork(SPARE_NAMESPACES, self._inheritance)
                self._send({"spare": {"pid": self._spare.pid}})

    def _rehearse(self, inherited: sandbox.Inheritance) -> None:
        """Run the rehearsal once. Only with immortal objects: without them a shim copies the pages anyway."""
        if not self._rehearsed and supported():
            # What shims keep and what their children free again must not share pages.
            before, cgroup = snapshot(), inherited.shim_cgroup
            rehearse(cgroup, self._warn, shim_only=True)
            packed = pack(before, also=trial(SPARE_NAMESPACES, inherited, before, self._warn))
            before = snapshot()
            rehearse(cgroup, self._warn)
            pack(before, but=packed)
            rehearse(cgroup, self._warn)
            share()
        self._rehearsed = True

    def _timeout(self) -> float | None:
        """The poll timeout in milliseconds. Short if a spare is needed, which is created when there is nothing else to
        do."""
        if self._spare is None and self._inheritance is not None:
            return SPARE_PAUSE_MS
        first = min((p.deadline for p in self._pending.values()), default=math.inf)
        return None if first == math.inf else max(first - time.monotonic(), 0.0) * 1000 + 1

    def _request(self) -> bool:
        try:
            packet, fds, _, _ = socket.recv_fds(self._daemon, MAX_PACKET, 1)
        except ConnectionError:
            return False
        if not packet:
            return False
        request = json.loads(packet)
        number = request.get("id")
        if "fork" in request:
            self._fork_beside(number, request["fork"], fds)
            return True
        if "prepare" in request:
            with contextlib.suppress(OSError, RuntimeFault):  # the first spawn retries and reports the error
                self._inherit(**request["prepare"])
            return True
        try:
            config = SandboxConfig.from_json(request["sandbox"])
        except (TypeError, KeyError) as error:
            self._answer_error(number, RuntimeFault(f"not a SandboxConfig: {error}", reason="BadRequest"))
            return True
        self._spawn_or_answer(number, config)
        return True

    def _fork_beside(self, number: object, program: dict[str, Any], fds: list[int]) -> None:
        """Fork another process of the node, after the rehearsal: before it, the fork would unshare the pages that the
        rehearsal writes to."""
        try:
            (connection,) = fds
            os.set_inheritable(connection, False)
            if self._inheritance is not None:
                self._rehearse(self._inheritance)
            self._send({"id": number, "ok": {"pid": fork(program, connection, self._origin)}})
        except (RuntimeFault, ValueError) as error:
            fault = error if isinstance(error, RuntimeFault) else RuntimeFault(f"not a program: {error}")
            self._answer_error(number, fault)
        finally:
            for fd in fds:
                os.close(fd)

    def _spawn_or_answer(self, number: object, config: SandboxConfig) -> None:
        try:
            self._spawn(number, config)
        except RuntimeFault as fault:
            self._answer_error(number, fault)
        except OSError as error:
            sentence = f"the sandbox cannot be created: {error}"
            self._answer_error(number, RuntimeFault(sentence, reason="CreatePodSandboxError"))

    def _inherit(self, shim_cgroup: str, oom_score_adj: int) -> sandbox.Inheritance:
        self._inheritance, warnings = sandbox.prepare_inheritance(
            shim_cgroup, oom_score_adj, self._inheritance
        )
        for warning in warnings:
            self._warn(warning)
        return self._inheritance

    def _spawn(self, number: object, config: SandboxConfig) -> None:
        inherited = self._inherit(config.shim_cgroup, config.oom_score_adj)
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
                self._forget(spare)  # it has died
        pending = self._fork(flags, inherited)
        try:
            pending.assign(number, config, listener)
        except OSError as error:
            self._forget(pending)
            if not isinstance(error, ConnectionError):
                raise
            raise _failed("the shim died before it received its sandbox's config") from error

    def _fork(self, flags: int, inherited: sandbox.Inheritance) -> _PendingShim:
        pending = _PendingShim(flags, inherited)
        self._pending[pending.report] = pending
        self._poll.register(pending.report, select.POLLIN)
        return pending

    def _reported(self, pending: _PendingShim) -> None:
        try:
            part = os.read(pending.report, MAX_PACKET)
        except BlockingIOError:
            return
        pending.heard += part
        if part:
            return
        self._forget(pending)
        if pending.config is None:
            # Create no other spare before the next spawn, which reports the reason if this repeats.
            self._inheritance = None
            return
        try:
            message = json.loads(pending.heard)
        except ValueError:
            clean_up(pending.config)
            if pending.was_spare:  # it may have died before the assignment: try a new one
                self._spawn_or_answer(pending.number, pending.config)
            else:
                self._answer_error(pending.number, _failed("the shim died before its sandbox was ready"))
            return
        if "error" in message:
            clean_up(pending.config)
        self._send({"id": pending.number, **message})

    def _overdue(self, pending: _PendingShim) -> None:
        pending.kill()
        self._forget(pending)
        if pending.config is not None:
            clean_up(pending.config)
        self._answer_error(
            pending.number, _failed(f"the shim was not ready within {SPAWN_SECONDS:.0f} seconds")
        )

    def _forget(self, pending: _PendingShim) -> None:
        if pending is self._spare:
            self._spare = None
        self._poll.unregister(pending.report)
        del self._pending[pending.report]
        pending.close()

    def _answer_error(self, number: object, fault: RuntimeFault) -> None:
        error = {"reason": fault.reason, "message": str(fault), "retriable": fault.retriable}
        self._send({"id": number, "error": error})

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # the daemon has exited: end of file follows
            self._daemon.send(json.dumps(message).encode())


def prepare_run_dir(config: SandboxConfig, undo: contextlib.ExitStack) -> socket.socket:
    """Create the run directory and its listening socket. StateError if it belongs to another sandbox, alive or dead."""
    os.makedirs(os.path.dirname(config.run_dir), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(config.run_dir, 0o700)
    if os.listdir(config.run_dir):
        if state.occupied(config.run_dir):
            raise StateError(
                f"pod {config.uid} already has a running shim ({config.run_dir})", reason="AlreadyExists"
            )
        raise StateError(
            f"{config.run_dir} is a leftover of a dead shim: clean it up first", reason="StaleSandbox"
        )
    undo.callback(state.remove_run_dir, config.run_dir)
    state.write_json(config.run_dir, state.CONFIG, config.to_json())
    return state.listen(config.run_dir)


def clean_up(config: SandboxConfig) -> None:
    """Clean up what a failed shim could not undo itself."""
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
    """Do once what every shim or container would otherwise repeat: compile the default seccomp profiles, detect
    cgroups. Returns warnings."""
    from runtime import cgroups
    from runtime.security import seccomp
    from runtime.security.capabilities import last_cap
    from runtime.security.capability_names import DEFAULT_CAPS

    cgroups.warm()
    last_cap()
    # the capabilities of most containers, and those of `drop: [ALL]`
    profiles = [seccomp.default_profile(frozenset(caps)) for caps in (DEFAULT_CAPS, ())]
    try:
        seccomp.compile_apart(profiles)
    except RuntimeFault as fault:
        return [f"seccomp is not available: {fault}"]
    return []


def share() -> None:
    """Make the pages of all present objects shareable with forked shims: afterwards neither reference counting nor the
    garbage collector writes to them."""
    gc.collect()
    immortalise()
    fill_gaps()
    gc.freeze()


def main(fd: int) -> None:
    """Entry point; `fd` is the daemon's socketpair end."""
    with open("/proc/self/comm", "w", encoding="ascii") as name:
        # shown by ps and top; otherwise it would be the N of /proc/self/fd/N, the sealed interpreter
        name.write("forkserver")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the daemon's terminal is for the daemon
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A stopped process would not see the end of file, and stay. SIGCONT does not interrupt a spawn, as SIGKILL would.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGCONT)
    daemon = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    warnings = warm_up()
    server = Forkserver(daemon, Origin.here())
    share()
    server.announce(warnings)
    server.serve()
    os._exit(0)
