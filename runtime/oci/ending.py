"""How processes end: waiting for one, and signalling all of a cgroup. Imports nothing of what makes them."""

from __future__ import annotations

import contextlib
import os
import select
from signal import SIGKILL
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.cgroups import Cgroup


def wait_dead(pidfd: int, wait: float = 0.0) -> bool:
    """Whether its process has ended, or does within `wait` seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(wait * 1000))


def signal_all(cgroup: Cgroup, signal: int) -> None:
    """Each process in the cgroup, forks included: SIGKILL by the cgroup's own kill, others while it is frozen."""
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
