"""Blows that take away what the daemon needs, until the quiet moment: descriptors, memory, and a writable disk."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
from pathlib import Path

from tests.chaos import lens
from tests.chaos.blows import Blow, Family
from tests.chaos.machine import Machine


def _answers(machine: Machine) -> bool:
    """Whether the daemon has started: one that has not could not with less."""
    try:
        lens.ask(machine, "/version")
    except lens.Unreachable:
        return False
    return True


def few_descriptors(machine: Machine, rng: random.Random) -> Blow:
    """The daemon can open only a few more files."""
    if not _answers(machine):
        return Blow("few descriptors: the daemon does not answer")
    assert machine.daemon is not None
    pid, more = machine.daemon.pid, rng.choice((0, 3, 10))
    try:
        highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + more, _hard(pid)))
    except (OSError, ValueError):
        return Blow("few descriptors: there is no daemon")

    def undo() -> None:
        started = (
            *lens.children(machine).values(),
            *lens.shims(machine).values(),
        )  # they have inherited the limit
        for one in (pid, *started):
            with contextlib.suppress(OSError):
                resource.prlimit(one, resource.RLIMIT_NOFILE, before)

    return Blow(f"{more} more descriptors for the daemon", undo)


def _hard(pid: int) -> int:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]


def little_memory(machine: Machine, rng: random.Random) -> Blow:
    """The daemon can map only a little more memory."""
    if not _answers(machine):
        return Blow("little memory: the daemon does not answer")
    assert machine.daemon is not None
    pid, more = machine.daemon.pid, rng.choice((1 << 20, 4 << 20, 16 << 20))
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        size = pages * resource.getpagesize()
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (size + more, before[1]))
    except (OSError, ValueError, IndexError):
        return Blow("little memory: there is no daemon")

    def undo() -> None:
        with contextlib.suppress(OSError):
            resource.prlimit(pid, resource.RLIMIT_AS, before)

    return Blow(f"{more >> 20} MiB more memory for the daemon", undo)


def read_only(machine: Machine, rng: random.Random) -> Blow:
    """A directory of the node can no longer be written to. What is open for writing stays so."""
    place = rng.choice((machine.root, machine.log_dir / "pods", machine.log_dir))
    commands = (
        ["mount", "--rbind", str(place), str(place)],
        ["mount", "-o", "remount,bind,ro", str(place)],
    )
    for command in commands:
        subprocess.run(command, check=True)

    def undo() -> None:
        subprocess.run(["umount", "--lazy", str(place)], check=True)

    words = f"make {place.relative_to(machine.base)} read-only"
    return Blow(words, undo, no_start=place == machine.root)


FAMILIES: dict[str, Family] = {
    "few-descriptors": few_descriptors,
    "little-memory": little_memory,
    "read-only": read_only,
}
