"""Containers created by another OCI runtime (a pod's runtimeClassName) through its command line.

The commands are create, start, exec, kill, update and delete, with the same config.json that our own engine would get
(runtime-spec runtime.md, "Operations"; flags as in runc).

The shim still handles the container's pipes or terminal, its log and its exit code. The container becomes the shim's
child, because the shim is the subreaper of the processes that a command leaves behind. The command runs in its own
mount namespace, in which the overlay is mounted, so that it does not appear on the host.

The shim waits for commands, with a time limit. The exception is exec, which a container can delay: the loop watches its
`Pending`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from runtime import syscalls as sc
from runtime.cgroups import Cgroup, layout, open_cgroup
from runtime.errors import NotFoundError, RuntimeFault, StartError, StateError, SyscallError
from runtime.oci import container as engine
from runtime.oci import hooks, init_steps, prepare, termination
from runtime.oci.config import shape
from runtime.oci.config import spec as oci
from runtime.oci.pending import ExecHandle
from runtime.shim.protocol import RootfsOverlay
from runtime.shim.stage import Stage, stage

SECONDS = 60.0  # the time limit for a command
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_ALL_SIGNALS = frozenset(range(1, signal.NSIG)) - {32, 33}  # 32 and 33 belong to the C library


@dataclass(slots=True)
class Runtime:
    """A runtime's command for one container. The runtime keeps its state in the container's bundle, so that both are
    deleted together."""

    path: str
    bundle: str

    def command(self, log: str, *args: str) -> list[str]:
        return [
            self.path, "--root", f"{self.bundle}/runtime", "--log", log, "--log-format", "json", *args
        ]  # fmt: skip

    def run(
        self,
        *args: str,
        stdin: bytes = b"",
        stdio: engine.Stdio | None = None,
        mounts: Stage | None = None,
        owner: int = -1,
    ) -> None:
        """Run a command and wait for it. RuntimeFault with the runtime's own message if it fails."""
        log = f"{self.bundle}/{args[0]}.log"
        with contextlib.ExitStack() as stack:
            given = _memory(stdin, stack)
            null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
            stack.callback(os.close, null)
            pid, pidfd = spawn(
                self.command(log, *args), stdio or engine.Stdio(given, null, null), mounts, owner
            )
            stack.callback(os.close, pidfd)
            code = _wait(pid, pidfd)
            said = last_error(log)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(log)
        if code != 0:
            nothing = (
                f"{os.path.basename(self.path)} {args[0]} failed with exit code {code} without a message"
            )
            raise RuntimeFault(said or nothing, reason="RuntimeError")


@dataclass(slots=True)
class Foreign:
    """A container of another runtime, with the interface of `engine.Container`. `pid` is 0 if creating it failed."""

    id: str
    pid: int
    pidfd: int
    cgroup: Cgroup
    spec: dict[str, Any]
    runtime: Runtime
    warnings: tuple[str, ...] = ()
    times: str = ""  # empty: the runtime's steps are unknown

    def start(self) -> None:
        try:
            self.runtime.run("start", self.id)
        except RuntimeFault as fault:
            raise StartError(str(fault)) from fault

    def kill(self, number: int, *, everything: bool = False) -> None:
        """Signal the init or, with `everything`, all processes in its cgroup. StateError if the init has exited."""
        if self.pid == 0 or termination.has_exited(self.pidfd):
            raise StateError(f"container {self.id} is not running")
        if everything and number == signal.SIGKILL:
            self.cgroup.kill()
            return
        try:
            self.runtime.run("kill", *(["--all"] if everything else []), self.id, str(number))
        except RuntimeFault as fault:
            raise StateError(str(fault)) from fault

    def begin_exec(
        self, process: dict[str, Any], *, stdio: engine.Stdio, console_slave: int | None = None
    ) -> Pending:
        wanted: Any = {
            **prepare.inherited(self.spec["process"]),
            **process,
            "terminal": console_slave is not None,
        }
        return Pending.begin(self, dict(oci.process(wanted)), stdio)

    def update(self, resources: dict[str, Any]) -> list[str]:
        self.runtime.run(
            "update",
            "--resources",
            "-",
            self.id,
            stdin=json.dumps(_without_unified_on_v1(resources)).encode(),
        )
        return []

    def delete(self) -> None:
        """Delete the container. Idempotent. Removes the cgroup even if the runtime is no longer installed."""
        with contextlib.suppress(RuntimeFault, OSError):
            self.runtime.run("delete", "--force", self.id)
        self.cgroup.remove()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def not_created(path: str, container_id: str, bundle: str, spec: dict[str, Any]) -> Foreign:
    """A handle for the record of a container that could not be created."""
    return Foreign(
        container_id, 0, -1, open_cgroup(spec["linux"]["cgroupsPath"]), spec, Runtime(path, bundle)
    )


