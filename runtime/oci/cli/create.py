"""The commands `create` and `run` (runtime-spec runtime.md, "Lifecycle").

`create` exits after it has created the container. The container's new parent is the nearest subreaper, such as podman's
conmon or containerd's shim, otherwise process 1. `run` stays as the parent until the container exits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from runtime import syscalls as sc
from runtime.errors import SpecError, StartError, StateError, SyscallError
from runtime.oci import container as engine
from runtime.oci.cli import container_cgroup, context, foreground, lifecycle, store
from runtime.oci.cli.context import Context
from runtime.oci.cli.store import Entry
from runtime.oci.config import shape
from runtime.oci.config import spec as oci
from runtime.oci.init_protocol import Command, Detached

Flags = dict[str, Any]


def create(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`create ID`: create a container that waits for `start`. Raises RuntimeFault."""
    with ExitStack() as always:
        made, entry = _create(at, flags, arguments[0], always, detached=True)
        made.detach()
        os.close(made.pidfd)
        at.log.debug(f"created {entry.id}, pid {entry.pid}")
    return 0


def _create(
    at: Context, flags: Flags, container_id: str, always: ExitStack, *, detached: bool, stays: bool = False
) -> tuple[engine.Container, Entry]:
    """Create the container and record it. A failure leaves nothing behind. `always` closes what is needed until the
    command ends."""
    store.check_id(container_id)
    bundle = os.path.abspath(flags.get("bundle") or ".")
    raw, spec = _read_spec(flags.get("config") or f"{bundle}/config.json")
    preserve = preserved(flags, spec)
    terminal = bool(spec["process"].get("terminal"))
    check_console(flags, terminal=terminal, foreground=stays)
    with ExitStack() as undo:
        entry = store.make(at.root, container_id)
        undo.callback(entry.remove)
        always.callback(os.close, entry.lock())
        entry.bundle = bundle
        entry.rootfs = os.path.join(bundle, spec["root"]["path"])
        entry.annotations = spec.get("annotations") or {}
        entry.oci_version = spec["ociVersion"]
        entry.cgroup_path, scope = container_cgroup.choose(at, container_id, spec.get("linux", {}))
        if scope is not None:
            entry.unit, entry.slice = scope.unit, scope.slice
        entry.save()  # if we are killed from here on, `delete --force` has what it needs
        entry.write("config.json", raw)
        if oci.namespaces(spec).get("pid"):
            context.hide_arguments()  # other processes in that namespace could read them
        command = Command(
            detached=_gate(entry, always) if detached else None,
            dies_with_us=stays,
            preserve=preserve,
            new_keyring=not flags.get("no-new-keyring"),
            pivot=not flags.get("no-pivot"),
            mounted=lambda text: entry.write("mounted", os.fsencode(text)),
            seccomp_cache=store.filters(at.root),
            scope=container_cgroup.starter(scope, container_id, spec) if scope is not None else None,
        )
        made = engine.create(
            spec, container_id=container_id, bundle=bundle, stdio=None, rootfs=None,
            console=_console(flags, always) if terminal else None,
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
        give_pidfd(flags, made.pidfd)
        write_pid_file(flags.get("pid-file"), made.pid)
        undo.pop_all()
        return made, entry


def _read_spec(path: str) -> tuple[bytes, oci.Spec]:
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError as error:
        raise SpecError(f"JSON specification file {path} not found") from error
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    return raw, oci.validate(shape.parse(raw, path))


def preserved(flags: Flags, spec: Any) -> int:
    """How many descriptors, from 3 on, the container keeps: those of --preserve-fds, plus those of socket activation.

    The latter are announced in its environment (sd_listen_fds(3)). Call this before we open descriptors of our own.
    StateError if one is not open.
    """
    listening = 0
    if (count := os.environ.get("LISTEN_FDS", "")).isdecimal():
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


def check_console(flags: Flags, *, terminal: bool, foreground: bool) -> None:
    """Check --console-socket against the terminal setting, with runc's rules and messages."""
    socket_given = bool(flags.get("console-socket"))
    if terminal and not foreground and not socket_given:
        raise SpecError("cannot allocate tty if runc will detach without setting console socket")
    if not terminal and socket_given:
        raise SpecError("cannot use console socket if runc will not detach or allocate tty")
    if terminal and not socket_given and not any(map(os.isatty, (2, 1, 0))):
        # runc relays the process's terminal to its own; without one, nobody could end the process's input
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
        except OSError as error:
            raise StateError(
                f"open /dev/tty: {(error.strerror or '').lower()}: the process has a terminal (process.terminal, "
                "--tty), but kubelite-oci has none; run it in a terminal, or use --detach and --console-socket"
            ) from error


def _console(flags: Flags, always: ExitStack) -> Callable[[int], None]:
    from runtime.oci.cli import console

    if path := flags.get("console-socket"):
        return lambda master: console.send(path, master)
    keeper = console.Keeper()
    flags["_terminal"] = keeper
    always.callback(keeper.close)
    return keeper.take


def _gate(entry: Entry, always: ExitStack) -> Detached:
    """The listening socket for `start`, and the lock that the init holds until it has executed the program."""
    lock = os.open(entry.path("gate"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    always.callback(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    always.callback(listener.close)
    with lifecycle.short_path(entry, "start.sock") as path:
        listener.bind(path)
    listener.listen(1)
    return Detached(listener.fileno(), lock)


def _undo_create(made: engine.Container) -> None:
    made.delete()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(made.pid, 0)


def give_pidfd(flags: Flags, pidfd: int) -> None:
    """--pidfd-socket: send the pidfd to the caller, who can then wait for the process without being its parent."""
    if path := flags.get("pidfd-socket"):
        from runtime.oci.cli import console

        console.send_fd(path, pidfd, b"pidfd", "the pidfd to socket")


def write_pid_file(path: str | None, pid: int) -> None:
    """Write --pid-file by rename, so that a reader always sees a complete number."""
    if not path:
        return
    head, tail = os.path.split(os.path.abspath(path))
    draft = f"{head}/.{tail}.{os.getpid()}"
    try:
        # O_EXCL: a file of that name is a leftover or a planted link, which must not be followed
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, b"%d" % pid)
        finally:
            os.close(fd)
        os.rename(draft, path)
    except OSError as error:
        raise SyscallError(error.errno or 0, "write", f"pid file {path}") from error


def _timestamp() -> str:
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"


def _execute(at: Context, made: engine.Container) -> bool:
    """Start the container. False: execve failed, and the error has been logged."""
    try:
        made.start()
    except StartError as error:
        at.log.init_error(str(error))
        return False
    return True


def run(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`run ID`: create and start a container. In the foreground its exit code becomes ours. --detach makes it do
    the same as create and start."""
    stays = not flags.get("detach")
    with ExitStack() as always:
        if stays and not flags.get("no-subreaper"):
            sc.prctl(sc.PR_SET_CHILD_SUBREAPER, 1)
        if stays:
            foreground.hold_signals()
        made, entry = _create(at, flags, arguments[0], always, detached=False, stays=stays)
        try:
            if executed := _execute(at, made):
                lifecycle.after_start(at, entry)
        except BaseException:
            lifecycle.remove(at, entry, force=True)
            raise
        if not executed:
            lifecycle.remove(at, entry, force=True)
            return 1
        if not stays:
            os.close(made.pidfd)
            return 0
        keeper = flags.get("_terminal")
        code = foreground.attend(made.pid, made.pidfd, keeper.release() if keeper is not None else -1)
        if not flags.get("keep"):
            lifecycle.remove(at, entry, force=True)
        return code
