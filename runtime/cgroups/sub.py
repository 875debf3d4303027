"""Where one more process of a container goes: below the container's cgroup, another place in each hierarchy if asked
for (`exec --cgroup`). Only to be entered: whoever made the groups looks after them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from runtime.cgroups import files
from runtime.cgroups.layout import Layout
from runtime.errors import SpecError, SyscallError


class SubCgroup:
    """`below`: v1 controller, or "" for all there is, → path below the cgroup `path`. What is not named stays there.

    Raises SpecError (runc's words) for what no hierarchy has, for two places in one, and for a path that leads out.
    """

    def __init__(self, path: str, below: Mapping[str, str], layout: Layout) -> None:
        self.path = path
        everywhere = below.get("", "")
        self._v1 = dict.fromkeys(layout.hierarchies, everywhere)  # mount point → path below ours
        chosen: dict[str, str] = {}
        for controller, wanted in below.items():
            if ".." in wanted.split("/") or "\0" in wanted:
                raise SpecError(f"bad sub cgroup path: {wanted}")
            if not controller:
                continue
            if (mount := layout.v1.get(controller)) is None:
                raise SpecError(f"unknown controller {controller} in SubCgroupPaths")
            if self._v1[mount] not in (everywhere, wanted):
                raise SpecError(
                    f"{controller} is in one hierarchy with {chosen[mount]}: both go to one cgroup"
                )
            self._v1[mount], chosen[mount] = wanted, controller
        self._unified = None if layout.unified is None else f"{layout.unified}{path}/{everywhere}"

    def attach(self, pid: int) -> None:
        """0 is the caller, which is single-threaded (V1Cgroup.attach says why that matters)."""
        file = "cgroup.procs" if pid else "tasks"
        places = [f"{mount}{self.path}/{below}/{file}" for mount, below in self._v1.items()]
        if self._unified is not None:
            places.append(f"{self._unified}/cgroup.procs")
        for place in places:
            try:
                files.write(os.path.normpath(place), str(pid))
            except SyscallError as error:
                call = f"adding pid {pid or os.getpid()} to cgroups: {error.call}"  # runc's words
                raise SyscallError(error.errno or 0, call, error.about) from error

    def clone_fd(self) -> None:
        """None: `attach` does it all, and says which place it was that could not be entered."""