def create(
    spec: dict[str, Any],
    *,
    runtime: str,
    container_id: str,
    bundle: str,
    stdio: engine.Stdio | None,
    overlay: RootfsOverlay | None,
    console: Callable[[int], None] | None = None,
) -> Foreign:
    """Create a container that waits for start. `console` receives the master of its terminal, if any, and closes it.

    StartError with the runtime's message; nothing is left behind then.
    """
    made = not_created(runtime, container_id, bundle, spec)
    made.warnings = _adapt(bundle, spec)
    pid_file = f"{bundle}/pid"
    args = ["create", "--bundle", bundle, "--pid-file", pid_file]
    with contextlib.ExitStack() as stack:
        mounts = _stage(made, overlay, stack) if overlay is not None else None
        listening = stack.enter_context(_console(bundle)) if console is not None else None
        if listening is not None:
            args += ["--console-socket", listening[1]]
            stdio = _null_stdio(stack)
        try:
            os.makedirs(f"{bundle}/runtime", mode=0o700, exist_ok=True)
            made.runtime.run(
                *args, container_id, stdio=stdio, mounts=mounts, owner=_owner(spec, spec["process"])
            )
            made.pid = _read_pid(pid_file)
            made.pidfd = sc.pidfd_open(made.pid)
            if console is not None and listening is not None:
                console(_receive(listening[0]))
        except (RuntimeFault, OSError, ValueError) as error:  # ValueError: the pid file holds no number
            with contextlib.suppress(RuntimeFault, OSError):
                made.delete()
            name = os.path.basename(runtime)
            raise StartError(f"OCI runtime create failed: {name}: {error}") from error
    return made


def _adapt(bundle: str, spec: dict[str, Any]) -> tuple[str, ...]:
    """Adapt config.json to other runtimes on this machine and write it to the bundle. Returns warnings about the
    changes."""
    warnings = []
    linux, process = spec["linux"], spec["process"]
    linux["resources"] = _without_unified_on_v1(linux.get("resources") or {})
    score, floor = process.get("oomScoreAdj"), _own_oom_score()
    if score is not None and score < floor and not _may_lower_oom_score():
        process["oomScoreAdj"] = floor  # runc fails where our engine warns
        warnings.append(f"oom_score_adj {score} was not set: lowering it needs CAP_SYS_RESOURCE")
    _write(bundle, spec)
    return tuple(warnings)


def _write(bundle: str, spec: dict[str, Any]) -> None:
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(spec, file)


def _stage(made: Foreign, overlay: RootfsOverlay, stack: contextlib.ExitStack) -> Stage:
    """Prepare the mounts for the command, and write the config.json that uses them."""
    bundle = made.runtime.bundle
    mounts, config = stage(made.spec, bundle=bundle, runtime=made.runtime.path, overlay=overlay)
    if mounts.userns >= 0:
        stack.callback(os.close, mounts.userns)
    if config is not made.spec:
        _write(bundle, config)
    return mounts


def _owner(spec: dict[str, Any], process: dict[str, Any]) -> int:
    """The host uid that is to own a process's pipes; -1: the runtime sets the owner."""
    valid, one = oci.validate(spec), oci.process(process)
    return prepare.host_id(valid, one) if "user" in oci.namespaces(valid) else -1


def _without_unified_on_v1(resources: dict[str, Any]) -> dict[str, Any]:
    """The resources, without `unified` on a machine with cgroup v1, where runc rejects it."""
    return (
        resources if not layout().v1 else {key: value for key, value in resources.items() if key != "unified"}
    )


def _own_oom_score() -> int:
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        return int(file.read())


def _may_lower_oom_score() -> bool:
    from runtime.security import capability_names

    return bool(sc.capget()[0] >> capability_names.NUMBERS["CAP_SYS_RESOURCE"] & 1)


# --- exec ---


@dataclass(slots=True)
class Pending:
    """A running `exec --detach` command, with the interface of `PendingExec`.

    `pid` is that of the command. `channel` is readable once the command has exited. `master` is the process's terminal;
    it belongs to the caller once `step` has returned the handle.
    """

    pid: int
    channel: _Watched
    container: Foreign
    files: str  # the common prefix of its files
    console: tuple[socket.socket, str] | None
    stack: contextlib.ExitStack
    master: int = -1

    @classmethod
    def begin(cls, container: Foreign, process: dict[str, Any], stdio: engine.Stdio) -> Pending:
        files = f"{container.runtime.bundle}/exec-{os.urandom(6).hex()}"
        with contextlib.ExitStack() as stack:
            for suffix in ("json", "pid", "log"):
                stack.callback(_unlink, f"{files}.{suffix}")
            with open(f"{files}.json", "w", encoding="utf-8") as file:
                json.dump(process, file)
            args = ["exec", "--detach", "--process", f"{files}.json", "--pid-file", f"{files}.pid"]
            console = None
            if process["terminal"]:
                console = stack.enter_context(_console(container.runtime.bundle))
                args += ["--console-socket", console[1]]
                stdio = _null_stdio(stack)
            command = container.runtime.command(f"{files}.log", *args, container.id)
            pid, pidfd = spawn(command, stdio, None, _owner(container.spec, process))
            return cls(pid, _Watched(pidfd), container, files, console, stack.pop_all())

    def step(self) -> ExecHandle | None:
        """The handle once the command has succeeded; None while it runs. StartError if it failed.

        The handle's `pidfd` is -1 if the process has already exited and been reaped.
        """
        if not termination.has_exited(self.channel.fileno()):
            return None
        try:
            pid = _read_pid(f"{self.files}.pid")
        except (OSError, ValueError):
            raise StartError(
                last_error(f"{self.files}.log") or "the runtime's exec failed without a message"
            ) from None
        if self.console is not None:
            self.master = _receive(self.console[0])
        try:
            return ExecHandle(pid, sc.pidfd_open(pid))
        except SyscallError as error:
            if error.errno != errno.ESRCH:
                raise
            return ExecHandle(pid, -1)

    def done(self) -> None:
        self.channel.close()
        self.stack.close()

    def abandon(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.channel.fileno(), signal.SIGKILL)
        # Kill the process that it may have started, too. Both are reaped like any other child.
        with contextlib.suppress(OSError, ValueError):
            os.kill(_read_pid(f"{self.files}.pid"), signal.SIGKILL)
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
        self.done()


