"""A cgroup on a hybrid machine, which has v1 controllers and also a cgroup2 mount.

The cgroup2 side usually has no controllers but is still useful: cgroup.kill kills everything in one write, PSI is
counted there, and cpu.stat has microseconds while cpuacct counts hundredths of a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runtime.cgroups.layout import Layout
from runtime.cgroups.v1 import V1Cgroup
from runtime.cgroups.v2 import V2Cgroup

if TYPE_CHECKING:
    from runtime.cgroups.reading.reader import Reader
    from runtime.cgroups.reading.stats import Stats

_UNIFIED_STATS = ("cpu.pressure", "memory.pressure", "io.pressure")


class HybridCgroup:
    """Implements `Cgroup` over both sides."""

    def __init__(self, path: str, layout: Layout) -> None:
        self.path = path
        self._v1 = V1Cgroup(path, layout)
        self._v2 = V2Cgroup(path, layout)
        self._offered = layout.v2_controllers

    def directory(self, controller: str) -> str | None:
        return self._v1.directory(controller) or self._v2.directory(controller)

    def create(self) -> None:
        existed = self._v1.exists()
        self._v1.create()
        try:
            # Enable no controllers: each costs memory and time in every cgroup that has it.
            self._v2.create(controllers=False)
        except BaseException:
            if not existed:
                self._v1.remove()
            raise

    def apply(self, resources: Mapping[str, Any]) -> list[str]:
        """Apply limits through v1, except those that only the cgroup2 side controls (hugetlb, on current machines)."""
        if "hugetlb" not in self._offered or not resources.get("hugepageLimits"):
            return self._v1.apply(resources)
        rest = {key: value for key, value in resources.items() if key != "hugepageLimits"}
        self._v2.enable()
        return self._v1.apply(rest) + self._v2.apply({"hugepageLimits": resources["hugepageLimits"]})

    def delegate(self, uid: int) -> None:
        """No effect: delegation is not secure on v1."""

    def attach(self, pid: int) -> None:
        self._v1.attach(pid)
        self._v2.attach(pid)

    def pids(self, recursive: bool = True) -> list[int]:
        return self._v1.pids(recursive)

    def exists(self) -> bool:
        return self._v1.exists()

    def into_fd(self) -> int | None:
        return None  # the v1 side needs attach() anyway

    def clone_fd(self) -> int | None:
        return self._v2.into_fd()

    def freeze(self) -> None:
        self._v1.freeze()

    def thaw(self) -> None:
        self._v1.thaw()

    def frozen(self) -> bool:
        return self._v1.frozen()

    def thaw_all(self) -> None:
        self._v1.thaw_all()

    def kill(self, timeout: float = 2.0) -> bool:
        """Use cgroup.kill, then v1's method for processes that are only on that side.

        Processes frozen by v1 receive the signal but die only when thawed.
        """
        deadline = time.monotonic() + timeout
        if self._v2.send_kill():
            self._v1.thaw_all()
            self._v2.wait_empty(time.monotonic() + timeout / 2)
        return self._v1.kill(max(0.0, deadline - time.monotonic()))

    def remove(self, timeout: float = 2.0) -> None:
        deadline = time.monotonic() + timeout
        if not self._v1.remove_empty():
            if self._v1.pids():
                self.kill(timeout)
            self._v1.remove(max(0.0, deadline - time.monotonic()))
        self._v2.remove(max(0.0, deadline - time.monotonic()))

    def oom_kills(self) -> int:
        return self._v1.oom_kills()

    def stat_paths(self) -> dict[str, str | None]:
        paths, unified = self._v1.stat_paths(), self._v2.stat_paths()
        if (cpu := unified["cpu.stat"]) and os.path.exists(cpu):
            paths["cpuacct.usage"] = paths["cpuacct.stat"] = None
            paths["unified.cpu.stat"] = cpu
        return {**paths, **{name: unified[name] for name in _UNIFIED_STATS}}

    def reader(self) -> Reader:
        from runtime.cgroups.reading import reader

        return reader.Reader(self.path, self.stat_paths(), reader.V1)

    def stats(self) -> Stats:
        with self.reader() as reader:
            return reader.read()
