"""Turn a forked process into a pod's sandbox: namespaces, cgroups, signal handling.

The shim itself is in the pod's net, uts and ipc namespaces, so `/proc/<shim pid>/ns/{net,uts,ipc}` are the pod's.
Nothing needs to be mounted, and the kernel removes them with the last process. The shim stays in the host's mount and
pid namespaces, and in a cgroup outside the pod's, so that the pod's limits do not apply to it.
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
_DOTS_AND_SLASHES = str.maketrans("./", "/.")  # the first of both is the separator (sysctl.d(5))
_UTS_SYSCTLS = ("kernel.hostname", "kernel.domainname")

# Signals with an empty handler instead of SIG_IGN. A write to a closed pipe still fails with EPIPE, and systemd's stop
# has no effect, but execve resets a handler to the default, while an ignored signal would stay ignored in the children.
NO_EFFECT = (
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
    """What the forkserver does once for all shims. Otherwise each shim would spend time and memory pages on it."""

    shim_cgroup: str
    oom_score_adj: int
    arguments: tuple[int, int]  # the addresses of the argument vector in memory: [start, end)


def prepare_inheritance(
    shim_cgroup: str, oom_score_adj: int, before: Inheritance | None
) -> tuple[Inheritance, list[str]]:
    """In the forkserver, before a fork: enter the state that the shim needs. Returns it, and warnings about what
    failed. Cheap if `before` already matches."""
    if before is None:
        for number in NO_EFFECT:
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
    arguments = argument_vector() if before is None else before.arguments
    return Inheritance(shim_cgroup, oom_score_adj, arguments), warnings


def namespaces(config: SandboxConfig) -> int:
    """The CLONE_NEW* flags of a sandbox. hostNetwork shares the host name too."""
    if config.id_base:
        return 0  # the pause process creates them with the pod's user namespace
    flags = 0 if config.host_network else syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS
    return flags if config.host_ipc else flags | syscalls.CLONE_NEWIPC


def become_daemon(keep: set[int], flags: int) -> None:
    """The first steps after the fork, which do not depend on the pod: session, descriptors, namespaces."""
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
    """The pod's cgroup and pause process, which its containers need."""

    pod: Cgroup
    pause: Pause | None
    warnings: list[str]  # about settings that could not be applied
    cgroup_took: float  # seconds


def set_up(config: SandboxConfig, inherited: Inheritance, undo: ExitStack) -> Place:
    """Set up the pod's part: log, process title, host name, sysctls, pause process and cgroup.

    Namespaces need no undo, because they end with the process. Raises RuntimeFault, OSError.
    """
    log = os.open(f"{config.run_dir}/{LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(log, 2)
    os.close(log)
    set_title(f"kubelite-shim {config.uid}", inherited.arguments)
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
    from runtime.shim import pause  # few pods need it

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
    """Set a sysctl of one of the pod's own namespaces. SpecError for any other, because it would change the host."""
    allowed = (() if config.host_network else _NET_SYSCTLS + _UTS_SYSCTLS) + (
        () if config.host_ipc else _IPC_SYSCTLS
    )
    path = key if "/" in key.partition(".")[0] else key.translate(_DOTS_AND_SLASHES)
    dotted = path.replace("/", ".")
    if not dotted.startswith(allowed) or ".." in path:
        raise SpecError(
            f'sysctl "{key}" does not belong to a namespace of this pod; setting it would change the host'
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
    """Set our oom_score_adj. Going below the initial value needs CAP_SYS_RESOURCE (proc(5)); without it, return a
    warning."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise SyscallError(error.errno or 0, "write", "/proc/self/oom_score_adj") from error
        return [f"oom_score_adj {value} was not set for the shim: it needs CAP_SYS_RESOURCE"]
    return []


def argument_vector() -> tuple[int, int]:
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[45]), int(fields[46])  # arg_start, arg_end: fields 48 and 49 of proc_pid_stat(5)


def set_title(title: str, arguments: tuple[int, int]) -> None:
    """Set the argument vector, and comm to its first word, so that `ps` does not show the forkserver's command line.

    This writes through /proc/self/mem, because ctypes would cost every shim fifty pages.
    """
    start, end = arguments
    vector = title.encode()[: end - start - 1].ljust(end - start, b"\0")
    comm = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(comm, title.partition(" ")[0].encode())
        os.pwrite(memory, vector, start)
    except OSError:
        return  # a hardened kernel (proc_mem.restrict_write): keep the forkserver's title
    finally:
        os.close(comm)
        os.close(memory)
