"""The child: from clone3 to execve, in one straight line. Runs in the new process only and never returns.

    parent                                   child (here)
    cgroup made and limited
    clone3 ───────────────────────────────►  steps: cgroup, session, namespaces, root, credentials, …
    recv  ◄── {"ready", "warnings"} ───────  everything is done but seccomp's last word and execve
    Container.start: send "start" ─────────► execve
    recv  ◄── end of file ─────────────────  it worked: the socket is close-on-exec
    recv  ◄── {"error": …} ────────────────  it did not: step, class, errno and sentence

A parent that ends after create (`Job.detached`) says "detach" when it has heard "ready"; from there whoever connects to
the listening socket is the one who starts, and who hears of a failure. The last steps are then done by a stub
(stub.py), and the interpreter is gone while the gate is closed.

The child is a copy of an interpreter that knows nothing of having been cloned: it flushes nothing, runs no exit
handlers, and whatever is raised becomes one packet and os._exit.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without `signal`'s enum conversions: 0.1 ms a start
import contextlib
import errno
import fcntl
import gc
import json
import os
import select
import signal
import socket
import stat
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from runtime import syscalls as sc
from runtime.errors import CapabilityError, RuntimeFault, SpecError, StartError, StateError, SyscallError
from runtime.oci import hooks, program, rootfs, stub
from runtime.oci.operations import Console
from runtime.oci.spec import Process, sysctl_path
from runtime.security import capabilities, rlimits
from runtime.security.capabilities import CapSets

if TYPE_CHECKING:
    from runtime.cgroups import Cgroup
    from runtime.oci.root import Root

_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SYS_ADMIN: Final = 1 << capabilities.NUMBERS["CAP_SYS_ADMIN"]
_MAX_TEXT: Final = (
    4096  # characters of each part of an error: a program's name can be 128 KiB, a packet cannot
)
_NULL: Final = os.makedev(1, 3)  # /dev/null


@dataclass(frozen=True, slots=True)
class Detached:
    """For a parent that will not be there at the start."""

    listener: int  # a listening SOCK_SEQPACKET socket: to connect is to start
    lock: int  # an flock'd file, held for as long as the gate is closed: its state is the container's


@dataclass(frozen=True, slots=True)
class Job:
    """All the child needs, decided and opened by the parent. Descriptors named here are the only ones that survive."""

    process: Process
    channel: socket.socket
    parent: int  # pidfd of the process that must outlive us
    caps: CapSets
    available_caps: int  # our bounding set at the moment
    cgroup: Cgroup
    join: tuple[tuple[int, int], ...] = ()  # (namespace file or pidfd, CLONE_NEW* mask), in order
    stdio: tuple[int, int, int] | None = None
    console: int | None = None
    plan: rootfs.Plan | None = None  # None: join a container that has its root already (exec)
    new_cgroup_namespace: bool = False
    new_user_namespace: bool = False  # the parent writes the mappings, we wait for them
    time_offsets: str | None = None  # of a new time namespace
    affinity: tuple[frozenset[int], ...] = (
        frozenset(),
        frozenset(),
    )  # process.execCPUAffinity: before and after the cgroup
    keyring: str = ""
    hostname: str = ""
    domainname: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    seccomp: tuple[bytes, int] | None = None  # (BPF, SECCOMP_FILTER_FLAG_*)
    personality: int = -1  # personality(2), -1 = leave it
    pdeathsig: int = signal.SIGKILL
    gate: bool = True  # wait for "start" before execve
    detached: Detached | None = None
    use_stub: bool = False  # the last steps are the stub's
    own_terminal: bool = False  # open the terminal in the container's devpts, and send its master
    preserve: int = 0  # descriptors after 0, 1, 2 that are the container's
    hooks: Mapping[str, tuple[hooks.Hook, ...]] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)  # what hooks in the container are told
    pivot: bool = True  # False: MS_MOVE and chroot, for a root that cannot be pivoted from (initramfs)


class _Reporter:
    """Where we are, and what is said about it."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.step = "begin"
        self.warnings: list[str] = []

    def send(self, message: Mapping[str, Any]) -> None:
        self.channel.send(json.dumps(message).encode())

    def failed(self, error: BaseException) -> None:
        known = isinstance(error, RuntimeFault | OSError)
        about = {
            "step": self.step,
            "class": type(error).__name__ if isinstance(error, RuntimeFault) else "OSError",
            "errno": getattr(error, "errno", None) or 0,
            "message": str(error) if known else f"{type(error).__name__}: {error}",
            "call": getattr(error, "call", "") or self.step,
            "about": getattr(error, "about", "") or getattr(error, "filename", None) or "",
        }
        self.send({"error": {key: v if isinstance(v, int) else _cut(str(v)) for key, v in about.items()}})


