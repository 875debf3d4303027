"""The daemon's side of the network: NetworkClient talks to the helper process and restarts it when it dies.

The daemon never enters a namespace and never waits for the kernel. It sends requests to the helper over a socket pair
as JSON lines, any number at once. Every request is idempotent. So a request that a dying helper left unanswered is sent
again to the next helper, which has repaired what was half done.

A helper that answers nothing while requests wait (stopped, or stuck in the kernel) is killed after QUIET seconds, and
replaced like one that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Self

import runtime
from runtime import errors
from runtime.errors import NetworkError, RuntimeFault
from runtime.network.plan import UNLIMITED, Attachment, Bandwidth, NetworkConfig, PortMapping, Repair

if TYPE_CHECKING:  # loaded when there are Services or NetworkPolicies
    from runtime.network.policies.plan import PodRules, Policy
    from runtime.network.services.plan import ServiceCount, ServiceNetwork, ServicePort

log = logging.getLogger(__name__)

# Forks a process from a warm one: takes the program (runtime.shim.warm.beside) and its end of the connection, returns
# the pid of a child of ours.
Fork = Callable[[dict[str, Any], socket.socket], Awaitable[int]]

_HELPER_FD = 3
# -I -S ignores the user's environment and site directories. The import path is that of this process, with this
# package's location first (an import hook, not the path, finds an editable install).
_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[3]); from runtime.network.helper import main; "
)
_PROGRAM += "sys.exit(main(int(sys.argv[1]), json.loads(sys.argv[2])))"
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))
_ATTEMPTS = 3  # number of helpers that a request is sent to before it fails
QUIET = 15.0  # seconds without any answer, while requests wait, after which a helper is killed
SET_UP = 30.0  # seconds for a new helper's set-up; it waits up to 10 of them for its predecessor's lock


class _HelperGone(Exception):
    """The helper closed its end of the socket before it answered."""


class _DiedInSetUp(NetworkError):
    """A new helper exited before it reported its set-up."""


class _Helper:
    """One helper process."""

    def __init__(self, pid: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._overdue: asyncio.TimerHandle | None = None  # runs while requests wait
        self._heard = 0.0  # the loop's time of the last answer, or of the first request that waits
        self.alive = True
        self._reaped = False

    @classmethod
    async def start(cls, config: NetworkConfig, fork: Fork | None = None) -> tuple[Self, list[str]]:
        """Start a helper. Returns it and the warnings of its set-up. Raises RuntimeFault."""
        pid, connection = await _forked(config, fork) or _spawned(config)
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 24)
        helper = cls(pid, reader, writer)
        try:
            greeting = await asyncio.wait_for(helper._read(), SET_UP)
        except BaseException as error:
            if isinstance(error, TimeoutError):
                helper.kill()
            await helper.end()
            if isinstance(error, _HelperGone):
                raise _DiedInSetUp("the network helper died while it set up the node") from error
            if isinstance(error, TimeoutError):
                raise _DiedInSetUp(f"the network helper did not set up the node in {SET_UP:.0f} s") from error
            raise
        if "error" in greeting:
            await helper.end()
            raise _rebuilt_error(greeting["error"])
        helper._reading = asyncio.create_task(helper._read_answers(), name="network-helper")
        return helper, greeting["ok"]["warnings"]

    async def request(self, op: str, fields: dict[str, Any]) -> Any:
        """Send a request. Returns the answer's "ok". Raises the helper's error, or _HelperGone."""
        if not self.alive:
            raise _HelperGone
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._watch()
        self._waiting[number] = answer
        try:
            self._writer.write(json.dumps({"id": number, "op": op, **fields}).encode() + b"\n")
            return await answer
        finally:
            self._waiting.pop(number, None)

    def _watch(self) -> None:
        """Before a request: make sure that the helper is killed when requests have waited QUIET seconds without an
        answer. If none waited before, the seconds count from now."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._heard = loop.time()
        if self._overdue is None:
            self._overdue = loop.call_later(QUIET, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._overdue = None
        if not self._waiting or not self.alive:
            return
        left = self._heard + QUIET - loop.time()
        if left > 0:
            self._overdue = loop.call_later(left, self._look)
            return
        log.error("the network helper (pid %d) has not answered for %.0f s; killed", self.pid, QUIET)
        self.kill()  # its socket closes, and every waiting request goes to the next helper

    def kill(self) -> None:
        if not self._reaped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Close the socket, so that the helper exits after its current request, and reap it."""
        self.alive = False
        if self._overdue:
            self._overdue.cancel()
        if self._reading:
            self._reading.cancel()
        self._fail_all()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if not self._reaped:  # a reaped pid may belong to another child
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
                self._heard = asyncio.get_running_loop().time()
                answer = self._waiting.get(message["id"])
                if answer is None or answer.done():
                    continue  # its caller was cancelled
                if "error" in message:
                    answer.set_exception(_rebuilt_error(message["error"]))
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


async def _forked(config: NetworkConfig, fork: Fork | None) -> tuple[int, socket.socket] | None:
    """Pid and connection of a helper that `fork` has made; None if there is none.

    The connection is not used for another helper: a `fork` that has failed for us may have made a helper nevertheless,
    or make it later. It exits because nobody has the other end.
    """
    if fork is None:
        return None
    program = {
        "module": "runtime.network.helper",
        "path": _import_path(),
        "title": "kubelite-net runtime.network.helper",
        "arguments": [config.to_json()],
    }
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            try:
                pid = await fork(program, theirs)
            except (RuntimeFault, OSError) as error:
                log.warning("the network helper is started by itself, which takes more memory: %s", error)
                return None
        undo.pop_all()
        return pid, ours


def _spawned(config: NetworkConfig) -> tuple[int, socket.socket]:
    """Pid and connection of a helper in an interpreter of its own."""
    arguments = [str(_HELPER_FD), json.dumps(config.to_json()), json.dumps(_import_path())]
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-c", _PROGRAM, *arguments],
                {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), _HELPER_FD)],
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP],
            )
        undo.pop_all()
        return pid, ours


def _import_path() -> list[str]:
    return [_ROOT, *filter(None, sys.path)]


class NetworkClient:
    """The node's network, for the daemon. `warnings` are those of the set-up; the caller of `start` logs them once."""

    not_ready = ""  # why pods cannot be attached now; there is no such time once the node is set up
    reattaches = True  # a running pod whose lease is lost can be added again

    def __init__(
        self, config: NetworkConfig, helper: _Helper, warnings: Sequence[str], fork: Fork | None = None
    ) -> None:
        self.config = config
        self._fork = fork
        self.warnings = tuple(warnings)
        self._helper = helper
        self._restarting = asyncio.Lock()
        self._service_network: ServiceNetwork | None = None
        self._service_ports: dict[str, ServicePort] = {}  # for the next helper
        self._policies: tuple[Policy, ...] | None = None  # for the next helper; None: there have been none
        self._pod_rules: dict[str, PodRules] = {}
        self._closed = False

    @classmethod
    async def start(cls, config: NetworkConfig, fork: Fork | None = None) -> Self:
        """Start the helper in this process's network namespace, and set up the node: bridge, forwarding, NAT table.
        Idempotent; repairs what an earlier helper left half done. Raises NetworkError, SpecError or CapabilityError.

        `fork`: Forkserver.fork, for the helper to share the forkserver's memory. If that fails, and without it, the
        helper is an interpreter of its own."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                helper, warnings = await _Helper.start(config, fork)
                break
            except _DiedInSetUp:
                if not left:
                    raise
                fork = None
        return cls(config, helper, warnings, fork)

    async def add(
        self,
        uid: str,
        netns: str,
        ports: Sequence[PortMapping] = (),
        *,
        had: str = "",
        limit: Bandwidth = UNLIMITED,
    ) -> Attachment:
        """Attach a pod's network namespace ("/proc/<pid>/ns/net") and publish its ports. Idempotent per uid: the same
        namespace gives the same result (and applies changed ports), a new one is attached with the same address. `had`
        is the earlier address of a pod that has no lease; the pod gets it again if it is free. `limit`: the limits of
        its bandwidth.

        Raises NetworkError, with the reason HostPortConflict if a port is taken (the message names the holder) or
        AddressPoolExhausted if the pod network is full; SpecError for a request that can never succeed.
        """
        listed = [
            {
                "host_port": port.host_port,
                "container_port": port.container_port,
                "protocol": port.protocol,
                "host_ip": port.host_ip,
            }
            for port in ports
        ]
        found = Attachment.from_json(await self._request("add", uid=uid, netns=netns, ports=listed, had=had))
        if not limit:
            return found
        return replace(found, warnings=(*found.warnings, *await self.limit(uid, limit)))

    async def limit(self, uid: str, bandwidth: Bandwidth) -> list[str]:
        """Limit what an attached pod receives and sends, in place of earlier limits. Returns warnings: a kernel may not
        be able to. Raises NotFoundError if the pod is not attached, NetworkError."""
        warnings: list[str] = await self._request("limit", uid=uid, bandwidth=asdict(bandwidth))
        return warnings

    async def delete(self, uid: str) -> None:
        """Remove the pod's ports, interface and address. No error if there are none or the namespace is gone."""
        await self._request("delete", uid=uid)

    async def check(self, uid: str) -> list[str]:
        """The problems of a pod's attachment, as sentences. Raises NotFoundError if it has none."""
        problems: list[str] = await self._request("check", uid=uid)
        return problems

    async def audit(self) -> list[str]:
        """Everything in the node's network that is missing, damaged or left over, as sentences."""
        problems: list[str] = await self._request("audit")
        return problems

    async def repair(self, *, inside: int | None = None) -> Repair:
        """Repair what audit() finds, such as flushed rules, a removed bridge, a pod's lost interface or address, and
        audit again. `inside`: the number of pods whose namespaces are entered, in turn at each call; None means all."""
        return Repair(**await self._request("repair", inside=inside))

    async def list(self) -> list[Attachment]:
        """Every attachment with a lease. After a restart, call delete() for those whose pod is gone."""
        return [Attachment.from_json(data) for data in await self._request("list")]

    async def replace_services(self, config: ServiceNetwork, ports: Sequence[ServicePort]) -> Sequence[str]:
        """Make these ports of Services the desired state, in one transaction; connections are kept. Returns a sentence
        for each port that cannot be served. A later helper gets the desired state from this client.

        Raises NetworkError (with the reason ServicesNotSupported if the kernel lacks a part of nftables), SpecError.
        """
        self._service_network, self._service_ports = config, {port.name: port for port in ports}
        problems: Sequence[str] = await self._request("services-replace", **self._services())
        return problems

    async def change_services(self, changed: Sequence[ServicePort], removed: Sequence[str]) -> Sequence[str]:
        """Add or change ports of Services and remove others, by name, in one transaction. Needs replace_services()
        first. Returns a sentence for each port that cannot be served. Raises NetworkError."""
        for name in removed:
            self._service_ports.pop(name, None)
        self._service_ports |= {port.name: port for port in changed}
        listed = [port.to_json() for port in changed]
        problems: Sequence[str] = await self._request("services-change", ports=listed, removed=[*removed])
        return problems

    async def count_services(self) -> Sequence[ServiceCount]:
        """What each endpoint of a Service has received and sent, if ServiceNetwork.counted. Raises NetworkError."""
        from runtime.network.services.plan import ServiceCount

        return [ServiceCount.from_json(one) for one in await self._request("services-count")]

    def _services(self) -> dict[str, Any]:
        assert self._service_network is not None
        ports = [port.to_json() for port in self._service_ports.values()]
        return {**self._service_network.to_json(), "ports": ports}

    async def replace_policies(self, policies: Sequence[Policy], pods: Sequence[PodRules]) -> Sequence[str]:
        """Make these NetworkPolicies the desired state, in one transaction; connections are kept. Returns warnings. A
        later helper gets the desired state from this client, before any other request.

        Raises NetworkError (with the reason NetworkPoliciesNotSupported if the kernel lacks a part of nftables).
        """
        self._policies, self._pod_rules = tuple(policies), {pod.uid: pod for pod in pods}
        warnings: Sequence[str] = await self._request("policies-replace", **self._policy_state())
        return warnings

    async def change_policies(
        self, policies: Sequence[Policy] | None, pods: Sequence[PodRules], removed: Sequence[str]
    ) -> Sequence[str]:
        """Change what policies mean for some pods, and the policies themselves unless they are None, in one
        transaction. Pods that no rule concerns any more are among `pods`; a removed pod, which is deleted, keeps its
        rules until its address is free. Needs replace_policies() first. Returns
        warnings. Raises NetworkError."""
        self._policies = self._policies if policies is None else tuple(policies)
        for uid in removed:
            self._pod_rules.pop(uid, None)
        for pod in pods:
            if pod.concerned:
                self._pod_rules[pod.uid] = pod
            else:
                self._pod_rules.pop(pod.uid, None)
        listed = None if policies is None else [policy.to_json() for policy in policies]
        warnings: Sequence[str] = await self._request(
            "policies-change", policies=listed, pods=[pod.to_json() for pod in pods], removed=[*removed]
        )
        return warnings

    def _policy_state(self) -> dict[str, Any]:
        policies = [policy.to_json() for policy in self._policies or ()]
        return {"policies": policies, "pods": [pod.to_json() for pod in self._pod_rules.values()]}

    async def teardown(self) -> None:
        """Remove everything that belongs to this node: tables, interfaces, bridge, leases."""
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
                raise NetworkError("the node's network is closed, because the daemon is shutting down")
            helper = self._helper
            try:
                return await helper.request(op, fields)
            except _HelperGone:
                with contextlib.suppress(_DiedInSetUp):  # the next attempt starts another one
                    await self._restart(helper)
        raise NetworkError(f"the network helper died {_ATTEMPTS} times during {op}; see the node's log")

    async def _restart(self, dead: _Helper) -> None:
        """Replace a dead helper. A second caller finds it replaced already."""
        async with self._restarting:
            if self._helper is dead and not self._closed:
                await dead.end()
                fork, self._fork = self._fork, None  # not again, if it dies in its set-up
                self._helper, _ = await _Helper.start(self.config, fork)
                self._fork = fork
                if self._policies is not None:  # first: the pods of later requests need them
                    await self._restore("NetworkPolicies", "policies-replace", self._policy_state())
                if self._service_network is not None:
                    await self._restore("Services", "services-replace", self._services())

    async def _restore(self, what: str, op: str, state: dict[str, Any]) -> None:
        """Give a new helper the desired state of Services or NetworkPolicies. If it cannot be carried out, audits
        report it."""
        try:
            await self._helper.request(op, state)
        except _HelperGone:
            pass  # the next attempt finds it dead
        except RuntimeFault as error:
            log.error("%s are not restored after a restart of the network helper: %s", what, error)


def _rebuilt_error(error: dict[str, Any]) -> RuntimeFault:
    """Rebuild a helper's error with its class of runtime.errors (for a subclass defined elsewhere, with
    NetworkError)."""
    kind = getattr(errors, error["kind"], NetworkError)
    if kind is errors.SyscallError or not issubclass(kind, RuntimeFault):
        kind = NetworkError
    result: RuntimeFault = kind(error["message"], reason=error["reason"], retriable=error["retriable"])
    return result


async def _reap(pid: int) -> None:
    """Wait for a helper whose socket is closed. Kill it if it does not exit."""
    for delay in (0.0, *[0.005] * 100, *[0.05] * 100):
        await asyncio.sleep(delay)
        if _has_exited(pid):
            return
    os.kill(pid, signal.SIGKILL)
    for _ in range(100):
        await asyncio.sleep(0.05)
        if _has_exited(pid):
            return
    log.error("the network helper (pid %d) does not exit: it waits in the kernel", pid)


def _has_exited(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True  # reaped elsewhere
