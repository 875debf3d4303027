"""End processes: wait for one to exit, and signal all processes in a cgroup.

The quick commands (kill, delete) use this module, so it imports nothing that creates containers.
"""

from __future__ import annotations

import contextlib
import os
import select
from signal import SIGKILL
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.cgroups import Cgroup


def has_exited(pidfd: int, wait: float = 0.0) -> bool:
    """Whether the pidfd's process has exited, or exits within `wait` seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(wait * 1000))


def signal_all(cgroup: Cgroup, signal: int) -> None:
    """Signal each process in the cgroup, new forks included: SIGKILL uses the cgroup's own kill, others are sent while
    it is frozen."""
    if signal == SIGKILL:
        cgroup.kill()
        return
    paused = cgroup.frozen()
    cgroup.freeze()
    try:
        for pid in cgroup.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal)
    finally:
        if not paused:
            cgroup.thaw()