def _cut(text: str) -> str:
    """Both ends tell more than one."""
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT // 2]} … {text[-_MAX_TEXT // 2 :]}"


def run(job: Job) -> NoReturn:
    """Become the container's process, or die having said why."""
    gc.disable()  # a collection would touch, and so copy, every page that is shared with the parent
    # What is not imported by now never is: from the next mount namespace on, the import path is the container's files.
    sys.meta_path.clear()
    report = _Reporter(job.channel)
    try:
        _init(job, report)
    except BaseException as error:  # noqa: BLE001 - whatever it is must not escape into the parent's code
        try:
            report.failed(error)
        finally:
            os._exit(1)
    os._exit(1)


def _init(job: Job, report: _Reporter) -> None:  # noqa: PLR0915, PLR0912 - the order is the point
    process = job.process
    user = process.get("user", {})
    uid, gid = user.get("uid", 0), user.get("gid", 0)

    # First of all: do not outlive the shim, not even while half made. The death may have come before prctl(2);
    # getppid() says nothing from inside a new pid namespace (it is 0), the parent's pidfd does.
    report.step = "parent"
    _die_with_parent(job)
    # Nobody in a namespace we are about to enter may ptrace us or look into /proc/<us>/fd (CVE-2016-9962).
    sc.prctl(sc.PR_SET_DUMPABLE, 0)
    # Python ignores SIGPIPE and SIGXFSZ; ignored and blocked signals are inherited over execve. (Handlers were
    # reset by CLONE_CLEAR_SIGHAND: no handler of the parent's ran, or wrote to its wakeup descriptor, from here.)
    _default_signals()

    # Descriptors of the parent's (other containers' pipes and logs) would be kept open by us.
    report.step = "stdio"
    _place_stdio(job)
    console = () if job.console is None else (job.console,)
    kept = _kept(job)
    trees = () if job.plan is None else job.plan.descriptors
    sc.close_all_except({0, 1, 2, *kept, *(fd for fd, _ in job.join), *console, *trees})

    # The host's /proc, kept by descriptor: after the namespaces change there is no other we can trust.
    proc = _open_proc()

    # Limits apply from here. Before the cgroup namespace, whose root is where we are when it is made.
    report.step = "cgroup"
    _set_affinity(job.affinity[0])
    job.cgroup.attach(0)  # where clone3 has not put us already
    _set_affinity(job.affinity[1])
    if job.new_user_namespace:
        report.send({"mappings": True})
        _expect(job, b"mapped")

    # A session of our own: no signal from the caller's terminal, and a terminal can become the controlling one.
    report.step = "session"
    os.setsid()
    if job.console is not None:
        fcntl.ioctl(job.console, termios.TIOCSCTTY, 0)
        if size := process.get("consoleSize"):
            termios.tcsetwinsize(job.console, (size.get("height", 0), size.get("width", 0)))

    # What config.json names by path (the pod's net, ipc, uts), or for exec all of the container's. User first: the
    # others may need its privileges. pid was done by the parent, it only counts for children.
    report.step = "namespaces"
    # oom_score_adj before a user namespace takes the privilege; label before the mount namespace takes /proc away.
    _set_oom_score(proc, process, report)
    _set_label(proc, process)
    for fd, kind in job.join:
        sc.setns(fd, kind, about="of the container")
    if job.new_user_namespace:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    if job.new_cgroup_namespace:
        sc.unshare(sc.CLONE_NEWCGROUP)
    if job.time_offsets is not None:  # ours after execve; nobody may be in it when its offsets are set
        sc.unshare(sc.CLONE_NEWTIME)
        if job.time_offsets:
            _write_proc(proc, "self/timens_offsets", job.time_offsets)

    # A session keyring of its own: else the container shares the caller's keys.
    report.step = "keyring"
    _join_keyring(job.keyring, report)

    if job.plan is not None:
        # After ipc (mqueue), net (sysfs), pid (proc) and cgroup namespaces: these file systems show whose they are.
        report.step = "rootfs"
        old_umask = os.umask(0)  # modes are exactly those asked for
        root = job.plan.root.execute()
        for operation in job.plan.operations:
            report.step = f"rootfs: {operation.describe()}"
            operation.execute(root)
        os.umask(old_umask)
        if job.own_terminal:
            report.step = "terminal"
            _open_terminal(job, root)

        report.step = "hooks"
        if any(job.hooks.get(kind) for kind in hooks.IN_RUNTIME):
            report.send({"hooks": True})
            _expect(job, b"hooked")
        hooks.run_all(
            "createContainer", job.hooks.get("createContainer", ()), {**job.state, "pid": os.getpid()}
        )

        report.step = "hostname"
        if job.hostname:
            sc.sethostname(job.hostname)
        if job.domainname:
            sc.setdomainname(job.domainname)

        # By the host's procfs: what the container calls /proc/sys could be anything (CVE-2025-52881).
        report.step = "sysctl"
        for name, value in job.sysctls.items():
            _write_proc(proc, f"sys/{sysctl_path(name)}", value)

        report.step = "pivot_root"
        (rootfs.pivot if job.pivot else rootfs.move_root)(root, propagation=job.plan.propagation)
    report.step = "stdio"
    _reopen_null(proc)
    os.close(proc)

    # Limits and scheduling while we still may.
    report.step = "rlimits"
    report.warnings += rlimits.apply(process.get("rlimits", []))
    if job.personality >= 0:
        report.step = "personality"
        sc.personality(job.personality)
    report.step = "scheduler"
    _set_scheduling(process)

    # From here no descriptor is left that leads out of the root: a cwd or program of /proc/self/fd/N finds nothing
    # (CVE-2024-21626). Only the channel and the parent's pidfd remain, both close-on-exec.
    report.step = "descriptors"
    sc.close_all_except({0, 1, 2, *kept})

    # As root first: the directory may be closed to the user, or (root-squashed NFS) to root. Then once more below.
    report.step = "cwd"
    there = _chdir(process["cwd"], final=False)

    # Bounding set while CAP_SETPCAP is here; groups and gid before uid takes the right to change them away.
    # KEEPCAPS carries the permitted set over setuid, for what follows.
    report.step = "user"
    final = job.caps
    no_new_privs = bool(process.get("noNewPrivileges"))
    # Without no_new_privs, installing a filter needs CAP_SYS_ADMIN: it is kept, and it alone beyond the final sets,
    # for as long as the gate is closed. What a filter forbids must not be needed after it, so it comes last.
    borrowed = _SYS_ADMIN if job.seccomp is not None and not no_new_privs else 0
    with_stub = job.use_stub and stub.available() and not job.hooks.get("startContainer")
    inheritable = final.inheritable
    if (
        with_stub
    ):  # what the stub is to have goes over its execve as ambient, and so must be inheritable before
        inheritable |= final.permitted | borrowed
        effective, permitted, inherited = sc.capget()
        sc.capset(effective, permitted, inherited | inheritable & permitted)
    capabilities.drop_bounding(job.caps.bounding, available=job.available_caps)
    _own_stdio(uid)
    sc.prctl(sc.PR_SET_KEEPCAPS, 1)
    _set_groups(user.get("additionalGids", []), new_user_namespace=job.new_user_namespace)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    sc.prctl(sc.PR_SET_KEEPCAPS, 0)
    os.umask(user.get("umask", 0o022))

    report.step = "capabilities"
    sc.capset(final.effective | borrowed, final.permitted | borrowed, inheritable)
    if not there:
        report.step = "cwd"
        _chdir(process["cwd"], final=True)
    report.step = "no_new_privs"
    if no_new_privs:
        sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    environment = program.environment(process, uid)

    # A change of credentials clears the parent-death signal: again, and look again.
    report.step = "parent"
    _die_with_parent(job)

    # The user's own eyes decide what is executable; the search path is the container's. A command says at create what
    # cannot be executed (as runc); a pod's container is created with any program, and fails to start.
    report.step = "exec"
    path = program.find(process["args"][0], environment) if job.use_stub else b""
    report.step = "gate"
    if job.gate:
        report.send({"ready": True, "warnings": report.warnings})
        _expect(job, b"start" if job.detached is None else b"detach")
    elif report.warnings:
        report.send({"warnings": report.warnings})
    argv = [os.fsencode(arg) for arg in process["args"]]
    if with_stub:
        _become_stub(job, stub.Exec(path, argv, environment, final, job.seccomp, filter_last=not borrowed))
    if job.detached is not None:
        _await_start(job, report)
    report.step = "hooks"
    state = {**job.state, "status": "created", "pid": os.getpid()}
    hooks.run_all("startContainer", job.hooks.get("startContainer", ()), state)

    report.step = "exec"
    path = path or program.find(process["args"][0], environment)
    report.step = "seccomp"
    if job.seccomp is not None:
        from runtime.security import seccomp  # warm already in the process that made job.seccomp

        seccomp.install(*job.seccomp)
    # The last of our privileges goes; ambient capabilities rest on the sets that are final only now.
    report.step = "capabilities"
    if borrowed or final.ambient or inheritable != final.inheritable:
        capabilities.set_process(final)

    report.step = "exec"
    try:
        os.execve(path, argv, environment)
    except OSError as error:
        raise StartError(f"exec {os.fsdecode(path)}: {program.lower(error)}") from error


