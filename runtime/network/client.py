"""The daemon's side of the network: NetworkClient speaks to the helper process, and starts it again when it dies.

The daemon itself never enters a namespace and never waits for the kernel: requests go to the helper over a
socket pair as JSON lines, any number at once. Every request is idempotent, so one that a dying helper left
unanswered is simply said again to the next helper, which has healed what was half-made.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any, Self

import runtime
from runtime import errors
from runtime.errors import NetworkError, RuntimeFault
from runtime.network.plan import Attachment, NetworkConfig, PortMapping

_HELPER_FD = 3
# -I -S: nothing of the user's environment, no site directories to search; the import path is this process's
# own, headed by where this very package lies (an editable install is found by a hook, not by the path)
_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[3]); from runtime.network.helper import main; "
)
_PROGRAM += "sys.exit(main(int(sys.argv[1]), json.loads(sys.argv[2])))"
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))
_ATTEMPTS = 3  # a request is said to so many helpers before its error is the caller's


class _HelperGone(Exception):
    """The helper's end of the socket closed before it answered."""


class _DiedInSetUp(NetworkError):
    """A new helper ended before it had greeted."""


class _Helper:
    """One life of the helper process."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading: asyncio.Task[None] | None = None
        self.alive = True
        self._reaped = False

    @classmethod
    async def start(cls, config: NetworkConfig) -> tuple[Self, list[str]]:
        """A set-up helper and the warnings of the set-up."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            arguments = [
                str(_HELPER_FD),
                json.dumps(config.to_json()),
                json.dumps([_ROOT, *filter(None, sys.path)]),
            ]
            pid = os.posix_spawn(  # noqa: ASYNC221 - takes a millisecond, once
                sys.executable,
                [sys.executable, "-I", "-S", "-c", _PROGRAM, *arguments],
                {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), _HELPER_FD)],
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP],
            )
            theirs.close()
            ours.setblocking(False)
            connection = socket.socket(fileno=ours.detach())
        reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 24)
        helper = cls(pid, reader, writer)
        try:
            greeting = await helper._read()
        except BaseException as error:
            await helper.end()
            if isinstance(error, _HelperGone):
                raise _DiedInSetUp("the network helper died while it set up the node") from error
            raise
        if "error" in greeting:
            await helper.end()
            raise _revived(greeting["error"])
        helper._reading = asyncio.create_task(helper._read_answers(), name="network-helper")
        return helper, greeting["ok"]["warnings"]

    async def request(self, op: str, fields: dict[str, Any]) -> Any:
        """The answer's "ok"; raises what the helper answered, or _HelperGone."""
        if not self.alive:
            raise _HelperGone
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(json.dumps({"id": number, "op": op, **fields}).encode() + b"\n")
            return await answer
        finally:
            self._waiting.pop(number, None)

    async def end(self) -> None:
        """Close the socket, which ends the helper after the request it is at, and reap it."""
        self.alive = False
        if self._reading:
            self._reading.cancel()
        self._fail_all()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if not self._reaped:  # its pid may be another child's by now
            await _reap(self.pid)
            self._reaped = True

    async def _read(self) -> dict[str, Any]:
        try:
            line = await self._reader.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise _HelperGone
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _read_answers(self) -> None:
        try:
            while True:
                message = await self._read()
                answer = self._waiting.get(message["id"])
                if answer is None or answer.done():
                    continue  # its caller was cancelled
                if "error" in message:
                    answer.set_exception(_revived(message["error"]))
                else:
                    answer.set_result(message["ok"])
        except _HelperGone:
            pass
        finally:
            self.alive = False
            self._fail_all()

    def _fail_all(self) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(_HelperGone())


