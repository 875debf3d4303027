"""The longer steps of init.py, which documents their order and what each may rely on."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # avoids `signal`'s enum conversions: 0.1 ms per start
import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

from runtime import syscalls as sc
from runtime.errors import CapabilityError, SpecError, StartError, StateError, SyscallError
from runtime.oci import execve_arguments, execve_stub, pid_entry
from runtime.oci.config.spec import Box, Process
from runtime.oci.init_protocol import Job, Reporter
from runtime.oci.rootfs import rootfs
from runtime.oci.rootfs.console import Console
from runtime.security import capabilities

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.oci.rootfs.root import Root

NULL: Final = os.makedev(1, 3)  # /dev/null
# ioctl_tty(2): asm-generic's number, except on ppc64le.
_TIOCSWINSZ: Final = 0x5414 if os.uname().machine != "ppc64le" else 0x80087467


def die_with_parent(job: Job) -> None:
    """Have the kernel kill us when the parent dies (PR_SET_PDEATHSIG(2const)). If it is already dead, exit."""
    if not job.pdeathsig:
        return
    sc.prctl(sc.PR_SET_PDEATHSIG, job.pdeathsig)
    poll = select.poll()
    poll.register(job.parent, select.POLLIN)
    if poll.poll(0):  # a pidfd is readable once its process is dead
        os._exit(1)


def mapped_plan(job: Job, report: Reporter) -> rootfs.Plan:
    """Prepare the root's plan for the user namespace that we are about to join.

    While we are still the host's root, open all layers and bind sources and id-map their mounts. This happens in a new
    mount namespace, which ends with us.
    """
    assert job.plan is not None
    assert job.user_namespace is not None
    report.step = "rootfs"
    sc.unshare(sc.CLONE_NEWNS)
    sc.mount(None, "/", None, sc.MS_SLAVE | sc.MS_REC)
    return job.plan.mapped(job.user_namespace.fd, job.user_namespace.root)


def join(job: Job) -> None:
    """Join the namespaces that config.json names by path; for exec, all of the container's.

    Joining a user namespace grants privileges over the namespaces that belong to it, and removes them over all others.
    So join the others first as far as possible, then the user namespace, then the rest.
    """
    todo = job.join
    if job.user_namespace is not None and job.user_namespace.fd >= 0:
        todo = tuple(pair for pair in job.join if pair[1] == sc.CLONE_NEWUSER or not _joined(*pair))
    for fd, kind in todo:
        sc.setns(fd, kind, about="of the container")
    if job.root >= 0:  # the mount namespace's root may not be the container's
        os.fchdir(job.root)
        os.chroot(".")
    elif joins_mounts(job):
        from runtime.oci.rootfs import shared_root  # imported by the parent

        shared_root.check_proc(job.parent)


def _joined(fd: int, kind: int) -> bool:
    try:
        sc.setns(fd, kind)
    except SyscallError as error:
        if error.errno != errno.EPERM:
            raise
        return False
    return True


def joins_mounts(job: Job) -> bool:
    """Whether the container's file systems are mounted in an existing mount namespace."""
    return job.plan is not None and any(kind & sc.CLONE_NEWNS for _, kind in job.join)


def undo_mounts(job: Job, root: Root) -> None:
    """After a failure, undo the mounts in a joined mount namespace. One of the container's own ends with us."""
    if joins_mounts(job):
        from runtime.oci.rootfs import shared_root

        shared_root.undo_mounts(root.fd)


def ask_for_maps(job: Job, report: Reporter, tree: int, wanted: dict[str, Any]) -> None:
    """Ask the parent to id-map one of our mounts."""
    report.send({"map_ids": wanted}, tree)
    expect(job, b"mapped ids")


def clone_init_in_user_namespace(job: Job, report: Reporter) -> None:
    """Clone the container's init from inside the user namespace that we have joined, so that the container's new
    namespaces belong to it.

    Returns in the init; this process exits.
    """
    assert job.user_namespace is not None
    pid_entry.clone_successor(report, job.user_namespace.flags)
    die_with_parent(job)
    sc.prctl(sc.PR_SET_DUMPABLE, 0)


def kept_descriptors(job: Job) -> set[int]:
    """Descriptors to keep until execve, which closes all but the preserved ones."""
    waiting = () if job.detached is None else (job.detached.listener, job.detached.lock)
    return {job.channel.fileno(), job.parent, *waiting, *range(3, 3 + job.preserve)}