# --- the steps ---


def _die_with_parent(job: Job) -> None:
    if not job.pdeathsig:
        return
    sc.prctl(sc.PR_SET_PDEATHSIG, job.pdeathsig)
    poll = select.poll()
    poll.register(job.parent, select.POLLIN)
    if poll.poll(0):  # a pidfd is readable once its process is dead
        os._exit(1)


def _kept(job: Job) -> set[int]:
    """Descriptors that live until execve (all but the preserved ones are closed by it)."""
    waiting = () if job.detached is None else (job.detached.listener, job.detached.lock)
    return {job.channel.fileno(), job.parent, *waiting, *range(3, 3 + job.preserve)}


def _become_stub(job: Job, last: stub.Exec) -> None:
    """Does not return, unless this machine does not execute a memfd: then the interpreter goes on."""
    capabilities.raise_ambient(last.kept_caps)
    if job.detached is not None:
        made = stub.waiting(last, job.detached.listener, job.detached.lock)
        handed = [job.detached.listener, job.detached.lock]
    else:
        made = stub.at_once(last, job.channel.fileno())
        handed = [job.channel.fileno()]
    for fd in handed:
        os.set_inheritable(fd, True)
    stub.execute(made)
    for fd in handed:
        os.set_inheritable(fd, False)


def _await_start(job: Job, report: _Reporter) -> None:
    """The parent has gone: whoever connects is the one to be told how the start went."""
    assert job.detached is not None
    listener = socket.socket(fileno=job.detached.listener)
    report.channel = listener.accept()[0]
    listener.close()


