"""A container, from its birth to the end of its cgroup: create, start, kill, exec, update, delete.

Called in the process that is the container's parent (a shim): single-threaded, because clone3 copies the interpreter.
Reaping is the caller's: the pid of a Container or ExecHandle is its child (`waitid(P_PIDFD, pidfd, WEXITED)`); what
fails before a handle exists is killed and reaped here. Operations follow runtime-spec runtime.md, "Lifecycle".
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without `signal`'s enum conversions
import contextlib
import errno
import json
import os
import select
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from signal import SIG_BLOCK, SIG_SETMASK, SIGCHLD, SIGKILL, valid_signals
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from runtime import errors
from runtime import syscalls as sc
from runtime.cgroups import Cgroup, layout, open_cgroup
from runtime.errors import CapabilityError, RuntimeFault, SpecError, StateError, SyscallError
from runtime.oci import hooks, init, program, rootfs, stub
from runtime.oci import spec as oci
from runtime.oci.spec import Linux, Process, Spec
from runtime.security import capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.security.capabilities import CapSets
    from runtime.shim.protocol import RootfsOverlay

# How long a child may take from clone3 to ready, and from the gate to execve. Only a hung file system takes longer
# than milliseconds; the shim must not hang with it.
HANDSHAKE_SECONDS: Final = 60.0
END_SECONDS: Final = 2.0  # and how long what is killed is waited for

_ALL_SIGNALS: Final = frozenset(map(int, valid_signals()))

# type → (name below /proc/<pid>/ns, flag); user first: the others may need its privileges
_NAMESPACES: Final = {
    "user": ("user", sc.CLONE_NEWUSER),
    "network": ("net", sc.CLONE_NEWNET),
    "ipc": ("ipc", sc.CLONE_NEWIPC),
    "uts": ("uts", sc.CLONE_NEWUTS),
    "cgroup": ("cgroup", sc.CLONE_NEWCGROUP),
    "pid": ("pid", sc.CLONE_NEWPID),
    "mount": ("mnt", sc.CLONE_NEWNS),
    "time": ("time", sc.CLONE_NEWTIME),
}


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


@dataclass(frozen=True, slots=True)
class Command:
    """How a process is started by a command that ends, and not by a parent that stays (a shim)."""

    detached: init.Detached | None = None  # the init waits for a connection; Container.detach() lets go of it
    dies_with_us: bool = False
    console: Callable[[int], None] | None = None  # gets the terminal's master, and closes it
    preserve: int = 0  # descriptors from 3 on that are the container's
    new_keyring: bool = True
    pivot: bool = True
    ignore_paused: bool = False


def _from_command(command: Command | None) -> dict[str, Any]:
    if command is None:
        return {}
    wanted: dict[str, Any] = {
        "detached": command.detached,
        "use_stub": True,
        "pdeathsig": SIGKILL if command.dies_with_us else 0,
        "preserve": command.preserve,
        "pivot": command.pivot,
    }
    return wanted if command.new_keyring else {**wanted, "keyring": ""}


@dataclass(slots=True)
class PendingExec:
    """A process on its way to execve. `channel` is readable whenever `step` has something to do."""

    pid: int
    pidfd: int
    channel: socket.socket
    who: str
    warnings: list[str]

    def step(self) -> ExecHandle | None:
        """Hear what there is, without waiting: the handle once execve has succeeded, None before. Afterwards, also of
        what it raises, the caller does `done` or `abandon`."""
        self.channel.setblocking(False)
        try:
            while (said := _packet(self.channel, self.who)) is not None:
                self.warnings += said.get("warnings", [])
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
        _end(self.pidfd)


@dataclass(slots=True)
class Container:
    """A created container. `warnings` are sentences about what this machine could not give it."""

    id: str
    pid: int
    pidfd: int  # closed by delete()
    cgroup: Cgroup
    spec: Spec
    warnings: tuple[str, ...] = ()
    _channel: socket.socket | None = None  # open while the gate is closed
    _seccomp: tuple[bytes, int] | None = None

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
        with channel:
            try:
                channel.send(b"start")
            except (BrokenPipeError, ConnectionResetError) as error:
                raise StateError(f"container {self.id} cannot be started: its init is dead") from error
            _converse(channel, f"container {self.id}", until_exec=True)

    def kill(self, signal: int, *, everything: bool = False) -> None:
        """Signal the init, or (everything) each process in the cgroup, forks included: SIGKILL by the cgroup's own
        kill, others while it is frozen. StateError when the init is gone."""
        if everything:
            self._kill_everything(signal)
            return
        try:
            sc.pidfd_send_signal(self.pidfd, signal)
        except SyscallError as error:
            if error.errno != errno.ESRCH:
                raise
            raise StateError(f"container {self.id} is not running") from error

    def _kill_everything(self, signal: int) -> None:
        if signal == SIGKILL:
            self.cgroup.kill()
            return
        paused = self.cgroup.frozen()
        self.cgroup.freeze()
        try:
            for pid in self.cgroup.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal)
        finally:
            if not paused:
                self.cgroup.thaw()

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
        cgroup: Cgroup | None = None,
    ) -> PendingExec:
        """As `exec`, without the waiting: the process joins while its container runs, and may be starved of CPU by it
        or stopped (SIGSTOP) by its root. Who must not hang with it watches the PendingExec. `cgroup`: another than
        the container's own, below it."""
        if self._channel is not None or self.pidfd < 0 or wait_dead(self.pidfd):
            raise StateError(f"cannot exec in container {self.id}: it is not running")
        paused_is_fine = command is not None and command.ignore_paused
        if not paused_is_fine and self.cgroup.frozen():  # the new process would freeze before it answers
            raise StateError(f"cannot exec in container {self.id}: it is paused")
        wanted = oci.process({**_inherited(self.spec["process"]), **process})
        _guard_stdio()
        caps, available, warnings = _capabilities(wanted)
        kinds = sc.CLONE_NEWNS | sc.CLONE_NEWNET | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS | sc.CLONE_NEWCGROUP
        wanted_kinds = oci.namespaces(self.spec)
        if "user" in wanted_kinds:
            kinds |= sc.CLONE_NEWUSER
        if "time" in wanted_kinds:
            kinds |= sc.CLONE_NEWTIME
        with ExitStack() as always, ExitStack() as undo:
            ours, theirs = _channel_pair(undo)
            always.callback(theirs.close)
            into = _into_cgroup(cgroup or self.cgroup, always)
            affinity = wanted.get("execCPUAffinity", {})
            job = init.Job(
                process=wanted,
                affinity=tuple(oci.cpu_set(affinity.get(key, ""), key) for key in ("initial", "final")),
                channel=theirs,
                parent=_own_pidfd(always),
                caps=caps,
                available_caps=available,
                cgroup=cgroup or self.cgroup,
                join=((self.pidfd, kinds),),
                stdio=stdio,
                console=console_slave,
                seccomp=self._seccomp,
                gate=False,
                **{"keyring": f"_ses.{self.id}", **_from_command(command)},
            )
            pid, pidfd = _clone(job, 0, into=into, pid_namespace=(self.pidfd, sc.CLONE_NEWPID), undo=undo)
            undo.pop_all()
            return PendingExec(pid, pidfd, ours, f"exec in container {self.id}", warnings)

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
    rootfs: RootfsOverlay | None,
    cgroup_path: str,
    parent_death_signal: int = SIGKILL,
    command: Command | None = None,
) -> Container:
    """Make the container up to the gate before execve. `console_slave` is the terminal's slave when process.terminal
    is set; `stdio` None then means the terminal for all three (without a terminal: the caller's own).

    Raises SpecError, CapabilityError, SyscallError, StateError; whatever is raised, nothing is left: no process, no
    cgroup, no descriptor, no mount (those live in the container's mount namespace).
    """
    spec = oci.validate(spec)
    process, linux = spec["process"], spec.get("linux", {})
    if process.get("terminal") and console_slave is None and command is None:
        raise SpecError("process.terminal: a terminal is asked for and none was given")
    plan = _plan(spec, bundle, rootfs, cgroup_path, console_slave)
    steps = hooks.parse(spec.get("hooks") or {})
    state = hook_state(spec, container_id, bundle, "creating")
    caps, available, warnings = _capabilities(process)
    filter_ = _seccomp(linux)
    _guard_stdio()
    with ExitStack() as always, ExitStack() as undo:
        _make_directories(plan.root, undo)
        cgroup = _make_cgroup(cgroup_path, undo)
        warnings += cgroup.apply(linux.get("resources", {}))
        ours, theirs = _channel_pair(undo)
        into = _into_cgroup(cgroup, always)
        flags, join, pid_namespace = _namespaces(spec, always)
        if "user" in oci.namespaces(spec) or any(plan.maps_ids):
            plan = plan.with_open_sources()
            for fd in plan.descriptors:
                always.callback(os.close, fd)
        job = init.Job(
            process=process,
            channel=theirs,
            parent=_own_pidfd(always),
            caps=caps,
            available_caps=available,
            cgroup=cgroup,
            join=join,
            stdio=stdio,
            console=console_slave,
            plan=plan,
            new_cgroup_namespace=oci.namespaces(spec).get("cgroup") == "",
            new_user_namespace=bool(flags & sc.CLONE_NEWUSER),
            time_offsets=_time_offsets(spec),
            hostname=spec.get("hostname", ""),
            domainname=spec.get("domainname", ""),
            sysctls=linux.get("sysctl", {}),
            seccomp=filter_,
            personality=oci.PERSONALITIES[linux.get("personality", {}).get("domain", "")],
            **{"keyring": f"_ses.{container_id}", "pdeathsig": parent_death_signal, **_from_command(command)},
            own_terminal=command is not None and bool(process.get("terminal")),
            hooks=steps,
            state=state,
        )
        pid, pidfd = _clone(job, flags, into=into, pid_namespace=pid_namespace, undo=undo)
        theirs.close()
        try:
            answers = _Answers(
                mappings=lambda: _write_mappings(pid, linux),
                hooks=lambda: _runtime_hooks(steps, {**state, "pid": pid}),
                console=command.console if command is not None else None,
            )
            said = _converse(ours, f"container {container_id}", answers=answers)
        except StateError as error:
            if cgroup.oom_kills():
                raise StateError(
                    f"{error} by the kernel's OOM killer: its memory limit is too low"
                ) from error
            raise
        made = Container(container_id, pid, pidfd, cgroup, spec, (*warnings, *said), ours, filter_)
        undo.pop_all()
        return made


