"""The daemon's client of the forkserver: start it, restart it if it dies, request shims. asyncio; nothing here
blocks."""

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

_BACKOFF = (0.0, 0.1, 0.5, 2.0, 10.0)  # seconds before the n-th restart of a forkserver that keeps dying
_STARTS = 3  # attempts to start a forkserver that dies before it is ready
_FORK_SECONDS = 5.0
_STABLE_SECONDS = 30.0  # after running this long, a forkserver's death counts as the first again


class _DiedEarly(RuntimeFault):
    """A forkserver died before it was ready."""


class Forkserver:
    """Keeps a forkserver process running and requests shims from it. One per daemon."""

    def __init__(
        self,
        *,
        python: str = sys.executable,
        on_warning: Callable[[str], None] = lambda sentence: None,
        shim_cgroup: str = "",
    ) -> None:
        """`on_warning` receives sentences for the log: warnings of the forkserver, and that it died and is restarted.

        `shim_cgroup`: the one that the SandboxConfigs will use, so that the first spawn is as fast as later ones.
        """
        self.pid = 0
        # The pid of the spare shim, which is in the shims' cgroup like the forkserver itself; 0: none.
        self.spare = 0
        self._python = python
        self._shim_cgroup = shim_cgroup
        self._on_warning = on_warning
        self._calls = Calls()
        self._channel: Channel | None = None
        self._ready: asyncio.Future[None] | None = None
        self._restart: asyncio.Task[None] | None = None
        self._reaped: asyncio.Future[None] | None = None
        self._started_at = 0.0
        self._heard = 0.0  # time.monotonic() of its last packet
        self._deaths = 0
        self._closing = False

    async def start(self) -> None:
        """Start a forkserver; returns once it is ready. RuntimeFault if it cannot be started, or has died _STARTS times
        in a row before it was ready."""
        for left in reversed(range(_STARTS)):
            try:
                return await self._start()
            except _DiedEarly:
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

    async def fork(self, program: dict[str, Any], connection: socket.socket) -> int:
        """Fork a process that runs a program of the node (beside.py). It gets a copy of `connection`.

        Returns its pid; it is our child. RuntimeFault if the forkserver cannot, or has died.
        """
        number, future = self._calls.new()
        try:
            async with asyncio.timeout(_FORK_SECONDS):
                channel = await self._connected()
                channel.send({"id": number, "fork": program}, [connection.fileno()])
                ok, _ = await future
                return int(ok["pid"])
        except TimeoutError:
            raise RuntimeFault(f"the forkserver did not fork within {_FORK_SECONDS:.0f} s") from None
        finally:
            self._calls.forget(number)

    def _packet(self, message: dict[str, Any], fds: list[int]) -> None:
        close_fds(fds)
        self._heard = time.monotonic()
        if "ready" in message:
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
        elif "warning" in message:
            self._on_warning(f"forkserver: {message['warning']}")
        elif "spare" in message:
            self.spare = int(message["spare"]["pid"])
        elif not self._calls.answer(message, []) and (late := (message.get("ok") or {}).get("pid")):
            _reap_soon(late, kill=True)  # of `fork`, which has given up

    def _gone(self, pid: int) -> None:
        """The forkserver's socket is closed: it has died or is about to, and its spare with it."""
        self.spare = 0
        self._reaped = _reap_soon(pid, kill=not self._closing)
        gone = RuntimeFault("the forkserver died", reason="ForkserverGone", retriable=True)
        self._calls.fail_all(lambda: gone)
        was_ready = self._ready is not None and self._ready.done() and self._ready.exception() is None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(_DiedEarly("the forkserver could not start", reason="ForkserverFailed"))
        if self._closing or not was_ready:
            return
        self._deaths = 0 if time.monotonic() - self._started_at > _STABLE_SECONDS else self._deaths + 1
        if self._restart is None or self._restart.done():
            self._restart = asyncio.ensure_future(self._start_again())

    async def _start_again(self) -> None:
        while not self._closing:
            delay = _BACKOFF[min(self._deaths, len(_BACKOFF) - 1)]
            self._on_warning(f"the forkserver (pid {self.pid}) died; restarting it in {delay:g} s")
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
        """Create a sandbox. After an error nothing of it remains.

        StateError with reason AlreadyExists (its shim is alive: adopt it) or StaleSandbox (the run directory of a dead
        shim exists: call `reap_dead` first).
        """
        number, future = self._calls.new()
        try:
            async with asyncio.timeout(timeout):
                channel = await self._connected()
                channel.send({"id": number, "sandbox": config.to_json()})
                ok, _ = await future
                return SandboxRecord.from_json(ok["sandbox"])
        except TimeoutError:
            self._kill_if_silent(timeout)
            raise RuntimeFault(
                f"the shim for pod {config.uid} was not ready within {timeout:g} seconds",
                reason="ShimTimeout",
                retriable=True,
            ) from None
        except RuntimeFault as fault:
            if fault.reason != "ForkserverGone":
                raise
            return await _after_its_death(config, fault)
        finally:
            self._calls.forget(number)

    def _kill_if_silent(self, seconds: float) -> None:
        """Kill a forkserver that has sent nothing for `seconds` (it is stopped, or blocked in the kernel). A new one is
        started as soon as its socket is closed; shims continue."""
        if self._channel is None or self._channel.closed or time.monotonic() - self._heard < seconds:
            return
        self._on_warning(f"the forkserver (pid {self.pid}) does not answer; killing it")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Stop the forkserver and wait for it to exit. Shims continue."""
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
    """Find out what happened to a sandbox whose forkserver died while creating it.

    The shim was either ready, and its socket answers; or its report failed, and it undoes everything. Returns the
    record, or raises `fault`.
    """
    try:
        client = await ShimClient.connect(config.run_dir)
        try:
            record = SandboxRecord.from_json((await client.call(Op.STATE, timeout=10.0))["sandbox"])
        finally:
            client.close()
        if record.sandbox_id == config.sandbox_id:
            return record
    except ShimGone:
        for _ in range(100):  # it closes the connection first and its listening socket a moment later
            with contextlib.suppress(StateError):
                await reap_dead(config.run_dir)
                break
            await asyncio.sleep(0.02)
    raise fault


def _launch(python: str, theirs: socket.socket) -> int:
    """Start `python -I -S` with runtime.shim.warm.forkserver, its socket as descriptor 3, and a minimal environment.
    Returns the pid."""
    number = 3
    paths = [os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))]
    seccomp = importlib.util.find_spec("pyseccomp")
    if seccomp is not None and seccomp.origin is not None:
        where = os.path.dirname(seccomp.origin)
        paths.append(os.path.dirname(where) if os.path.basename(seccomp.origin) == "__init__.py" else where)
    # Seal it first: shims are forks of this executable, and containers can refer to it (CVE-2019-5736).
    seal = "from runtime.oci.sealed import reexecute; reexecute()"
    code = f"import sys; sys.path += {paths!r}; {seal}; from runtime.shim.warm.forkserver import main; main({number})"
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    null = os.open(os.devnull, os.O_RDWR)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
        if theirs.fileno() == number:  # dup2 to itself would keep it close-on-exec
            os.set_inheritable(number, True)
        else:
            actions.append((os.POSIX_SPAWN_DUP2, theirs.fileno(), number))
        return os.posix_spawn(python, [python, "-I", "-S", "-c", code], env, file_actions=actions)
    except OSError as error:
        raise RuntimeFault(f"cannot start {python}: {error.strerror}", reason="ForkserverFailed") from error
    finally:
        os.close(null)


def _reap_soon(pid: int, *, kill: bool) -> asyncio.Future[None]:
    """Reap our child without blocking; `kill` it first if it may hang. The future is done once it is reaped."""
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
