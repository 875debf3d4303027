"""Helpers for tests of cgroups: a cgroup for the test, which must be gone afterwards, and processes in it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from runtime import cgroups
from runtime.cgroups import Cgroup, Mode
from tests.programs import BUSYBOX
from tests.waiting import until

MIB = 1 << 20
# In User Mode Linux, a signal during fork's copy of the parent's memory makes flush_tlb_mm walk an incomplete copy,
# which panics (6.12, arch/um/kernel/tlb.c). There the fork bomb uses posix_spawn, which shares memory.
UML = "User Mode Linux" in Path("/proc/cpuinfo").read_text()


def leftovers(machine: cgroups.Layout, path: str) -> list[str]:
    mounts = [*machine.hierarchies, *([machine.unified] if machine.unified else [])]
    return [mount + path for mount in mounts if os.path.exists(mount + path)]


def spawn(group: Cgroup, action: Callable[[], None]) -> int:
    """Fork a child that joins the cgroup and runs `action`. Return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        group.attach(0)
        action()
    finally:
        os._exit(99)


def program(*argv: str) -> Callable[[], None]:
    def run() -> None:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.execv(argv[0], list(argv))

    return run


def sleeper() -> Callable[[], None]:
    return program(BUSYBOX, "sleep", "100")


def fork_bomb() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        with contextlib.suppress(OSError):
            os.fork()


def spawn_bomb() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        with contextlib.suppress(OSError):
            os.posix_spawn(BUSYBOX, ["busybox", "sleep", "100"], {})


def running(pid: int, name: str) -> bool:
    return bool(until(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == name))


def reap(pid: int) -> int:
    """Exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def limit(group: Cgroup, controller: str, v1: str, v2: str, machine: cgroups.Layout) -> str:
    place = group.directory(controller)
    assert place is not None, f"no {controller} controller"
    return Path(place, v2 if machine.mode is Mode.V2 else v1).read_text().strip()
