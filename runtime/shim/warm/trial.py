"""Run a whole shim once in a child of the forkserver, to learn which functions every shim runs.

The rehearsal runs in the forkserver itself, so it cannot enter namespaces or create a pod's cgroup. A trial shim does
both: it sets up a sandbox without containers, answers some requests, and shuts down. Its run directory is on a tmpfs
that is not attached anywhere. Its cgroup is the only thing that a kill -9 can leave; the next trial removes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import FunctionType
from typing import Any, NoReturn

from runtime import syscalls as sc
from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault
from runtime.shim import sandbox, shim
from runtime.shim.protocol import MAX_PACKET, Op, SandboxConfig
from runtime.shim.warm.packing import Snapshot, changed
from runtime.shim.warm.rehearsal import detached_tmpfs

NAME = "rehearsal"  # of its cgroup, beside those of pods, and instead of a pod's uid
SECONDS = 5.0  # a trial takes ten milliseconds

_REQUESTS: tuple[dict[str, Any], ...] = (
    {"op": Op.SUBSCRIBE},
    {"op": Op.ANNOTATE, "annotations": {"ip": "10.0.0.1"}},
    {"op": Op.STATE},
    {"op": Op.SHUTDOWN, "force": True},
)


def trial(
    flags: int, inherited: sandbox.Inheritance, before: Snapshot, warn: Callable[[str], None]
) -> frozenset[FunctionType]:
    """The functions that a shim with the namespaces `flags` runs, of those in `before`.

    A failure is passed to `warn`; its only effect is larger shims.
    """
    cgroup = f"{os.path.dirname(inherited.shim_cgroup)}/{NAME}"
    try:
        with ExitStack() as stack:
            stack.callback(_remove_cgroup, cgroup)
            return _run(flags, inherited, before, cgroup, stack)
    except (RuntimeFault, OSError, ValueError) as error:
        warn(f"the trial of a shim failed: {error}")
        return frozenset()


def _run(
    flags: int, inherited: sandbox.Inheritance, before: Snapshot, cgroup: str, stack: ExitStack
) -> frozenset[FunctionType]:
    # by our pid, because the child closes its copy of the descriptor
    directory = detached_tmpfs(stack).replace("/self/", f"/{os.getpid()}/")
    run_dir = f"{directory}/shims/{NAME}"
    os.makedirs(run_dir)
    listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC))
    listener.bind("")
    listener.listen(1)
    address = listener.getsockname()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.callback(ours.close)
    stack.callback(theirs.close)
    report, report_w = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(report, "rb") as told:
        with os.fdopen(report_w, "wb") as telling:
            pid, pidfd = sc.clone3(0, exit_signal=signal.SIGCHLD)
            if pid == 0:
                _become_shim(
                    lambda: shim.run(theirs, telling.fileno(), flags, inherited), before, f"{directory}/ran"
                )
        stack.callback(_end, pidfd)
        theirs.close()
        resources = {"cpu": {"shares": 2}, "memory": {"limit": 64 << 20}, "pids": {"limit": 100}}
        config = SandboxConfig(
            NAME, "0" * 64, run_dir, cgroup, inherited.shim_cgroup, NAME, resources=resources
        )
        socket.send_fds(ours, [json.dumps(config.to_json()).encode()], [listener.fileno()])
        _wait_for(told.fileno())
        if "ok" not in (said := json.loads(told.read())):
            raise RuntimeFault(said["error"]["message"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as client:
        client.settimeout(SECONDS)
        client.connect(address)
        for number, request in enumerate(_REQUESTS):
            client.send(json.dumps({"id": number, **request}).encode())
            client.recv(MAX_PACKET)
    _wait_for(pidfd)
    with open(f"{directory}/ran", encoding="ascii") as file:
        return frozenset(before[number][0] for number in json.load(file))


def _wait_for(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(SECONDS * 1000):
        raise TimeoutError(f"no answer within {SECONDS:.0f} s")


def _become_shim(run: Callable[[], object], before: Snapshot, answer: str) -> NoReturn:
    try:
        run()
        with open(answer, "w", encoding="ascii") as file:
            json.dump(changed(before), file)
    finally:
        os._exit(0)


def _end(pidfd: int) -> None:
    """Kill the child if it has not exited. The kernel reaps it, because SIGCHLD is ignored."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def _remove_cgroup(path: str) -> None:
    """A killed shim may need a moment to leave it."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            open_cgroup(path).remove()
            return
        except (RuntimeFault, OSError):
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
