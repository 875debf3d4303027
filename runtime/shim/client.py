"""The daemon's side: start and keep the forkserver, talk to shims, and tidy up after a dead one. asyncio.

Nothing here blocks: packets are small, sockets non-blocking, and what waits for the kernel (`reap_dead`) runs in a
thread. Errors of the other side come back as the runtime.errors class their reason stands for.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from runtime.cgroups import open_cgroup
from runtime.errors import CapabilityError, NotFoundError, RuntimeFault, SpecError, StartError, StateError
from runtime.shim import state
from runtime.shim.protocol import (
    MAX_PACKET,
    ContainerRecord,
    ContainerStatus,
    CreateContainer,
    ExecRequest,
    Op,
    SandboxConfig,
    SandboxRecord,
)
from runtime.shim.state import read_state, shim_alive

__all__ = ["ExecSession", "Forkserver", "ShimClient", "ShimGone", "read_state", "reap_dead", "shim_alive"]

LOST_EXIT_CODE = 137  # kubelet's for ContainerStatusUnknown
_FDS_MAX = 8
_BACKOFF = (0.0, 0.1, 0.5, 2.0, 10.0)  # seconds before the n-th restart of a forkserver that died young
_STARTS = 3  # forkservers that may die in a row before they are warm
_OLD_AGE = 30.0  # seconds after which a forkserver's death counts as the first again


class ShimGone(RuntimeFault):
    """Nobody is at the other end (any more): the shim died, was shut down, or the connection broke."""

    reason = "ShimGone"
    retriable = True


class _DiedYoung(RuntimeFault):
    """A forkserver ended before it was warm."""


_CLASSES: dict[str, type[RuntimeFault]] = {
    "InvalidSpec": SpecError,
    "InvalidState": StateError,
    "AlreadyExists": StateError,
    "StaleSandbox": StateError,
    "NotFound": NotFoundError,
    "StartError": StartError,
    "NotSupported": CapabilityError,
}


def _fault(error: dict[str, Any]) -> RuntimeFault:
    reason = str(error.get("reason", "RuntimeFault"))
    kind = _CLASSES.get(reason, RuntimeFault)
    fault = kind(str(error.get("message", "")), reason=reason, retriable=bool(error.get("retriable", False)))
    if "exit_code" in error:
        fault.exit_code = int(error["exit_code"])  # type: ignore[attr-defined]
    return fault


class _Channel:
    """JSON packets over a non-blocking seqpacket socket, with the descriptors that came along."""

    def __init__(
        self,
        sock: socket.socket,
        on_packet: Callable[[dict[str, Any], list[int]], None],
        on_close: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_packet = on_packet
        self._on_close = on_close
        self._outbox: deque[bytes] = deque()
        self.closed = False
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_PACKET)
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: dict[str, Any]) -> None:
        payload = json.dumps(message, separators=(",", ":")).encode()
        if len(payload) > MAX_PACKET:
            raise SpecError(f"the request is {len(payload)} bytes, a packet may have at most {MAX_PACKET}")
        self._outbox.append(payload)
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._outbox:
            try:
                self._sock.send(self._outbox[0])
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._writable)
                return
            except OSError:
                self.close()
                return
            self._outbox.popleft()

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock.fileno())
        self._flush()

    def _readable(self) -> None:
        try:
            payload, rights, _flags, _ = self._sock.recvmsg(
                MAX_PACKET, socket.CMSG_SPACE(_FDS_MAX * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            payload, rights = b"", []
        fds = array.array("i")
        for level, kind, data in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if not payload:
            self.close()
            return
        try:
            message = json.loads(payload)
        except ValueError:
            _close_fds(list(fds))
            self.close()
            return
        self._on_packet(message, list(fds))

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._on_close()


def _close_fds(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


class _Calls:
    """Requests waiting for their answers."""

    def __init__(self) -> None:
        self._next = 0
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}

    def new(self) -> tuple[int, asyncio.Future[tuple[dict[str, Any], list[int]]]]:
        self._next += 1
        future = asyncio.get_running_loop().create_future()
        self._waiting[self._next] = future
        return self._next, future

    def forget(self, number: int) -> None:
        self._waiting.pop(number, None)

    def answer(self, message: dict[str, Any], fds: list[int]) -> None:
        """An answer nobody waits for any more (cancelled, timed out) is dropped, its descriptors are closed."""
        number = message.get("id")
        future = self._waiting.pop(number, None) if isinstance(number, int) else None
        if future is None or future.done():
            _close_fds(fds)
        elif "error" in message:
            _close_fds(fds)
            future.set_exception(_fault(message["error"]))
        else:
            future.set_result((message.get("ok") or {}, fds))

    def fail_all(self, make: Callable[[], RuntimeFault]) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(make())


@dataclass(slots=True)
class ExecSession:
    """A process in a container and its stdio: three pipes, or one terminal. -1 = has none."""

    exec_id: str
    pid: int
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    master: int = -1

    def close(self) -> None:
        """Close what is left open of them. Set a field to -1 to keep its descriptor."""
        _close_fds([fd for fd in (self.stdin, self.stdout, self.stderr, self.master) if fd >= 0])
        self.stdin = self.stdout = self.stderr = self.master = -1


class ShimClient:
    """One connection to a shim. When it breaks, every call raises ShimGone; connecting again is the caller's."""

    def __init__(
        self,
        run_dir: str,
        sock: socket.socket,
        on_event: Callable[[dict[str, Any]], None] | None,
        on_close: Callable[[], None] | None,
    ) -> None:
        """Use `connect`."""
        self.run_dir = run_dir
        self._on_event = on_event
        self._on_close = on_close
        self._calls = _Calls()
        self._queues: list[asyncio.Queue[dict[str, Any] | None]] = []
        self._channel = _Channel(sock, self._packet, self._gone)

    @classmethod
    async def connect(
        cls,
        run_dir: str,
        *,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> Self:
        """ShimGone when nobody listens there. `on_close` is called once, however the connection ends."""
        sock = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            for _ in range(500):
                try:
                    with state.socket_path(run_dir) as path:
                        sock.connect(path)
                    return cls(run_dir, sock, on_event, on_close)
                except BlockingIOError:  # its backlog is full
                    await asyncio.sleep(0.01)
            raise ShimGone(f"the shim in {run_dir} takes no connection")
        except OSError as error:
            sock.close()
            raise ShimGone(f"no shim listens in {run_dir}: {error.strerror}") from error
        except BaseException:
            sock.close()
            raise

    @property
    def closed(self) -> bool:
        return self._channel.closed

    def close(self) -> None:
        self._channel.close()

    def _packet(self, message: dict[str, Any], fds: list[int]) -> None:
        if "event" not in message:
            self._calls.answer(message, fds)
            return
        _close_fds(fds)
        for queue in self._queues:
            queue.put_nowait(message)
        if self._on_event is not None:
            self._on_event(message)

    def _gone(self) -> None:
        self._calls.fail_all(lambda: ShimGone(f"the shim in {self.run_dir} hung up"))
        for queue in self._queues:
            queue.put_nowait(None)
        if self._on_close is not None:
            self._on_close()

    async def call_fds(
        self, op: Op | str, *, timeout: float | None = 30.0, **args: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """The "ok" object and the descriptors that came with it: the caller closes them."""
        if self.closed:
            raise ShimGone(f"the connection to the shim in {self.run_dir} is closed")
        number, future = self._calls.new()
        try:
            self._channel.send({**args, "id": number, "op": str(op)})
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise RuntimeFault(
                f"the shim in {self.run_dir} did not answer {op} within {timeout:g} seconds",
                reason="ShimTimeout",
                retriable=True,
            ) from None
        finally:
            self._calls.forget(number)
            if future.done() and not future.cancelled() and future.exception() is None and _cancelling():
                _close_fds(future.result()[1])

    async def call(self, op: Op | str, *, timeout: float | None = 30.0, **args: Any) -> dict[str, Any]:
        ok, fds = await self.call_fds(op, timeout=timeout, **args)
        _close_fds(fds)
        return ok

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Events from now on (after `subscribe`), until the connection ends."""
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._queues.append(queue)
        try:
            while not (self.closed and queue.empty()) and (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.remove(queue)

    # --- one method an operation ---

    async def state(self) -> SandboxRecord:
        return SandboxRecord.from_json((await self.call(Op.STATE))["sandbox"])

    async def subscribe(self) -> SandboxRecord:
        """Events follow on this connection; the record is what they start from."""
        return SandboxRecord.from_json((await self.call(Op.SUBSCRIBE))["sandbox"])

    async def annotate(self, annotations: dict[str, str]) -> SandboxRecord:
        ok = await self.call(Op.ANNOTATE, annotations=annotations)
        return SandboxRecord.from_json(ok["sandbox"]) if "sandbox" in ok else await self.state()

    async def create(self, request: CreateContainer) -> ContainerRecord:
        return ContainerRecord.from_json((await self.call(Op.CREATE, **request.to_json()))["container"])

    async def start(self, container_id: str) -> ContainerRecord:
        """StartError: the program cannot be executed; the record is kept (stopped, exit code 128)."""
        return ContainerRecord.from_json((await self.call(Op.START, container_id=container_id))["container"])

    async def stop(self, container_id: str, *, signal: int, grace: float) -> None:
        await self.call(Op.STOP, container_id=container_id, signal=signal, grace=grace)

    async def kill(self, container_id: str, signal: int, *, all: bool = False) -> None:
        await self.call(Op.KILL, container_id=container_id, signal=signal, all=all)

    async def delete(self, container_id: str) -> None:
        await self.call(Op.DELETE, container_id=container_id)

    async def update(
        self,
        container_id: str,
        *,
        resources: dict[str, Any] | None = None,
        labels: dict[str, str] | None = None,
    ) -> ContainerRecord:
        ok = await self.call(
            Op.UPDATE, container_id=container_id, resources=resources or {}, labels=labels or {}
        )
        return ContainerRecord.from_json(ok["container"])

    async def exec(self, request: ExecRequest) -> ExecSession:
        """StartError: the program cannot be executed. Its exit comes as an event to this connection."""
        ok, fds = await self.call_fds(Op.EXEC, **request.to_json())
        return ExecSession(ok["exec_id"], ok["pid"], **dict(zip(ok["fds"], fds, strict=True)))

    async def resize(self, exec_id: str, width: int, height: int) -> None:
        await self.call(Op.RESIZE, exec_id=exec_id, width=width, height=height)

    async def attach(self, container_id: str) -> list[int]:
        """[the writing end of its stdin, or its terminal], [] when it has neither."""
        return (await self.call_fds(Op.ATTACH_FDS, container_id=container_id))[1]

    async def rotate(self, container_id: str) -> None:
        await self.call(Op.ROTATE, container_id=container_id)

    async def shutdown(self, *, force: bool = False) -> None:
        """The pod's cgroup and run directory are gone when this returns; the shim's process is as good as."""
        await self.call(Op.SHUTDOWN, force=force)


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Forkserver:
    """Keeps one forkserver process running and asks it for shims. One per daemon."""

    def __init__(
        self,
        *,
        python: str = sys.executable,
        on_restart: Callable[[str], None] | None = None,
        shim_cgroup: str = "",
    ) -> None:
        """`on_restart` gets a sentence each time a forkserver that died is about to be replaced. `shim_cgroup`: the one
        that the SandboxConfigs will name, so that the first of them is as fast as the others."""
        self.pid = 0
        self.spare = (
            0  # pid of the shim that stands by, in the shims' cgroup as the forkserver itself; 0 = none yet
        )
        self._python = python
        self._shim_cgroup = shim_cgroup
        self._on_restart = on_restart
        self._calls = _Calls()
        self._channel: _Channel | None = None
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
        self._channel = _Channel(ours, self._packet, lambda: self._gone(pid))
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
        _close_fds(fds)
        if "ready" in message:
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)
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
            if self._on_restart is not None:
                self._on_restart(f"the forkserver (pid {self.pid}) died; starting another in {delay:g} s")
            await asyncio.sleep(delay)
            try:
                await self.start()
                return
            except (RuntimeFault, OSError):
                self._deaths += 1

    async def _connected(self) -> _Channel:
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
    """Start `python -I -S` on runtime.shim.forkserver, with descriptor 3 as its socket and a bare environment."""
    number = 3
    paths = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))]
    seccomp = importlib.util.find_spec("pyseccomp")
    if seccomp is not None and seccomp.origin is not None:
        where = os.path.dirname(seccomp.origin)
        paths.append(os.path.dirname(where) if os.path.basename(seccomp.origin) == "__init__.py" else where)
    # sealed first: shims are forks of this very executable, and containers can name it (CVE-2019-5736)
    seal = "from runtime.oci.sealed import reexecute; reexecute()"
    code = (
        f"import sys; sys.path += {paths!r}; {seal}; from runtime.shim.forkserver import main; main({number})"
    )
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


async def reap_dead(run_dir: str) -> SandboxRecord | None:
    """After a shim that died (kill -9, OOM): end what is left of its pod, remove its cgroup and its run directory, and
    return its last record with every live container marked lost. None when it never wrote one. Idempotent.
    StateError when it lives after all."""
    return await asyncio.to_thread(_reap_dead, run_dir)


def _reap_dead(run_dir: str) -> SandboxRecord | None:
    record, config = read_state(run_dir), state.read_config(run_dir)
    if state.occupied(run_dir):
        raise StateError(f"the shim in {run_dir} is alive")
    if record is not None:
        open_cgroup(record.cgroup).remove()
    elif config is not None:
        open_cgroup(config.cgroup).remove()
    state.remove_run_dir(run_dir)
    if record is None:
        return None
    now = time.time()
    return replace(record, containers=[_lost(c, now) for c in record.containers])


def _lost(container: dict[str, Any], now: float) -> dict[str, Any]:
    """The record of a container whose end nobody saw; those that had ended stay as they are."""
    if container.get("status") == ContainerStatus.STOPPED:
        return container
    return container | {
        "status": ContainerStatus.UNKNOWN.value,
        "pid": 0,
        "pid_start": 0,
        "finished_at": now,
        "exit_code": LOST_EXIT_CODE,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located: its shim died.",
        "stop_deadline": 0.0,
    }
