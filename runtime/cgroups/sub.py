"""The cgroup of an additional process in a container, below the container's own (`exec --cgroup`).

It may be a different one in each hierarchy. Processes can only be attached; whoever created these cgroups manages them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from runtime.cgroups import files
from runtime.cgroups.layout import Layout
from runtime.errors import SpecError, SyscallError


class SubCgroup:
    """`below` maps a v1 controller ("" for all) to a path below the cgroup `path`. For other controllers it is `path`
    itself.

    Raises SpecError (runc's messages) for an unknown controller, for two paths in one hierarchy, and for a path that
    leads out.
    """

    def __init__(self, path: str, below: Mapping[str, str], layout: Layout) -> None:
        self.path = path
        everywhere = below.get("", "")
        self._v1 = dict.fromkeys(layout.hierarchies, everywhere)  # mount point → path below `path`
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
                    f"{controller} and {chosen[mount]} share a hierarchy, so they need the same path"
                )
            self._v1[mount], chosen[mount] = wanted, controller
        self._unified = None if layout.unified is None else f"{layout.unified}{path}/{everywhere}"

    def attach(self, pid: int) -> None:
        """Move a process in. Pid 0 is the caller, which must be single-threaded (see V1Cgroup.attach)."""
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
        """None: only `attach` is used, because its error names the cgroup that could not be joined."""
