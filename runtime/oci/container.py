"""A container, from its birth to the end of its cgroup: create, start, kill, exec, update, delete.

Called in the process that is the container's parent (a shim): single-threaded, because clone3 copies the interpreter.
Reaping is the caller's: the pid of a Container or ExecHandle is its child (`waitid(P_PIDFD, pidfd, WEXITED)`); what
fails before a handle exists is killed and reaped here. Operations follow runtime-spec runtime.md, "Lifecycle".
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from signal import SIGKILL
from typing import TYPE_CHECKING, Any, NamedTuple

from runtime import syscalls as sc
from runtime.cgroups import Cgroup, Place, open_cgroup
from runtime.errors import StateError, SyscallError
from runtime.oci import birth, create_plan, ending, prepare
from runtime.oci.config import spec as oci
from runtime.oci.config import spec_linux
from runtime.oci.config.spec import Process, Spec
from runtime.oci.handshake import HANDSHAKE_SECONDS, converse, next_word
from runtime.oci.job import Command, Job, from_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.shim.protocol import RootfsOverlay


class Stdio(NamedTuple):
    """Descriptors that become the process's 0, 1 and 2. They stay the caller's to close."""

    stdin: int
    stdout: int
    stderr: int


@dataclass(frozen=True, slots=True)
class ExecHandle:
    """A further process in a container: a child of the caller, who reaps it and closes `pidfd`."""

    pid: int
    pidfd: int
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class PendingExec:
    """A process on its way to execve. `channel` is readable whenever `step` has something to do."""

    pid: int
    pidfd: int
    channel: socket.socket
    who: str
    warnings: list[str]
    listener: Callable[[int], None] | None = None  # gives seccomp's to the agent
    program: str = ""

    def step(self) -> ExecHandle | None:
        """Hear what there is, without waiting: the handle once execve has succeeded, None before. Afterwards, also of
        what it raises, the caller does `done` or `abandon`."""
        self.channel.setblocking(False)
        try:
            while (said := next_word(self.channel, self.who, self.program)) is not None:
                self.warnings += said.get("warnings", [])
                if said.get("listener") and self.listener is not None:
                    self.listener(said["listener"])
                    self.channel.send(b"listened")
        except BlockingIOError:
            return None
        return ExecHandle(self.pid, self.pidfd, tuple(self.warnings))

    def wait(self, seconds: float) -> ExecHandle:
        """Until execve. StateError when it takes longer; whatever is raised, the process is ended."""
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

    def done(self) -> None:
        """It runs: no more is to be heard of it."""
        self.channel.close()

    def abandon(self) -> None:
        """End it instead."""
        self.channel.close()
        birth.end(self.pidfd)


@dataclass(slots=True)
class Container:
    """A created container. `warnings` are sentences about what this machine could not give it."""

    id: str
    pid: int
    pidfd: int  # closed by delete()
    cgroup: Cgroup
    spec: Spec
    warnings: tuple[str, ...] = ()
    times: str = ""  # of the steps of create, then of start, as runtime.oci.job.written
    _channel: socket.socket | None = None  # open while the gate is closed
    _seccomp: tuple[bytes, int] | None = None
    bundle: str = ""
    mounted: str = ""  # what shared_root.mount has told of

    @property
    def seccomp(self) -> tuple[bytes, int] | None:
        """(BPF, flags) of its filter, for who keeps it to exec later."""
        return self._seccomp

    def start(self) -> None:
        """Open the gate and wait until execve has succeeded. Raises StartError with runc's words when it has not (the
        init is then dead, with exit code 1, for the caller to reap); StateError when the state is not `created`."""
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
        self.times = f"{began} start\n{''.join(times)}{time.monotonic_ns()} \n"

    def kill(self, signal: int, *, everything: bool = False) -> None:
        """Signal the init, or (everything) each process in the cgroup, forks included: SIGKILL by the cgroup's own
        kill, others while it is frozen. StateError when the init is gone."""
        if everything:
            ending.signal_all(self.cgroup, signal)
            return
        try:
            sc.pidfd_send_signal(self.pidfd, signal)
        except SyscallError as error:
            if error.errno != errno.ESRCH:
                raise
            raise StateError(f"container {self.id} is not running") from error

    def detach(self) -> None:
        """Let go of a container made with `detached=`: its init waits for a connection from here on."""
        channel, self._channel = self._channel, None
        if channel is None:
            raise StateError(f"container {self.id} is not waiting at its gate")
        with channel:
            try:
                channel.send(b"detach")
            except (BrokenPipeError, ConnectionResetError) as error:
                raise StateError(f"container {self.id}: its init is dead") from error

    def exec(
        self, process: dict[str, Any], *, stdio: Stdio | None, console_slave: int | None = None
    ) -> ExecHandle:
        """Run `process` (the OCI object) in all of the container's namespaces and its cgroup. Returns when execve has
        succeeded; raises StartError (runc's words), SpecError, StateError when the container is not running."""
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
        """As `exec`, without the waiting: the process joins while its container runs, and may be starved of CPU by it
        or stopped (SIGSTOP) by its root. Who must not hang with it watches the PendingExec. `place`: another than
        the container's own cgroup, below it."""
        self._check_running(paused_is_fine=command is not None and command.ignore_paused)
        wanted = oci.process({**prepare.inherited(self.spec["process"]), **process})
        birth.guard_stdio()
        beside = prepare.joined_by_an_ordinary_user(self.spec)
        with ExitStack() as always, ExitStack() as undo:
            ours, theirs = birth.channel_pair(undo)
            always.callback(theirs.close)
            given = {"channel": theirs, "stdio": stdio, "console": console_slave, "user_namespace": beside}
            told, warnings = self._told(wanted, always)
            told |= {**given, **from_command(command)}
            who = f"exec in container {self.id}"
            if beside is not None:
                job = Job(cgroup=self.cgroup, **told)
                child = _born(job, ours, who, 0, into=None, pid_namespace=None, undo=undo)
            else:
                child = self._clone_beside(told, place or self.cgroup, always, undo)
            prepare.join_class(self.spec, self.id, child[0])
            undo.pop_all()
            linux = self.spec.get("linux", {})
            state = prepare.hook_state(self.spec, self.id, self.bundle, "running", self.pid)

            def tell(listener: Any) -> None:
                prepare.tell_agent(linux, state, child, listener)

            return PendingExec(*child, ours, who, warnings, tell, wanted["args"][0])

    def _told(self, wanted: Process, always: ExitStack) -> tuple[dict[str, Any], list[str]]:
        """What a further process is told of itself and of the container (Job's fields), and warnings."""
        linux, kinds = self.spec.get("linux", {}), oci.namespaces(self.spec)
        by_ordinary_user = prepare.joined_by_an_ordinary_user(self.spec) is not None
        caps, available, warnings = prepare.caps(wanted, in_user_namespace="user" in kinds)
        told = {
            "process": wanted,
            "affinity": prepare.affinity(wanted),
            "parent": birth.own_pidfd(always),
            "caps": caps,
            "available_caps": available,
            "join": ((self.pidfd, self._joined_kinds(by_ordinary_user=by_ordinary_user)),),
            "root": -1 if kinds.get("mount") == "" else self._open_root(always),
            "seccomp": self._seccomp,
            "notify": prepare.notifies(self._seccomp),
            "memory_policy": spec_linux.memory_policy(linux),
            "personality": spec_linux.personality(linux),
            "stdio_owner": self._owner_of_stdio(wanted),
            "gate": False,
            "keyring": f"_ses.{self.id}",
        }
        return told, warnings

    def _open_root(self, always: ExitStack) -> int:
        """Its init's root, of which the mount namespace that it is in says nothing. (Whatever the init has made of it:
        who is in the container can be led nowhere else than where it is itself.)"""
        fd = os.open(f"/proc/{self.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        always.callback(os.close, fd)
        if ending.wait_dead(self.pidfd):  # then the number may be another process's
            raise StateError(f"cannot exec in container {self.id}: it is not running")
        return fd

    def _owner_of_stdio(self, process: Any) -> int:
        """The host's id of who is to have what exec brings along; -1: it stays whose it is."""
        if not oci.namespaces(self.spec).get("user"):
            return -1
        return prepare.host_id(prepare.with_mappings(self.spec, self.pid), process)

    def _check_running(self, *, paused_is_fine: bool) -> None:
        if self._channel is not None or self.pidfd < 0 or ending.wait_dead(self.pidfd):
            raise StateError(f"cannot exec in container {self.id}: it is not running")
        if not paused_is_fine and self.cgroup.frozen():  # the new process would freeze before it answers
            raise StateError(f"cannot exec in container {self.id}: it is paused")

    def _joined_kinds(self, *, by_ordinary_user: bool) -> int:
        """The namespaces that a further process joins, as CLONE_NEW* flags."""
        if by_ordinary_user:
            return birth.flags_of(self.spec)  # no others: what is the machine's is not to be joined
        kinds = sc.CLONE_NEWNS | sc.CLONE_NEWNET | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS | sc.CLONE_NEWCGROUP
        wanted = oci.namespaces(self.spec)
        kinds |= sc.CLONE_NEWUSER if "user" in wanted else 0
        return kinds | (sc.CLONE_NEWTIME if "time" in wanted else 0)

    def _clone_beside(
        self, told: dict[str, Any], where: Place, always: ExitStack, undo: ExitStack
    ) -> tuple[int, int]:
        """In the container's cgroup; beside its init where the container has given that cgroup's controllers to
        children (a service manager, on v2): no process may be in the cgroup itself then (cgroup-v2.rst, "No Internal
        Process Constraint"; runc does the same)."""
        try:
            return self._clone_into(told, where, always, undo)
        except SyscallError as error:
            leaf = birth.cgroup_of(self.pid)
            if error.errno != errno.EBUSY or not leaf.startswith(f"{where.path}/"):
                raise
        return self._clone_into(told, open_cgroup(leaf), always, undo)

    def _clone_into(
        self, told: dict[str, Any], where: Place, always: ExitStack, undo: ExitStack
    ) -> tuple[int, int]:
        job = Job(cgroup=where, **told)
        into = birth.into_cgroup(where, always)
        return birth.clone(job, 0, into=into, pid_namespace=(self.pidfd, sc.CLONE_NEWPID), undo=undo)

    def open_terminal(self) -> tuple[int, int]:
        """(master, slave) of a new terminal of the container's own /dev/pts, so that programs in it can name it
        (ttyname(3)); for exec(console_slave=). StateError when the container has no devpts. The caller closes both."""
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
            if sc.fstatfs_type(master) != sc.DEVPTS_SUPER_MAGIC:  # whatever the container put there
                raise StateError(f"container {self.id} has something else than devpts on /dev/pts")
            return master, sc.open_peer(master)
        except BaseException:
            os.close(master)
            raise

    def update(self, resources: dict[str, Any]) -> list[str]:
        """Apply OCI linux.resources to the cgroup; only what is named changes. Returns warnings."""
        return self.cgroup.apply(resources)

    def delete(self) -> None:
        """End what still runs in it and remove its cgroup: nothing else of it is on the host. Idempotent. An init that
        this ends is still the caller's to reap."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self.pidfd >= 0:
            with contextlib.suppress(SyscallError):  # ESRCH: it has ended already
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
) -> Container:
    """Make the container up to the gate before execve. When process.terminal is set, the terminal is one of the
    container's own devpts, whose master `console` gets, and closes; or its slave is `console_slave`. `stdio` None then
    means the terminal for all three (without a terminal: the caller's own).

    Raises SpecError, CapabilityError, SyscallError, StateError; whatever is raised, nothing is left: no process, no
    cgroup, no descriptor, no mount (most live in the container's mount namespace; the others are undone: shared_root).
    """
    began = time.monotonic_ns()
    draft = create_plan.decide(
        spec,
        container_id=container_id,
        bundle=bundle,
        overlay=rootfs,
        cgroup_path=cgroup_path,
        console_slave=console_slave,
        receives=console is not None,
        command=command,
    )
    spec, who = draft.spec, f"container {container_id}"
    birth.guard_stdio()
    with ExitStack() as always, ExitStack() as undo:
        birth.make_directories(draft.plan.root, undo)
        limited = time.monotonic_ns()
        cgroup = _cgroup(cgroup_path, command, always, undo)
        warnings = [*draft.warnings, *draft.limit(cgroup)]
        ours, theirs = birth.channel_pair(undo)
        into = birth.into_cgroup(cgroup, always)
        spaces = birth.namespaces(spec, always)
        users = prepare.user_namespace(spec, spaces.flags, spaces.join)
        turn = prepare.turn(spec, spaces.join, pivot=command is None or command.pivot)
        plan, mounted = draft.placed(turn, users, undo, always)
        job = Job(
            channel=theirs,
            parent=birth.own_pidfd(always),
            cgroup=cgroup,
            stdio=stdio,
            console=console_slave,
            plan=plan,
            turn=turn,
            **{**draft.told(spaces, users), "pdeathsig": parent_death_signal, **from_command(command)},
        )
        cloned = time.monotonic_ns()
        child = _born(job, ours, who, spaces.flags, into=into, pid_namespace=spaces.pid, undo=undo)
        prepare.enter_class(spec, container_id, child[0], undo)
        answers = prepare.answers(
            child, spec, draft.hooks, draft.state, console=console, undo=undo, always=always
        )
        times = [f"{began} config.json\n{limited} cgroup made\n{cloned} clone3\n"]
        said = prepare.until_ready(ours, who, answers, cgroup, times)
        times.append(f"{time.monotonic_ns()} \n")
        heard = (*warnings, *said)
        made = Container(
            container_id, *child, cgroup, spec, heard, "".join(times), ours, draft.seccomp, bundle
        )
        made.mounted = mounted
        undo.pop_all()
        return made


def _cgroup(path: str, command: Command | None, always: ExitStack, undo: ExitStack) -> Cgroup:
    """Ours, or one that systemd makes for us."""
    if command is not None and command.scope is not None:
        return birth.make_scope(path, command.scope, always, undo)
    return birth.make_cgroup(path, undo, thaws=command is None)


def _born(
    job: Job,
    channel: socket.socket,
    who: str,
    flags: int,
    *,
    into: int | None,
    pid_namespace: tuple[int, int] | None,
    undo: ExitStack,
) -> tuple[int, int]:
    """(pid, pidfd) of the container's init. The child that joins a user namespace ends when it has made the one we
    want; what is new is then made in that namespace, by the child's child."""
    if job.user_namespace is None:
        child = birth.clone(job, flags, into=into, pid_namespace=pid_namespace, undo=undo)
        job.channel.close()
        return child
    with ExitStack() as first:
        birth.clone(job, 0, into=into, pid_namespace=pid_namespace, undo=first)
        job.channel.close()
        return birth.second(channel, who, undo)
