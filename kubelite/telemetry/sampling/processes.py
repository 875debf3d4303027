"""The processes of a container, read from /proc on request (proc_pid_stat(5), proc_pid_status(5))."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from kubelite.kube.json import Json
from runtime.cgroups import open_cgroup

MOST = 1000  # maximum number of processes reported for a container, for example with a fork bomb
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # nanoseconds
_PAGE = os.sysconf("SC_PAGE_SIZE")


def processes(cgroup: str) -> list[Json]:
    """Return the processes, sorted by pid: [{"pid", "innerPid": pid in the container's pid namespace, "parent",
    "user": uid, "state", "cpu": nanoseconds, "memory": resident bytes, "threads", "command"}]. Processes that exit
    meanwhile are omitted."""
    found = []
    for pid in sorted(open_cgroup(cgroup).pids())[:MOST]:
        with contextlib.suppress(OSError, ValueError, IndexError):
            found.append(process(pid))
    return found


def process(pid: int) -> Json:
    """Describe one process. Raises OSError if it has exited."""
    place = Path("/proc", str(pid))
    stat = (place / "stat").read_text(errors="replace")
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()  # the fields from the third on, which is the state
    words = dict(line.split(":", 1) for line in (place / "status").read_text(errors="replace").splitlines())
    arguments = (place / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    command = " ".join(part.decode(errors="replace") for part in arguments) or f"[{name}]"
    return {
        "pid": pid,
        "innerPid": int(words.get("NSpid", str(pid)).split()[-1]),
        "parent": int(fields[1]),
        "user": int(words["Uid"].split()[1]),
        "state": fields[0],
        "cpu": (int(fields[11]) + int(fields[12])) * _TICK,
        "memory": int(fields[21]) * _PAGE,
        "threads": int(fields[17]),
        "command": command,
    }
