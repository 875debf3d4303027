"""Count what the processes of a node do in a while: system calls, new processes and bytes written. strace(1) sees them;
how fast the machine is makes no difference."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests import waiting

# How often a process makes these depends on the time, on the allocator or on the version of Python.
# fmt: off
UNSTEADY = {
    "brk", "clock_gettime", "clock_nanosleep", "epoll_ctl", "epoll_pwait", "epoll_wait", "exit", "exit_group", "fcntl",
    "futex", "getpid", "getsockname", "gettid", "getuid", "geteuid", "ioctl", "lseek", "madvise", "mmap", "mprotect",
    "mremap", "munmap", "nanosleep", "poll", "ppoll", "restart_syscall", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "sched_yield", "select", "set_robust_list", "setitimer", "wait4", "waitid",
}
# fmt: on
# A pod has a cgroup in each hierarchy, and how many there are depends on the machine; all pods of it write to kmsg.
_ELSEWHERE = re.compile(r'[<"]/(sys/fs/cgroup|dev/kmsg)\b')
_WRITERS = {"pwrite64", "sendmsg", "sendto", "write", "writev"}
_CLONES = {"clone", "clone3", "fork", "vfork"}
_LINE = re.compile(r"^(\d+) +(\d+\.\d+) (?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)")
_DONE = re.compile(r" = (-?\d+)[^=]*$")


class Watch:
    """A running strace of processes and of everything that they start."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def between(self, begin: float, end: float) -> dict[str, int]:
        """What was done between two times (Unix seconds): how often each call was made, `processes`, and `written`
        bytes. What a program does after its execve is not counted: a container's work is its own."""
        found: Counter[str] = Counter()
        programs: set[str] = set()
        for line in self._file.read_text(errors="replace").splitlines():
            if (seen := _LINE.match(line)) is None:
                continue
            pid, at, call, rest = seen.groups()
            if pid in programs or (" resumed>" in line and call not in _WRITERS | _CLONES):
                continue
            done = _DONE.search(rest)
            if call == "execve" and done is not None and done[1] == "0":
                programs.add(pid)
            if (
                not begin <= float(at) < end
                or call in UNSTEADY
                or _ELSEWHERE.search(rest)
                or "EAGAIN" in rest
            ):
                continue
            if " resumed>" not in line:
                found[call] += 1
            if done is not None and call in _WRITERS:
                found["written"] += max(int(done[1]), 0)
            if done is not None and call in _CLONES:
                found["processes"] += 1
        return dict(found)


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


@contextlib.contextmanager
def watched(pids: list[int], file: Path) -> Iterator[Watch]:
    options = ("-f", "-qq", "-y", "--absolute-timestamps=format:unix,precision:us", "--string-limit=200")
    places = [word for pid in pids for word in ("-p", str(pid))]
    with (file.parent / "strace.err").open("wb") as said:
        strace = subprocess.Popen(["strace", *options, "-o", str(file), *places], stderr=said)
    try:
        for pid in pids:
            waiting.until(partial(_is_traced, pid), "strace to attach")
        yield Watch(file)
    finally:
        time.sleep(0.2)
        strace.send_signal(signal.SIGTERM)
        strace.wait(30)


def totals(counts: dict[str, int]) -> dict[str, int]:
    """The numbers that are compared."""
    calls = sum(count for name, count in counts.items() if name not in ("processes", "written"))
    return {"calls": calls, "processes": counts.get("processes", 0), "written": counts.get("written", 0)}


def steady(runs: list[dict[str, int]]) -> dict[str, int]:
    """The least of each number in several runs: what happens now and then, such as a look at the clock, is left out."""
    return {name: least for name in runs[0] if (least := min(run.get(name, 0) for run in runs))}


def grown(counts: dict[str, int], record: dict[str, int], allowed: float) -> list[str]:
    """A sentence for each total that is more than the record allows, with the calls that were added."""
    found = []
    for name, count in totals(counts).items():
        before = totals(record)[name]
        if count > before * (1 + allowed):
            more = {
                key: count - record.get(key, 0) for key, count in counts.items() if count > record.get(key, 0)
            }
            found.append(f"{name}: {count} instead of {before}; more: {more}")
    return found
