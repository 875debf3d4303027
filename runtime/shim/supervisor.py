"""The containers of one pod, from create to delete.

`Supervised` is a container: the engine's handle, its stdio and log, a pending stop, and how it ended. `Supervisor`
holds them all, reaps children (including all orphans of the pod, because the shim is a subreaper), and calls `changed`
whenever a record changes.

An exit is handled in this order: reap the process; read from its cgroup, which still exists, whether the OOM killer
killed it; read the remaining output (a process outside the container may hold a pipe open, so this is limited to
DRAIN_SECONDS); then set the record to `stopped` and send the event.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from runtime.errors import NotFoundError, RuntimeFault, StartError, StateError, SyscallError
from runtime.oci import container as engine
from runtime.shim import creator, foreign, logs, streams
from runtime.shim.logs import LogFile
from runtime.shim.loop import Loop, Timer
from runtime.shim.protocol import ContainerRecord, ContainerStatus, CreateContainer, RootfsOverlay
from runtime.shim.state import process_start

if TYPE_CHECKING:
    from runtime.cgroups import Cgroup
    from runtime.oci.rootfs.procfs import Procfs
    from runtime.shim.pause import Pause

DRAIN_SECONDS = 0.5
KILL_AGAIN_SECONDS = 1.0  # interval for repeating SIGKILL to a container that has not died (frozen, forking)
START_FAILED = 128  # exit code of a container whose program could not be executed (as in containerd)


class Supervised:
    """A container instance. `record()` returns its state for others."""

    def __init__(self, request: CreateContainer, handle: engine.Container | foreign.Foreign) -> None:
        self.request = request
        self.handle = handle
        self.status = ContainerStatus.CREATED
        self.pid = handle.pid
        self.pid_start = process_start(handle.pid)
        self.created_at = time.time()
        self.started_at = self.finished_at = 0.0
        self.exit_code = -1
        self.signal = 0
        self.oom_killed = False
        self.reason = self.message = ""
        self.stop_signal = 0
        self.stop_deadline = 0.0
        self.labels = dict(request.labels)
        self.oom_base = handle.cgroup.oom_kills()  # 0 unless the cgroup is older than the container
        self.own_pid_namespace = True
        self.log: LogFile | None = None
        self.outputs: list[streams.Stream] = []
        self.stdin_w = -1
        self.master = -1
        self.stop_timer: Timer | None = None
        self.drain_timer: Timer | None = None
        self.dying = False  # reaped, but its output is not completely read yet

    @property
    def live(self) -> bool:
        return self.status in (ContainerStatus.CREATED, ContainerStatus.RUNNING)

    def record(self) -> ContainerRecord:
        ended = not self.live
        return ContainerRecord(
            id=self.request.container_id,
            name=self.request.name,
            attempt=self.request.attempt,
            status=self.status.value,
            pid=0 if ended else self.pid,
            pid_start=0 if ended else self.pid_start,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at if ended else 0.0,
            exit_code=self.exit_code if ended else -1,
            signal=self.signal if ended else 0,
            oom_killed=self.oom_killed if ended else False,
            reason=self.reason,
            message=self.message,
            bundle=self.request.bundle,
            log_path=self.request.log_path,
            cgroup=self.handle.cgroup.path,
            stop_signal=self.stop_signal,
            stop_deadline=self.stop_deadline,
            labels=self.labels,
        )

    def release_stdio(self) -> None:
        """Close the shim's ends of its stdio, and its log. Unread output is lost."""
        for stream in self.outputs:
            stream.close()
        if self.log is not None:
            self.log.close()
            self.log = None
        for fd in {self.stdin_w, self.master} - {-1}:
            os.close(fd)
        self.stdin_w = self.master = -1

    def cancel_timers(self) -> None:
        for timer in (self.stop_timer, self.drain_timer):
            if timer is not None:
                timer.cancel()
        self.stop_timer = self.drain_timer = None


