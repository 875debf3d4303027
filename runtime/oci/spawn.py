"""Prepare and clone a container's init process: directories, cgroup, channel, namespaces, clone3. Also kills and reaps
a child that never became a Container.

Every acquired resource is registered on the caller's ExitStack. Call this in a single-threaded process: clone3 copies
the interpreter.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without `signal`'s enum conversions
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from signal import SIG_BLOCK, SIG_SETMASK, SIGCHLD, SIGKILL, valid_signals
from typing import Final, NamedTuple

from runtime import syscalls as sc
from runtime.cgroups import Cgroup, Place, open_cgroup
from runtime.cgroups.files import read_or
from runtime.errors import CapabilityError, StateError, SyscallError
from runtime.oci import init, termination
from runtime.oci.config import spec as oci
from runtime.oci.config.spec import Spec
from runtime.oci.handshake import HANDSHAKE_SECONDS, next_message
from runtime.oci.init_protocol import Job
from runtime.oci.nsfile import open_namespace
from runtime.oci.rootfs import rootfs

END_SECONDS: Final = 2.0  # how long to wait for a killed process to die

_ALL_SIGNALS: Final = frozenset(map(int, valid_signals()))

# type → (name under /proc/<pid>/ns, flag). The user namespace comes first: joining the others may need its privileges.
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


def flags_of(spec: Spec) -> int:
    """The CLONE_NEW* flags of all the container's namespaces, new and joined."""
    return sum(_NAMESPACES[kind][1] for kind in oci.namespaces(spec))


def time_offsets(spec: Spec) -> str | None:
    """The content for timens_offsets of a new time namespace (time_namespaces(7)). None if the spec requests none."""
    if oci.namespaces(spec).get("time") != "":
        return None
    release = os.uname().release.split(".")
    if (int(release[0]), int(release[1].partition("-")[0])) < (6, 1):
        raise CapabilityError(
            "linux.namespaces: a time namespace needs Linux 6.1 or later, where execve(2) enters it"
        )
    wanted = spec.get("linux", {}).get("timeOffsets", {})
    return "".join(f"{clock} {o.get('secs', 0)} {o.get('nanosecs', 0)}\n" for clock, o in wanted.items())


