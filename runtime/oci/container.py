"""A container's life cycle: create, start, kill, exec, update, delete.

Call this in the process that is the container's parent (a shim). It must be single-threaded, because clone3 copies the
interpreter. The caller reaps: the pid of a Container or ExecHandle is its child (`waitid(P_PIDFD, pidfd, WEXITED)`). A
child that fails before a handle exists is killed and reaped here. Operations follow runtime-spec runtime.md,
"Lifecycle".
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from signal import SIGKILL
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime import syscalls as sc
from runtime.cgroups import Cgroup, Place, open_cgroup
from runtime.errors import StateError, SyscallError
from runtime.oci import create_plan, prepare, spawn, termination
from runtime.oci.config import spec as oci
from runtime.oci.config import spec_linux
from runtime.oci.config.spec import Process, Spec
from runtime.oci.handshake import HANDSHAKE_SECONDS, converse
from runtime.oci.init_protocol import Command, Job, from_command, stamp, written
from runtime.oci.pending import ExecHandle, PendingExec

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.oci.rootfs.procfs import Procfs
    from runtime.shim.protocol import RootfsOverlay


class Stdio(NamedTuple):
    """Descriptors that become the process's 0, 1 and 2. The caller closes them."""

    stdin: int
    stdout: int
    stderr: int