class Supervisor:
    """Calls `changed(container)` after each change of a record, and `other_child(pid, exit_code)` for children that are
    not containers."""

    def __init__(
        self,
        loop: Loop,
        changed: Callable[[Supervised], None],
        ended: Callable[[Supervised], None],
        other_child: Callable[[int, int], None],
        *,
        pause: Pause | None = None,
        pod: Cgroup | None = None,
    ) -> None:
        self._loop = loop
        self._procfs = pause.procfs if pause is not None else None
        self._changed = changed
        self._ended = ended
        self._other_child = other_child
        self._pod = pod  # the cgroup above the containers' cgroups
        self.containers: dict[str, Supervised] = {}

    def get(self, container_id: str) -> Supervised:
        try:
            return self.containers[container_id]
        except KeyError:
            raise NotFoundError(f"no container {container_id} in this sandbox") from None

    def running(self, container_id: str) -> Supervised:
        found = self.get(container_id)
        if found.status is not ContainerStatus.RUNNING or found.dying:
            raise StateError(f"container {container_id} is not running: it is {found.status}")
        return found

    @property
    def live(self) -> list[Supervised]:
        return [c for c in self.containers.values() if c.live]

    # --- create and start ---

    def create(self, request: CreateContainer) -> Supervised:
        if request.container_id in self.containers:
            raise StateError(f"container {request.container_id} already exists", reason="AlreadyExists")
        spec = _spec_for(request)
        try:
            made = self._make(request, spec)
        except StartError as fault:
            if spec is None or not request.runtime:
                raise
            # another runtime reports at create that the program cannot be executed
            made = Supervised(
                request, foreign.not_created(request.runtime, request.container_id, request.bundle, spec)
            )
            self.containers[request.container_id] = made
            self._start_failed(made, fault)
            raise
        self.containers[request.container_id] = made
        self._changed(made)
        return made

    def _make(self, request: CreateContainer, spec: dict[str, Any] | None) -> Supervised:
        with ExitStack() as undo:
            log = open_log(request, undo)
            ends = _stdio(request, spec)
            undo.callback(ends.close)
            handle = _engine_create(request, spec, ends, self._procfs)
            undo.callback(handle.delete)  # kills it too; the SIGCHLD handler reaps it
            made = self.adopt(request, handle, ends, log)
            undo.pop_all()
        ends.close()  # the container's ends, of which it has copies
        return made

    def adopt(
        self,
        request: CreateContainer,
        handle: creator.Container | foreign.Foreign,
        ends: streams.Ends,
        log: LogFile | None,
    ) -> Supervised:
        """Take over a created container, its stdio and its log."""
        with ExitStack() as undo:
            made = Supervised(request, handle)
            undo.callback(made.release_stdio)
            self._take_ends(made, ends, log)
            undo.pop_all()
        if isinstance(handle, creator.Container):
            made.own_pid_namespace = handle.own_pid_namespace
        else:
            made.own_pid_namespace = _has_own_pid_namespace(handle.spec)
        if request.termination_message_path:
            made.labels.setdefault("kubelite.io/termination-message-path", request.termination_message_path)
        return made

    def _take_ends(self, made: Supervised, ends: streams.Ends, log: LogFile | None) -> None:
        made.log = log
        made.stdin_w = ends.release(ends.stdin_w)
        made.master = ends.release(ends.master)
        for fd, name in ((ends.stdout_r, "stdout"), (ends.stderr_r, "stderr")):
            if fd >= 0:
                stream = streams.Stream(self._loop, fd, name, log, lambda: self._output_ended(made))
                ends.release(fd)
                made.outputs.append(stream)

    def start(self, container_id: str) -> Supervised:
        """Start a container. If its program cannot be executed, the record becomes stopped with exit code 128 and the
        reason."""
        found = self.get(container_id)
        if found.status is not ContainerStatus.CREATED:
            raise StateError(f"container {container_id} cannot be started: it is {found.status}")
        try:
            found.handle.start()
        except RuntimeFault as fault:
            self._start_failed(found, fault)
            raise
        found.status = ContainerStatus.RUNNING
        found.started_at = time.time()
        self._changed(found)
        return found

    def _start_failed(self, found: Supervised, fault: RuntimeFault) -> None:
        self._signal(found, signal.SIGKILL)
        found.reason, found.message = fault.reason, str(fault)
        found.exit_code = START_FAILED
        found.finished_at = time.time()
        self._finish(found)

    # --- stop and kill ---

    def stop(self, container_id: str, number: int, grace: float) -> None:
        """Send signal `number` once, now, and SIGKILL after `grace` seconds. A repeated call can only shorten the time.

        With number 0 only the deadline is set, because something else happens first; the signal follows with a new
        grace.
        """
        found = self.get(container_id)
        if not found.live or found.dying:
            return
        deadline = time.time() + max(grace, 0.0)
        first = not found.stop_signal
        if not first and deadline >= found.stop_deadline:
            return
        found.stop_signal = found.stop_signal or number
        found.stop_deadline = deadline
        if found.stop_timer is not None:
            found.stop_timer.cancel()
        # an init that waits for start handles no other signal
        if grace <= 0 or found.status is ContainerStatus.CREATED:
            self._kill_now(found)
        else:
            if first and number:
                self._signal(found, number)
            found.stop_timer = self._loop.after(grace, lambda: self._kill_now(found))
        self._changed(found)

    def _kill_now(self, found: Supervised) -> None:
        """Send SIGKILL repeatedly until the container is reaped, because it may be frozen or forking."""
        self.reap()  # if it has already exited, that exit counts, not our signal
        if not found.live or found.dying:
            return
        self._signal(found, signal.SIGKILL)
        found.stop_timer = self._loop.after(KILL_AGAIN_SECONDS, lambda: self._kill_now(found))

    def kill(self, container_id: str, number: int, everything: bool) -> None:
        found = self.get(container_id)
        if not found.live or found.dying:
            raise StateError(f"container {container_id} is not running: it is {found.status}")
        if number == signal.SIGKILL:
            self._signal(found, number, everything)
        else:
            found.handle.kill(number, everything=everything)

    def _signal(self, found: Supervised, number: int, everything: bool = False) -> None:
        """Signal the init. Without its own pid namespace, SIGKILL goes to everything in its cgroup."""
        if number == signal.SIGKILL:
            # From here on the container dies by our signal, unless an OOM kill is counted after this moment.
            found.oom_base = max(found.oom_base, found.handle.cgroup.oom_kills())
            everything = everything or not found.own_pid_namespace
        try:
            found.handle.kill(number, everything=everything)
        except StateError:
            return  # it has exited; the next reap handles that
        except SyscallError as error:
            if error.errno != errno.ESRCH:
                raise
            return
        if number == signal.SIGKILL:  # on cgroup v1 a frozen process dies only when thawed
            found.handle.cgroup.thaw_all()
            if self._pod is not None and found.handle.cgroup.frozen():
                self._pod.thaw()

    def kill_all(self) -> None:
        for found in self.live:
            self._kill_now(found)

    def remove_cgroups(self) -> None:
        """Remove the cgroups of stopped containers. The caller removes the pod's cgroup with the rest."""
        for found in self.containers.values():
            if not found.live:
                found.handle.cgroup.remove()

    # --- exit ---

    def reap(self) -> None:
        """Reap all dead children: containers, execs, and their orphans that have become our children."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            found = next((c for c in self.live if c.pid == pid and not c.dying), None)
            if found is not None:
                self._reaped(found, code)
            else:
                self._other_child(pid, code)

    def _reaped(self, found: Supervised, code: int) -> None:
        found.dying = True
        found.finished_at = time.time()
        found.signal = -code if code < 0 else 0
        found.exit_code = 128 - code if code < 0 else code
        grew = found.handle.cgroup.oom_kills() > found.oom_base
        # A shell exits with 137 if its child was killed.
        found.oom_killed = grew and found.exit_code == 128 + signal.SIGKILL
        found.cancel_timers()
        if not found.own_pid_namespace:
            # what cannot be killed now is killed when the cgroup is removed
            with contextlib.suppress(RuntimeFault):
                found.handle.cgroup.kill()
        for stream in found.outputs:
            stream.drain()
        if not any(stream.open for stream in found.outputs):
            self._finish(found)
        else:
            found.drain_timer = self._loop.after(DRAIN_SECONDS, lambda: self._finish(found))

    def _output_ended(self, found: Supervised) -> None:
        if found.dying and not any(stream.open for stream in found.outputs):
            self._finish(found)

    def _finish(self, found: Supervised) -> None:
        if not found.live:
            return
        found.status = ContainerStatus.STOPPED
        found.cancel_timers()
        for stream in found.outputs:
            stream.drain()
        found.release_stdio()
        self._changed(found)
        self._ended(found)

    def delete(self, container_id: str) -> None:
        found = self.get(container_id)
        if found.live:
            raise StateError(f"container {container_id} is {found.status}: stop it before deleting it")
        found.handle.delete()
        del self.containers[container_id]
        self._changed(found)


def _stdio(request: CreateContainer, spec: dict[str, Any] | None) -> streams.Ends:
    """Pipes or a terminal. If the container has a devpts, the terminal is opened there, so that `tty` prints
    /dev/pts/0."""
    if not request.tty:
        return streams.Pipes(request.stdin)
    assert spec is not None  # _spec_for has read it
    if request.runtime or any(mount.get("type") == "devpts" for mount in spec.get("mounts") or ()):
        return streams.GivenTerminal()
    return streams.Terminal(0, log=True)


def _engine_create(
    request: CreateContainer, spec: dict[str, Any] | None, ends: streams.Ends, procfs: Procfs | None
) -> creator.Container | foreign.Foreign:
    if not request.runtime:
        return creator.create(request, ends, procfs)
    assert spec is not None  # _spec_for has read it
    creator.cgroup_path(spec, request.bundle)
    creator.set_oom_group(spec)
    given = ends.take if isinstance(ends, streams.GivenTerminal) else None
    return foreign.create(
        spec,
        runtime=request.runtime,
        container_id=request.container_id,
        bundle=request.bundle,
        stdio=engine.Stdio(ends.stdin, ends.stdout, ends.stderr) if given is None else None,
        overlay=RootfsOverlay.from_json(request.rootfs) if request.rootfs is not None else None,
        console=given,
    )


def open_log(request: CreateContainer, undo: ExitStack) -> LogFile | None:
    if not request.log_path:
        return None
    existed = os.path.exists(request.log_path)
    try:
        log = LogFile(request.log_path, max_bytes=request.log_max_bytes, max_files=request.log_max_files)
    except OSError as error:
        raise RuntimeFault(
            f"the log {request.log_path} cannot be opened: {error.strerror}", reason="CreateContainerError"
        ) from error
    if not existed:
        undo.callback(logs.unlink, request.log_path)
    undo.callback(log.close)
    return log


def _spec_for(request: CreateContainer) -> dict[str, Any] | None:
    """config.json, if the shim itself needs it. Otherwise the child that creates the container reads it."""
    return creator.read_spec(request.bundle) if request.runtime or request.tty else None


def _has_own_pid_namespace(spec: dict[str, Any]) -> bool:
    namespaces = (spec.get("linux") or {}).get("namespaces") or []
    return any(n.get("type") == "pid" and not n.get("path") for n in namespaces)
