"""What the shim and its clients release after a failure half-way: descriptors, a pod's last record."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtime import syscalls
from runtime.errors import RuntimeFault, StateError, SyscallError
from runtime.oci import container as engine
from runtime.shim import foreign
from runtime.shim.client import ShimClient
from runtime.shim.exec import Execs
from runtime.shim.loop import Timer
from runtime.shim.protocol import ContainerStatus, CreateContainer, ExecRequest
from runtime.shim.supervisor import Supervised, Supervisor

NULL = engine.Stdio(0, 1, 2)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def stall() -> None:
    """Block the event loop while the timeouts of waiting tasks expire."""
    time.sleep(0.05)


class Still:
    """A loop that only records calls."""

    def __init__(self) -> None:
        self.handlers: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, handler: Callable[[int], None]) -> None:
        self.handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        self.handlers.pop(fd, None)

    def after(self, _seconds: float, callback: Callable[[], None]) -> Timer:
        return Timer(0.0, callback)


class Group:
    """A cgroup whose processes do not die."""

    path = "/none"

    def oom_kills(self) -> int:
        return 0

    def kill(self) -> bool:
        raise StateError("refusing to kill cgroup /none: the calling process is in it")


class Handle:
    """The handle of a container whose exec fails because no descriptor is free."""

    def __init__(self, pending: Any = None) -> None:
        self.pid = os.getpid()
        self.cgroup = Group()
        self.pending = pending

    def begin_exec(self, *_: object, **__: object) -> Any:
        return self.pending


def request(name: str = "main") -> CreateContainer:
    return CreateContainer(container_id=name, name=name, attempt=0, bundle="", rootfs=None, log_path="")


def supervised(pending: Any = None) -> Supervised:
    return Supervised(request(), Handle(pending))  # type: ignore[arg-type]


# -- clients -----------------------------------------------------------------------------------------------------


def test_a_late_response_leaves_no_descriptor_open() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client = ShimClient("/none", ours, None, None)
        try:
            with theirs:
                before = descriptors()
                call = asyncio.ensure_future(client.call_fds("tap", timeout=0.01))
                await asyncio.sleep(0)  # let it wait
                socket.send_fds(theirs, [b'{"id":1,"ok":{}}'], [0, 0])
                stall()  # the answer arrives and the timeout expires in the same round of the loop
                with pytest.raises(RuntimeFault) as late:
                    await call
                assert late.value.reason == "ShimTimeout"
                assert descriptors() == before
        finally:
            client.close()

    asyncio.run(scenario())


# -- other runtimes ----------------------------------------------------------------------------------------------


def test_a_failed_fork_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> tuple[int, int]:
        raise SyscallError(errno.EAGAIN, "clone3")

    monkeypatch.setattr(syscalls, "clone3", refuse)
    before = descriptors()
    with pytest.raises(SyscallError):
        foreign.spawn(["/bin/true"], NULL, None)
    assert descriptors() == before


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A pidfd of a running command."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        pidfd = os.pidfd_open(process.pid)
        try:
            yield pidfd
        finally:
            process.kill()
            with contextlib.suppress(OSError):
                os.close(pidfd)


def test_a_cancelled_exec_closes_its_terminal(sleeper: int) -> None:
    terminal = os.open("/dev/null", os.O_RDWR)
    container: Any = None
    pending = foreign.Pending(
        0, foreign._Watched(sleeper), container, "/none", None, contextlib.ExitStack(), terminal
    )
    pending.abandon()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(terminal)


class Broken:
    """A pending exec whose step fails with an OSError, not with a RuntimeFault."""

    pid = 0

    def __init__(self) -> None:
        self.channel = open(os.devnull)  # noqa: SIM115 - the loop's to watch
        self.abandoned = 0

    def step(self) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    def abandon(self) -> None:
        self.abandoned += 1
        self.channel.close()


def test_an_exec_that_fails_with_an_errno_is_answered_once() -> None:
    before = descriptors()
    loop, pending = Still(), Broken()
    execs = Execs(loop, lambda *_: None)  # type: ignore[arg-type]
    told: list[RuntimeFault] = []
    execs.start(
        supervised(pending), ExecRequest("main", "one", {}), None, started=lambda *_: None, failed=told.append
    )
    (look,) = loop.handlers.values()
    look(0)
    assert [str(fault) for fault in told] == ["exec: [Errno 24] too many open files"]
    assert pending.abandoned == 1 and not loop.handlers
    assert descriptors() == before


# -- the end of a container --------------------------------------------------------------------------------------


def test_a_container_ends_although_its_cgroup_cannot_be_emptied() -> None:
    ended: list[Supervised] = []
    supervisor = Supervisor(Still(), lambda _: None, ended.append, lambda *_: None)  # type: ignore[arg-type]
    found = supervised()
    found.own_pid_namespace = False
    supervisor.containers["main"] = found
    supervisor._reaped(found, 3)
    assert ended == [found] and found.status is ContainerStatus.STOPPED and found.exit_code == 3
