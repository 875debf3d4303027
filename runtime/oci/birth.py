"""What a container's process is made of before it lives: directories, cgroup, channel, namespaces, clone3; and its end
when it never came to be one.

Each thing acquired goes on the caller's ExitStack. Called in a single-threaded process: clone3 copies the interpreter.
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
from runtime.oci import ending, init
from runtime.oci.config import spec as oci
from runtime.oci.config.spec import Spec
from runtime.oci.handshake import HANDSHAKE_SECONDS, next_word
from runtime.oci.job import Job
from runtime.oci.nsfile import open_namespace
from runtime.oci.rootfs import rootfs

END_SECONDS: Final = 2.0  # how long what is killed is waited for

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


def flags_of(spec: Spec) -> int:
    """CLONE_NEW* of all that the container has, new or joined."""
    return sum(_NAMESPACES[kind][1] for kind in oci.namespaces(spec))


def time_offsets(spec: Spec) -> str | None:
    """What goes into timens_offsets of a new time namespace (time_namespaces(7)); None without one."""
    if oci.namespaces(spec).get("time") != "":
        return None
    release = os.uname().release.split(".")
    if (int(release[0]), int(release[1].partition("-")[0])) < (6, 1):
        raise CapabilityError("linux.namespaces: a time namespace needs Linux 6.1, where execve(2) enters it")
    wanted = spec.get("linux", {}).get("timeOffsets", {})
    return "".join(f"{clock} {o.get('secs', 0)} {o.get('nanosecs', 0)}\n" for clock, o in wanted.items())


def guard_stdio() -> None:
    """With 0, 1 or 2 closed, a socket of ours would get that number and be overwritten by the child's stdio."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # takes the lowest free number: this one


def make_directories(root: rootfs.RootMount, undo: ExitStack) -> None:
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


def make_cgroup(path: str, undo: ExitStack, *, thaws: bool = True) -> Cgroup:
    """ "" is none. `thaws`: a frozen one without processes is somebody's leftover, that would stop the container
    at its first step (runc refuses it, in these words); else it is an error."""
    if not path:
        from runtime.cgroups.nothing import NoCgroup

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
    """A cgroup that systemd makes: `scope` asks it to, for a process, and gives what takes it back. A scope lives from
    its first process to its last: one that does nothing holds it until the container's init is in it."""
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
            os.read(reading, 1)  # until the parent lets go, or is dead
        os._exit(0)
    always.callback(end, holder_fd)
    always.callback(os.close, writing)
    undo.callback(scope(holder))
    cgroup.create()  # what systemd leaves to us: v1 hierarchies that are not its own
    return cgroup


def into_cgroup(cgroup: Place, stack: ExitStack) -> int | None:
    """For CLONE_INTO_CGROUP: the child is born in the cgroup2 side; its own attach(0) does what is v1."""
    into = cgroup.clone_fd()
    if into is not None:
        stack.callback(os.close, into)
    return into


def cgroup_of(pid: int) -> str:
    """Where a process is in the unified hierarchy; "" when it is gone."""
    lines = read_or(f"/proc/{pid}/cgroup").splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")


def channel_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Both ends of the socket between a container's init and its maker, closed with the stack."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.callback(ours.close)
    stack.callback(theirs.close)
    return ours, theirs


def own_pidfd(stack: ExitStack) -> int:
    """A descriptor of this process, by which a child sees that it has died, closed with the stack."""
    fd = sc.pidfd_open(os.getpid())
    stack.callback(os.close, fd)
    return fd


class Namespaces(NamedTuple):
    """Of a container. One that is ours already is left out: the shim lives in its pod's."""

    flags: int  # for clone3
    join: tuple[tuple[int, int], ...]  # what the child joins by setns: (descriptor, CLONE_NEW*)
    pid: tuple[int, int] | None  # the pid namespace that it is born into


def namespaces(spec: Spec, stack: ExitStack) -> Namespaces:
    """Opens what is named by path, for as long as `stack`."""
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
        undo.callback(end, pidfd)
    except SyscallError as error:
        if pid_namespace is not None and error.errno == errno.ENOMEM:  # how the kernel says its init is dead
            raise StateError("the pid namespace to join has no living init any more") from error
        raise
    finally:
        _signal.pthread_sigmask(SIG_SETMASK, mask)
        if pid_namespace is not None:
            sc.setns(job.parent, sc.CLONE_NEWPID, about="back to the own pid namespace")
    return pid, pidfd


def second(channel: socket.socket, who: str, undo: ExitStack) -> tuple[int, int]:
    """(pid, pidfd) of the container's init, whom the child that joined its user namespace has made in its place, as our
    child too. What the first one failed at is raised."""
    channel.settimeout(HANDSHAKE_SECONDS)
    try:
        said = next_word(channel, who)
    except TimeoutError as error:
        raise StateError(f"{who}: its init was not made within {HANDSHAKE_SECONDS:.0f} s") from error
    if said is None or not said.get("born"):
        raise StateError(f"{who}: its init was killed before it was made")
    pidfd: int = said["fd"]
    os.set_inheritable(pidfd, False)
    undo.callback(end, pidfd)
    return sc.pidfd_pid(pidfd), pidfd


def end(pidfd: int) -> None:
    """Kill and reap a child that never became a handle. One that does not die in time (uninterruptible, in a file
    system that hangs) is left to the caller's own reaping of children it does not know."""
    with contextlib.suppress(SyscallError):
        sc.pidfd_send_signal(pidfd, SIGKILL)
    ending.wait_dead(pidfd, END_SECONDS)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    os.close(pidfd)