class NetworkClient:
    """The node's network, for the daemon. `warnings` are the set-up's: said once, by whoever started it."""

    def __init__(self, config: NetworkConfig, helper: _Helper, warnings: Sequence[str]) -> None:
        self.config = config
        self.warnings = tuple(warnings)
        self._helper = helper
        self._restarting = asyncio.Lock()
        self._closed = False

    @classmethod
    async def start(cls, config: NetworkConfig) -> Self:
        """Start the helper in this process's network namespace and set the node up: bridge, forwarding, NAT table.
        Idempotent; heals what an earlier life left half-made. Raises NetworkError, SpecError or CapabilityError."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                helper, warnings = await _Helper.start(config)
                break
            except _DiedInSetUp:
                if not left:
                    raise
        return cls(config, helper, warnings)

    async def add(self, uid: str, netns: str, ports: Sequence[PortMapping] = ()) -> Attachment:
        """Attach a pod's network namespace ("/proc/<pid>/ns/net") and publish its ports. Idempotent for a uid: the same
        namespace gives the same answer (and takes changed ports), a new one is attached under the same address.

        Raises NetworkError, whose reason is HostPortConflict when a port is taken (the message says by whom) and
        AddressPoolExhausted when the pod network is full; SpecError for what can never work."""
        listed = [
            {
                "host_port": port.host_port,
                "container_port": port.container_port,
                "protocol": port.protocol,
                "host_ip": port.host_ip,
            }
            for port in ports
        ]
        return Attachment.from_json(await self._request("add", uid=uid, netns=netns, ports=listed))

    async def delete(self, uid: str) -> None:
        """Withdraw the pod's ports, interface and address. Fine when there are none, or the namespace is long gone."""
        await self._request("delete", uid=uid)

    async def check(self, uid: str) -> list[str]:
        """What is wrong with a pod's attachment, as sentences; NotFoundError when it has none."""
        problems: list[str] = await self._request("check", uid=uid)
        return problems

    async def audit(self) -> list[str]:
        """What of the whole node's network is missing, damaged or left over, as sentences."""
        problems: list[str] = await self._request("audit")
        return problems

    async def repair(self) -> list[str]:
        """Mend what audit() finds (somebody flushed the rules, removed the bridge, …); returns what was wrong.
        What only a new sandbox can mend is found again by the next audit()."""
        problems: list[str] = await self._request("repair")
        return problems

    async def list(self) -> list[Attachment]:
        """Every attachment there is a lease for. After a restart: delete() those whose pod is gone."""
        return [Attachment.from_json(data) for data in await self._request("list")]

    async def teardown(self) -> None:
        """Remove everything of this node: NAT table, interfaces, bridge, leases."""
        await self._request("teardown")

    async def close(self) -> None:
        """End the helper. The network stays as it is."""
        self._closed = True
        await self._helper.end()

    @property
    def helper_pid(self) -> int:
        return self._helper.pid

    async def _request(self, op: str, **fields: Any) -> Any:
        for _ in range(_ATTEMPTS):
            if self._closed:
                raise NetworkError("the node's network is closed: the daemon is ending")
            helper = self._helper
            try:
                return await helper.request(op, fields)
            except _HelperGone:
                with contextlib.suppress(_DiedInSetUp):  # the next attempt finds that one dead
                    await self._restart(helper)
        raise NetworkError(f"the network helper died {_ATTEMPTS} times while it was asked to {op}")

    async def _restart(self, dead: _Helper) -> None:
        """A new helper in place of the dead one; whoever comes second finds it done."""
        async with self._restarting:
            if self._helper is dead and not self._closed:
                await dead.end()
                self._helper, _ = await _Helper.start(self.config)


def _revived(error: dict[str, Any]) -> RuntimeFault:
    """The error a helper described, as the class of runtime.errors it was (a subclass of the room's own, as its
    base)."""
    kind = getattr(errors, error["kind"], NetworkError)
    if kind is errors.SyscallError or not issubclass(kind, RuntimeFault):
        kind = NetworkError
    result: RuntimeFault = kind(error["message"], reason=error["reason"], retriable=error["retriable"])
    return result


async def _reap(pid: int) -> None:
    """Wait for a helper whose socket is closed; kill one that does not end."""
    for delay in (0.0, *[0.005] * 100, *[0.05] * 100):
        await asyncio.sleep(delay)
        if _waited(pid):
            return
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(os.waitpid, pid, 0)


def _waited(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True  # somebody reaped it already
