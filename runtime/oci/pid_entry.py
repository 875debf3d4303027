"""Enter a pid namespace whose processes may be hostile, as the last step before the program.

The processes of a pid namespace see each other in /proc. With CAP_SYS_PTRACE they can open each other's root directory,
descriptors and memory, even if PR_SET_DUMPABLE is 0. Therefore the process that becomes the program enters the
namespace only when it can no longer reach anything of the host. A first process, which the others cannot see, joins all
other namespaces, closes all descriptors that lead out of the container and gives up its privileges. Then it clones the
process that becomes the program into the pid namespace, announces it to the parent, and exits.

A procfs shows the pid namespace of the process that mounts it. A container that joins a pid namespace needs its procfs
before it enters the namespace. So it gets a clone of a procfs that was mounted when the namespace was created
(rootfs/procfs.py).

An additional process (exec) is cloned by the stub (execve_stub.py), which the first process has become: a clone of a
few pages costs almost nothing, and its memory holds nothing of the parent's. A start needs the interpreter after the
clone, as does a filter with a listener.

The cloned process has only the socket to the parent and its stdio. It has no pidfd of the parent, because
pidfd_getfd(2) could fetch any descriptor of the parent through it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from typing import TYPE_CHECKING

from runtime import syscalls as sc
from runtime.errors import StateError, SyscallError
from runtime.oci import execve_stub
from runtime.security import capabilities

if TYPE_CHECKING:
    from runtime.oci.init_protocol import Job, Reporter


def by_stub(job: Job) -> bool:
    """Whether the stub can clone the process: nothing but the last steps of an exec comes after the clone."""
    return job.enters_pid_namespace and not (job.gate or job.notify) and execve_stub.available()


def become_stub(job: Job, last: execve_stub.Exec) -> None:
    """Become the stub that clones the process of `last`. Returns only if this machine cannot execute a memfd."""
    capabilities.raise_ambient(last.kept_caps)
    made = execve_stub.cloning(
        last, job.channel.fileno(), pdeathsig=job.pdeathsig, terminal=_has_terminal(job)
    )
    os.set_inheritable(job.channel.fileno(), True)
    execve_stub.execute(made)
    os.set_inheritable(job.channel.fileno(), False)
    capabilities.clear_ambient()


def _has_terminal(job: Job) -> bool:
    return job.console is not None or job.own_terminal


def enter(job: Job, report: Reporter) -> None:
    """Clone the process that becomes the program. Returns in the clone, in a session of its own; this process exits.

    The caller has set the pid namespace for its children (setns(2)). StateError if the namespace's init process is
    dead.
    """
    os.close(job.parent)
    try:
        clone_successor(report)
    except SyscallError as error:
        if error.errno == errno.ENOMEM:  # the namespace's init is dead (as in handshake.stub_failed)
            raise StateError("cannot join the pid namespace: its init process is dead") from error
        raise
    _die_with_parent(job)
    new_session(0 if _has_terminal(job) else None)


def clone_successor(report: Reporter, flags: int = 0) -> None:
    """Clone a process that takes our place: it is a child of our parent, too (clone(2) CLONE_PARENT).

    This process announces it to the parent and exits. Returns in the clone.
    """
    gone, ends = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = sc.clone3(flags | sc.CLONE_PARENT, exit_signal=0)
    if pid:
        report.send({"cloned": pid}, pidfd)
        os._exit(0)
    os.close(ends)
    os.read(gone, 1)  # wait until the first process has announced us; our messages must come after that
    os.close(gone)


def _die_with_parent(job: Job) -> None:
    """Have the kernel kill us when the parent dies. Exit if the parent has already died or given up: its end of the
    channel is then closed."""
    if job.pdeathsig:
        sc.prctl(sc.PR_SET_PDEATHSIG, job.pdeathsig)
    poll = select.poll()
    poll.register(job.channel, 0)  # POLLHUP is always reported (poll(2))
    if poll.poll(0):
        os._exit(1)


def new_session(terminal: int | None) -> None:
    """Start a session, with `terminal` as its controlling terminal."""
    os.setsid()
    if terminal is not None:
        fcntl.ioctl(terminal, execve_stub.TIOCSCTTY, 0)