def _open_terminal(job: Job, root: Root) -> None:
    """A terminal of the container's own devpts: programs in it can name theirs (ttyname(3)). The slave is 0, 1, 2 and
    /dev/console; the master goes to the parent."""
    flags = os.O_RDWR | os.O_NOCTTY
    master = sc.openat2(root.fd, "dev/pts/ptmx", flags, resolve=sc.RESOLVE_IN_ROOT | sc.RESOLVE_NO_SYMLINKS)
    slave = sc.open_peer(master)
    if size := job.process.get("consoleSize"):
        termios.tcsetwinsize(slave, (size.get("height", 0), size.get("width", 0)))
    Console(slave).execute(root)
    for number in (0, 1, 2):
        os.dup2(slave, number, inheritable=True)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, master.to_bytes(4, sys.byteorder))
    job.channel.sendmsg([b'{"console": true}'], [rights])
    os.close(master)
    os.close(slave)


def _default_signals() -> None:
    for number in range(1, _signal.NSIG):
        if _signal.getsignal(number) == _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _set_affinity(cpus: frozenset[int]) -> None:
    if cpus:
        os.sched_setaffinity(0, cpus)


def _expect(job: Job, word: bytes) -> None:
    """Wait for a word of the parent's. Its death closes the channel: then there is nothing to live for."""
    said = job.channel.recv(64)
    if said != word:
        os._exit(1)


