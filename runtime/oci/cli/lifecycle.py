"""create, start, run, kill, delete, pause, resume: the life of a container (runtime-spec runtime.md, "Operations").

`create` ends and leaves a container behind that nobody is the parent of but whoever reaps orphans: the caller, as
podman's conmon and containerd's shim are. `run` stays, as its parent, until it ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from runtime import syscalls as sc
from runtime.errors import NotFoundError, SpecError, StateError, SyscallError
from runtime.oci import birth, handshake, hooks, stub
from runtime.oci import container as engine
from runtime.oci import spec as oci
from runtime.oci.cli import context, store
from runtime.oci.cli.context import Context
from runtime.oci.cli.store import CREATED, PAUSED, RUNNING, STOPPED, Entry
from runtime.oci.job import Detached

Flags = dict[str, Any]
_START_SECONDS: Final = 60.0
_DEAD_SECONDS: Final = 10.0  # how long what was killed is waited for


# --- create ---


def create(at: Context, flags: Flags, arguments: list[str]) -> int:
    with ExitStack() as always:
        made, entry = _create(at, flags, arguments[0], always, detached=True)
        made.detach()
        os.close(made.pidfd)
        at.log.debug(f"created {entry.id}, pid {entry.pid}")
    return 0


def _create(
    at: Context, flags: Flags, container_id: str, always: ExitStack, *, detached: bool, stays: bool = False
) -> tuple[engine.Container, Entry]:
    """The container at its gate, and written down. What fails leaves nothing; what we made is closed by `always`."""
    context.refuse_systemd(at)
    store.check_id(container_id)
    bundle = os.path.abspath(flags.get("bundle") or ".")
    raw, spec = _read_spec(flags.get("config") or f"{bundle}/config.json")
    preserve = preserved(flags, spec)
    terminal = bool(spec["process"].get("terminal"))
    _check_console(flags, terminal=terminal, foreground=stays)
    with ExitStack() as undo:
        entry = store.make(at.root, container_id)
        undo.callback(entry.remove)
        always.callback(os.close, entry.lock())
        entry.bundle = bundle
        entry.rootfs = os.path.join(bundle, spec["root"]["path"])
        entry.annotations = spec.get("annotations") or {}
        entry.oci_version = spec["ociVersion"]
        entry.cgroup_path = context.cgroup_path(container_id, spec.get("linux", {}).get("cgroupsPath", ""))
        entry.save()  # whoever kills us now leaves what delete --force needs
        entry.write("config.json", raw)
        command = engine.Command(
            detached=_gate(entry, always) if detached else None,
            dies_with_us=stays,
            console=_console(flags, always) if terminal else None,
            preserve=preserve,
            new_keyring=not flags.get("no-new-keyring"),
            pivot=not flags.get("no-pivot"),
        )
        made = engine.create(
            spec, container_id=container_id, bundle=bundle, stdio=None, rootfs=None,
            cgroup_path=entry.cgroup_path, command=command,
        )  # fmt: skip
        undo.callback(_undo_create, made)
        for warning in made.warnings:
            at.log.warning(warning)
        entry.pid, entry.pid_start = made.pid, store.start_time(made.pid)
        entry.created = _timestamp()
        if (filter_ := made.seccomp) is not None:
            entry.write("seccomp.bpf", filter_[1].to_bytes(8, "little") + filter_[0])
        entry.save()
        write_pid_file(flags.get("pid-file"), made.pid)
        undo.pop_all()
        return made, entry


def _read_spec(path: str) -> tuple[bytes, oci.Spec]:
    import json

    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError as error:
        raise SpecError(f"JSON specification file {path} not found") from error
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise SpecError(f"{path} is not JSON: {error}") from error
    return raw, oci.validate(data)


def preserved(flags: Flags, spec: Any) -> int:
    """How many descriptors from 3 on the container keeps: --preserve-fds, and those of socket activation, which are
    told to it (sd_listen_fds(3)). Called before we open any of our own."""
    listening = 0
    if (count := os.environ.get("LISTEN_FDS", "")).isdigit():
        listening = int(count)
        env = spec["process"].setdefault("env", [])
        env += [f"LISTEN_FDS={count}", "LISTEN_PID=1"]
        if names := os.environ.get("LISTEN_FDNAMES"):
            env.append(f"LISTEN_FDNAMES={names}")
    wanted = listening + int(flags.get("preserve-fds", 0))
    for fd in range(3, 3 + wanted):
        try:
            os.fstat(fd)
        except OSError as error:
            raise StateError(
                f"unable to preserve fd {fd}: please check that file-descriptor {fd} is actually opened"
            ) from error
        os.set_inheritable(fd, True)
    return wanted


def _check_console(flags: Flags, *, terminal: bool, foreground: bool) -> None:
    """runc's rules and words."""
    socket_given = bool(flags.get("console-socket"))
    if terminal and not foreground and not socket_given:
        raise SpecError("cannot allocate tty if runc will detach without setting console socket")
    if not terminal and socket_given:
        raise SpecError("cannot use console socket if runc will not detach or allocate tty")