def hook_state(spec: Spec, container_id: str, bundle: str, status: str, pid: int = 0) -> dict[str, Any]:
    """The state that hooks get on stdin (runtime.md, "State")."""
    state: dict[str, Any] = {"ociVersion": spec["ociVersion"], "id": container_id, "status": status}
    if pid:
        state["pid"] = pid
    state["bundle"] = bundle
    if annotations := spec.get("annotations"):
        state["annotations"] = annotations
    return state


# --- what create and exec are made of ---


def _runtime_hooks(steps: Mapping[str, tuple[hooks.Hook, ...]], state: dict[str, Any]) -> None:
    for kind in hooks.IN_RUNTIME:
        hooks.run_all(kind, steps.get(kind, ()), state)


class _Answers(NamedTuple):
    """What the child may ask for on its way to the gate."""

    mappings: Callable[[], None]
    hooks: Callable[[], None]
    console: Callable[[int], None] | None


def _inherited(process: Process) -> dict[str, Any]:
    """What a process in a running container gets when its request does not say (as runc exec)."""
    keys = ("capabilities", "rlimits", "noNewPrivileges", "apparmorProfile", "selinuxLabel", "oomScoreAdj")
    return {key: value for key, value in process.items() if key in keys}


def _time_offsets(spec: Spec) -> str | None:
    """What goes into timens_offsets of a new time namespace (time_namespaces(7)); None without one."""
    if oci.namespaces(spec).get("time") != "":
        return None
    release = os.uname().release.split(".")
    if (int(release[0]), int(release[1].partition("-")[0])) < (6, 1):
        raise CapabilityError("linux.namespaces: a time namespace needs Linux 6.1, where execve(2) enters it")
    wanted = spec.get("linux", {}).get("timeOffsets", {})
    return "".join(f"{clock} {o.get('secs', 0)} {o.get('nanosecs', 0)}\n" for clock, o in wanted.items())


