"""Station 1: versions, the chain of processes from the daemon to the program, and what survives the daemon's death."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import subprocess
import time

from kubelite.cli.tour import kernel
from kubelite.cli.tour.guide import NAMESPACE, Guide, Missing, container, pod

INTRODUCTION = """
With Docker, dockerd asks containerd, containerd starts a shim, the shim starts runc, and runc becomes your program.
Here a daemon decides, a warm process named forkserver forks a shim for each pod, and the shim clones the container's
first process itself. The only program on the way that is executed is yours, and none of the containers depends on the
daemon.
"""

CHAIN = (
    ("dockerd", "kubelite (the daemon)", "decides what runs; has threads, so it never forks"),
    ("containerd", "forkserver", "one thread, everything imported; forks the shims"),
    ("containerd-shim", "kubelite-shim", "one for each pod; parent of its containers, copies their output"),
    (
        "runc",
        "the container's init, before execve",
        "a clone of the shim: mounts, drops privileges, executes",
    ),
    ("your program", "your program", "process 1 of its pid namespace"),
)


def visit(guide: Guide) -> None:
    _versions(guide)
    guide.step("The chain of processes")
    guide.table(("Docker", "here", "what it does"), CHAIN)
    guide.image()
    guide.apply(pod("chain", container("app")))
    seen = guide.inspect("chain")
    shim, app = seen["sandbox"]["pid"], seen["containers"][0]["pid"]
    forkserver = kernel.parent(shim)
    daemon = kernel.parent(forkserver) if kernel.status(forkserver, "Name") == "forkserver" else 0
    known = ",".join(str(pid) for pid in (daemon, forkserver, shim, app) if pid > 1)
    guide.run(f"ps -o pid,ppid,comm --forest -p {known}")
    guide.say(
        "Each process is the child of the one above it. The container's init was cloned, not executed by a runtime: "
        "its program is the first file that it executes."
    )
    guide.check("the container's parent is the pod's shim", kernel.parent(app) == shim)
    guide.check("the kernel calls the shim kubelite-shim", kernel.status(shim, "Name") == "kubelite-shim")
    guide.run(f"awk '/^Private_Dirty/ {{sum += $2}} END {{print sum \" kB\"}}' /proc/{shim}/smaps_rollup")
    guide.say("A shim shares most of its memory with the forkserver; this is what it has for itself.")
    guide.run(f"grep -E '^(NSpid|CapEff|NoNewPrivs|Seccomp):' /proc/{app}/status")
    guide.check(
        "the program is process 1 of its pid namespace", kernel.status(app, "NSpid").split()[-1] == "1"
    )
    guide.check("it runs under a seccomp filter (mode 2)", kernel.status(app, "Seccomp") == "2")
    guide.step("The daemon dies, the containers do not")
    with guide.optional("killing the daemon"):
        _kill(guide, daemon, shim, app)
    guide.delete()


def _versions(guide: Guide) -> None:
    guide.step("Versions")
    guide.run("kubelite version")
    engine = guide.run("kubelite-oci --version")
    guide.run("uname -sr")
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    rows = [("Python", platform.python_version()), ("libseccomp", _libseccomp()), ("cgroups", _cgroups())]
    if os.path.isdir(f"{checkout}/.git") or os.path.isfile(f"{checkout}/.git"):
        rows.append(
            ("commit", guide.ask(f"git -C {shlex.quote(checkout)} rev-parse --short HEAD || true").strip())
        )
    guide.table(("part", "version"), rows)
    guide.check("the engine names the OCI runtime specification that it implements", "spec: 1." in engine)


def _libseccomp() -> str:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "not installed"
    library.seccomp_version.restype = ctypes.c_void_p
    return ".".join(map(str, (ctypes.c_uint * 3).from_address(library.seccomp_version())))


def _cgroups() -> str:
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return "v2"
    return "v1 and v2 (hybrid)" if os.path.isdir("/sys/fs/cgroup/unified") else "v1"


def _kill(guide: Guide, daemon: int, shim: int, app: int) -> None:
    if not guide.kills_daemon:
        raise Missing("needs --kill-daemon, because other users of this node would notice")
    if daemon <= 1:
        raise Missing("needs a daemon that has not been restarted since the pod started")
    again = _Again(daemon)
    guide.undo.callback(again.start, guide)  # restarts the daemon, whatever happens here
    guide.run(f"kill -9 {daemon}")
    guide.until(lambda: not kernel.alive(daemon), "the daemon to end")
    guide.run("kubelite get pods", fails=True)
    guide.run(f"ps -o pid,ppid,comm -p {shim},{app}")
    guide.check(
        "the shim and the container are the same processes", kernel.alive(shim) and kernel.parent(app) == shim
    )
    guide.say(
        "A new daemon finds the shims by their sockets, asks each what it runs, and goes on from there."
    )
    guide.background(shlex.join(again.command))
    again.start(guide)
    guide.until(lambda: _answers(guide, 0.0), "the new daemon to answer")
    guide.run(f"kubelite get pod chain -n {NAMESPACE}")
    seen = guide.inspect("chain")
    same = (seen["sandbox"]["pid"], seen["containers"][0]["pid"]) == (shim, app)
    guide.check("the new daemon manages the same processes, with the same pids", same)


class _Again:
    """The command, environment, directory and log of a running daemon, with which another one can be started."""

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            self.command = [os.fsdecode(word) for word in file.read().rstrip(b"\0").split(b"\0")]
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = [os.fsdecode(entry).partition("=") for entry in file.read().split(b"\0") if entry]
        self._environment = {name: value for name, _, value in pairs}
        self._directory = os.readlink(f"/proc/{pid}/cwd")
        self._log = os.readlink(f"/proc/{pid}/fd/2")

    def start(self, guide: Guide) -> None:
        """Start a daemon, unless one answers within three seconds: a service manager may be faster."""
        if _answers(guide, 3.0):
            return
        log = self._log if os.path.isfile(self._log) else os.devnull
        with open(log, "ab") as file:
            subprocess.Popen(
                self.command, env=self._environment, cwd=self._directory, stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip


def _answers(guide: Guide, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        code, _ = guide.shell("kubelite get pods")
        if code == 0 or time.monotonic() >= end:
            return code == 0
        time.sleep(0.2)
