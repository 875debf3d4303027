"""create and run: how a container comes to be, by a command (runtime-spec runtime.md, "Lifecycle").

`create` ends and leaves a container behind that nobody is the parent of but whoever reaps orphans: the caller, as
podman's conmon and containerd's shim are. `run` stays, as its parent, until it ends.
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
from runtime.oci.cli import context, foreground, lifecycle, placing, store
from runtime.oci.cli.context import Context
from runtime.oci.cli.store import Entry
from runtime.oci.config import shape
from runtime.oci.config import spec as oci
from runtime.oci.job import Command, Detached

Flags = dict[str, Any]


def create(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`create ID`: a container that waits at its gate for `start`. Raises RuntimeFault."""
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
        entry.cgroup_path, scope = placing.place(at, container_id, spec.get("linux", {}))
        if scope is not None:
            entry.unit, entry.slice = scope.unit, scope.slice
        entry.save()  # whoever kills us now leaves what delete --force needs
        entry.write("config.json", raw)
        if oci.namespaces(spec).get("pid"):
            context.hide_arguments()  # from those who are in it
        command = Command(
            detached=_gate(entry, always) if detached else None,
            dies_with_us=stays,
            preserve=preserve,
            new_keyring=not flags.get("no-new-keyring"),
            pivot=not flags.get("no-pivot"),
            mounted=lambda text: entry.write("mounted", os.fsencode(text)),
            seccomp_cache=store.filters(at.root),
            scope=placing.starter(scope, container_id, spec) if scope is not None else None,
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
    """How many descriptors from 3 on the container keeps: --preserve-fds, and those of socket activation, which are
    told to it (sd_listen_fds(3)). Called before we open any of our own."""
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
    with lifecycle.short_path(entry, "start.sock") as path:
        listener.bind(path)
    listener.listen(1)
    return Detached(listener.fileno(), lock)


def _undo_create(made: engine.Container) -> None:
    made.delete()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(made.pid, 0)


def give_pidfd(flags: Flags, pidfd: int) -> None:
    """--pidfd-socket: who starts us may want to know of the process's end without being its parent."""
    if path := flags.get("pidfd-socket"):
        from runtime.oci.cli import console

        console.give(path, pidfd, b"pidfd", "the pidfd to socket")


def write_pid_file(path: str | None, pid: int) -> None:
    """By rename: whoever sees it sees a number."""
    if not path:
        return
    head, tail = os.path.split(os.path.abspath(path))
    draft = f"{head}/.{tail}.{os.getpid()}"
    try:
        # what is there already under that name is somebody's trap, or nobody's any more
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
    """Open the gate. False: execve failed, which has been said."""
    try:
        made.start()
    except StartError as error:
        at.log.said_by_init(str(error))
        return False
    return True


def run(at: Context, flags: Flags, arguments: list[str]) -> int:
    """Foreground: the program's exit code is ours. Detached: as create and start."""
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
