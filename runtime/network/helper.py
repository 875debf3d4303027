"""The network helper: a warm process that manages a node's network for the daemon.

client.py starts it with one end of a socket pair and the NetworkConfig. Requests and answers are JSON objects, one per
line:

    → {"id": n, "op": "add" | "limit" | "delete" | "check" | "audit" | "repair" | "list" | "teardown" |
                    "services-replace" | "services-change" | "services-count" |
                    "policies-replace" | "policies-change", ...}
    ← {"id": n, "ok": …}  or  {"id": n, "error": {"kind", "reason", "message", "retriable"}}

The first line it sends is the result of the set-up (id 0). It exits when its peer closes the socket. Network and pods
stay as they are, and the next helper takes them over. It runs in the network namespace it was started in.

One thread does the work, in order, because setns(2) into a pod's namespace affects the calling thread. A second thread
only waits for the kernel while interfaces are deleted (deleter.py), so that starting pods do not wait. Deletes that
arrive together are done together: the kernel takes some 15 ms for any number of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from runtime import syscalls
from runtime.errors import NetworkError, RuntimeFault
from runtime.network.deleter import Deleter, Job
from runtime.network.node import Node
from runtime.network.plan import Bandwidth, NetworkConfig, PortMapping

# Seconds to wait for the previous helper, which exits within one request after its daemon.
LOCK_PATIENCE = 10.0
# Requests that do not wait until the interfaces of deleted pods are gone.
_MEANWHILE = frozenset(("add", "services-change", "services-count", "policies-change"))


class Helper:
    """The request loop: read requests, execute them, answer. A delete is answered when its interfaces are gone."""

    def __init__(self, connection: socket.socket, node: Node) -> None:
        self._socket = connection
        self._node = node
        self._buffer = bytearray()
        self._deleter = Deleter(node.delete_links)
        self._being_deleted: set[str] = set()  # uids of pods whose interfaces are being deleted
        self._repaired: list[str] = []  # what was repaired before a repair was asked for

    def run(self) -> None:
        """Serve until the peer closes the socket, then finish what has begun."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._deleter.fd, select.POLLIN)
        watched = -1
        try:
            while True:
                watched = self._watch_policies(poll, watched)
                ready = {fd for fd, _ in poll.poll()}
                if watched in ready:
                    self._look_at_policies()
                if self._deleter.fd in ready:
                    self._finish_deletes()
                if self._socket.fileno() in ready:
                    requests = self._receive()
                    if not requests:
                        return
                    for group in _grouped(requests):
                        self._handle(group)
        finally:
            self._finish_deletes(wait=True)

    def _watch_policies(self, poll: select.poll, before: int) -> int:
        """Wait for changes of the tables of NetworkPolicies as well, while there are any. Returns the descriptor."""
        now = self._node.tables.policies.watched_fd if self._node.tables.policies else -1
        if now != before:
            if before >= 0:
                poll.unregister(before)
            if now >= 0:
                poll.register(now, select.POLLIN)
        return now

    def _look_at_policies(self) -> None:
        """Undo what another program did to the tables of NetworkPolicies: until the next repair, they would be open."""
        with contextlib.suppress(RuntimeFault):  # that repair reports it
            if self._node.tables.policies:
                self._repaired += self._node.tables.policies.look()

    def _handle(self, group: list[dict[str, Any]]) -> None:
        """Execute a group: one request, or several deletes. An add runs in parallel with deletes of other pods, and a
        change of Services or policies with all of them. Any other request waits until no pod is half deleted."""
        op = group[0]["op"]
        if op == "delete":
            self._begin_deletes(group)
            return
        if op not in _MEANWHILE or group[0].get("uid") in self._being_deleted:
            self._finish_deletes(wait=True)
        self._answer(group, lambda: self._do(group[0]))

    def _begin_deletes(self, group: list[dict[str, Any]]) -> None:
        uids = [request["uid"] for request in group]
        try:
            names = self._node.begin_delete(uids)
        except (RuntimeFault, OSError) as error:
            self._send(group, {"error": describe(error)})
            return
        except Exception as error:  # noqa: BLE001 - as in _answer
            self._send(group, {"error": describe(_unexpected("delete", error))})
            return
        if names:
            self._being_deleted.update(uids)
            self._deleter.submit(Job(names, tag=group))
        else:
            self._send(group, {"ok": None})

    def _finish_deletes(self, *, wait: bool = False) -> None:
        for job in self._deleter.finished(wait=wait):
            uids = [request["uid"] for request in job.tag]
            self._being_deleted.difference_update(uids)
            if job.error:
                self._send(job.tag, {"error": describe(job.error)})
            else:
                self._answer(job.tag, functools.partial(self._node.finish_delete, uids))

    def _receive(self) -> list[dict[str, Any]]:
        """Read every complete request that has arrived, at least one; [] at end of file."""
        lines: list[bytearray] = []
        while not lines:
            data = self._socket.recv(1 << 16)
            if not data:
                return []
            self._buffer += data
            *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines]

    def _answer(self, group: list[dict[str, Any]], action: Callable[[], Any]) -> None:
        try:
            outcome: dict[str, Any] = {"ok": action()}
        except (RuntimeFault, OSError) as error:
            outcome = {"error": describe(error)}
        except Exception as error:  # noqa: BLE001 - a bug in one request: the other pods still need their network
            outcome = {"error": describe(_unexpected(group[0]["op"], error))}
        self._send(group, outcome)

    def _send(self, group: list[dict[str, Any]], outcome: dict[str, Any]) -> None:
        for request in group:
            send(self._socket, {"id": request["id"], **outcome})

    def _do(self, request: dict[str, Any]) -> Any:
        node = self._node
        match request["op"]:
            case "add":
                ports = [PortMapping(**port) for port in request["ports"]]
                return node.add(request["uid"], request["netns"], ports, had=request.get("had", "")).to_json()
            case "limit":
                return node.limit(request["uid"], Bandwidth(**request["bandwidth"]))
            case "check":
                return node.check(request["uid"])
            case "audit":
                return node.audit()
            case "repair":
                done = node.repair(inside=request.get("inside"))
                earlier, self._repaired = self._repaired, []
                return asdict(replace(done, repaired=[*dict.fromkeys((*earlier, *done.repaired))]))
            case "list":
                return [attachment.to_json() for attachment in node.attachments()]
            case "teardown":
                return node.teardown()
            case "services-replace" | "services-change":
                return _do_services(node, request)
            case "services-count":
                return [count.to_json() for count in node.tables.count_services()]
            case "policies-replace" | "policies-change":
                return _do_policies(node, request)
            case unknown:
                raise NetworkError(f"the network helper has no operation {unknown!r}", retriable=False)