@dataclass(slots=True)
class Container:
    """A created container. `warnings` are sentences about requested features that this machine does not provide."""

    id: str
    pid: int
    pidfd: int  # closed by delete()
    cgroup: Cgroup
    spec: Spec
    warnings: tuple[str, ...] = ()
    times: str = ""  # when each step of create, then of start, began; format: init_protocol.written
    _channel: socket.socket | None = None  # open until start or detach
    _seccomp: tuple[bytes, int] | None = None
    bundle: str = ""
    mounted: str = ""  # the mount to undo, from shared_root.mount

    @property
    def seccomp(self) -> tuple[bytes, int] | None:
        """(BPF, flags) of its filter, for a caller that stores it for a later exec."""
        return self._seccomp

    def start(self) -> None:
        """Let the init execute its program, and wait until execve has succeeded.

        Raises StartError with runc's message if execve fails; the init is then dead with exit code 1, and the caller
        reaps it. StateError if the container is not in the state `created`.
        """
        channel = self._channel
        if channel is None:
            raise StateError(f"container {self.id} cannot be started: it is not in the state created")
        self._channel = None
        began, times = time.monotonic_ns(), list[str]()
        with channel:
            try:
                channel.send(b"start")
            except (BrokenPipeError, ConnectionResetError) as error:
                raise StateError(f"container {self.id} cannot be started: its init is dead") from error
            program = self.spec["process"]["args"][0]
            converse(channel, f"container {self.id}", until_exec=True, program=program, times=times)
        self.times = f"{began} start\n sendto\n{''.join(times)}{time.monotonic_ns()} \n"

    def kill(self, signal: int, *, everything: bool = False) -> None:
        """Signal the init or, with `everything`, each process in the cgroup.

        With `everything`, new forks cannot escape: SIGKILL uses the cgroup's own kill, and other signals are sent while
        the cgroup is frozen. StateError if the init no longer exists.
        """
        if everything:
            termination.signal_all(self.cgroup, signal)
            return
        try:
            sc.pidfd_send_signal(self.pidfd, signal)
        except SyscallError as error:
            if error.errno != errno.ESRCH:
                raise
            raise StateError(f"container {self.id} is not running") from error

    def detach(self) -> None:
        """Release a container that was created with `Command.detached`. From now on its init waits for a connection."""
        channel, self._channel = self._channel, None
        if channel is None:
            raise StateError(f"container {self.id} is not waiting to be started")
        with channel:
            try:
                channel.send(b"detach")
            except (BrokenPipeError, ConnectionResetError) as error:
                raise StateError(f"container {self.id}: its init is dead") from error

    def exec(
        self, process: dict[str, Any], *, stdio: Stdio | None, console_slave: int | None = None
    ) -> ExecHandle:
        """Run `process` (the OCI object) in all of the container's namespaces and in its cgroup.

        Returns when execve has succeeded. Raises StartError (runc's message), SpecError, and StateError if the
        container is not running.
        """
        pending = self.begin_exec(process, stdio=stdio, console_slave=console_slave)
        return pending.wait(HANDSHAKE_SECONDS)

    def begin_exec(
        self,
        process: dict[str, Any],
        *,
        stdio: Stdio | None,
        console_slave: int | None = None,
        command: Command | None = None,
        place: Place | None = None,
    ) -> PendingExec:
        """Like `exec`, but return without waiting.

        The container can delay the new process: it can starve it of CPU, and its root can stop it (SIGSTOP). A caller
        that must not hang polls the PendingExec. `place`: a cgroup below the container's, to use instead of it.
        """
        self._check_running(paused_is_fine=command is not None and command.ignore_paused)
        wanted = oci.process({**prepare.inherited(self.spec["process"]), **process})
        spawn.guard_stdio()
        beside = prepare.unprivileged_join(self.spec)
        with ExitStack() as always, ExitStack() as undo:
            ours, theirs = spawn.channel_pair(undo)
            always.callback(theirs.close)
            given = {"channel": theirs, "stdio": stdio, "console": console_slave, "user_namespace": beside}
            fields, warnings = self._job_fields(wanted, always)
            fields |= {**given, **from_command(command)}
            who = f"exec in container {self.id}"
            if beside is not None:
                job = Job(cgroup=self.cgroup, **fields)
                child = _clone_init(job, ours, who, 0, into=None, pid_namespace=None, undo=undo)
            else:
                child = self._clone_beside(fields, place or self.cgroup, always, undo)
            self._join_resctrl(child[0])
            undo.pop_all()
            linux = self.spec.get("linux", {})
            state = prepare.hook_state(self.spec, self.id, self.bundle, "running", self.pid)

            def send_listener(child: tuple[int, int], listener: int) -> None:
                prepare.send_to_agent(linux, state, child, listener)

            final = not fields["enters_pid_namespace"]
            return PendingExec(
                *child, ours, who, warnings, send_listener, wanted["args"][0], final, self._join_resctrl
            )

    def _join_resctrl(self, pid: int) -> None:
        prepare.join_resctrl(self.spec, self.id, pid)

    def _job_fields(self, wanted: Process, always: ExitStack) -> tuple[dict[str, Any], list[str]]:
        """The Job fields for an additional process that describe the process and the container; and warnings."""
        linux, kinds = self.spec.get("linux", {}), oci.namespaces(self.spec)
        by_ordinary_user = prepare.unprivileged_join(self.spec) is not None
        caps, available, warnings = prepare.caps(wanted, in_user_namespace="user" in kinds)
        fields = {
            "process": wanted,
            "affinity": prepare.affinity(wanted),
            "parent": spawn.own_pidfd(always),
            "caps": caps,
            "available_caps": available,
            "join": ((self.pidfd, self._joined_kinds(by_ordinary_user=by_ordinary_user)),),
            "enters_pid_namespace": "pid" in kinds and not by_ordinary_user,
            "root": -1 if kinds.get("mount") == "" else self._open_root(always),
            "seccomp": self._seccomp,
            "notify": prepare.has_listener(self._seccomp),
            "memory_policy": spec_linux.memory_policy(linux),
            "personality": spec_linux.personality(linux),
            "stdio_owner": self._owner_of_stdio(wanted),
            "gate": False,
            "keyring": f"_ses.{self.id}",
        }
        return fields, warnings

    def _open_root(self, always: ExitStack) -> int:
        """A descriptor of the init's root directory, for a container without a mount namespace of its own.

        The init may have changed its root since. That is safe: the new process then gets the same root as the init.
        """
        fd = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        always.callback(os.close, fd)
        if termination.has_exited(self.pidfd):  # then the pid may already belong to another process
            raise StateError(f"cannot exec in container {self.id}: it is not running")
        return fd

    def _owner_of_stdio(self, process: Any) -> int:
        """The host uid that is to own the stdio of an exec. -1: leave the owner unchanged."""
        if not oci.namespaces(self.spec).get("user"):
            return -1
        return prepare.host_id(prepare.with_mappings(self.spec, self.pid), process)

    def _check_running(self, *, paused_is_fine: bool) -> None:
        if self._channel is not None or self.pidfd < 0 or termination.has_exited(self.pidfd):
            raise StateError(f"cannot exec in container {self.id}: it is not running")
        if not paused_is_fine and self.cgroup.frozen():  # the new process would be frozen before it answers
            raise StateError(f"cannot exec in container {self.id}: it is paused")

    def _joined_kinds(self, *, by_ordinary_user: bool) -> int:
        """The namespaces that an additional process joins, as CLONE_NEW* flags."""
        if by_ordinary_user:
            return spawn.flags_of(self.spec)  # only those: this user may not join the host's namespaces
        kinds = sc.CLONE_NEWNS | sc.CLONE_NEWNET | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS | sc.CLONE_NEWCGROUP
        wanted = oci.namespaces(self.spec)
        kinds |= sc.CLONE_NEWUSER if "user" in wanted else 0
        kinds |= sc.CLONE_NEWPID if "pid" in wanted else 0
        return kinds | (sc.CLONE_NEWTIME if "time" in wanted else 0)

    def _clone_beside(
        self, fields: dict[str, Any], where: Place, always: ExitStack, undo: ExitStack
    ) -> tuple[int, int]:
        """Clone the process into the container's cgroup or, if that is not allowed, into the cgroup of its init.

        On v2 no process may be in a cgroup that has enabled controllers for its children, as a service manager in the
        container does (cgroup-v2.rst, "No Internal Process Constraint"). runc does the same.
        """
        try:
            return self._clone_into(fields, where, always, undo)
        except SyscallError as error:
            leaf = spawn.cgroup_of(self.pid)
            if error.errno != errno.EBUSY or not leaf.startswith(f"{where.path}/"):
                raise
        return self._clone_into(fields, open_cgroup(leaf), always, undo)

    def _clone_into(
        self, fields: dict[str, Any], where: Place, always: ExitStack, undo: ExitStack
    ) -> tuple[int, int]:
        job = Job(cgroup=where, **fields)
        into = spawn.into_cgroup(where, always)
        return spawn.clone(job, 0, into=into, pid_namespace=None, undo=undo)

    def open_terminal(self) -> tuple[int, int]:
        """(master, slave) of a new terminal in the container's own /dev/pts, for exec(console_slave=).

        Programs in the container can find its name (ttyname(3)). The caller closes both. StateError if the container
        has no devpts.
        """
        root = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = os.O_RDWR | os.O_NOCTTY
            master = sc.openat2(
                root, "dev/pts/ptmx", flags, resolve=sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_SYMLINKS
            )
        except SyscallError as error:
            raise StateError(f"container {self.id} has no /dev/pts to open a terminal in") from error
        finally:
            os.close(root)
        try:
            if sc.fstatfs_type(master) != sc.DEVPTS_SUPER_MAGIC:  # the container may have mounted over it
                raise StateError(f"container {self.id} has no devpts on /dev/pts, but another file system")
            return master, sc.open_peer(master)
        except BaseException:
            os.close(master)
            raise

    def update(self, resources: dict[str, Any]) -> list[str]:
        """Apply OCI linux.resources to the cgroup. Limits that are not given stay unchanged. Returns warnings."""
        return self.cgroup.apply(resources)

    def delete(self) -> None:
        """Kill all remaining processes, and remove the cgroup and the mount that create left on the host. Idempotent.

        The caller still reaps an init that this kills.
        """
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self.pidfd >= 0:
            with contextlib.suppress(SyscallError):  # ESRCH: it has already exited
                sc.pidfd_send_signal(self.pidfd, SIGKILL)
        self.cgroup.remove()
        if self.mounted:
            from runtime.oci.rootfs import shared_root

            shared_root.unmount(self.mounted)
            self.mounted = ""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def create(
    spec: Spec,
    *,
    container_id: str,
    bundle: str,
    stdio: Stdio | None,
    console_slave: int | None = None,
    console: Callable[[int], None] | None = None,
    rootfs: RootfsOverlay | None,
    cgroup_path: str,
    parent_death_signal: int = SIGKILL,
    command: Command | None = None,
    procfs: Procfs | None = None,
    note_calls: Callable[[], None] | None = None,
    parent: int | None = None,
) -> Container:
    """Create the container, with its init waiting before execve.

    If process.terminal is set, the terminal is either `console_slave`, or a new one in the container's own devpts. The
    master of a new one is passed to `console`, which must close it. `stdio` None then means that the terminal is all
    three; without a terminal it means the caller's own.

    Raises SpecError, CapabilityError, SyscallError, StateError. After an exception nothing remains: no process, no
    cgroup, no descriptor, no mount (most exist only in the container's mount namespace; the others are undone:
    shared_root).

    `procfs`: a procfs of the pid namespace that the container joins, if processes in that namespace must not be able to
    access its init (pid_entry.py). `note_calls`: called in the init to record its system calls (optional.calls), for
    the trace of a start. `parent`: a pidfd of our parent, if the init is to be its child instead of ours.
    """
    given = {"stdio": stdio, "console": console_slave, "note_calls": note_calls}
    given |= {"parent": parent, "adopted": True} if parent is not None else {}
    given |= {"pdeathsig": parent_death_signal, **from_command(command)}
    with ExitStack() as always, ExitStack() as undo:
        always.callback(setattr, sc, "noted", None)
        sc.noted = notes = [stamp(time.monotonic_ns(), "config.json")]
        decided = create_plan.decide(
            spec, container_id=container_id, bundle=bundle, overlay=rootfs, cgroup_path=cgroup_path,
            console_slave=console_slave, receives=console is not None, command=command,
        )  # fmt: skip
        spawn.guard_stdio()
        spawn.make_directories(decided.root_plan.root, undo)
        notes.append(stamp(time.monotonic_ns(), "cgroup made"))
        cgroup = _cgroup(cgroup_path, command, always, undo)
        warnings = [*decided.warnings, *decided.apply_limits(cgroup)]
        made = _create_init(
            decided, cgroup, given, notes, procfs=procfs, console=console, always=always, undo=undo
        )
        made.warnings = (*warnings, *made.warnings)
        return made


