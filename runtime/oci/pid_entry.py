"""Enter a pid namespace whose processes may be hostile, as the last step before the program.

The processes of a pid namespace see each other in /proc. With CAP_SYS_PTRACE they can open each other's root directory,
descriptors and memory, whatever PR_SET_DUMPABLE says. So what becomes the program is not in the namespace while
anything of the host is within its reach: a first process, which the others cannot see, joins all other namespaces,
closes all descriptors that lead out of the container and gives up its privileges. Then it clones the process that
becomes the program into the pid namespace, announces it to the parent, and exits.

A procfs shows the pid namespace of the process that mounts it. A container that joins a pid namespace must have its
own mounted before it is in there, so it gets a clone of one that was mounted when the namespace was new
(rootfs/procfs.py).

The clone has the parent's socket and stdio, nothing else. A pidfd of the parent would do, too, what a descriptor of the
host does: pidfd_getfd(2) takes any descriptor out of its process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from typing import TYPE_CHECKING, Final

from runtime import syscalls as sc
from runtime.errors import StateError, SyscallError

if TYPE_CHECKING:
    from runtime.oci.init_protocol import Job, Reporter

# ioctl_tty(2): asm-generic's number, except on ppc64le. Importing termios would take half a millisecond.
TIOCSCTTY: Final = 0x540E


def enter(job: Job, report: Reporter) -> None:
    """Clone the process that becomes the program. Returns in the clone, in a session of its own; this process exits.

    The caller has set the pid namespace for its children (setns(2)). The clone is a child of our parent too (clone(2)
    CLONE_PARENT). StateError if the namespace's init process is dead.
    """
    os.close(job.parent)
    gone, ends = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = sc.clone3(sc.CLONE_PARENT, exit_signal=0)
    except SyscallError as error:
        if error.errno == errno.ENOMEM:  # the kernel's answer if the namespace's init is dead
            raise StateError("cannot join the pid namespace: its init process is dead") from error
        raise
    if pid:
        report.send({"cloned": pid}, pidfd)
        os._exit(0)
    os.close(ends)
    os.read(gone, 1)  # wait until it has announced us: our messages come after that
    os.close(gone)
    _die_with_parent(job)
    new_session(0 if job.console is not None or job.own_terminal else None)


def _die_with_parent(job: Job) -> None:
    """Have the kernel kill us when the parent dies. If it has died or has given us up, exit: then its end of the
    channel is closed."""
    if job.pdeathsig:
        sc.prctl(sc.PR_SET_PDEATHSIG, job.pdeathsig)
    poll = select.poll()
    poll.register(job.channel, 0)  # POLLHUP needs no asking
    if poll.poll(0):
        os._exit(1)


def new_session(terminal: int | None) -> None:
    """Start a session, with `terminal` as its controlling terminal."""
    os.setsid()
    if terminal is not None:
        fcntl.ioctl(terminal, TIOCSCTTY, 0)