def become_stub(job: Job, last: execve_stub.Exec) -> None:
    """Replace the interpreter with the stub. Returns only if this machine cannot execute a memfd; the interpreter then
    continues."""
    capabilities.raise_ambient(last.kept_caps)
    if job.detached is not None:
        made = execve_stub.waiting(last, job.detached.listener, job.detached.lock)
        handed = [job.detached.listener, job.detached.lock]
    else:
        made = execve_stub.at_once(last, job.channel.fileno(), word=job.gate)
        handed = [job.channel.fileno()]
    for fd in handed:
        os.set_inheritable(fd, True)
    execve_stub.execute(made)
    for fd in handed:
        os.set_inheritable(fd, False)
    capabilities.clear_ambient()


def await_start(job: Job, report: Reporter) -> None:
    """Wait for a connection. The original parent has exited; the connecting process receives the result of the
    start."""
    assert job.detached is not None
    listener = socket.socket(fileno=job.detached.listener)
    report.channel = listener.accept()[0]
    listener.close()


def set_window(terminal: int, size: Box) -> None:
    fcntl.ioctl(terminal, _TIOCSWINSZ, struct.pack("=4H", size.get("height", 0), size.get("width", 0), 0, 0))


def open_terminal(job: Job, root: Root) -> None:
    """Open a terminal in the container's own devpts, so that programs can find its name (ttyname(3)). The slave becomes
    0, 1, 2 and /dev/console; the master is sent to the parent."""
    flags = os.O_RDWR | os.O_NOCTTY
    master = sc.openat2(root.fd, "dev/pts/ptmx", flags, resolve=sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_SYMLINKS)
    slave = sc.open_peer(master)
    if size := job.process.get("consoleSize"):
        set_window(slave, size)
    Console(slave, within=True).execute(root)
    for number in (0, 1, 2):
        os.dup2(slave, number, inheritable=True)
    if not job.enters_pid_namespace:
        fcntl.ioctl(0, execve_stub.TIOCSCTTY, 0)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, master.to_bytes(4, sys.byteorder))
    sc.note("sendmsg")
    job.channel.sendmsg([b'{"console": true}'], [rights])
    os.close(master)
    os.close(slave)


def default_signals() -> None:
    """Ignore and block no signals. Otherwise execve would preserve what the caller ignores (signal(7))."""
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def set_affinity(cpus: frozenset[int]) -> None:
    if cpus:
        os.sched_setaffinity(0, cpus)


def final_affinity(job: Job) -> None:
    """After joining the cgroup: set the requested CPU affinity, or all CPUs of the cgroup if none is requested.

    Otherwise the affinity inherited from the caller would stay in effect despite the cpuset (since Linux 6.2; runc 1.3
    does the same).
    """
    if any(job.affinity):
        set_affinity(job.affinity[1])
        return
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))


def expect(job: Job, word: bytes) -> None:
    """Wait for a message from the parent, and exit if it is another one or the parent has died, which closes the
    channel."""
    sc.note("recvfrom")
    said = job.channel.recv(64)
    if said != word:
        os._exit(1)


def place_stdio(job: Job) -> None:
    """Make the given descriptors 0, 1 and 2. They may themselves be among 0, 1, 2, so they are moved away first.

    This overwrites no socket or namespace file of ours: the parent has ensured that 0, 1 and 2 are open
    (spawn.guard_stdio).
    """
    if job.stdio is None and job.console is None:
        return
    wanted = job.stdio or (job.console, job.console, job.console)
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in wanted if fd is not None]
    for number, fd in enumerate(safe):
        os.dup2(fd, number, inheritable=True)
        os.close(fd)


def is_null(fd: int) -> bool:
    """Whether the descriptor is the null device; False if it is not open."""
    try:
        info = os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == NULL


def reopen_null(proc: int) -> None:
    """Replace the host's null device on 0, 1 or 2 with the container's own (runc's reOpenDevNull).

    With the host's, root in the container could chmod(2) or chown(2) it for the whole machine. If the container's
    /dev/null is something else, the descriptor becomes one end of a pipe whose other end is closed.
    """
    given = [fd for fd in (0, 1, 2) if is_null(fd)]
    if not given:
        return
    own = -1
    with contextlib.suppress(OSError):
        found = sc.openat2(sc.AT_FDCWD, "/dev/null", os.O_PATH, resolve=sc.RESOLVE_NO_MAGICLINKS)
        # check before opening it for real: a running container may have put anything there
        if is_null(found):
            own = os.open(f"self/fd/{found}", os.O_RDWR | os.O_CLOEXEC, dir_fd=proc)
    for fd in given:
        # The spare descriptors are closed with all others.
        os.dup2(own if own >= 0 else os.pipe()[fd > 0], fd, inheritable=True)