def _create_init(
    decided: create_plan.CreatePlan,
    cgroup: Cgroup,
    given: dict[str, Any],
    notes: list[str],
    *,
    procfs: Procfs | None,
    console: Callable[[int], None] | None,
    always: ExitStack,
    undo: ExitStack,
) -> Container:
    """Clone the init and answer its requests until it waits for its start. Returns with `undo` empty.

    `given`: the Job fields that the caller of create decides. `notes`: the steps until here (init_protocol.written).
    """
    spec, who = decided.spec, f"container {decided.id}"
    ours, theirs = spawn.channel_pair(undo)
    into = spawn.into_cgroup(cgroup, always)
    given = {"channel": theirs, "cgroup": cgroup, **given}
    job, spaces, mounted = _init_job(decided, given, procfs, always, undo)
    notes.append(stamp(time.monotonic_ns(), "clone3"))
    child = _clone_init(job, ours, who, spaces.flags, into=into, pid_namespace=spaces.pid, undo=undo)
    prepare.enter_resctrl(spec, decided.id, child[0], undo)
    children = [child]
    answers = prepare.answers(
        children, spec, decided.hooks, decided.state, console=console, undo=undo, always=always
    )
    times = [written(notes)]
    sc.noted = None
    warnings = prepare.until_ready(ours, who, answers, cgroup, times)
    times.append(f"{time.monotonic_ns()} \n")
    bundle = decided.state["bundle"]
    made = Container(
        decided.id,
        *children[-1],
        cgroup,
        spec,
        tuple(warnings),
        "".join(times),
        ours,
        decided.seccomp,
        bundle,
    )
    made.mounted = mounted
    undo.pop_all()
    for first in children[:-1]:
        spawn.kill_and_reap(first[1])  # it has exited, or is about to
    return made


