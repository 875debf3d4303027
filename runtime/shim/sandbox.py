"""What makes a forked process a pod's sandbox: its namespaces, its place in the cgroups, its manners as a parent.

The shim itself lives in the pod's net, uts and ipc namespaces, so `/proc/<shim pid>/ns/{net,uts,ipc}` are the pod's:
nothing is mounted anywhere, and the kernel ends them with the last process. It stays in the host's mount and pid
namespaces, and in a cgroup outside the pod's, so that the pod's limits never starve the one who watches them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from runtime import syscalls
from runtime.cgroups import Cgroup, open_cgroup
from runtime.errors import SpecError, SyscallError
from runtime.shim.protocol import ID_RANGE, SandboxConfig
from runtime.shim.state import LOG

if TYPE_CHECKING:
    from runtime.shim.pause import Pause

_SIOCSIFFLAGS = 0x8914
_LO_UP = struct.pack("16sH22x", b"lo", 1)  # struct ifreq: name, flags = IFF_UP

_NET_SYSCTLS = ("net.",)
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
_DOTS_AND_SLASHES = str.maketrans("./", "/.")  # whichever comes first is the separator (sysctl.d(5))
_UTS_SYSCTLS = ("kernel.hostname", "kernel.domainname")

# Caught by a handler that does nothing rather than ignored: a write to a closed pipe is EPIPE all the same, systemd's
# stop passes by, and the children get the default back by execve (an ignored signal would stay ignored in them).
_SHRUGGED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGPIPE,
    signal.SIGALRM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXFSZ,
)


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What the forkserver has done once, so that no shim needs to: each step costs time and pages of its own there."""

    shim_cgroup: str
    oom_score_adj: int
    arguments: tuple[int, int]  # where the argument vector lies in memory: [start, end)


def bequeath(
    shim_cgroup: str, oom_score_adj: int, before: Inheritance | None
) -> tuple[Inheritance, list[str]]:
    """In the forkserver, ahead of a fork: be where and what the shim has to be. Also returns what this machine
    refused. Cheap when `before` fits already."""
    if before is None:
        for number in _SHRUGGED:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.umask(0o022)
        os.chdir("/")
    warnings = []
    if before is None or before.oom_score_adj != oom_score_adj:
        warnings = _lower_oom_score(oom_score_adj)
    if before is None or before.shim_cgroup != shim_cgroup:
        group = open_cgroup(shim_cgroup)
        group.create()
        group.attach(0)
    arguments = _argument_vector() if before is None else before.arguments
    return Inheritance(shim_cgroup, oom_score_adj, arguments), warnings


def namespaces(config: SandboxConfig) -> int:
    """The CLONE_NEW* flags of a sandbox. hostNetwork shares the host's name too."""
    if config.id_base:
        return 0  # they are made with the pod's user namespace, by its pause
    flags = 0 if config.host_network else syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS
    return flags if config.host_ipc else flags | syscalls.CLONE_NEWIPC


def become_daemon(keep: set[int], flags: int) -> None:
    """First thing after the fork, and all that needs no knowledge of the pod: session, descriptors, namespaces."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    syscalls.close_all_except({0, 1, 2, *keep})
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    if flags:
        syscalls.unshare(flags)
    if flags & syscalls.CLONE_NEWNET:
        loopback_up()


class Place(NamedTuple):
    """Where a pod's containers come to be."""

    pod: Cgroup
    pause: Pause | None
    warnings: list[str]  # what this machine could not give
    cgroup_took: float  # seconds


def set_up(config: SandboxConfig, inherited: Inheritance, undo: ExitStack) -> Place:
    """Be this pod's: log, name in ps, host name, sysctls, the pod's pause process and cgroup. Namespaces need no undo:
    they go with the process."""
    log = os.open(f"{config.run_dir}/{LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 2)
    os.close(log)
    _set_title(config.uid, inherited.arguments)
    held = _pause(config, undo) if config.share_pid or config.id_base else None
    if not config.host_network:
        syscalls.sethostname(config.hostname)
    for key, value in config.sysctls.items():
        _write_sysctl(key, value, config)
    began, pod = time.perf_counter(), open_cgroup(config.cgroup)
    undo.callback(pod.remove)
    pod.create()
    warnings = pod.apply(config.resources) if config.resources else []
    return Place(pod, held, warnings, time.perf_counter() - began)


def _pause(config: SandboxConfig, undo: ExitStack) -> Pause:
    from runtime.shim import pause  # few pods have one

    maps = [{"containerID": 0, "hostID": config.id_base, "size": ID_RANGE}] if config.id_base else []
    held = pause.start(processes=config.share_pid, id_maps=maps)
    undo.callback(held.end)
    if config.id_base:
        pause.join(held)
        loopback_up()
    return held


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, _LO_UP)


def _write_sysctl(key: str, value: str, config: SandboxConfig) -> None:
    """Only what belongs to a namespace of the pod's own may be set: anything else would change the host."""
    allowed = (() if config.host_network else _NET_SYSCTLS + _UTS_SYSCTLS) + (
        () if config.host_ipc else _IPC_SYSCTLS
    )
    path = key if "/" in key.partition(".")[0] else key.translate(_DOTS_AND_SLASHES)
    dotted = path.replace("/", ".")
    if not dotted.startswith(allowed) or ".." in path:
        raise SpecError(
            f'sysctl "{key}" does not belong to a namespace of this pod, setting it would change the host'
        )
    try:
        fd = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise SpecError(f'sysctl "{key}" cannot be set to "{value}": {error.strerror}') from error


def _lower_oom_score(value: int) -> list[str]:
    """As low as we may: below what the forkserver started with needs CAP_SYS_RESOURCE (proc(5))."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise SyscallError(error.errno or 0, "write", "/proc/self/oom_score_adj") from error
        return [f"oom_score_adj {value} of the shim refused (no CAP_SYS_RESOURCE)"]
    return []


def _argument_vector() -> tuple[int, int]:
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[45]), int(fields[46])  # arg_start, arg_end: fields 48 and 49 of proc_pid_stat(5)


def _set_title(uid: str, arguments: tuple[int, int]) -> None:
    """What `ps` shows is this process, not the forkserver's command line: comm, and the argument vector in place.
    (Through /proc/self/mem: ctypes would cost every shim fifty pages for it.)"""
    start, end = arguments
    title = f"kubelite-shim {uid}".encode()[: end - start - 1].ljust(end - start, b"\0")
    comm = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(comm, b"kubelite-shim")
        os.pwrite(memory, title, start)
    except OSError:
        return  # a hardened kernel (proc_mem.restrict_write): then it keeps the forkserver's name
    finally:
        os.close(comm)
        os.close(memory)