def _place_stdio(job: Job) -> None:
    """The given descriptors become 0, 1, 2. They may themselves be among 0, 1, 2, so they are moved away first. (The
    parent has seen to it that 0, 1 and 2 are nothing else: no socket or namespace file of ours is overwritten.)"""
    if job.stdio is None and job.console is None:
        return
    wanted = job.stdio or (job.console, job.console, job.console)
    safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in wanted if fd is not None]
    for number, fd in enumerate(safe):
        os.dup2(fd, number, inheritable=True)
        os.close(fd)


def _is_null(fd: int) -> bool:
    try:
        info = os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == _NULL


def _reopen_null(proc: int) -> None:
    """Where 0, 1 or 2 is the host's null device, the container's own takes its place (runc's reOpenDevNull): with the
    host's, root in the container could chmod(2) or chown(2) it for the whole machine. A container whose /dev/null is
    something else gets a pipe without its other end."""
    given = [fd for fd in (0, 1, 2) if _is_null(fd)]
    if not given:
        return
    own = -1
    with contextlib.suppress(OSError):
        found = sc.openat2(sc.AT_FDCWD, "/dev/null", os.O_PATH, resolve=sc.RESOLVE_NO_MAGICLINKS)
        if _is_null(
            found
        ):  # looked at before it is really opened: a running container put there what it likes
            own = os.open(f"self/fd/{found}", os.O_RDWR | os.O_CLOEXEC, dir_fd=proc)
    for fd in given:
        os.dup2(
            own if own >= 0 else os.pipe()[fd > 0], fd, inheritable=True
        )  # the rest is closed with all others


def _open_proc() -> int:
    fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if sc.fstatfs_type(fd) != sc.PROC_SUPER_MAGIC:
        raise CapabilityError("/proc of this machine is not procfs: mount it before containers are started")
    return fd


def _write_proc(proc: int, path: str, value: str) -> None:
    """Write to a file below the host's procfs; what is mounted over it, or linked to from it, is not procfs."""
    fd = sc.openat2(
        proc, path, os.O_WRONLY, resolve=sc.RESOLVE_BENEATH | sc.RESOLVE_NO_MAGICLINKS | sc.RESOLVE_NO_XDEV
    )
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise SyscallError(error.errno or 0, "write", f"{value!r} to /proc/{path}") from error
    finally:
        os.close(fd)


def _set_oom_score(proc: int, process: Process, report: _Reporter) -> None:
    wanted = process.get("oomScoreAdj")
    if wanted is None:
        return
    try:
        _write_proc(proc, "self/oom_score_adj", str(wanted))
    except SyscallError as error:
        if error.errno not in (errno.EACCES, errno.EPERM):
            raise
        # Below the floor that a privileged process last set needs CAP_SYS_RESOURCE. 0 is that floor, or we are on it.
        with contextlib.suppress(SyscallError):
            _write_proc(proc, "self/oom_score_adj", str(max(wanted, 0)))
        report.warnings.append(
            f"oom_score_adj {wanted} was not set: lowering it needs CAP_SYS_RESOURCE, which this runtime does not have"
        )


