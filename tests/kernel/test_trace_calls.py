"""The system calls that a start's trace shows are those that strace sees: row by row, name by name, as often."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kubelite.telemetry.tracing.trace import inner_steps
from runtime.shim.protocol import CreateContainer
from tests.kernel.shim_kit import Node, Pod, node
from tests.programs import BUSYBOX, missing
from tests.waiting import until

__all__ = ["node"]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX, reason="needs busybox"),
    pytest.mark.skipif(bool(missing("strace")), reason="needs strace"),
]

# They change nothing but the process's own memory, descriptors and signal mask (runtime.oci.optional.calls).
# fmt: off
QUIET = {
    "access", "brk", "clock_gettime", "close", "dup", "epoll_ctl", "epoll_wait", "exit", "exit_group", "faccessat",
    "faccessat2", "fcntl", "fstat", "fstatfs", "futex", "getcwd", "getdents64", "getegid", "geteuid", "getgid",
    "getpid", "getppid", "getrandom", "getsockname", "gettid", "gettimeofday", "getuid", "lseek", "madvise", "mmap",
    "mprotect", "mremap", "munmap", "newfstatat", "pipe2", "poll", "ppoll", "pread64", "read", "readlink",
    "readlinkat", "recvmsg", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sendto", "setsockopt",
    "socketpair", "stat", "statfs", "statx", "uname", "wait4", "waitid",
}
# fmt: on
LINE = re.compile(r"^(\d+) +(\d+)\.(\d{9}) (\w+)\((.*)")


class Strace:
    """What strace saw: (pid, nanoseconds since 1970, call, arguments)."""

    def __init__(self, file: Path) -> None:
        self.calls: list[tuple[int, int, str, str]] = []
        for line in file.read_text(errors="replace").splitlines():
            if found := LINE.match(line):
                pid, seconds, fraction, call, rest = found.groups()
                self.calls.append((int(pid), int(seconds) * 10**9 + int(fraction), call, rest))

    def between(self, pid: int, begin: int, end: int) -> Counter[str]:
        """How often the process made each call that counts; up to execve, after which another program makes them."""
        seen: Counter[str] = Counter()
        for by, at, call, rest in self.calls:
            if by == pid and begin <= at < end and not self._is_quiet(call, rest):
                seen[call] += 1
                if call == "execve":
                    break
        return seen

    def creator(self) -> int:
        """The child of the shim that clones the container's first process."""
        return next(by for by, _, call, rest in self.calls if call == "clone3" and "CLONE_PARENT" in rest)

    @staticmethod
    def _is_quiet(call: str, rest: str) -> bool:
        if call in ("open", "openat"):
            return "O_CREAT" not in rest
        # Python writes SIGCHLD to itself, asks whether a file is a terminal, and sets sockets' timeouts.
        if call == "write" and '"\\21", 1)' in rest:
            return True
        if call == "prlimit64":
            return (
                ", NULL, " in rest and "{" not in rest.partition("NULL")[0]
            )  # it only asks, as posix_spawn does
        return call in QUIET or (call == "ioctl" and ("TCGETS" in rest or "FIONBIO" in rest))


@contextlib.contextmanager
def traced(pid: int, file: Path) -> Iterator[None]:
    """Trace the process and everything it forks into `file`."""
    options = ("-f", "-qq", "--absolute-timestamps=format:unix,precision:ns", "--string-limit=64")
    with (file.parent / "strace.err").open("wb") as said:
        strace = subprocess.Popen(["strace", *options, "-o", str(file), "-p", str(pid)], stderr=said)
    try:
        until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text(), "strace to attach")
        yield
    finally:
        strace.send_signal(signal.SIGTERM)
        strace.wait(30)


def everything(spec: dict[str, Any]) -> None:
    """Ask for what makes further steps do something."""
    spec["hostname"] = "db-0"
    spec["process"] |= {
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [2000], "umask": 0o27},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512}],
        "noNewPrivileges": True,
        "cwd": "/srv/app",
        "capabilities": {
            kind: ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]
            for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 5},
    }
    shm = {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "mode=1777"]}
    hosts = {
        "destination": "/etc/hosts",
        "type": "bind",
        "source": "/etc/hostname",
        "options": ["bind", "ro"],
    }
    spec["mounts"] += [
        shm,
        hosts,
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
    ]
    spec["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    )
    spec["root"]["readonly"] = True
    spec["hooks"] = {"createContainer": [{"path": "/bin/true"}], "startContainer": [{"path": "/bin/true"}]}
    filter_ = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}],
    }
    spec["linux"] |= {
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/scsi", "/no/such"],
        "readonlyPaths": ["/proc/sys", "/proc/bus"],
        "seccomp": filter_,
        "personality": {"domain": "LINUX32"},
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "80"},
    }