def _guard_stdio() -> None:
    """With 0, 1 or 2 closed, a socket of ours would get that number and be overwritten by the child's stdio."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # takes the lowest free number: this one


def _plan(
    spec: Spec, bundle: str, overlay: RootfsOverlay | None, cgroup_path: str, console: int | None
) -> rootfs.Plan:
    needs_cgroups = any(entry.get("type") in ("cgroup", "cgroup2") for entry in spec.get("mounts", []))
    if not needs_cgroups:
        return rootfs.plan(spec, bundle=bundle, overlay=overlay, console=console)
    where = layout()
    points = [*where.hierarchies, *([where.unified] if where.unified else [])]
    host = rootfs.Host(where, {point: f"{point}{cgroup_path}" for point in points})
    return rootfs.plan(spec, bundle=bundle, overlay=overlay, host=host, console=console)


def _capabilities(process: Process) -> tuple[CapSets, int, list[str]]:
    available = capabilities.bounding()
    capabilities.last_cap()  # cached here, where /proc is the machine's
    wanted: Any = process.get("capabilities")
    sets, warnings = capabilities.plan(wanted, available=available)
    return sets, available, warnings


def _seccomp(linux: Linux) -> tuple[bytes, int] | None:
    profile = linux.get("seccomp")
    if not profile:
        return None
    from runtime.security import seccomp  # loads libseccomp: only for those who filter

    if seccomp.needs_listener(profile):
        raise CapabilityError("linux.seccomp: SCMP_ACT_NOTIFY is not supported by this engine")
    return seccomp.compile(profile), seccomp.install_flags(profile)


def _make_directories(root: rootfs.RootMount, undo: ExitStack) -> None:
    """The mount point, upper and work directories where the caller has not made them."""
    if not root.lower:
        return
    for path in (root.path, root.upper, root.work):
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            continue
        except OSError as error:
            raise SyscallError(error.errno or 0, "mkdir", path) from error
        undo.callback(_remove_tree, path)
        if path == root.upper:
            os.chmod(path, 0o755)  # it becomes the mode of "/", whatever our umask is


def _remove_tree(path: str) -> None:
    import shutil  # only when something has failed

    shutil.rmtree(path, ignore_errors=True)


def _make_cgroup(path: str, undo: ExitStack) -> Cgroup:
    cgroup = open_cgroup(path)
    existed = cgroup.exists()
    if existed and cgroup.pids():
        raise StateError(f"cgroup {path} is in use by other processes: it cannot become a container's")
    if not existed:
        undo.callback(cgroup.remove)
    cgroup.create()
    return cgroup


def _into_cgroup(cgroup: Cgroup, stack: ExitStack) -> int | None:
    """For CLONE_INTO_CGROUP: the child is born in the cgroup2 side; its own attach(0) does what is v1."""
    into = cgroup.clone_fd()
    if into is not None:
        stack.callback(os.close, into)
    return into


def _channel_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.callback(ours.close)
    stack.callback(theirs.close)
    return ours, theirs


def _own_pidfd(stack: ExitStack) -> int:
    fd = sc.pidfd_open(os.getpid())
    stack.callback(os.close, fd)
    return fd


def _namespaces(
    spec: Spec, stack: ExitStack
) -> tuple[int, tuple[tuple[int, int], ...], tuple[int, int] | None]:
    """(flags for clone3, what the child joins by setns, the pid namespace the child is born into).

    A namespace that is ours already is left out: the shim lives in its pod's.
    """
    flags, join, pid_namespace = 0, [], None
    wanted = oci.namespaces(spec)
    for kind, (name, flag) in _NAMESPACES.items():
        path = wanted.get(kind)
        if path == "":
            # a cgroup namespace has its root where its maker is: the child makes it, once it is in its cgroup; a time
            # namespace can only be made by unshare(2)
            flags |= flag if kind not in ("cgroup", "time") else 0
        if not path:
            continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SyscallError(error.errno or 0, "open", f"{kind} namespace {path}") from error
        stack.callback(os.close, fd)
        if sc.fstatfs_type(fd) != sc.NSFS_MAGIC:
            raise SpecError(f"linux.namespaces: {path} is not a namespace")
        theirs, ours = os.fstat(fd), os.stat(f"/proc/self/ns/{name}")
        if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
            continue
        if kind == "pid":
            pid_namespace = (fd, flag)
        else:
            join.append((fd, flag))
    return flags, tuple(join), pid_namespace


def _clone(
    job: init.Job, flags: int, *, into: int | None, pid_namespace: tuple[int, int] | None, undo: ExitStack
) -> tuple[int, int]:
    """clone3 and, in the child, init.run. A pid namespace to join is set for children before and put back after:
    setns(2) of one never moves the caller itself. Signals are blocked meanwhile: a handler that is due would run in
    the child too."""
    if pid_namespace is not None:
        sc.setns(*pid_namespace, about="pid namespace")
    mask = _signal.pthread_sigmask(SIG_BLOCK, _ALL_SIGNALS)
    try:
        pid, pidfd = sc.clone3(flags | sc.CLONE_CLEAR_SIGHAND, exit_signal=SIGCHLD, cgroup=into)
        if pid == 0:
            init.run(job)
        undo.callback(_end, pidfd)
    except SyscallError as error:
        if pid_namespace is not None and error.errno == errno.ENOMEM:  # how the kernel says its init is dead
            raise StateError("the pid namespace to join has no living init any more") from error
        raise
    finally:
        _signal.pthread_sigmask(SIG_SETMASK, mask)
        if pid_namespace is not None:
            sc.setns(job.parent, sc.CLONE_NEWPID, about="back to the own pid namespace")
    return pid, pidfd


def _end(pidfd: int) -> None:
    """Kill and reap a child that never became a handle. One that does not die in time (uninterruptible, in a file
    system that hangs) is left to the caller's own reaping of children it does not know."""
    with contextlib.suppress(SyscallError):
        sc.pidfd_send_signal(pidfd, SIGKILL)
    wait_dead(pidfd, END_SECONDS)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    os.close(pidfd)