@dataclass(slots=True)
class _Watched:
    """A pidfd with the methods that the loop needs."""

    fd: int

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


# --- running a command ---


def spawn(argv: list[str], stdio: engine.Stdio, mounts: Stage | None, owner: int = -1) -> tuple[int, int]:
    """Run `argv`; returns its pid and a pidfd.

    With `mounts` it runs in a new mount namespace that contains them. `owner`: the host uid that is to own its pipes.
    Raises SyscallError, or NotFoundError with the message if the mounts or execve fail.
    """
    report, report_w = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(report, "rb") as file:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
        try:
            flags = sc.CLONE_CLEAR_SIGHAND | (sc.CLONE_NEWNS if mounts is not None else 0)
            pid, pidfd = sc.clone3(flags, exit_signal=signal.SIGCHLD)
            if pid == 0:
                _become(argv, stdio, mounts, owner, report_w)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(report_w)
        said = file.read().decode()
    if said:
        os.waitpid(pid, 0)
        os.close(pidfd)
        raise NotFoundError(said)
    return pid, pidfd


def _become(argv: list[str], stdio: engine.Stdio, mounts: Stage | None, owner: int, report: int) -> NoReturn:
    try:
        init_steps.default_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if mounts is not None:
            mounts.execute()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in map(_replace_null, stdio)]
        for number, fd in enumerate(high):
            os.dup2(fd, number)
        if owner >= 0:
            init_steps.own_stdio(owner)
        os.execve(argv[0], argv, _ENVIRONMENT)
    except BaseException as error:  # noqa: BLE001 - nothing may escape into the parent's code
        os.write(report, f"{argv[0]}: {error}".encode(errors="replace"))
    finally:
        os._exit(127)


def _replace_null(fd: int) -> int:
    """Replace the host's /dev/null by an empty file.

    crun makes the container's user the owner of its stdio, whatever kind of file that is. As the owner of the host's
    /dev/null, the user could deny access to it to everybody. An empty file reads the same.
    """
    status = os.fstat(fd)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == init_steps.NULL:
        return os.memfd_create("null", os.MFD_CLOEXEC)
    return fd


def _wait(pid: int, pidfd: int) -> int:
    if not termination.has_exited(pidfd, SECONDS):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def last_error(log: str) -> str:
    """The last error message in a runtime's JSON log; "" if there is none."""
    found = ""
    with contextlib.suppress(OSError), open(log, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(RuntimeFault):
                entry = shape.parse(line.encode(), log)
                if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
                    found = str(entry.get("msg", ""))
    return found


def _read_pid(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _memory(content: bytes, stack: contextlib.ExitStack) -> int:
    fd = hooks._memory("stdin", content)
    stack.callback(os.close, fd)
    return fd


@contextlib.contextmanager
def _console(directory: str) -> Iterator[tuple[socket.socket, str]]:
    """A listening socket in `directory`, and a path of it that is short enough for a socket address."""
    name = f"console-{os.urandom(6).hex()}"
    holder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            path = f"/proc/{os.getpid()}/fd/{holder}/{name}"
            listener.bind(path)
            listener.listen(1)
            try:
                yield listener, path
            finally:
                _unlink(f"{directory}/{name}")
    finally:
        os.close(holder)


def _receive(listener: socket.socket) -> int:
    """The master that the runtime sent before it exited. StateError if there is none."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    if not poll.poll(0):
        raise StateError("the runtime has sent no terminal")
    with listener.accept()[0] as sender:
        _, fds, _, _ = socket.recv_fds(sender, 4096, 1)
    if not fds:
        raise StateError("the runtime has sent no terminal")
    os.set_inheritable(fds[0], False)
    return fds[0]


def replace_fds(received: int, *fds: int) -> None:
    """Make `fds` refer to the received terminal master."""
    for fd in fds:
        os.dup2(received, fd, inheritable=False)
    os.close(received)


def _null_stdio(stack: contextlib.ExitStack) -> engine.Stdio:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    stack.callback(os.close, null)
    return engine.Stdio(null, null, null)