def _console(flags: Flags, always: ExitStack) -> Callable[[int], None]:
    from runtime.oci.cli import console

    if path := flags.get("console-socket"):
        return lambda master: console.send(path, master)
    keeper = console.Keeper()
    flags["_terminal"] = keeper
    always.callback(keeper.close)
    return keeper.take


def _gate(entry: Entry, always: ExitStack) -> Detached:
    """The listening socket and the lock that the init holds until it has executed the program."""
    lock = os.open(entry.path("gate"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    always.callback(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    always.callback(listener.close)
    with _short_path(entry, "start.sock") as path:
        listener.bind(path)
    listener.listen(1)
    return Detached(listener.fileno(), lock)


@contextlib.contextmanager
def _short_path(entry: Entry, name: str) -> Any:
    """A path that fits a socket's address (108 bytes), however deep --root is."""
    fd = os.open(entry.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def _undo_create(made: engine.Container) -> None:
    made.delete()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(made.pid, 0)


def write_pid_file(path: str | None, pid: int) -> None:
    """By rename: whoever sees it sees a number."""
    if not path:
        return
    head, tail = os.path.split(os.path.abspath(path))
    draft = f"{head}/.{tail}.{os.getpid()}"
    try:
        with open(draft, "w", encoding="ascii") as file:
            file.write(str(pid))
        os.rename(draft, path)
    except OSError as error:
        raise SyscallError(error.errno or 0, "write", f"pid file {path}") from error


def _timestamp() -> str:
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"


# --- start ---


def start(at: Context, _flags: Flags, arguments: list[str]) -> int:
    entry = store.load(at.root, arguments[0])
    lock = entry.lock()
    try:
        _start(entry)
        _after_start(at, entry)
    finally:
        os.close(lock)
    return 0


def _start(entry: Entry) -> None:
    status = entry.status()
    if status == STOPPED:
        raise StateError("cannot start a container that has stopped")
    if status in (RUNNING, PAUSED):
        raise StateError("cannot start an already running container")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gate:
        gate.settimeout(_START_SECONDS)
        try:
            with _short_path(entry, "start.sock") as path:
                gate.connect(path)
            said = gate.recv(1 << 17)
        except ConnectionResetError:
            said = b""
        except (ConnectionRefusedError, FileNotFoundError) as error:
            raise StateError("cannot start a container that has stopped") from error
        except TimeoutError as error:
            raise StateError(f"container {entry.id} did not start within {_START_SECONDS:.0f} s") from error
    if said:
        _raise_start_error(entry, said)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(entry.path("start.sock"))


def _raise_start_error(entry: Entry, said: bytes) -> None:
    if (failed := stub.failure(said)) is not None:
        code, call = failed
        program = entry.spec()["process"]["args"][0] if call == "execve" else f"container {entry.id}"
        raise handshake.stub_failed(code, call, program)
    handshake.raise_said(f"container {entry.id}", said)


def _after_start(at: Context, entry: Entry) -> None:
    """poststart: a failure is a warning (runtime.md, Lifecycle, 9; as crun: runc kills the container)."""
    if not os.path.exists(entry.path("config.json")):
        return
    _run_late_hooks(at, entry, "poststart", "running", pid=entry.pid)


def _run_late_hooks(at: Context, entry: Entry, kind: str, status: str, pid: int = 0) -> None:
    if b'"' + kind.encode() + b'"' not in _read_or(entry.path("config.json")):
        return  # nearly always: not even parsed
    spec = entry.spec()
    steps = hooks.parse(spec.get("hooks") or {}).get(kind, ())
    state = engine.hook_state(spec, entry.id, entry.bundle, status, pid)
    for warning in hooks.warn_all(kind, steps, state):
        at.log.warning(warning)


def _read_or(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


# --- run ---


def run(at: Context, flags: Flags, arguments: list[str]) -> int:
    """Foreground: the program's exit code is ours. Detached: as create and start."""
    stays = not flags.get("detach")
    with ExitStack() as always:
        if stays and not flags.get("no-subreaper"):
            sc.prctl(sc.PR_SET_CHILD_SUBREAPER, 1)
        made, entry = _create(at, flags, arguments[0], always, detached=False, stays=stays)
        if stays:
            from runtime.oci.cli import foreground

            foreground.hold_signals()
        try:
            made.start()
            _after_start(at, entry)
        except BaseException:
            _delete(at, entry, force=True)
            raise
        if not stays:
            os.close(made.pidfd)
            return 0
        keeper = flags.get("_terminal")
        code = foreground.attend(made.pid, made.pidfd, keeper.release() if keeper is not None else -1)
        if not flags.get("keep"):
            _delete(at, entry, force=True)
        return code


# --- kill, pause, resume ---


def kill(at: Context, flags: Flags, arguments: list[str]) -> int:
    entry = store.load(at.root, arguments[0])
    number = parse_signal(arguments[1] if len(arguments) > 1 else "SIGTERM")
    if flags.get("all"):
        _kill_all(entry, number)
        return 0
    if entry.status() == STOPPED:
        raise StateError("container not running")
    made = entry.container()
    try:
        made.kill(number)
        if number == 9 and made.cgroup.frozen():  # what is frozen dies only thawed
            made.cgroup.thaw()
    except StateError as error:
        raise StateError("container not running") from error
    finally:
        os.close(made.pidfd)
    return 0


def _kill_all(entry: Entry, number: int) -> None:
    """Each process of its cgroup, whether its init lives or not (it may have had no pid namespace of its own)."""
    cgroup = entry.cgroup
    if not cgroup.exists():
        raise StateError("container not running")
    handle = engine.Container(entry.id, 0, -1, cgroup, {})
    handle.kill(number, everything=True)


def parse_signal(text: str) -> int:
    """`15`, `TERM`, `SIGTERM`, `sigterm`, `SIGRTMIN+3`. StateError in runc's words for what is none."""
    import signal

    if text.isdigit() and 0 < int(text) <= 64:
        return int(text)
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    base, plus, offset = name.partition("+") if "+" in name else name.partition("-")
    found = getattr(signal, base, None)
    if isinstance(found, int) and "_" not in base:
        number = int(found) + (int(f"{plus}{offset}") if offset.isdigit() else 0)
        if 0 < number <= 64 and (not plus or base in ("SIGRTMIN", "SIGRTMAX")):
            return number
    raise StateError(f"unknown signal {text!r}")


def pause(at: Context, _flags: Flags, arguments: list[str]) -> int:
    entry = store.load(at.root, arguments[0])
    status = entry.status()
    if status == PAUSED:
        raise StateError("container already paused")
    if status not in (RUNNING, CREATED):
        raise StateError(f"container not running or created: {status}")
    entry.cgroup.freeze()
    return 0


def resume(at: Context, _flags: Flags, arguments: list[str]) -> int:
    entry = store.load(at.root, arguments[0])
    if entry.status() != PAUSED:
        raise StateError("container not paused")
    entry.cgroup.thaw()
    return 0


# --- delete ---


def delete(at: Context, flags: Flags, arguments: list[str]) -> int:
    force = bool(flags.get("force"))
    try:
        entry = store.load(at.root, arguments[0])
    except NotFoundError:
        if not force:
            raise
        _remove_rest(at.root, arguments[0])
        return 0
    except StateError:
        if not force:
            raise
        _remove_rest(at.root, arguments[0])
        return 0
    _delete(at, entry, force=force)
    return 0


def _delete(at: Context, entry: Entry, *, force: bool) -> None:
    status = entry.status()
    # A container that is only created is deleted too: runc and crun do, whatever runtime.md ("Delete") says
    if status not in (STOPPED, CREATED) and not force:
        raise StateError(f"cannot delete container {entry.id} that is not stopped: {status}")
    if entry.pid:
        _end_init(entry)
    if entry.cgroup_path:
        entry.cgroup.remove()
    _run_late_hooks(at, entry, "poststop", "stopped")
    with contextlib.suppress(FileNotFoundError):  # deleted by another at the same moment
        entry.remove()


def _end_init(entry: Entry) -> None:
    """SIGKILL, and wait: a container without a pid namespace of its own has an init that is nobody's but ours."""
    try:
        pidfd = sc.pidfd_open(entry.pid)
    except SyscallError as error:
        if error.errno != errno.ESRCH:
            raise
        return
    try:
        if not store.alive(entry.pid, entry.pid_start):
            return
        with contextlib.suppress(SyscallError):
            sc.pidfd_send_signal(pidfd, 9)
        if entry.cgroup.frozen():
            entry.cgroup.thaw()
        birth.wait_dead(pidfd, _DEAD_SECONDS)
    finally:
        os.close(pidfd)
    with contextlib.suppress(ChildProcessError):  # `run`: it is our own child
        os.waitpid(entry.pid, os.WNOHANG)


def _remove_rest(root: str, container_id: str) -> None:
    """A directory that holds no readable state: what a create killed in its first moment leaves."""
    directory = f"{root}/{store.check_id(container_id)}"
    if os.path.isdir(directory):
        store.Entry(directory, container_id).remove()