def wait_dead(pidfd: int, wait: float = 0.0) -> bool:
    """Whether its process has ended, or does within `wait` seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(wait * 1000))


def _converse(
    channel: socket.socket,
    who: str,
    *,
    until_exec: bool = False,
    answers: _Answers | None = None,
) -> list[str]:
    """Follow the child until it is ready (or, until_exec, until the channel closes by execve). Returns its warnings."""
    warnings: list[str] = []
    channel.settimeout(HANDSHAKE_SECONDS)
    while True:
        try:
            said = _packet(channel, who)
        except TimeoutError as error:
            raise StateError(f"{who}: its init did not answer within {HANDSHAKE_SECONDS:.0f} s") from error
        if said is None:
            if until_exec:
                return warnings
            raise StateError(f"{who}: its init was killed before it was ready")
        warnings += said.get("warnings", [])
        if said.get("mappings") and answers is not None:
            answers.mappings()
            channel.send(b"mapped")
        if said.get("hooks") and answers is not None:
            answers.hooks()
            channel.send(b"hooked")
        if said.get("console") and answers is not None and answers.console is not None:
            answers.console(said["fd"])
        if said.get("ready"):
            return warnings


def _packet(channel: socket.socket, who: str) -> dict[str, Any] | None:
    """The child's next word; None when the channel is closed. Its error is raised here."""
    try:
        packet, ancillary, _, _ = channel.recvmsg(1 << 17, socket.CMSG_SPACE(4))
    except ConnectionResetError:
        packet, ancillary = b"", []
    if not packet:
        return None
    if (failed := stub.failure(packet)) is not None:
        raise stub_failed(*failed, who)
    said: dict[str, Any] = json.loads(packet)
    for _, _, rights in ancillary:
        said["fd"] = int.from_bytes(rights[:4], sys.byteorder)
    if "error" in said:
        _raise(who, said["error"])
    return said


