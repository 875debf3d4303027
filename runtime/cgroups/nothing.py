"""A container without a cgroup of its own: where the one who starts it may make none (rootless, `--cgroup-manager
disabled`). Nothing limits it and nothing can pause it; who is in it is told by its pid namespace."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

from runtime.cgroups import killing
from runtime.cgroups.reading.reader import Reader
from runtime.cgroups.reading.stats import Stats
from runtime.errors import CapabilityError


class NoCgroup:
    """Implements `Cgroup`. `pid` is the container's init, 0 before there is one."""

    path = ""

    def __init__(self, pid: int = 0) -> None:
        self.pid = pid

    def create(self) -> None:
        """Nothing to make."""

    def apply(self, resources: Mapping[str, Any]) -> list[str]:
        """CapabilityError for any limit. Device rules are left out, as runc does for who is no root: such a user can
        neither make a device node nor open one that is root's."""
        wanted = sorted(key for key, value in resources.items() if value and key != "devices")
        if wanted:
            raise CapabilityError(
                f"linux.resources ({', '.join(wanted)}) needs a cgroup, and this user may make none here"
            )
        return []

    def delegate(self, uid: int) -> None:
        """Nothing to give."""

    def attach(self, pid: int) -> None:
        """Nothing to enter."""

    def pids(self, recursive: bool = True) -> list[int]:
        """Those of its pid namespace, as far as we may look; the init alone when it has none of its own."""
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
        """It never stands."""

    def frozen(self) -> bool:
        return False

    def kill(self, timeout: float = 2.0) -> bool:
        deadline = time.monotonic() + timeout
        return killing.until_empty(self.pids, deadline, round_=killing.signal_all)

    def remove(self, timeout: float = 2.0) -> None:
        """Whoever was in it ends with its init."""

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
