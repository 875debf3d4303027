"""The daemon's client of a shim: send requests, receive events, and clean up after a dead shim. asyncio.

Nothing here blocks: `reap_dead`, which waits for the kernel, runs in a thread. `forkserver_client` manages the
forkserver, which starts shims.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault, StateError
from runtime.shim import state
from runtime.shim.channel import Calls, Channel, ShimGone, close_fds
from runtime.shim.protocol import (
    ContainerRecord,
    ContainerStatus,
    CreateContainer,
    ExecRequest,
    Op,
    SandboxRecord,
)
from runtime.shim.state import read_state, shim_alive

__all__ = ["ExecSession", "ShimClient", "ShimGone", "read_state", "reap_dead", "shim_alive"]

LOST_EXIT_CODE = 137  # kubelet's exit code for ContainerStatusUnknown


@dataclass(slots=True)
class ExecSession:
    """A process in a container and its stdio: three pipes or a terminal. -1: not present."""

    exec_id: str
    pid: int
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1
    master: int = -1

    def close(self) -> None:
        """Close all remaining descriptors. Set a field to -1 first to keep its descriptor."""
        close_fds([fd for fd in (self.stdin, self.stdout, self.stderr, self.master) if fd >= 0])
        self.stdin = self.stdout = self.stderr = self.master = -1


Answer = tuple[dict[str, Any], list[int]]  # the "ok" object and its descriptors


@dataclass(slots=True)
class _Call:
    """A request that has been sent."""

    op: str
    number: int
    future: asyncio.Future[Answer]
    taken: bool = False  # whether the caller has received the answer


class Launch:
    """A container that is being created and then started. Await `created` before `started`."""

    def __init__(
        self, answer: Callable[[_Call], Awaitable[dict[str, Any]]], create: _Call, start: _Call
    ) -> None:
        self._answer = answer
        self._create = create
        self._start = start

    async def created(self) -> str:
        """Like `ShimClient.create`."""
        return _times(await self._answer(self._create))

    async def started(self) -> tuple[ContainerRecord, str]:
        """Like `ShimClient.start`."""
        return _started(await self._answer(self._start))


def _times(ok: dict[str, Any]) -> str:
    return str(ok.get("times", ""))


def _started(ok: dict[str, Any]) -> tuple[ContainerRecord, str]:
    return ContainerRecord.from_json(ok["container"]), _times(ok)


class ShimClient:
    """A connection to a shim. After it breaks, every call raises ShimGone; the caller may connect again."""

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
        self._calls = Calls()
        self._queues: list[asyncio.Queue[dict[str, Any] | None]] = []
        self._channel = Channel(sock, self._packet, self._gone)

    @classmethod
    async def connect(
        cls,
        run_dir: str,
        *,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> Self:
        """Connect to the shim of a run directory. ShimGone if none listens there. `on_close` is called once, when the
        connection ends for any reason."""
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
            raise ShimGone(f"the shim in {run_dir} does not accept the connection")
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
        close_fds(fds)
        for queue in self._queues:
            queue.put_nowait(message)
        if self._on_event is not None:
            self._on_event(message)

    def _gone(self) -> None:
        self._calls.fail_all(lambda: ShimGone(f"the shim in {self.run_dir} closed the connection"))
        for queue in self._queues:
            queue.put_nowait(None)
        if self._on_close is not None:
            self._on_close()

    def _send(self, op: Op | str, args: dict[str, Any]) -> _Call:
        """Send a request. The shim answers requests in order. ShimGone if the connection is closed."""
        if self.closed:
            raise ShimGone(f"the connection to the shim in {self.run_dir} is closed")
        call = _Call(str(op), *self._calls.new())
        try:
            self._channel.send({**args, "id": call.number, "op": call.op})
        except BaseException:
            self._give_up(call)
            raise
        return call

    async def _answer(self, call: _Call, timeout: float | None = 30.0) -> Answer:
        """Wait up to `timeout` seconds for the answer. The caller closes its descriptors."""
        try:
            async with asyncio.timeout(timeout):
                answer = await call.future
            call.taken = True
            return answer
        except TimeoutError:
            raise RuntimeFault(
                f"the shim in {self.run_dir} did not answer {call.op} within {timeout:g} seconds",
                reason="ShimTimeout",
                retriable=True,
            ) from None
        finally:
            self._give_up(call)

    def _give_up(self, call: _Call) -> None:
        """Stop waiting for the answer. Close the descriptors of an answer that has arrived but was not used."""
        self._calls.forget(call.number)
        done = call.future.done() and not call.future.cancelled() and not call.taken
        if done and call.future.exception() is None:
            close_fds(call.future.result()[1])

    async def call_fds(self, op: Op | str, *, timeout: float | None = 30.0, **args: Any) -> Answer:
        """Send a request and wait up to `timeout` seconds. The caller closes the descriptors of the answer.

        Raises ShimGone, RuntimeFault (reason ShimTimeout), or the error that the shim answers with.
        """
        return await self._answer(self._send(op, args), timeout)

    async def call(self, op: Op | str, *, timeout: float | None = 30.0, **args: Any) -> dict[str, Any]:
        return await self._ok(self._send(op, args), timeout)

    async def _ok(self, call: _Call, timeout: float | None = 30.0) -> dict[str, Any]:
        ok, fds = await self._answer(call, timeout)
        close_fds(fds)
        return ok

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield events from now on until the connection ends. Call `subscribe` first."""
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._queues.append(queue)
        try:
            while not (self.closed and queue.empty()) and (event := await queue.get()) is not None:
                yield event
        finally:
            self._queues.remove(queue)

    # --- one method per operation ---

    async def state(self) -> SandboxRecord:
        return SandboxRecord.from_json((await self.call(Op.STATE))["sandbox"])

    async def subscribe(self) -> SandboxRecord:
        """Request events on this connection. The returned record is the state before the first event."""
        return SandboxRecord.from_json((await self.call(Op.SUBSCRIBE))["sandbox"])

    async def annotate(self, annotations: dict[str, str]) -> SandboxRecord:
        ok = await self.call(Op.ANNOTATE, annotations=annotations)
        return SandboxRecord.from_json(ok["sandbox"]) if "sandbox" in ok else await self.state()

    async def create(self, request: CreateContainer) -> str:
        """Create a container. Its program runs after `start`. Returns the timed steps of the creation in the format of
        `runtime.oci.init_protocol.written`, or "" if the shim's version does not report them."""
        return _times(await self.call(Op.CREATE, **request.to_json()))

    async def start(self, container_id: str) -> tuple[ContainerRecord, str]:
        """Start the container's program. Returns the container's record, and the timed steps as `create` does. Raises
        StartError if the program cannot be executed; the container's record then remains (stopped, exit code 128)."""
        return _started(await self.call(Op.START, container_id=container_id))

    @contextlib.contextmanager
    def launch(self, request: CreateContainer) -> Iterator[Launch]:
        """Send `create` and `start` together, without waiting in between.

        Both are sent when the block begins, and the shim executes them in order. If it cannot create the container, it
        rejects the start, and that error is dropped. If the block ends early (an error, a cancelled caller), both
        operations may still take place.
        """
        create = self._send(Op.CREATE, request.to_json())
        try:
            start = self._send(Op.START, {"container_id": request.container_id})
        except BaseException:
            self._give_up(create)
            raise
        try:
            yield Launch(self._ok, create, start)
        finally:
            self._give_up(create)
            self._give_up(start)

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
        """Run a process in a container. StartError if it cannot be executed. Its exit is an event on this
        connection."""
        ok, fds = await self.call_fds(Op.EXEC, **request.to_json())
        return ExecSession(ok["exec_id"], ok["pid"], **dict(zip(ok["fds"], fds, strict=True)))

    async def resize(self, exec_id: str, width: int, height: int) -> None:
        await self.call(Op.RESIZE, exec_id=exec_id, width=width, height=height)

    async def attach(self, container_id: str, *, once: bool = False) -> list[int]:
        """[the write end of the container's stdin, or its terminal]; [] if it has neither. `once`: the shim closes its
        own copy of stdin."""
        return (await self.call_fds(Op.ATTACH_FDS, container_id=container_id, once=once))[1]

    async def tap(self, container_id: str) -> list[int]:
        """Descriptors with the container's output from now on: [combined] for a terminal, otherwise [stdout,
        stderr]."""
        return (await self.call_fds(Op.TAP, container_id=container_id))[1]

    async def socket(self, family: int) -> int:
        """The descriptor of a new TCP socket (AF_INET or AF_INET6) in the pod's network namespace."""
        _, (descriptor,) = await self.call_fds(Op.SOCKET, family=family)
        return descriptor

    async def rotate(self, container_id: str) -> None:
        await self.call(Op.ROTATE, container_id=container_id)

    async def shutdown(self, *, force: bool = False) -> float:
        """Shut the sandbox down. On return the pod's cgroup and run directory are removed, and the shim is exiting.

        Returns the seconds that removing the cgroup took; 0 from an older shim.
        """
        return float((await self.call(Op.SHUTDOWN, force=force)).get("cgroup_took", 0.0))


async def reap_dead(run_dir: str) -> SandboxRecord | None:
    """Clean up after a shim that died (kill -9, OOM): kill the pod's remaining processes, remove its cgroup and run
    directory.

    Returns the shim's last record, with all live containers marked as lost; None if it never wrote one. Idempotent.
    StateError if the shim is alive.
    """
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
    """The record of a container whose exit was not observed. A stopped container's record is unchanged."""
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