def _init_job(
    decided: create_plan.CreatePlan,
    given: dict[str, Any],
    procfs: Procfs | None,
    always: ExitStack,
    undo: ExitStack,
) -> tuple[Job, spawn.Namespaces, str]:
    """Open the namespaces and mounts for the init. Returns its Job, its namespaces, and the mount that outlives the
    container (CreatePlan.open_mounts)."""
    spec, command = decided.spec, decided.command
    spaces = spawn.namespaces(spec, always)
    users = prepare.user_namespace(spec, spaces.flags, spaces.join)
    last = decided.enters_last(spaces, users, procfs)
    spaces = spaces.entered_last() if last else spaces
    change = prepare.root_change(spec, spaces.join, pivot=command is None or command.pivot)
    plan, mounted = decided.open_mounts(change, users, undo, always)
    given = given if "parent" in given else {**given, "parent": spawn.own_pidfd(always)}
    job = Job(
        plan=plan,
        root_change=change,
        enters_pid_namespace=last,
        procfs=procfs if last else None,
        **{**decided.job_fields(spaces, users), **given},
    )
    return job, spaces, mounted


def _cgroup(path: str, command: Command | None, always: ExitStack, undo: ExitStack) -> Cgroup:
    """Create the container's cgroup, directly or through systemd."""
    if command is not None and command.scope is not None:
        return spawn.make_scope(path, command.scope, always, undo)
    return spawn.make_cgroup(path, undo, thaws=command is None)


def _clone_init(
    job: Job,
    channel: socket.socket,
    who: str,
    flags: int,
    *,
    into: int | None,
    pid_namespace: tuple[int, int] | None,
    undo: ExitStack,
) -> tuple[int, int]:
    """Clone the container's init: (pid, pidfd).

    If the job has a user namespace to join, a first child joins it, clones the init with all new namespaces inside it,
    and exits.
    """
    if job.user_namespace is None:
        child = spawn.clone(job, flags, into=into, pid_namespace=pid_namespace, undo=undo)
        job.channel.close()
        return child
    with ExitStack() as first:
        spawn.clone(job, 0, into=into, pid_namespace=pid_namespace, undo=first)
        job.channel.close()
        return spawn.receive_init(channel, who, undo)