def stub_failed(code: int, call: str, who: str) -> RuntimeFault:
    """What the stub could not do, as the interpreter would have said it."""
    if call == "execve":
        return errors.StartError(f"exec: {who}: {program.lower(OSError(code, ''))}")
    return SyscallError(code, f"{who}: {call}")


def raise_said(who: str, packet: bytes) -> None:
    """Raise the error that a child's packet tells of."""
    said = json.loads(packet)
    if "error" in said:
        _raise(who, said["error"])


def _raise(who: str, said: dict[str, Any]) -> NoReturn:
    """The child's error as if it had been raised here; its step in front, but for the program's own (runc's text)."""
    kind = getattr(errors, said["class"], RuntimeFault)
    if said["class"] in ("OSError", "SyscallError") and said["errno"]:
        raise SyscallError(said["errno"], f"{who}: {said['step']}: {said['call']}", said["about"])
    if not (isinstance(kind, type) and issubclass(kind, RuntimeFault)) or kind is SyscallError:
        kind = RuntimeFault
    raise kind(said["message"] if kind is errors.StartError else f"{who}: {said['step']}: {said['message']}")


def _write_mappings(pid: int, linux: Linux) -> None:
    from runtime.oci import idmap

    idmap.write_maps(pid, linux.get("uidMappings", []), linux.get("gidMappings", []))
