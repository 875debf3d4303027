"""Kill all processes of a cgroup, even if they fork faster than they are killed, and remove the cgroup.

Waiting uses pidfds or cgroup.events, or sleeps of a millisecond. Every wait has a deadline (time.monotonic).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Callable

from runtime.cgroups import files
from runtime.errors import StateError, SyscallError

STEP = 0.001  # seconds between two checks where the kernel offers nothing to wait on
_WATCHED = 64  # pidfds open at a time, because the process has a descriptor limit


def signal_all(pids: list[int]) -> None:
    """Send SIGKILL to each pid. StateError if the caller is among them, because then the cgroup is the wrong one."""
    if os.getpid() in pids:
        raise StateError("refusing to kill a cgroup that contains the calling process")
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_gone(pids: list[int], deadline: float) -> None:
    """Wait until the processes have exited or the deadline has passed."""
    poll = select.poll()
    fds = set()
    try:
        for pid in pids[:_WATCHED]:
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                continue  # exited, or a thread's id (EINVAL): the next round decides
            fds.add(fd)
            poll.register(fd, select.POLLIN)
        waiting = set(fds)
        while waiting and (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(max(1, int(left * 1000))):
                poll.unregister(fd)
                waiting.discard(fd)
    finally:
        for fd in fds:
            os.close(fd)


def until_empty(
    pids: Callable[[], list[int]], deadline: float, *, round_: Callable[[list[int]], None]
) -> bool:
    """Call `round_(pids)` and wait, repeatedly, until `pids()` is empty (True) or the deadline has passed (False)."""
    while left := pids():
        if time.monotonic() >= deadline:
            return False
        round_(left)
        wait_gone(left, min(deadline, time.monotonic() + 0.1))
        if pids() == left:
            time.sleep(STEP)  # exited, but not yet removed from the cgroup
    return True


def wait_event(events_path: str, key: str, value: int, deadline: float) -> bool:
    """v2: poll cgroup.events until `key` is `value` (True) or the deadline has passed (False). True for a removed
    cgroup, which has no processes."""
    try:
        fd = os.open(events_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while files.keyed(os.pread(fd, 4096, 0).decode()).get(key, value) != value:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(max(1, int(left * 1000)))
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    finally:
        os.close(fd)
    return True


def remove_empty(directory: str) -> bool:
    """Try a single rmdir. True: the cgroup no longer exists. False: use `remove_tree`, which also reports the
    reason."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def remove_tree(directory: str, deadline: float) -> None:
    """Remove the cgroup and its descendants. Do nothing if it is missing.

    Retries every STEP while the kernel reports EBUSY, because an exited process is counted for a moment longer. Raises
    SyscallError(EBUSY) at the deadline.
    """
    while True:
        busy = None
        for place in files.tree(directory):
            try:
                os.rmdir(place)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise SyscallError(error.errno or 0, "rmdir", place) from error
                busy = place
        if busy is None:
            return
        if time.monotonic() >= deadline:
            held = files.pids(busy, recursive=True)
            raise SyscallError(errno.EBUSY, "rmdir", f"{busy} (processes {held})")
        time.sleep(STEP)
