"""How tests wait: for a condition, never for a time, and long enough for a loaded machine. A condition that is not met
after 30 seconds is a failure; no test passes or fails by its speed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

# A guest under User Mode Linux takes several times as long for the same: this many times as long is then waited.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
SECONDS = 30.0 * PATIENCE
PAUSE = 0.005

T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str = "it comes to pass", seconds: float = SECONDS) -> T:
    """Wait until the condition is true, and return its value. Raises AssertionError with the name of the condition."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what} (at last {found!r})"
        time.sleep(PAUSE)
    return found


async def until_async(
    condition: Callable[[], T | None], what: str = "it comes to pass", seconds: float = SECONDS
) -> T:
    """`until` for coroutines: the event loop continues meanwhile."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what} (at last {found!r})"
        await asyncio.sleep(PAUSE)
    return found


def cgroup_places(name: str) -> list[Path]:
    """Where a cgroup of this name (or path below the root, `/a/b`) is, in every hierarchy that is mounted."""
    top = Path("/sys/fs/cgroup")
    tops = [top, *(entry for entry in top.iterdir() if (entry / "cgroup.procs").exists())]
    return [place for t in tops if (place := t / name.lstrip("/")).is_dir()]


def remove_cgroup(name: str, seconds: float = SECONDS) -> None:
    """Rmdir it and all below it, everywhere, as soon as what is in it has ended. Raises AssertionError that names the
    processes that stay; it ends none."""
    for place in cgroup_places(name):
        for directory, _, _ in os.walk(place, topdown=False):
            deadline = time.monotonic() + seconds
            while not _gone(directory):
                assert time.monotonic() < deadline, f"{directory} still holds {_held(directory)}"
                time.sleep(PAUSE)


def _gone(directory: str) -> bool:
    with contextlib.suppress(OSError):
        os.rmdir(directory)
    return not os.path.isdir(directory)


def _held(directory: str) -> list[str]:
    """The processes in it: pid and name of each."""
    found = []
    with contextlib.suppress(OSError):
        for pid in Path(directory, "cgroup.procs").read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):
                found.append(f"{pid} {Path('/proc', pid, 'comm').read_text().strip()}")
    return found