def open_proc() -> int:
    """A descriptor of the host's /proc, for later writes. By then another file system may be mounted at its path."""
    fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if sc.fstatfs_type(fd) != sc.PROC_SUPER_MAGIC:
        raise CapabilityError(
            "/proc on this machine is not procfs: mount procfs there before starting containers"
        )
    return fd


_PLAIN: Final = sc.RESOLVE_BENEATH | sc.RESOLVE_NO_MAGICLINKS | sc.RESOLVE_NO_XDEV


def write_proc(proc: int, path: str, value: str) -> None:
    """Write to a file in the host's procfs. Fails for a path that crosses a mount or a magic link, since that may leave
    procfs."""
    fd = sc.openat2(proc, path, os.O_WRONLY, resolve=_PLAIN)
    try:
        sc.note("write")
        os.write(fd, value.encode())
    except OSError as error:
        raise SyscallError(error.errno or 0, "write", f"{value!r} to /proc/{path}") from error
    finally:
        os.close(fd)


def open_offsets(proc: int, job: Job) -> int:
    """Open the file for a new time namespace's offsets, or return -1 if there are none to write.

    It must be opened before our ids change, because afterwards we do not own it. The kernel checks the privileges of
    the process that opened it, and we have them in our present user namespace (time_namespaces(7)).
    """
    return sc.openat2(proc, "self/timens_offsets", os.O_WRONLY, resolve=_PLAIN) if job.time_offsets else -1


def new_time(job: Job, file: int) -> None:
    """Create a time namespace and set its offsets while it has no processes. We enter it at execve."""
    if job.time_offsets is None:
        return
    sc.unshare(sc.CLONE_NEWTIME)
    if file >= 0:
        try:
            sc.note("write")
            os.write(file, job.time_offsets.encode())
        except OSError as error:
            raise SyscallError(error.errno or 0, "write", "/proc/self/timens_offsets") from error
        os.close(file)


def set_oom_score(proc: int, process: Process, report: Reporter) -> None:
    """Set process.oomScoreAdj. If lowering it is not permitted, set the lowest permitted value and warn."""
    wanted = process.get("oomScoreAdj")
    if wanted is None:
        return
    try:
        write_proc(proc, "self/oom_score_adj", str(wanted))
    except SyscallError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        # CAP_SYS_RESOURCE is needed to go below the minimum that a privileged process last set. That minimum is either
        # 0 or our present value.
        with contextlib.suppress(SyscallError):
            write_proc(proc, "self/oom_score_adj", str(max(wanted, 0)))
        report.warnings.append(
            f"oom_score_adj {wanted} was not set: lowering it needs CAP_SYS_RESOURCE, which this runtime does not have"
        )


def set_label(proc: int, process: Process) -> None:
    """Set the AppArmor profile or SELinux label that execve switches to (/proc/self/attr/exec)."""
    if profile := process.get("apparmorProfile", ""):
        if profile == "unconfined":
            return
        if not os.path.isdir("/sys/kernel/security/apparmor"):
            raise CapabilityError(
                f"process.apparmorProfile: cannot apply {profile!r}: this kernel has no AppArmor"
            )
        try:
            write_proc(proc, "self/attr/apparmor/exec", f"exec {profile}")
        except SyscallError as error:  # ENOENT: there is no such profile
            raise CapabilityError(f"process.apparmorProfile: {error}: is the profile loaded?") from error
    elif label := process.get("selinuxLabel", ""):
        if not os.path.isdir("/sys/fs/selinux"):
            raise CapabilityError(f"process.selinuxLabel: cannot apply {label!r}: this kernel has no SELinux")
        write_proc(proc, "self/attr/exec", label)


def confined(job: Job, filter_: tuple[bytes, int] | None) -> Callable[[], None] | None:
    """A function that installs the container's seccomp filter in a startContainer hook before execve (as runc does)."""
    if filter_ is None or not job.hooks.get("startContainer"):
        return None
    from runtime.security import seccomp

    def confine() -> None:
        seccomp.install(*filter_)

    return confine


_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1


def loopback_up() -> None:
    """Bring up `lo` in a new network namespace (netdevice(7)), as every runtime does."""
    sc.note("socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket.fileno(), _SIOCSIFFLAGS, struct.pack("=16sh22x", b"lo", _IFF_UP))


def join_keyring(name: str, report: Reporter) -> None:
    """Join a new session keyring (keyrings(7)), so that the container cannot access the caller's keys. Warn if that
    fails."""
    if not name:
        return
    try:
        sc.keyctl(sc.KEYCTL_JOIN_SESSION_KEYRING, os.fsencode(name))
    except SyscallError as error:
        if error.errno == errno.EDQUOT:  # over the key quota: run with an anonymous keyring, not the caller's
            sc.keyctl(sc.KEYCTL_JOIN_SESSION_KEYRING, None)
        elif error.errno != errno.ENOSYS:
            raise
        report.warnings.append(f"no session keyring {name}: {error}")


_POLICIES: Final = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_SCHED_FLAGS: Final = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_IO_CLASSES: Final = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}


