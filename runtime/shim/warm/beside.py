"""Fork another long-running process of the node from the forkserver, so that both share the memory of what they import.

    → {"id": n, "fork": {"module": …, "path": […], "title": …, "arguments": […]}}   with its socket as a descriptor
    ← {"id": n, "ok": {"pid": …}}

The process is a child of the daemon (CLONE_PARENT), as if the daemon had started it: the daemon reaps it, and it
outlives the forkserver. It runs `main(socket, *arguments)` of the module. What the forkserver has changed about itself
for the shims is undone in it: cgroups, oom_score_adj, signals.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any, NamedTuple, NoReturn

from runtime import syscalls as sc
from runtime.cgroups.layout import layout
from runtime.shim.sandbox import NO_EFFECT, argument_vector, set_title


class Origin(NamedTuple):
    """What a process inherited from the daemon. `cgroups`: the files that a write of "0" moves the writer with."""

    cgroups: tuple[str, ...]
    oom_score_adj: str

    @classmethod
    def here(cls) -> Origin:
        """This process's own, before it changes anything."""
        where, cgroups = layout(), []
        for line in _read("/proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers and where.unified:
                cgroups.append(f"{where.unified}{path}/cgroup.procs")
            elif place := where.v1.get(controllers.partition(",")[0]):
                cgroups.append(f"{place}{path}/tasks")  # as in runtime.cgroups.v1
        return cls(tuple(cgroups), _read("/proc/self/oom_score_adj"))

    def restore(self) -> None:
        """Enter the same cgroups again, and have the same oom_score_adj. OSError."""
        for path in self.cgroups:
            _write(path, "0")
        if _read("/proc/self/oom_score_adj") != self.oom_score_adj:
            _write("/proc/self/oom_score_adj", self.oom_score_adj)


def fork(program: dict[str, Any], connection: int, origin: Origin) -> int:
    """Fork the process; returns its pid. `connection` stays open here. SyscallError."""
    pid, pidfd = sc.clone3(sc.CLONE_PARENT, exit_signal=0)
    if pid == 0:
        _run(program, connection, origin)
    os.close(pidfd)
    return pid


def _run(program: dict[str, Any], connection: int, origin: Origin) -> NoReturn:
    code = 1
    try:
        for number in (signal.SIGCHLD, *NO_EFFECT):
            signal.signal(number, signal.SIG_DFL)
        sc.close_all_except({0, 1, 2, connection})
        origin.restore()
        set_title(program["title"], argument_vector())
        sys.path[:] = program["path"]
        code = importlib.import_module(program["module"]).main(connection, *program["arguments"])
    except BaseException:  # noqa: BLE001 - no exception may escape into the forkserver's code
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)  # immortal objects cannot be finalized


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="surrogateescape") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
