"""A pod's pause process: process 1 of its shared pid namespace, or the holder of its user namespace, or both.

Most pods have none. It is needed for `shareProcessNamespace`, where process 1 inherits orphans, and for `hostUsers:
false`: creating a user namespace needs a process, and the pod's network, IPC and UTS namespaces must be created in it
to belong to its root.

It ignores SIGCHLD, so the kernel reaps its orphans, and it only calls pause(2). It is a sealed program of a few hundred
bytes (`runtime.oci.execve_stub`) without capabilities, as user 65535, on an empty read-only root, without open files.
So processes in its namespace find nothing useful in /proc/1. It dies with the shim, and with it all processes in its
pid namespace (pid_namespaces(7)).
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from runtime import syscalls as sc
from runtime.errors import StateError
from runtime.oci import execve_stub, spawn
from runtime.oci.rootfs import idmap
from runtime.oci.rootfs.procfs import Procfs

NOBODY = 65535  # as in upstream's pause image; the last id of a pod's range
POD_NAMESPACES = sc.CLONE_NEWNET | sc.CLONE_NEWUTS | sc.CLONE_NEWIPC
_SECONDS = 10.0  # the time limit for its start


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause process, a child of the shim, which also reaps it. `end` kills it."""

    pid: int
    pidfd: int
    tree: int = -1  # O_PATH descriptor of a procfs of its pid namespace (rootfs/procfs.py); -1: none

    def end(self) -> None:
        self._close_tree()
        spawn.kill_and_reap(self.pidfd)

    def gone(self) -> Pause:
        """The value that replaces this one after the process has been reaped."""
        self._close_tree()
        os.close(self.pidfd)
        return Pause(0, -1)

    def _close_tree(self) -> None:
        if self.tree >= 0:
            os.close(self.tree)

    @property
    def procfs(self) -> Procfs | None:
        return Procfs(self.tree, self.pidfd) if self.tree >= 0 else None


def start(*, processes: bool, id_maps: Iterable[Mapping[str, Any]] = ()) -> Pause:
    """Start a pause process.

    `processes`: in a new pid namespace. `id_maps`: in a new user namespace with these mappings for users and groups,
    and in new POD_NAMESPACES that belong to it. Raises SyscallError, StateError; a failure leaves nothing behind.
    """
    maps = list(id_maps)
    flags = sc.CLONE_NEWNS | (sc.CLONE_NEWPID if processes else 0)
    if maps:
        flags |= sc.CLONE_NEWUSER | POD_NAMESPACES
    said_read, said_write = (end.detach() for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    us = sc.pidfd_open(os.getpid())
    try:
        pid, pidfd = sc.clone3(flags | sc.CLONE_CLEAR_SIGHAND, exit_signal=signal.SIGCHLD)
        if pid == 0:
            _become(go_read, said_write, us, shows_processes=processes and not maps)
        os.close(said_write)
        said_write = -1
        try:
            if maps:
                idmap.write_maps(pid, maps, maps)
            os.write(go_write, b"g")
            tree = _until_exec(said_read)
        except BaseException:
            spawn.kill_and_reap(pidfd)
            raise
        return Pause(pid, pidfd, tree)
    finally:
        for fd in (said_read, said_write, go_read, go_write, us):
            if fd >= 0:
                os.close(fd)


def _until_exec(said: int) -> int:
    """Wait for execve, which closes the socket. Returns the descriptor that the child has sent; -1 for none."""
    tree = -1
    try:
        with socket.socket(fileno=os.dup(said)) as channel:
            channel.settimeout(_SECONDS)
            while True:
                text, fds, _, _ = socket.recv_fds(channel, 4096, 1)
                if not text:
                    return tree
                if not fds:
                    message = text.decode(errors="replace")
                    raise StateError(f"the pod's pause process could not be started: {message}")
                tree = fds[0]
                os.set_inheritable(tree, False)
    except BaseException as error:
        if tree >= 0:
            os.close(tree)
        if isinstance(error, TimeoutError):
            message = f"the pod's pause process did not start within {_SECONDS:.0f} s"
            raise StateError(message) from error
        raise


def _become(go: int, said: int, parent: int, *, shows_processes: bool) -> NoReturn:
    """Runs in the child. It writes an error to the socket `said`; execve closes it."""
    try:
        os.read(go, 1)
        _leave_everything(parent, said if shows_processes else -1)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # preserved by execve
        sc.close_all_except({said})
        if execve_stub.available():
            execve_stub.execute(_pause(), [b"/pause"])
        os.close(said)
        while True:
            signal.pause()
    except BaseException as error:  # noqa: BLE001 - nothing may escape into the shim's code
        os.write(said, str(error).encode()[:4000])
    finally:
        os._exit(1)


def _leave_everything(parent: int, to: int) -> None:
    sc.prctl(sc.PR_SET_DUMPABLE, 0)
    os.setresgid(0, 0, 0)  # root of the user namespace
    os.setresuid(0, 0, 0)
    _empty_root()
    if to >= 0:
        _send_procfs(to)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)  # this also drops all capabilities
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    # After the change of user, which would clear it. The shim may already be dead, so check that too.
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    poll = select.poll()
    poll.register(parent, select.POLLIN)
    if poll.poll(0):
        os._exit(1)


def _empty_root() -> None:
    """Change to an empty root, so that /proc/1/root shows nothing of the host."""
    sc.mount(None, "/", None, sc.MS_SLAVE | sc.MS_REC)
    flags = sc.MS_RDONLY | sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC
    sc.mount("tmpfs", "/sys", "tmpfs", flags, "size=4k,nr_inodes=1,mode=0555")
    os.chdir("/sys")
    sc.pivot_root(".", ".")
    sc.umount2(".", sc.MNT_DETACH)
    os.chdir("/")


def _send_procfs(to: int) -> None:
    """Mount a procfs of the new pid namespace and send its descriptor.

    The containers' inits need it. No other process may find it, because it shows everything that is masked in a
    container. So an empty file system covers it, and no path leads to it, not even /proc/1/root/..
    """
    context = sc.fsopen("proc")
    sc.fsconfig(context, sc.FSCONFIG_CMD_CREATE)
    tree = sc.fsmount(context)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    sc.attach_mount(tree, root, about="proc")
    sc.attach_mount(_empty(), tree, about="tmpfs")
    with socket.socket(fileno=os.dup(to)) as channel:
        socket.send_fds(channel, [b"procfs"], [tree])


def _empty() -> int:
    context = sc.fsopen("tmpfs")
    for key, value in (("size", "4k"), ("nr_inodes", "1"), ("mode", "0555")):
        sc.fsconfig(context, sc.FSCONFIG_SET_STRING, key, value)
    sc.fsconfig(context, sc.FSCONFIG_CMD_CREATE)
    flags = sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV | sc.MOUNT_ATTR_NOEXEC
    return sc.fsmount(context, sc.FSMOUNT_CLOEXEC, flags)


def _pause() -> execve_stub.Program:
    made = execve_stub.Program()
    # execve made it dumpable, and so open to ptrace
    made.call("prctl", sc.PR_SET_DUMPABLE, 0, verdict=execve_stub.OPTIONAL)
    made.call("prctl", sc.PR_SET_NAME, b"pause\0", verdict=execve_stub.OPTIONAL)
    made.call("pause", verdict=execve_stub.OPTIONAL)
    return made


def join(pause: Pause) -> None:
    """Enter the pod's namespaces, which belong to its user namespace. Raises SyscallError."""
    sc.setns(pause.pidfd, POD_NAMESPACES, about="of the pod")