def set_scheduling(process: Process) -> None:
    """Apply process.scheduler (sched_setattr(2)) and process.ioPriority (ioprio_set(2))."""
    if wanted := process.get("scheduler"):
        policy = _POLICIES.get(wanted.get("policy", "SCHED_OTHER"))
        flags = [_SCHED_FLAGS.get(name) for name in wanted.get("flags", [])]
        if policy is None or None in flags:
            raise SpecError(f"process.scheduler: unknown policy or flag in {wanted}")
        times = (wanted.get("runtime", 0), wanted.get("deadline", 0), wanted.get("period", 0))
        numbers = (wanted.get("nice", 0), wanted.get("priority", 0))
        attr = sc.pack_sched_attr(policy, sum(f for f in flags if f), *numbers, *times)
        try:
            sc.sched_setattr(0, attr)
        except SyscallError as error:
            if error.errno != errno.EPERM or len(os.sched_getaffinity(0)) == os.cpu_count():
                raise
            message = "process scheduler can't be used together with AllowedCPUs"  # runc's words
            raise CapabilityError(
                f"{message}: {wanted.get('policy')} needs all CPUs of the machine"
            ) from error
    if wanted_io := process.get("ioPriority"):
        kind = _IO_CLASSES.get(wanted_io.get("class", ""))
        if kind is None:
            raise SpecError(
                f"process.ioPriority.class: {wanted_io.get('class')!r} is none of {', '.join(_IO_CLASSES)}"
            )
        sc.ioprio_set(1, 0, kind << 13 | wanted_io.get("priority", 0))  # 1 = IOPRIO_WHO_PROCESS


def chdir(cwd: str, *, final: bool) -> bool:
    """chdir(2) without following magic links, so that it cannot enter a directory through a descriptor. False:
    permission denied, try again as the user."""
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        fd = sc.openat2(sc.AT_FDCWD, cwd, flags, resolve=sc.RESOLVE_NO_MAGICLINKS)
        os.fchdir(fd)
        os.close(fd)
    except OSError as error:
        if not final and error.errno in (errno.EACCES, errno.EPERM):
            return False
        raise StartError(
            f"chdir to cwd ({cwd!r}) set in config.json failed: {execve_arguments.lower(error)}"
        ) from error
    where = os.getcwd()
    if not where.startswith("/"):  # getcwd(2) of a directory outside the root: "(unreachable)/…"
        raise StateError("current working directory is outside of container mount namespace root")
    return True


def own_stdio(uid: int) -> None:
    """Change the owner of stdio to the user, so that it can reopen it (/dev/stdout → /proc/self/fd/1).

    Only for anonymous pipes and terminals, which belong to the container. Never for a device such as the host's
    /dev/null, and never for a file.
    """
    if uid == 0:
        return
    for fd in (0, 1, 2):
        try:
            info = os.fstat(fd)
            own_pipe = stat.S_ISFIFO(info.st_mode) and sc.fstatfs_type(fd) == sc.PIPEFS_MAGIC
            own_tty = stat.S_ISCHR(info.st_mode) and sc.fstatfs_type(fd) == sc.DEVPTS_SUPER_MAGIC
            if (own_pipe or own_tty) and info.st_uid != uid:
                os.fchown(fd, uid, -1)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL, errno.EPERM):
                raise


def install_with_listener(job: Job) -> None:
    """Install the filter and wait until the parent has passed its listener to the agent.

    Until then this process makes only the write(2) that reports the listener's number, because any other call could
    wait for the agent. spec_linux rejects profiles that notify on write.
    """
    from runtime.security import seccomp

    assert job.seccomp is not None
    channel = job.channel.fileno()
    listener = seccomp.install(*job.seccomp)
    os.write(channel, b'{"listener": %d}' % listener)
    expect(job, b"listened")
    os.close(listener)


def set_groups(additional: list[int], *, in_user_namespace: bool) -> None:
    """Set exactly these groups. If the user namespace forbids it and none are requested, keep the inherited groups."""
    try:
        os.setgroups(additional)
    except PermissionError:
        if additional or not in_user_namespace:  # "deny" in /proc/self/setgroups of a user namespace
            raise
