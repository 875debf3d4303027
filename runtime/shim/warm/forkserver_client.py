"""The daemon's side of the forkserver: start it, keep one running, ask it for shims. asyncio; nothing here blocks."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import runtime
from runtime.errors import RuntimeFault, StateError
from runtime.shim.channel import Calls, Channel, ShimGone, close_fds
from runtime.shim.client import ShimClient, reap_dead
from runtime.shim.protocol import Op, SandboxConfig, SandboxRecord

_BACKOFF = (0.0, 0.1, 0.5, 2.0, 10.0)  # seconds before the n-th restart of a forkserver that died young
_STARTS = 3  # forkservers that may die in a row before they are warm
_OLD_AGE = 30.0  # seconds after which a forkserver's death counts as the first again


class _DiedYoung(RuntimeFault):
    """A forkserver ended before it was warm."""


class Forkserver:
    """Keeps one forkserver process running and asks it for shims. One per daemon."""

    def __init__(
        self,
        *,
        python: str = sys.executable,
        on_warning: Callable[[str], None] = lambda sentence: None,
        shim_cgroup: str = "",
    ) -> None:
        """`on_warning` gets sentences for the log: what a forkserver warns of, and that one died and is replaced.
        `shim_cgroup`: the one that the SandboxConfigs will name, so that the first of them is as fast as the others."""
        self.pid = 0
        self.spare = (
            0  # pid of the shim that stands by, in the shims' cgroup as the forkserver itself; 0 = none yet
        )
        self._python = python
        self._shim_cgroup = shim_cgroup
        self._on_warning = on_warning
        self._calls = Calls()
        self._channel: Channel | None = None
        self._ready: asyncio.Future[None] | None = None
        self._restart: asyncio.Task[None] | None = None
        self._reaped: asyncio.Future[None] | None = None
        self._started_at = 0.0
        self._deaths = 0
        self._closing = False

    async def start(self) -> None:
        """Returns once it is warm. RuntimeFault if it cannot start, that is, if several in a row died on the way."""
        for left in reversed(range(_STARTS)):
            try:
                return await self._start()
            except _DiedYoung:
                if not left:
                    raise

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.pid = _launch(self._python, theirs)
        self._started_at = time.monotonic()
        ready = self._ready = asyncio.get_running_loop().create_future()
        pid = self.pid
        self._channel = Channel(ours, self._packet, lambda: self._gone(pid))
        try:
            async with asyncio.timeout(30):
                await asyncio.shield(ready)
            if self._shim_cgroup:
                oom_score_adj = SandboxConfig.__dataclass_fields__["oom_score_adj"].default
                self._channel.send(
                    {"prepare": {"shim_cgroup": self._shim_cgroup, "oom_score_adj": oom_score_adj}}
                )
        except TimeoutError:
            self._channel.close()
            raise RuntimeFault(
                "the forkserver was not ready within 30 seconds", reason="ForkserverFailed"
            ) from None

    def _packet(self, message: dict[str, Any], fds: list[int]) -> None:
        close_fds(fds)
        if "ready" in message:
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif "warning" in message:
            self._on_warning(f"the forkserver: {message['warning']}")
        elif "spare" in message:
            self.spare = int(message["spare"]["pid"])
        else:
            self._calls.answer(message, [])

    def _gone(self, pid: int) -> None:
        """Its socket closed: it died, or is about to; its spare goes with it."""
        self.spare = 0
        self._reaped = _reap_soon(pid, kill=not self._closing)
        gone = RuntimeFault("the forkserver died", reason="ForkserverGone", retriable=True)
        self._calls.fail_all(lambda: gone)
        was_ready = self._ready is not None and self._ready.done() and self._ready.exception() is None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(_DiedYoung("the forkserver could not start", reason="ForkserverFailed"))
        if self._closing or not was_ready:
            return
        self._deaths = 0 if time.monotonic() - self._started_at > _OLD_AGE else self._deaths + 1
        if self._restart is None or self._restart.done():
            self._restart = asyncio.ensure_future(self._start_again())

    async def _start_again(self) -> None:
        while not self._closing:
            delay = _BACKOFF[min(self._deaths, len(_BACKOFF) - 1)]
            self._on_warning(f"the forkserver (pid {self.pid}) died; starting another in {delay:g} s")
            await asyncio.sleep(delay)
            try:
                await self.start()
                return
            except (RuntimeFault, OSError):
                self._deaths += 1

    async def _connected(self) -> Channel:
        if self._restart is not None and not self._restart.done():
            await asyncio.shield(self._restart)
        if self._channel is None or self._channel.closed:
            raise RuntimeFault("the forkserver is not running", reason="ForkserverGone", retriable=True)
        return self._channel

    async def spawn(self, config: SandboxConfig, *, timeout: float = 30.0) -> SandboxRecord:
        """A new sandbox. On an error nothing of it is left. StateError with reason AlreadyExists (its shim lives: adopt
        it) or StaleSandbox (a dead one's run directory is there: `reap_dead` first)."""
        number, future = self._calls.new()
        try:
            async with asyncio.timeout(timeout):
                channel = await self._connected()
                channel.send({"id": number, "sandbox": config.to_json()})
                ok, _ = await future
                return SandboxRecord.from_json(ok["sandbox"])
        except TimeoutError:
            raise RuntimeFault(
                f"no shim for pod {config.uid} within {timeout:g} seconds",
                reason="ShimTimeout",
                retriable=True,
            ) from None
        except RuntimeFault as fault:
            if fault.reason != "ForkserverGone":
                raise
            return await _after_its_death(config, fault)
        finally:
            self._calls.forget(number)

    async def close(self) -> None:
        """End the forkserver, and return when it has. Shims live on."""
        self._closing = True
        if self._restart is not None:
            self._restart.cancel()
            with contextlib.suppress(asyncio.CancelledError, RuntimeFault):
                await self._restart
        if self._channel is not None:
            self._channel.close()
        if self._reaped is not None:
            await asyncio.wait([self._reaped], timeout=5.0)


async def _after_its_death(config: SandboxConfig, fault: RuntimeFault) -> SandboxRecord:
    """The forkserver died while it made this sandbox. The shim either was ready and is now ours, or notices that
    nobody heard of it and undoes itself; which of the two, its socket tells."""
    try:
        client = await ShimClient.connect(config.run_dir)
        try:
            record = SandboxRecord.from_json((await client.call(Op.STATE, timeout=10.0))["sandbox"])
        finally:
            client.close()
        if record.sandbox_id == config.sandbox_id:
            return record
    except ShimGone:
        for _ in range(100):  # it hung up first and lets go of its socket a moment later
            with contextlib.suppress(StateError):
                await reap_dead(config.run_dir)
                break
            await asyncio.sleep(0.02)
    raise fault


def _launch(python: str, theirs: socket.socket) -> int:
    """Start `python -I -S` on runtime.shim.warm.forkserver, with descriptor 3 as its socket and a bare environment."""
    number = 3
    paths = [os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))]
    seccomp = importlib.util.find_spec("pyseccomp")
    if seccomp is not None and seccomp.origin is not None:
        where = os.path.dirname(seccomp.origin)
        paths.append(os.path.dirname(where) if os.path.basename(seccomp.origin) == "__init__.py" else where)
    # sealed first: shims are forks of this very executable, and containers can name it (CVE-2019-5736)
    seal = "from runtime.oci.sealed import reexecute; reexecute()"
    code = f"import sys; sys.path += {paths!r}; {seal}; from runtime.shim.warm.forkserver import main; main({number})"
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    null = os.open(os.devnull, os.O_RDWR)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
        if theirs.fileno() == number:  # dup2 onto itself would leave it close-on-exec
            os.set_inheritable(number, True)
        else:
            actions.append((os.POSIX_SPAWN_DUP2, theirs.fileno(), number))
        return os.posix_spawn(python, [python, "-I", "-S", "-c", code], env, file_actions=actions)
    except OSError as error:
        raise RuntimeFault(
            f"{python} cannot be started: {error.strerror}", reason="ForkserverFailed"
        ) from error
    finally:
        os.close(null)


def _reap_soon(pid: int, *, kill: bool) -> asyncio.Future[None]:
    """Collect our child's exit status without waiting for it here; `kill` if it may hang. Done when it is collected."""
    loop = asyncio.get_running_loop()
    reaped: asyncio.Future[None] = loop.create_future()
    pidfd = os.pidfd_open(pid)
    if kill:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def collect() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not reaped.done():
            reaped.set_result(None)

    loop.add_reader(pidfd, collect)
    return reaped
