"""A pod's shim: the process that holds the pod's sandbox, and the stdio, logs and exit codes of its containers. It
outlives the daemon.

    forkserver ──fork──► run() ── set up the sandbox ── write state.json ── report to the forkserver ── event loop
                                       └ on any failure: undo, report, exit

It is single-threaded. Every change is written to state.json before it is announced, so a daemon that starts later gets
the same information as one that received the events.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from runtime.errors import RuntimeFault, StateError
from runtime.security import seccomp
from runtime.shim import sandbox, state, streams
from runtime.shim.exec import Execs
from runtime.shim.loop import Loop, Timer
from runtime.shim.protocol import (
    EVENT_EXIT,
    MAX_PACKET,
    VERSION,
    CreateContainer,
    ExecRequest,
    Op,
    SandboxConfig,
    SandboxRecord,
)
from runtime.shim.server import Answer, Client, Server, answer_later, close_fds
from runtime.shim.supervisor import Supervised, Supervisor

# how long a forced shutdown waits for killed (perhaps uninterruptible) processes to die
SHUTDOWN_SECONDS = 10.0
REWRITE_SECONDS = 1.0
LOG_LIMIT = 256 * 1024  # bytes of shim.log, so that a repeated fault does not fill /run


def run(control: socket.socket, report: int, flags: int, inherited: sandbox.Inheritance) -> int:
    """Run the shim in a newly forked process; returns its exit code.

    It creates its namespaces (`flags`) and waits on `control` for its sandbox's config; a spare shim waits there until
    it is needed. `report` is a pipe to the forkserver for one JSON object. If the forkserver has died before the
    report, nobody will use this shim, so everything is undone.
    """
    undo = ExitStack()
    try:
        sandbox.become_daemon({control.fileno(), report}, flags)
        packet, fds, _, _ = socket.recv_fds(control, MAX_PACKET, 1)
        if not packet:
            return 0
        config, listener = SandboxConfig.from_json(json.loads(packet)), socket.socket(fileno=fds[0])
        listener.set_inheritable(False)
        control.close()
        undo.callback(state.remove_run_dir, config.run_dir)
        seccomp.compile_in_children(f"{os.path.dirname(os.path.dirname(config.run_dir))}/seccomp")
        place = sandbox.set_up(config, inherited, undo)
        shim = Shim(config, place, listener)
        shim.write_state()
        _tell(report, {"ok": {"sandbox": shim.record().to_json(), "warnings": place.warnings}})
        undo.pop_all()
    except BaseException as error:  # noqa: BLE001  after any error: undo and report
        _undo_and_tell(undo, report, error)
        return 1
    for warning in place.warnings:
        shim.log(warning)
    shim.loop.run()
    return 0


def _tell(report: int, message: dict[str, Any]) -> None:
    content = json.dumps(message).encode()
    while content:
        content = content[os.write(report, content) :]
    os.close(report)


def _undo_and_tell(undo: ExitStack, report: int, error: BaseException) -> None:
    fault = error if isinstance(error, RuntimeFault) else None
    reason = fault.reason if fault else "CreatePodSandboxError"
    retriable = fault.retriable if fault else False
    try:
        undo.close()
    except (OSError, RuntimeFault) as failed:
        error.add_note(f"cleaning up failed too: {failed}")
    message = "; ".join([f"the sandbox could not be set up: {error}", *getattr(error, "__notes__", [])])
    try:
        _tell(report, {"error": {"reason": reason, "message": message, "retriable": retriable}})
    except OSError:
        return  # the forkserver has died


class Shim:
    """Connects loop, server, supervisor and execs, and implements the operations of protocol.Op."""

    def __init__(self, config: SandboxConfig, place: sandbox.Place, listener: socket.socket) -> None:
        self.config = config
        self._pod, self._pause, self._cgroup_took = place.pod, place.pause, place.cgroup_took
        self._annotations = dict(config.annotations)
        self._pid = os.getpid()
        self._pid_start = state.process_start(self._pid)
        self._created_at = time.time()
        self._shutdown: tuple[Client, object, Timer] | None = None
        self._rewrite: Timer | None = None
        self._written: state.Written | None = None  # state.json
        self.loop = Loop(self._children, self._fault)
        self._supervisor = Supervisor(
            self.loop, self._changed, self._ended, self._other_child, pause=self._pause, pod=self._pod
        )
        self._execs = Execs(self.loop, self._exec_exited)
        self._server = Server(self.loop, listener, self._dispatch, self._client_left, self._fault)
        self._operations: dict[str, Callable[[Client, dict[str, Any]], Answer | None]] = {
            Op.STATE: self._op_state,
            Op.SUBSCRIBE: self._op_subscribe,
            Op.ANNOTATE: self._op_annotate,
            Op.CREATE: self._op_create,
            Op.START: self._op_start,
            Op.STOP: self._op_stop,
            Op.KILL: self._op_kill,
            Op.DELETE: self._op_delete,
            Op.UPDATE: self._op_update,
            Op.EXEC: self._op_exec,
            Op.RESIZE: self._op_resize,
            Op.ATTACH_FDS: self._op_attach,
            Op.TAP: self._op_tap,
            Op.SOCKET: self._op_socket,
            Op.ROTATE: self._op_rotate,
            Op.SHUTDOWN: self._op_shutdown,
        }

    # --- state ---

    def record(self) -> SandboxRecord:
        return SandboxRecord(
            version=VERSION,
            uid=self.config.uid,
            sandbox_id=self.config.sandbox_id,
            pid=self._pid,
            pid_start=self._pid_start,
            created_at=self._created_at,
            cgroup=self.config.cgroup,
            hostname=self.config.hostname,
            host_network=self.config.host_network,
            annotations=self._annotations,
            pause=self._pause.pid if self._pause is not None else 0,
            cgroup_took=self._cgroup_took,
            containers=[c.record().to_json() for c in self._supervisor.containers.values()],
        )

    def write_state(self) -> None:
        self._written = state.write_json(self.config.run_dir, state.STATE, self.record().to_json())

    def log(self, message: str) -> None:
        """Write a line to shim.log (our stderr) unless it has reached LOG_LIMIT."""
        try:
            if os.fstat(2).st_size < LOG_LIMIT:
                os.write(2, f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {message}\n".encode())
        except OSError:
            return

    def _fault(self) -> None:
        self.log("".join(traceback.format_exception(*sys.exc_info())).rstrip())

    def _changed(self, _container: Supervised) -> None:
        try:
            self.write_state()
        except OSError as error:
            # /run is full. Containers and clients are not affected; retry soon.
            self.log(f"state.json cannot be written: {error}")
            if self._rewrite is not None:
                self._rewrite.cancel()
            self._rewrite = self.loop.after(REWRITE_SECONDS, lambda: self._changed(_container))

    def _ended(self, container: Supervised) -> None:
        self._server.publish({"event": EVENT_EXIT, "container": container.record().to_json()})
        if self._shutdown is not None and not self._supervisor.live:
            self._finish_shutdown()
        elif self._pause is not None and self._pause.pid == 0:
            self._exit_when_empty()

    def close(self) -> None:
        """Close the listening socket and all connections."""
        self._server.close()

    # --- children and clients ---

    def _children(self) -> None:
        self._supervisor.reap()

    def _other_child(self, pid: int, exit_code: int) -> None:
        if self._pause is not None and pid == self._pause.pid:
            self.log(f"the pod's pause process has exited (code {exit_code}): stopping the sandbox")
            self._pause = self._pause.gone()
            self._supervisor.kill_all()
            self._exit_when_empty()
            return
        self._execs.reaped(pid, exit_code)  # or an orphan of the pod, which only had to be reaped

    def _exec_exited(self, owner: object, event: dict[str, Any]) -> None:
        self._server.publish(event, owner)

    def _client_left(self, client: Client) -> None:
        self._execs.owner_left(client)

    def _dispatch(self, client: Client, operation: str, args: dict[str, Any]) -> Answer | None:
        handler = self._operations.get(operation)
        if handler is None:
            raise RuntimeFault(
                f'this shim (version {VERSION}) does not support the operation "{operation}"',
                reason="UnknownOp",
            )
        return handler(client, args)

    # --- operations ---

    def _op_state(self, _client: Client, _args: dict[str, Any]) -> Answer:
        """Also writes state.json again if somebody has removed or damaged it."""
        if not state.is_intact(self.config.run_dir, state.STATE, self._written):
            self.write_state()
        return {"sandbox": self.record().to_json()}, []

    def _op_subscribe(self, client: Client, _args: dict[str, Any]) -> Answer:
        client.subscribed = True
        return {"sandbox": self.record().to_json()}, []

    def _op_annotate(self, _client: Client, args: dict[str, Any]) -> Answer:
        self._annotations |= _strings(args, "annotations")
        self.write_state()
        return {"sandbox": self.record().to_json()}, []

    def _op_create(self, _client: Client, args: dict[str, Any]) -> Answer:
        if self._shutdown is not None:
            raise StateError("this sandbox is shutting down")
        made = self._supervisor.create(_parse(CreateContainer, args))
        for warning in made.handle.warnings:
            self.log(f"container {made.request.name}: {warning}")
        warnings = list(made.handle.warnings)
        return {"container": made.record().to_json(), "warnings": warnings, "times": made.handle.times}, []

    def _op_start(self, _client: Client, args: dict[str, Any]) -> Answer:
        started = self._supervisor.start(_text(args, "container_id"))
        return {"container": started.record().to_json(), "times": started.handle.times}, []

    def _op_stop(self, _client: Client, args: dict[str, Any]) -> Answer:
        number, grace = int(_number(args, "signal")), _number(args, "grace")
        self._supervisor.stop(_text(args, "container_id"), number, grace)
        return {}, []

    def _op_kill(self, _client: Client, args: dict[str, Any]) -> Answer:
        number = int(_number(args, "signal"))
        self._supervisor.kill(_text(args, "container_id"), number, bool(args.get("all", False)))
        return {}, []

    def _op_delete(self, _client: Client, args: dict[str, Any]) -> Answer:
        self._supervisor.delete(_text(args, "container_id"))
        return {}, []

    def _op_update(self, _client: Client, args: dict[str, Any]) -> Answer:
        found = self._supervisor.get(_text(args, "container_id"))
        resources = args.get("resources") or {}
        if resources:
            if not found.live:
                raise StateError(
                    f"container {found.request.container_id} is {found.status}: its limits cannot be changed"
                )
            found.handle.update(resources)
        found.labels |= _strings(args, "labels")
        self._changed(found)
        return {"container": found.record().to_json()}, []

    def _op_exec(self, client: Client, args: dict[str, Any]) -> None:
        request, number = _parse(ExecRequest, args), args.get("id")
        self._execs.start(
            self._supervisor.running(request.container_id),
            request,
            client,
            started=lambda ok, fds: answer_later(client, number, ok, fds=fds),
            failed=lambda fault: answer_later(client, number, None, fault),
        )

    def _op_resize(self, _client: Client, args: dict[str, Any]) -> Answer:
        name, width, height = (
            _text(args, "exec_id"),
            int(_number(args, "width")),
            int(_number(args, "height")),
        )
        own = self._supervisor.containers.get(name)
        if own is None:
            self._execs.resize(name, width, height)
        elif own.master >= 0:
            streams.resize(own.master, width, height)
        return {}, []

    def _op_attach(self, _client: Client, args: dict[str, Any]) -> Answer:
        found = self._supervisor.get(_text(args, "container_id"))
        end = found.master if found.master >= 0 else found.stdin_w
        if end >= 0 and args.get("once") and end == found.stdin_w:
            found.stdin_w = -1  # the client now holds the only copy, so closing it ends the input
            return {}, [end]
        return {}, [os.dup(end)] if end >= 0 else []

    def _op_tap(self, _client: Client, args: dict[str, Any]) -> Answer:
        found = self._supervisor.running(_text(args, "container_id"))
        taps: list[int] = []
        try:
            for stream in found.outputs:
                taps.append(stream.tap())
        except OSError:  # no free descriptor: return neither of the two
            close_fds(taps)
            raise
        return {}, taps

    def _op_socket(self, _client: Client, args: dict[str, Any]) -> Answer:
        family = int(_number(args, "family"))
        if family not in (socket.AF_INET, socket.AF_INET6):
            raise StateError(f"a socket of the family {family} is none of TCP")
        return {}, [socket.socket(family, socket.SOCK_STREAM).detach()]

    def _op_rotate(self, _client: Client, args: dict[str, Any]) -> Answer:
        found = self._supervisor.get(_text(args, "container_id"))
        if found.log is None:
            raise StateError(f"container {found.request.container_id} has no open log")
        if not found.log.rotate(force=True):
            raise RuntimeFault(
                f"the log {found.log.path} cannot be rotated now", reason="RotateFailed", retriable=True
            )
        return {}, []

    # --- shutdown ---

    def _exit_when_empty(self) -> None:
        """After the pause process has died, exit once no container is alive.

        Without it no container can be created in this sandbox. The daemon finds our state.json and creates a new
        sandbox.
        """
        if not self._supervisor.live:
            self.close()
            self.loop.stop()

    def _op_shutdown(self, client: Client, args: dict[str, Any]) -> Answer | None:
        live = self._supervisor.live
        if live and not args.get("force", False):
            names = ", ".join(c.request.name for c in live)
            raise StateError(f"the sandbox still has live containers: {names}")
        if self._shutdown is not None:
            raise StateError("this sandbox is already shutting down")
        timer = self.loop.after(SHUTDOWN_SECONDS, self._shutdown_failed)
        self._shutdown = (client, args.get("id"), timer)
        self._supervisor.kill_all()
        if self._shutdown is not None and not self._supervisor.live:
            self._finish_shutdown()
        return None

    def _finish_shutdown(self) -> None:
        assert self._shutdown is not None
        client, number, timer = self._shutdown
        try:
            if self._pause is not None and self._pause.pid:
                self._pause.end()
                self._pause = None
            began = time.perf_counter()
            # inner cgroups first, so that each needs one rmdir(2) per hierarchy
            self._supervisor.remove_cgroups()
            self._pod.remove()
            took = time.perf_counter() - began
        except RuntimeFault as fault:
            self._shutdown = None
            timer.cancel()
            answer_later(client, number, None, fault)
            return
        state.remove_run_dir(self.config.run_dir)
        answer_later(client, number, {"cgroup_took": took})
        self.close()
        self.loop.stop()

    def _shutdown_failed(self) -> None:
        assert self._shutdown is not None
        client, number, _ = self._shutdown
        self._shutdown = None
        pids = ", ".join(str(c.pid) for c in self._supervisor.live)
        fault = StateError(
            f"processes of this sandbox do not die (pids {pids}) although SIGKILL was sent", retriable=True
        )
        answer_later(client, number, None, fault)


def _parse(kind: Any, args: dict[str, Any]) -> Any:
    try:
        return kind.from_json(args)
    except TypeError as error:  # a missing field: "missing 1 required positional argument: 'name'"
        raise RuntimeFault(f"{kind.__name__}: {error}", reason="BadRequest") from error


def _text(args: dict[str, Any], key: str) -> str:
    value = args.get(key)
    if not isinstance(value, str):
        raise RuntimeFault(f'"{key}" must be a string', reason="BadRequest")
    return value


def _number(args: dict[str, Any], key: str) -> float:
    value = args.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RuntimeFault(f'"{key}" must be a number', reason="BadRequest")
    return value


def _strings(args: dict[str, Any], key: str) -> dict[str, str]:
    value = args.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise RuntimeFault(f'"{key}" must map strings to strings', reason="BadRequest")
    return value
