"""The process that is the parent of a RUN's container. It is single-threaded, has a mount namespace of its own and,
unless the RUN uses the host's, a network namespace of its own.

It reads one job, a JSON line on a socket, and answers in JSON lines. `{"network": true}` means that its network
namespace waits to be attached; the builder answers "go". Then follows `{"exit", "oom", "warnings"}` or `{"error",
"reason"}`. If the socket closes, for whatever reason, the container is killed and its cgroup removed. Other stages'
files and in-memory secrets are mounted in its own namespace and disappear with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from contextlib import ExitStack
from typing import Any

from runtime import syscalls as sc
from runtime.builder.overlay import mount_overlay
from runtime.errors import RuntimeFault, StartError
from runtime.oci import container
from runtime.oci.container import Container, Stdio
from runtime.shim.protocol import RootfsOverlay
from runtime.shim.sandbox import loopback_up

Job = dict[str, Any]
NOT_STARTED = 127


def main(control: int, output: int) -> int:
    """Run one job. `control` is the socket. `output` receives the program's stdout and stderr. Returns the exit
    status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, lambda *_: None)  # only the builder ends a job
    channel = socket.socket(fileno=control)
    with channel, channel.makefile("rb") as lines:
        job: Job = json.loads(lines.readline() or b"{}")
        if not job:
            return 0
        try:
            answer = _run(job, channel, output)
        except StartError as error:
            answer = {"exit": NOT_STARTED, "oom": False, "warnings": [str(error)]}
        except RuntimeFault as error:
            answer = {"error": str(error), "reason": error.reason}
        except OSError as error:
            answer = {"error": f"{error.strerror}: {error.filename}", "reason": "SystemCallFailed"}
        _say(channel, answer)
    return 0


def _say(channel: socket.socket, document: Job) -> None:
    with contextlib.suppress(OSError):  # the builder has exited
        channel.sendall(json.dumps(document).encode() + b"\n")


def _run(job: Job, channel: socket.socket, output: int) -> Job:
    os.umask(0o022)
    sc.prctl(sc.PR_SET_CHILD_SUBREAPER, 1)
    if job["own_network"]:
        sc.unshare(sc.CLONE_NEWNET)
        loopback_up()
        if job["attach"]:
            _say(channel, {"network": True})
            if channel.recv(16) != b"go\n":
                return {"error": "the builder has exited", "reason": "Cancelled"}
    sc.unshare(sc.CLONE_NEWNS)
    sc.mount(None, "/", None, sc.MS_SLAVE | sc.MS_REC)
    _prepare(job)
    with ExitStack() as undo:
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, null)
        overlay = RootfsOverlay(job["lower"], job["upper"], job["work"], portable=True)
        made = container.create(
            job["spec"],
            container_id=job["id"],
            bundle=job["bundle"],
            stdio=Stdio(null, output, output),
            rootfs=overlay,
            cgroup_path=job["cgroup"],
        )
        undo.callback(made.delete)
        made.start()
        os.close(output)  # so that the builder sees end of file
        code = _wait(made, channel)
        return {"exit": code, "oom": bool(made.cgroup.oom_kills()), "warnings": list(made.warnings)}


def _prepare(job: Job) -> None:
    """Mount the files of other stages (read-only, or with a throw-away upper directory) and write the secrets to a
    tmpfs."""
    for entry in job["overlays"]:
        fd = mount_overlay(entry["lower"], upper=entry["upper"], work=entry["work"], scratch=entry["scratch"])
        try:
            sc.move_mount(fd, "", sc.AT_FDCWD, entry["at"], sc.MOVE_MOUNT_F_EMPTY_PATH, about=entry["at"])
        finally:
            os.close(fd)
    if not job["secrets"]:
        return
    top = job["secrets_at"]
    sc.mount("tmpfs", top, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC, "mode=0700")
    for number, secret in enumerate(job["secrets"]):
        fd = os.open(f"{top}/{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(bytes.fromhex(secret["hex"]))
            os.fchown(fd, secret["uid"], secret["gid"])
            os.fchmod(fd, secret["mode"])


def _wait(made: Container, channel: socket.socket) -> int:
    """Wait for the container. Returns its exit code, or 128 + signal. If the channel closes, kill the container."""
    poll = select.poll()
    poll.register(made.pidfd, select.POLLIN)
    poll.register(channel, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == channel.fileno() and not channel.recv(16):
                poll.unregister(channel)
                made.kill(signal.SIGKILL, everything=True)
        _reap_orphans(made.pid)
        if os.waitid(os.P_PID, made.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            code = os.waitstatus_to_exitcode(os.waitpid(made.pid, 0)[1])
            return code if code >= 0 else 128 - code


def _reap_orphans(pid: int) -> None:
    while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
        if found.si_pid == pid:
            return
        os.waitpid(found.si_pid, 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