def _set_label(proc: int, process: Process) -> None:
    """The AppArmor profile or SELinux label that execve will switch to (/proc/self/attr/exec)."""
    if profile := process.get("apparmorProfile", ""):
        if profile == "unconfined":
            return
        if not os.path.isdir("/sys/kernel/security/apparmor"):
            raise CapabilityError(
                f"process.apparmorProfile: {profile!r} asked for, this kernel has no AppArmor"
            )
        _write_proc(proc, "self/attr/apparmor/exec", f"exec {profile}")
    elif label := process.get("selinuxLabel", ""):
        if not os.path.isdir("/sys/fs/selinux"):
            raise CapabilityError(f"process.selinuxLabel: {label!r} asked for, this kernel has no SELinux")
        _write_proc(proc, "self/attr/exec", label)


def _join_keyring(name: str, report: _Reporter) -> None:
    if not name:
        return
    try:
        sc.keyctl(sc.KEYCTL_JOIN_SESSION_KEYRING, os.fsencode(name))
    except SyscallError as error:
        if (
            error.errno == errno.EDQUOT
        ):  # a quota of keys is no reason not to run; the caller's keyring would be one
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


def _set_scheduling(process: Process) -> None:
    """process.scheduler by sched_setattr(2), process.ioPriority by ioprio_set(2)."""
    if wanted := process.get("scheduler"):
        policy = _POLICIES.get(wanted.get("policy", "SCHED_OTHER"))
        flags = [_SCHED_FLAGS.get(name) for name in wanted.get("flags", [])]
        if policy is None or None in flags:
            raise SpecError(f"process.scheduler: unknown policy or flag in {wanted}")
        times = (wanted.get("runtime", 0), wanted.get("deadline", 0), wanted.get("period", 0))
        numbers = (wanted.get("nice", 0), wanted.get("priority", 0))
        attr = sc.pack_sched_attr(policy, sum(f for f in flags if f), *numbers, *times)
        sc.sched_setattr(0, attr)
    if wanted_io := process.get("ioPriority"):
        kind = _IO_CLASSES.get(wanted_io.get("class", ""))
        if kind is None:
            raise SpecError(
                f"process.ioPriority.class: {wanted_io.get('class')!r} is none of {', '.join(_IO_CLASSES)}"
            )
        sc.ioprio_set(1, 0, kind << 13 | wanted_io.get("priority", 0))  # 1 = IOPRIO_WHO_PROCESS


def _chdir(cwd: str, *, final: bool) -> bool:
    """chdir(2) that takes no magic link, so it cannot go where a descriptor leads. False: denied, try as the user."""
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        fd = sc.openat2(sc.AT_FDCWD, cwd, flags, resolve=sc.RESOLVE_NO_MAGICLINKS)
        os.fchdir(fd)
        os.close(fd)
    except OSError as error:
        if not final and error.errno in (errno.EACCES, errno.EPERM):
            return False
        raise StartError(
            f"chdir to cwd ({cwd!r}) set in config.json failed: {program.lower(error)}"
        ) from error
    where = os.getcwd()
    if not where.startswith("/"):  # getcwd(2) of a directory outside the root: "(unreachable)/…"
        raise StateError("current working directory is outside of container mount namespace root")
    return True


def _own_stdio(uid: int) -> None:
    """The user may reopen its stdio (/dev/stdout → /proc/self/fd/1). Only what can be the container's own: anonymous
    pipes and terminals. Never a device such as the host's /dev/null, never a file."""
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


def _set_groups(additional: list[int], *, new_user_namespace: bool) -> None:
    try:
        os.setgroups(additional)
    except PermissionError:
        if additional or not new_user_namespace:  # "deny" in /proc/self/setgroups of a user namespace
            raise
