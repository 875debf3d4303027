"""The network helper: a warm process that holds a node's network for the daemon.

It is started by client.py with one end of a socket pair and the NetworkConfig. One JSON object a line:

    → {"id": n, "op": "add" | "delete" | "check" | "audit" | "repair" | "list" | "teardown", ...}
    ← {"id": n, "ok": …}  or  {"id": n, "error": {"kind", "reason", "message", "retriable"}}

The first line it sends, unasked, is the answer to the set-up (id 0). It ends when its peer does (end of file):
network and pods stay as they are, and the next helper takes them over. It lives in the network namespace it was
started in.

One thread works, in order: setns(2) into a pod's namespace concerns the calling thread. A second one only waits for the
kernel while interfaces are deleted (deleter.py), so that pods which start need not; deletes that wait together are done
together, because the kernel takes some 15 ms for it however many go at once.
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
from typing import Any

from runtime.errors import NetworkError, RuntimeFault
from runtime.network.deleter import Deleter, Job
from runtime.network.node import Node
from runtime.network.plan import NetworkConfig, PortMapping

#: Seconds a helper waits for the one before it, which ends within a request of its daemon's end.
LOCK_PATIENCE = 10.0


class Helper:
    """The loop: read what has arrived, work it off, answer. Deletes are answered when their interfaces are gone."""

    def __init__(self, connection: socket.socket, node: Node) -> None:
        self._socket = connection
        self._node = node
        self._buffer = bytearray()
        self._deleter = Deleter(node.delete_links)
        self._dying: set[str] = set()  # uids whose interfaces are being deleted

    def run(self) -> None:
        """Until the peer is gone; what was begun is finished."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._deleter.fd, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poll.poll()}
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

    def _handle(self, group: list[dict[str, Any]]) -> None:
        """A group is one request, or deletes together. An add goes on beside deletes of other pods; everything
        else sees the node without half-deleted pods."""
        op = group[0]["op"]
        if op == "delete":
            self._begin_deletes(group)
            return
        if op != "add" or group[0]["uid"] in self._dying:
            self._finish_deletes(wait=True)
        self._answer(group, lambda: self._do(group[0]))

    def _begin_deletes(self, group: list[dict[str, Any]]) -> None:
        uids = [request["uid"] for request in group]
        try:
            names = self._node.begin_delete(uids)
        except (RuntimeFault, OSError) as error:
            self._send(group, {"error": describe(error)})
            return
        if names:
            self._dying.update(uids)
            self._deleter.submit(Job(names, tag=group))
        else:
            self._send(group, {"ok": None})

    def _finish_deletes(self, *, wait: bool = False) -> None:
        for job in self._deleter.finished(wait=wait):
            uids = [request["uid"] for request in job.tag]
            self._dying.difference_update(uids)
            if job.error:
                self._send(job.tag, {"error": describe(job.error)})
            else:
                self._answer(job.tag, functools.partial(self._node.finish_delete, uids))

    def _receive(self) -> list[dict[str, Any]]:
        """Every whole request that has arrived, at least one; [] at the end of file."""
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
        self._send(group, outcome)

    def _send(self, group: list[dict[str, Any]], outcome: dict[str, Any]) -> None:
        for request in group:
            send(self._socket, {"id": request["id"], **outcome})

    def _do(self, request: dict[str, Any]) -> Any:
        node = self._node
        match request["op"]:
            case "add":
                ports = [PortMapping(**port) for port in request["ports"]]
                return node.add(request["uid"], request["netns"], ports).to_json()
            case "check":
                return node.check(request["uid"])
            case "audit":
                return node.audit()
            case "repair":
                return node.repair()
            case "list":
                return [attachment.to_json() for attachment in node.attachments()]
            case "teardown":
                return node.teardown()
            case unknown:
                raise NetworkError(f"the network helper knows no operation {unknown!r}", retriable=False)


def _grouped(requests: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The requests in order, neighbouring deletes as one group."""
    group: list[dict[str, Any]] = []
    for request in requests:
        if group and not (request["op"] == group[-1]["op"] == "delete"):
            yield group
            group = []
        group.append(request)
    if group:
        yield group


def describe(error: Exception) -> dict[str, Any]:
    """An error as it goes over the socket; client.py makes the same class of it again."""
    return {
        "kind": type(error).__name__,
        "reason": getattr(error, "reason", NetworkError.reason),
        "message": str(error),
        "retriable": getattr(error, "retriable", True),
    }


def send(connection: socket.socket, answer: dict[str, Any]) -> None:
    connection.sendall(json.dumps(answer, separators=(",", ":")).encode() + b"\n")


def lock(state_dir: str) -> int:
    """The descriptor that holds the state directory: leases have one writer. Raises NetworkError when another daemon's
    helper does not let go of it."""
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    descriptor = os.open(os.path.join(state_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise NetworkError(
                    f"another kubelite daemon uses {state_dir}: stop it or give this one another"
                ) from None
            time.sleep(0.01)


def _prepare_process() -> None:
    """The terminal's Ctrl-C is the daemon's business; a published port costs a descriptor each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write("kubelite-net")


def main(fd: int, config: dict[str, Any]) -> int:
    """Set the node up, say so, serve."""
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