def _do_services(node: Node, request: dict[str, Any]) -> list[str]:
    from runtime.network.services.plan import ServiceNetwork, ServicePort  # loaded when there are Services

    ports = [ServicePort.from_json(port) for port in request["ports"]]
    if request["op"] == "services-change":
        return node.tables.change_services(ports, request["removed"])
    first, last = request["node_port_range"]
    cidr, cidr6 = request["service_cidr"], request["service_cidr6"]
    network = ServiceNetwork(cidr, (first, last), counted=request["counted"], service_cidr6=cidr6)
    return node.tables.replace_services(network, ports)


def _do_policies(node: Node, request: dict[str, Any]) -> list[str]:
    from runtime.network.policies.plan import PodRules, Policy  # loaded when there are NetworkPolicies

    listed = request["policies"]
    policies = None if listed is None else [Policy.from_json(policy) for policy in listed]
    pods = [PodRules.from_json(pod) for pod in request["pods"]]
    if request["op"] == "policies-change":
        return node.tables.change_policies(policies, pods, request["removed"])
    return node.tables.replace_policies(policies or (), pods)


def _grouped(requests: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the requests in order, consecutive deletes as one group."""
    group: list[dict[str, Any]] = []
    for request in requests:
        if group and not (request["op"] == group[-1]["op"] == "delete"):
            yield group
            group = []
        group.append(request)
    if group:
        yield group


def _unexpected(op: str, error: Exception) -> NetworkError:
    """Log an error that nothing expects, with its traceback, and return the answer to the request."""
    sys.stderr.write(f"network helper: unexpected error in the operation {op}:\n")
    sys.excepthook(type(error), error, error.__traceback__)
    return NetworkError(
        f"the network helper failed in {op} ({type(error).__name__}: {error}); see the log of kubelite"
    )


def describe(error: Exception) -> dict[str, Any]:
    """An error as JSON for the socket. client.py rebuilds an exception of the same class from it."""
    return {
        "kind": type(error).__name__,
        "reason": getattr(error, "reason", NetworkError.reason),
        "message": str(error),
        "retriable": getattr(error, "retriable", True),
    }


def send(connection: socket.socket, answer: dict[str, Any]) -> None:
    connection.sendall(json.dumps(answer, separators=(",", ":")).encode() + b"\n")


def lock(state_dir: str) -> int:
    """Lock the state directory, because leases have one writer. Returns the descriptor that holds the lock. Raises
    NetworkError, with the holder's pid, if another daemon's helper holds it."""
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    descriptor = os.open(os.path.join(state_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # a full disk: the lock is held nevertheless
                os.pwrite(descriptor, f"{os.getpid():<10}\n".encode(), 0)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 10, 0).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise NetworkError(
                    f"the network helper of another kubelite daemon (pid {holder}) uses {state_dir}; stop that "
                    "daemon, or give this one another --run-dir"
                ) from None
            time.sleep(0.01)


def _prepare_process() -> None:
    """Ignore SIGINT, which is for the daemon, and raise the limit of descriptors: a published port needs one each.
    The kernel kills the helper when its daemon dies, even if it is stopped or blocked; the next helper repairs the
    node."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write("kubelite-net")


def main(fd: int, config: dict[str, Any]) -> int:
    """Set up the node, report the result, and serve requests. Returns the exit status."""
    _prepare_process()
    connection = socket.socket(fileno=fd)
    try:
        lock(config["state_dir"])
        node = Node(NetworkConfig(**config))
    except (RuntimeFault, OSError) as error:
        with contextlib.suppress(OSError):
            send(connection, {"id": 0, "error": describe(error)})
        return 1
    gc.freeze()
    try:
        send(connection, {"id": 0, "ok": {"warnings": node.warnings}})
        Helper(connection, node).run()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), json.loads(sys.argv[2])))