def plain(spec: dict[str, Any]) -> None:
    """A container as small as can be: most steps do nothing."""


def at_root_with_devices(spec: dict[str, Any]) -> None:
    spec["linux"]["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600}
    ]
    spec["process"]["terminal"] = False
    spec["process"]["args"] = ["/bin/sleep", "1000"]
    spec["mounts"].append({"destination": "/a/new/place", "type": "tmpfs", "source": "tmpfs"})


def on_a_terminal(spec: dict[str, Any]) -> None:
    spec["process"]["consoleSize"] = {"height": 30, "width": 100}


def in_a_user_namespace(spec: dict[str, Any]) -> None:
    spec["linux"]["namespaces"] = [
        {"type": kind} for kind in ("user", "pid", "mount", "network", "ipc", "uts")
    ]
    for ids in ("uidMappings", "gidMappings"):
        spec["linux"][ids] = [{"containerID": 0, "hostID": 0, "size": 65536}]


async def started(pod: Pod, request: CreateContainer) -> tuple[int, list[str]]:
    """Create and start the container: its pid, and the texts of both."""
    texts = [await pod.client.create(request)]
    record, text = await pod.client.start(request.container_id)
    return record.pid, [*texts, text]


@pytest.mark.parametrize(
    "change", [plain, everything, at_root_with_devices, on_a_terminal, in_a_user_namespace]
)
def test_every_row_is_what_strace_sees(
    node: Node, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    """strace times a call when it enters, and its clock is another one: on a busy machine a call can seem to belong to
    the row before. What is really wrong is wrong each time, so one agreement of three suffices."""
    for left in reversed(range(3)):
        try:
            return _compare_one_start(node, tmp_path / f"strace.{left}", change)
        except AssertionError:
            if not left:
                raise


def _compare_one_start(node: Node, file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    found: list[tuple[int, int, list[str], int]] = []

    async def story(node: Node) -> None:
        pod = await node.pod()
        resources = {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}, "cpu": {"shares": 512}}
        for _ in range(5):
            request = pod.request(
                "sleep", "1000", change=change, resources=resources, tty=change is on_a_terminal
            )
            zero = monotonic_zero()
            with traced(pod.record.pid, file):
                pid, texts = await started(pod, request)
            if abs(zero - monotonic_zero()) < 1000:  # otherwise the clock that strace shows was set meanwhile
                found.append((pod.record.pid, pid, texts, zero))
                return

    node.run(story)
    [(shim, init, texts, zero)] = found
    compare(Strace(file), shim, init, texts, zero)


def monotonic_zero() -> int:
    """When CLOCK_MONOTONIC was 0, in nanoseconds since 1970: of several tries the one that took the least time."""
    tries = []
    for _ in range(100):
        before, now, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        tries.append((after - before, now - (before + after) // 2))
    return min(tries)[1]


def compare(strace: Strace, shim: int, init: int, texts: list[str], zero: int) -> None:
    rows = [row for text in texts for row in _rows(text)]
    assert len(rows) > 20
    for (name, calls, begin), (_, _, end) in pairwise(rows):
        if not name:
            continue
        parents = name in ("config.json", "cgroup made", "clone3", "start")
        by = (shim if name == "start" else strace.creator()) if parents else init
        seen = strace.between(by, begin + zero, end + zero)
        if name == "start":
            seen["sendto"] += 1  # quiet elsewhere, where the shim answers its clients
        if not parents and name != "gate":
            seen.pop("sendto", None)
        assert Counter(calls) == seen, name
    shown = [step for text in texts for step in inner_steps("main", text, 0.0)]
    assert [s.call for s in shown if not s.call] == []
    assert {s.step for s in shown} <= {name.partition(": ")[2] or name for name, _, _ in rows}


def _rows(text: str) -> list[tuple[str, list[str], int]]:
    rows: list[tuple[str, list[str], int]] = []
    for line in text.splitlines():
        at, _, name = line.partition(" ")
        if at.isdigit():
            rows.append((name, [], int(at)))
        else:
            rows[-1][1].extend(line.split())
    return rows
