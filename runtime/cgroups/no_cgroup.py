"""A container without a cgroup of its own (rootless without delegation, or `--cgroup-manager disabled`).

It cannot be limited or paused. Its processes are those in its pid namespace.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

from runtime.cgroups import kill
from runtime.cgroups.reading.reader import Reader
from runtime.cgroups.reading.stats import Stats
from runtime.errors import CapabilityError


class NoCgroup:
    """Implements `Cgroup`. `pid` is the container's init; 0 before it exists."""

    path = ""

    def __init__(self, pid: int = 0) -> None:
        self.pid = pid

    def create(self) -> None:
        """No effect."""

    def apply(self, resources: Mapping[str, Any]) -> list[str]:
        """CapabilityError for any limit.

        Device rules are ignored, as in runc for ordinary users: they can neither create a device nor open one owned by
        root.
        """
        wanted = sorted(key for key, value in resources.items() if value and key != "devices")
        if wanted:
            raise CapabilityError(
                f"linux.resources ({', '.join(wanted)}) needs a cgroup, and this user may not create one here"
            )
        return []

    def delegate(self, uid: int) -> None:
        """No effect."""

    def attach(self, pid: int) -> None:
        """No effect."""

    def pids(self, recursive: bool = True) -> list[int]:
        """The pids in the init's pid namespace, as far as we can see them; only the init if it shares our namespace."""
        if not self.pid:
            return []
        wanted = _namespace(self.pid)
        if wanted in ("", _namespace(os.getpid())):
            return [self.pid] if wanted else []
        numbers = (int(name) for name in os.listdir("/proc") if name.isdigit())
        return sorted(number for number in numbers if _namespace(number) == wanted)

    def exists(self) -> bool:
        return bool(self.pids())

    def into_fd(self) -> int | None:
        return None

    def clone_fd(self) -> int | None:
        return None

    def freeze(self) -> None:
        raise CapabilityError("a container without a cgroup cannot be paused")

    def thaw(self) -> None:
        """No effect: it is never frozen."""

    def frozen(self) -> bool:
        return False

    def thaw_all(self) -> None:
        """No effect: it is never frozen."""

    def kill(self, timeout: float = 2.0) -> bool:
        deadline = time.monotonic() + timeout
        return kill.until_empty(self.pids, deadline, round_=kill.signal_all)

    def remove(self, timeout: float = 2.0) -> None:
        """No effect: the other processes die with the init."""

    def oom_kills(self) -> int:
        return 0

    def reader(self) -> Reader:
        raise CapabilityError("a container without a cgroup has no statistics")

    def stats(self) -> Stats:
        raise CapabilityError("a container without a cgroup has no statistics")

    def directory(self, controller: str) -> str | None:
        return None


def _namespace(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""
