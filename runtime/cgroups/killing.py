"""Ending every process of a cgroup, also one that forks faster than it is killed, and removing what is left.

Waiting is on pidfds or on cgroup.events, never a sleep longer than a millisecond; all of it is bounded.
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

STEP = 0.001  # seconds: between two looks where the kernel gives nothing to wait on
_WATCHED = 64  # pidfds at a time: a descriptor limit is shared with everything else


def signal_all(pids: list[int]) -> None:
    """SIGKILL to each. Refuses a list with the caller in it: that would be a wrong cgroup, and the last mistake."""
    if os.getpid() in pids:
        raise StateError("refusing to kill a cgroup that holds the calling process itself")
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_gone(pids: list[int], deadline: float) -> None:
    """Until the processes have ended or the deadline (time.monotonic) is there."""
    poll = select.poll()
    fds = set()
    try:
        for pid in pids[:_WATCHED]:
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                continue  # gone, or a thread's pid (EINVAL): the next look will tell
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
    """`round_(pids)` and wait, again and again, until `pids()` is empty (True) or time is up (False)."""
    while left := pids():
        if time.monotonic() >= deadline:
            return False
        round_(left)
        wait_gone(left, min(deadline, time.monotonic() + 0.1))
        if pids() == left:
            time.sleep(STEP)  # ended, but not yet unlinked from the cgroup
    return True


def wait_event(events_path: str, key: str, value: int, deadline: float) -> bool:
    """v2: poll(2) cgroup.events until `key` is `value` (True) or the deadline (False). A cgroup that is gone has no
    processes: True."""
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
    """One rmdir: True when it is gone. False: something is in it, or it cannot be; the long way tells what."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def remove_tree(directory: str, deadline: float) -> None:
    """rmdir of the cgroup and all below it, retried in steps of STEP while the kernel says EBUSY: a process that has
    ended is for a moment still counted. Raises SyscallError(EBUSY) at the deadline; a missing one is fine."""
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
