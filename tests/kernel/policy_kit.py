"""The pods of Kubernetes' tests of NetworkPolicies, and a prober that tries all of their connections at once.

One process has every socket: a thread answers for all servers, and a probe starts all connections, waits once, and
lists those that were answered.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Iterator

from runtime.network.client import NetworkClient
from tests.kernel.netlab import SOON, Lab, Netns
from tests.unit.network_policies.kit import uid

KINDS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}
ANSWERED = 0.25  # seconds in which an open connection is answered; a lost SYN is sent again after one second

Probe = tuple[str, str, int, str]  # source, destination (a pod or an address), port, protocol


class Servers:
    """Accepts TCP connections and answers UDP packets, for any number of sockets, on one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def listen(self, ns: Netns, protocol: str, port: int, address: str = "0.0.0.0") -> None:
        sock = ns.run(lambda: socket.socket(socket.AF_INET, KINDS[protocol]))
        self._sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.setblocking(False)
        if protocol == "TCP":
            sock.listen(128)
        self._selector.register(sock, selectors.EVENT_READ, protocol)

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(0.05):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                with contextlib.suppress(OSError):
                    if key.data == "TCP":
                        sock.accept()[0].close()
                    else:
                        data, peer = sock.recvfrom(100)
                        sock.sendto(data, peer)

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self._selector.close()
        for sock in self._sockets:
            sock.close()


class Pods:
    """Pods by name, each with servers. Other sources and destinations of probes can be added by `places`."""

    def __init__(self, world: Lab, node: NetworkClient) -> None:
        self._world, self._node = world, node
        self.servers = Servers()
        self._ports = itertools.count(
            1024
        )  # of UDP clients: a port that is used again would continue an old flow
        self.places: dict[str, tuple[Netns, str]] = {}

    async def add(
        self, name: str, ports: Iterable[int] = (80, 81), protocols: Iterable[str] = ("TCP", "UDP")
    ) -> str:
        ns = self._world.namespace()
        ns.sh("ip", "link", "set", "lo", "up")
        address = (await self._node.add(uid(name), ns.path)).ip
        self.places[name] = ns, address
        for protocol in protocols:
            for port in ports:
                self.servers.listen(ns, protocol, port)
        return address

    @property
    def addresses(self) -> dict[str, str]:
        return {name: address for name, (_, address) in self.places.items()}

    def answered(self, probes: Iterable[Probe], *, within: float = ANSWERED) -> set[Probe]:
        """Try all at once, and return those that were answered in time (seconds)."""
        with contextlib.ExitStack() as opened, selectors.DefaultSelector() as waiting:
            by_source: dict[str, list[Probe]] = {}
            for probe in probes:
                by_source.setdefault(probe[0], []).append(probe)
            for source, found in by_source.items():
                sockets = self.places[source][0].run(
                    lambda found=found: [socket.socket(socket.AF_INET, KINDS[one[3]]) for one in found]  # type: ignore[misc]
                )
                for probe, sock in zip(found, sockets, strict=True):
                    opened.enter_context(sock)
                    self._begin(probe, sock, waiting)
            return set(_answers(waiting, time.monotonic() + within))

    def settled(self, probes: Iterable[Probe], expected: set[Probe]) -> set[Probe]:
        """The same, and on a busy machine, those that should be answered and were not are tried again for a while. One
        that should not be answered is tried once."""
        found, until = self.answered(probes), time.monotonic() + SOON
        while (missing := expected - found) and time.monotonic() < until:
            found |= self.answered(missing)
        return found

    def _begin(self, probe: Probe, sock: socket.socket, waiting: selectors.BaseSelector) -> None:
        _, destination, port, protocol = probe
        address = self.places[destination][1] if destination in self.places else destination
        sock.setblocking(False)
        if protocol == "UDP":
            sock.bind(("0.0.0.0", next(self._ports)))
        with contextlib.suppress(BlockingIOError):
            sock.connect((address, port))
        if protocol == "UDP":
            sock.send(b"?")
        waiting.register(sock, selectors.EVENT_READ if protocol == "UDP" else selectors.EVENT_WRITE, probe)

    def close(self) -> None:
        self.servers.close()


def _answers(waiting: selectors.BaseSelector, deadline: float) -> Iterator[Probe]:
    while waiting.get_map() and (left := deadline - time.monotonic()) > 0:
        for key, _ in waiting.select(left):
            assert isinstance(key.fileobj, socket.socket)
            waiting.unregister(key.fileobj)
            if not key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                yield key.data


@contextlib.contextmanager
def pods_of(world: Lab, node: NetworkClient) -> Iterator[Pods]:
    pods = Pods(world, node)
    try:
        yield pods
    finally:
        pods.close()
