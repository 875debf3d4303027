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
from runtime.cgroups import Cgroup, layout
from runtime.errors import CapabilityError, SpecError, StateError, SyscallError
from runtime.oci import birth, hooks, rootfs
from runtime.oci import spec as oci
from runtime.oci.handshake import HANDSHAKE_SECONDS, Answers, converse, next_word
from runtime.oci.job import Detached, Job
from runtime.oci.spec import Linux, Process, Spec
from runtime.security import capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.security.capabilities import CapSets
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


@dataclass(frozen=True, slots=True)
class Command:
    """How a process is started by a command that ends, and not by a parent that stays (a shim)."""

    detached: Detached | None = None  # the init waits for a connection; Container.detach() lets go of it
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
            while (said := next_word(self.channel, self.who)) is not None:
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
            converse(channel, f"container {self.id}", until_exec=True)

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
        if self._channel is not None or self.pidfd < 0 or birth.wait_dead(self.pidfd):
            raise StateError(f"cannot exec in container {self.id}: it is not running")
        paused_is_fine = command is not None and command.ignore_paused
        if not paused_is_fine and self.cgroup.frozen():  # the new process would freeze before it answers
            raise StateError(f"cannot exec in container {self.id}: it is paused")
        wanted = oci.process({**_inherited(self.spec["process"]), **process})
        birth.guard_stdio()
        caps, available, warnings = _capabilities(wanted)
        kinds = sc.CLONE_NEWNS | sc.CLONE_NEWNET | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS | sc.CLONE_NEWCGROUP
        wanted_kinds = oci.namespaces(self.spec)
        if "user" in wanted_kinds:
            kinds |= sc.CLONE_NEWUSER
        if "time" in wanted_kinds:
            kinds |= sc.CLONE_NEWTIME
        with ExitStack() as always, ExitStack() as undo:
            ours, theirs = birth.channel_pair(undo)
            always.callback(theirs.close)
            into = birth.into_cgroup(cgroup or self.cgroup, always)
            affinity = wanted.get("execCPUAffinity", {})
            job = Job(
                process=wanted,
                affinity=tuple(oci.cpu_set(affinity.get(key, ""), key) for key in ("initial", "final")),
                channel=theirs,
                parent=birth.own_pidfd(always),
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
            pid, pidfd = birth.clone(
                job, 0, into=into, pid_namespace=(self.pidfd, sc.CLONE_NEWPID), undo=undo
            )
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
    birth.guard_stdio()
    with ExitStack() as always, ExitStack() as undo:
        birth.make_directories(plan.root, undo)
        cgroup = birth.make_cgroup(cgroup_path, undo)
        warnings += cgroup.apply(linux.get("resources", {}))
        ours, theirs = birth.channel_pair(undo)
        into = birth.into_cgroup(cgroup, always)
        flags, join, pid_namespace = birth.namespaces(spec, always)
        plan = _reachable(plan, spec, always)
        job = Job(
            process=process,
            channel=theirs,
            parent=birth.own_pidfd(always),
            caps=caps,
            available_caps=available,
            cgroup=cgroup,
            join=join,
            stdio=stdio,
            console=console_slave,
            plan=plan,
            new_user_namespace=bool(flags & sc.CLONE_NEWUSER),
            seccomp=filter_,
            **_from_spec(spec),
            **{"keyring": f"_ses.{container_id}", "pdeathsig": parent_death_signal, **_from_command(command)},
            own_terminal=command is not None and bool(process.get("terminal")),
            hooks=steps,
            state=state,
        )
        pid, pidfd = birth.clone(job, flags, into=into, pid_namespace=pid_namespace, undo=undo)
        theirs.close()
        answers = _answers(pid, linux, steps, {**state, "pid": pid}, command)
        said = _until_ready(ours, f"container {container_id}", answers, cgroup)
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


def _from_spec(spec: Spec) -> dict[str, Any]:
    """What an init needs of config.json as it stands."""
    linux = spec.get("linux", {})
    return {
        "new_cgroup_namespace": oci.namespaces(spec).get("cgroup") == "",
        "time_offsets": birth.time_offsets(spec),
        "hostname": spec.get("hostname", ""),
        "domainname": spec.get("domainname", ""),
        "sysctls": linux.get("sysctl", {}),
        "personality": oci.PERSONALITIES[linux.get("personality", {}).get("domain", "")],
    }


def _reachable(plan: rootfs.Plan, spec: Spec, stack: ExitStack) -> rootfs.Plan:
    """With mounts' sources opened by us where the child, in a user namespace of its own, could not open them."""
    if "user" not in oci.namespaces(spec) and not any(plan.maps_ids):
        return plan
    plan = plan.with_open_sources()
    for fd in plan.descriptors:
        stack.callback(os.close, fd)
    return plan


def _answers(
    pid: int,
    linux: Linux,
    steps: Mapping[str, tuple[hooks.Hook, ...]],
    state: dict[str, Any],
    command: Command | None,
) -> Answers:
    return Answers(
        mappings=lambda: _write_mappings(pid, linux),
        hooks=lambda: _runtime_hooks(steps, state),
        console=command.console if command is not None else None,
    )


def _until_ready(channel: socket.socket, who: str, answers: Answers, cgroup: Cgroup) -> list[str]:
    """The warnings of an init that has come to its gate; an end by the kernel's OOM killer is named."""
    try:
        return converse(channel, who, answers=answers)
    except StateError as error:
        if cgroup.oom_kills():
            raise StateError(f"{error} by the kernel's OOM killer: its memory limit is too low") from error
        raise


def _runtime_hooks(steps: Mapping[str, tuple[hooks.Hook, ...]], state: dict[str, Any]) -> None:
    for kind in hooks.IN_RUNTIME:
        hooks.run_all(kind, steps.get(kind, ()), state)


def _inherited(process: Process) -> dict[str, Any]:
    """What a process in a running container gets when its request does not say (as runc exec)."""
    keys = ("capabilities", "rlimits", "noNewPrivileges", "apparmorProfile", "selinuxLabel", "oomScoreAdj")
    return {key: value for key, value in process.items() if key in keys}


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


def _write_mappings(pid: int, linux: Linux) -> None:
    from runtime.oci import idmap

    idmap.write_maps(pid, linux.get("uidMappings", []), linux.get("gidMappings", []))