def guard_stdio() -> None:
    """Open /dev/null on each of 0, 1 and 2 that is closed. Otherwise one of our sockets could get that number, and the
    child's stdio would overwrite it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # open(2) returns the lowest free number: this one


def make_directories(root: rootfs.RootMount, undo: ExitStack) -> None:
    """Create the mount point, upper and work directories that the caller has not created."""
    if not root.lower:
        return
    for path in (root.path, root.upper, root.work):
        try:
            sc.note("mkdirat" if sc.AT_ONLY else "mkdir")
            os.mkdir(path, 0o755)
        except FileExistsError:
            continue
        except OSError as error:
            raise SyscallError(error.errno or 0, "mkdir", path) from error
        undo.callback(_remove_tree, path)
        if path == root.upper:
            sc.note("fchmodat" if sc.AT_ONLY else "chmod")
            os.chmod(path, 0o755)  # this becomes the mode of "/", so our umask must not affect it


def _remove_tree(path: str) -> None:
    import shutil  # needed only after a failure

    shutil.rmtree(path, ignore_errors=True)


def make_cgroup(path: str, undo: ExitStack, *, thaws: bool = True) -> Cgroup:
    """Create the cgroup at `path`; an empty path means no cgroup.

    A frozen cgroup without processes is a leftover. It would stop the container at its first step. With `thaws` it is
    thawed and reused; otherwise StateError (runc refuses it with the same message).
    """
    if not path:
        from runtime.cgroups.no_cgroup import NoCgroup

        return NoCgroup()
    cgroup = open_cgroup(path)
    existed = cgroup.exists()
    if existed:
        _check_unused(cgroup)
        if not thaws and cgroup.frozen():
            raise StateError(f"container's cgroup unexpectedly frozen: {path}")
    if not existed:
        undo.callback(cgroup.remove)
    cgroup.create()
    return cgroup


def _check_unused(cgroup: Cgroup) -> None:
    if found := len(cgroup.pids()):
        raise StateError(f"container's cgroup is not empty: {found} process(es) found in {cgroup.path}")


def make_scope(
    path: str, scope: Callable[[int], Callable[[], None]], always: ExitStack, undo: ExitStack
) -> Cgroup:
    """Have systemd create the cgroup.

    `scope` takes a pid, starts a systemd scope for that process, and returns the function that stops the scope. A scope
    exists from its first process to its last, so an idle process holds it until the container's init has joined.
    """
    cgroup = open_cgroup(path)
    if cgroup.exists():
        _check_unused(cgroup)
    undo.callback(cgroup.remove)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    always.callback(os.close, reading)
    holder, holder_fd = sc.clone3(0, exit_signal=SIGCHLD)
    if holder == 0:
        os.close(writing)
        with contextlib.suppress(BaseException):
            os.read(reading, 1)  # returns when the parent closes its end or dies
        os._exit(0)
    always.callback(kill_and_reap, holder_fd)
    always.callback(os.close, writing)
    undo.callback(scope(holder))
    cgroup.create()  # systemd does not create it in the v1 hierarchies that it does not manage
    return cgroup


def into_cgroup(cgroup: Place, stack: ExitStack) -> int | None:
    """The descriptor for CLONE_INTO_CGROUP, closed with the stack. The child starts in the cgroup v2 side; its own
    attach(0) joins the v1 hierarchies."""
    into = cgroup.clone_fd()
    if into is not None:
        stack.callback(os.close, into)
    return into


def cgroup_of(pid: int) -> str:
    """The path of a process in the unified hierarchy; "" if the process no longer exists."""
    lines = read_or(f"/proc/{pid}/cgroup").splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")


def channel_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Both ends of the socket between a container's init and its parent, closed with the stack."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.callback(ours.close)
    stack.callback(theirs.close)
    return ours, theirs


def own_pidfd(stack: ExitStack) -> int:
    """A pidfd of this process, closed with the stack. The child uses it to detect that its parent has died."""
    fd = sc.pidfd_open(os.getpid())
    stack.callback(os.close, fd)
    return fd


class Namespaces(NamedTuple):
    """The namespaces of a container, without those that this process is already in (a shim is in its pod's)."""

    flags: int  # for clone3
    join: tuple[tuple[int, int], ...]  # what the child joins with setns: (descriptor, CLONE_NEW*)
    pid: tuple[int, int] | None  # the pid namespace to clone the child into

    def entered_last(self) -> Namespaces:
        """A copy for a child that joins the pid namespace itself."""
        return self if self.pid is None else Namespaces(self.flags, (*self.join, self.pid), None)


def namespaces(spec: Spec, stack: ExitStack) -> Namespaces:
    """Open the namespaces that the spec names by path; they are closed with the stack."""
    flags, join, pid_namespace = 0, [], None
    wanted = oci.namespaces(spec)
    for kind, (name, flag) in _NAMESPACES.items():
        path = wanted.get(kind)
        if path == "":
            # The root of a cgroup namespace is the cgroup of the process that creates it, so the child creates it after
            # joining its cgroup. Only unshare(2) can create a time namespace.
            flags |= flag if kind not in ("cgroup", "time") else 0
        if not path:
            continue
        fd = open_namespace(path, f"{kind} namespace")
        stack.callback(os.close, fd)
        theirs, ours = os.fstat(fd), os.stat(f"/proc/self/ns/{name}")
        if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
            continue
        if kind == "pid":
            pid_namespace = (fd, flag)
        else:
            join.append((fd, flag))
    return Namespaces(flags, tuple(join), pid_namespace)


def clone(
    job: Job, flags: int, *, into: int | None, pid_namespace: tuple[int, int] | None, undo: ExitStack
) -> tuple[int, int]:
    """Call clone3 and, in the child, init.run. Returns (pid, pidfd).

    setns(2) of a pid namespace affects only later children, never the caller. So the namespace to join is set before
    clone3, and our own is restored afterwards. Signals are blocked meanwhile: a pending handler would also run in the
    child.
    """
    if pid_namespace is not None:
        sc.setns(*pid_namespace, about="pid namespace")
    mask = _signal.pthread_sigmask(SIG_BLOCK, _ALL_SIGNALS)
    try:
        flags |= sc.CLONE_CLEAR_SIGHAND
        if job.adopted:  # then the kernel takes our own exit signal
            pid, pidfd = sc.clone3(flags | sc.CLONE_PARENT, exit_signal=0, cgroup=into)
        else:
            pid, pidfd = sc.clone3(flags, exit_signal=SIGCHLD, cgroup=into)
        if pid == 0:
            init.run(job)
        undo.callback(kill_and_reap, pidfd)
    except SyscallError as error:
        # ENOMEM is the kernel's answer if the namespace's init is dead.
        if pid_namespace is not None and error.errno == errno.ENOMEM:
            raise StateError("cannot join the pid namespace: its init process is dead") from error
        raise
    finally:
        _signal.pthread_sigmask(SIG_SETMASK, mask)
        if pid_namespace is not None:
            sc.setns(job.parent, sc.CLONE_NEWPID, about="return to the original pid namespace")
    return pid, pidfd


def receive_init(channel: socket.socket, who: str, undo: ExitStack) -> tuple[int, int]:
    """(pid, pidfd) of the container's init process, when a first child joins the user namespace and clones it.

    The init process is our child too (CLONE_PARENT). Raises the error that the first child reports; StateError if it
    dies or does not answer within HANDSHAKE_SECONDS.
    """
    channel.settimeout(HANDSHAKE_SECONDS)
    try:
        message = next_message(channel, who)
    except TimeoutError as error:
        raise StateError(
            f"{who}: its init process was not created within {HANDSHAKE_SECONDS:.0f} s"
        ) from error
    if message is None or not message.get("cloned"):
        raise StateError(f"{who}: its init process was killed before it was created")
    pidfd: int = message["fd"]
    undo.callback(kill_and_reap, pidfd)
    return pid_of(pidfd), pidfd


def check_clone(pid: object, pidfd: int, who: str) -> None:
    """Check the pidfd and the pid that a process in a pid namespace with hostile processes has announced.

    With CAP_SYS_PTRACE, those could take its socket (pidfd_getfd(2)) and announce another process. If `pidfd` is not a
    pidfd, or is one of a process other than `pid`, close it and raise StateError. A process that has been reaped has no
    pid any more, so it is accepted.
    """
    try:
        with contextlib.suppress(ChildProcessError):  # reaped already
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if isinstance(pid, int) and pid_of(pidfd) in (pid, -1):
            return
    except OSError:
        pass
    if pidfd >= 0:
        os.close(pidfd)
    raise StateError(f"{who}: something else than its process was announced")


def pid_of(pidfd: int) -> int:
    """The pid of a pidfd's process in our pid namespace (proc_pid_fdinfo(5)); -1 if it has been reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line[4:])
    return -1


def kill_and_reap(pidfd: int) -> None:
    """Kill and reap a child that never became a handle.

    A child that does not die within END_SECONDS (for example in uninterruptible sleep on a hung file system) is left to
    the caller, which reaps unknown children anyway.
    """
    with contextlib.suppress(SyscallError):
        sc.pidfd_send_signal(pidfd, SIGKILL)
    termination.has_exited(pidfd, END_SECONDS)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    os.close(pidfd)
