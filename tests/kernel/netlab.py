"""A laboratory for network tests: separate namespaces, so that the machine's real network is not touched.

    internet 198.51.100.1 ── uplink ── 198.51.100.2 host (bridge, NAT, helper) ── pods

The internet has no route to the pods: traffic without masquerading gets no answer. A namespace is a descriptor. Code
runs in it on a separate thread; sockets and processes created there stay there. It ends with its last descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self, TypeVar

import pytest

from runtime import syscalls
from runtime.errors import CapabilityError
from runtime.network import nat
from runtime.network.client import NetworkClient
from runtime.network.plan import NetworkConfig, Subnet, identity, table_name

T = TypeVar("T")

INTERNET, HOST = "198.51.100.1", "198.51.100.2"
INTERNET6, HOST6 = "2001:db8::1", "2001:db8::2"
UPLINK_MTU = 1400
SOON = 3.0  # seconds that a response on this machine may take
NEVER = 0.4  # seconds after which a missing response counts as none


def on_a_thread(function: Callable[[], T]) -> T:
    """Run on a new thread (namespaces belong to threads) and return its result or raise its exception."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - handed over to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class Netns:
    """A network namespace that lives as long as this object's descriptor."""

    def __init__(self) -> None:
        def make() -> int:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self.fd = on_a_thread(make)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def run(self, function: Callable[[], T]) -> T:
        def inside() -> T:
            syscalls.setns(self.fd, syscalls.CLONE_NEWNET)
            return function()

        return on_a_thread(inside)

    def sh(self, *command: str) -> str:
        def execute() -> str:
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        return self.run(execute)

    def links(self) -> list[str]:
        return self.run(lambda: sorted(name for _, name in socket.if_nameindex()))

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Server:
    """Answers every TCP connection and UDP packet on a port with the address it came from."""

    def __init__(
        self, ns: Netns, port: int, protocol: str = "TCP", *, address: str = "0.0.0.0", says: str = ""
    ) -> None:
        kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
        self._socket = ns.run(lambda: socket.socket(family_of(address), kind))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        self._says = says
        if protocol == "TCP":
            self._socket.listen()
        self._thread = threading.Thread(target=self._tcp if protocol == "TCP" else self._udp, daemon=True)
        self._thread.start()

    def _tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = self._socket.accept()
                with connection, contextlib.suppress(OSError):
                    connection.sendall((self._says or peer[0]).encode())

    def _udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                _, peer = self._socket.recvfrom(100)
                if peer is None:  # shut down
                    return
                self._socket.sendto((self._says or peer[0]).encode(), peer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


def ask(ns: Netns, address: str, port: int, protocol: str = "TCP", *, timeout: float = SOON) -> str | None:
    """The server's response, or None if there is none in time."""
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    with ns.run(lambda: socket.socket(family_of(address), kind)) as client:
        client.settimeout(timeout)
        try:
            client.connect((address, port))
            if protocol == "UDP":
                client.send(b"?")
            return client.recv(100).decode()
        except OSError:
            return None


class Lab:
    """Host and internet, connected; pods and nodes on demand."""

    def __init__(self, state_dir: str) -> None:
        self._state_dir = state_dir
        self._nat: bool | None = None
        self.host, self.internet = Netns(), Netns()
        self._namespaces = [self.host, self.internet]
        self.host.sh("ip", "link", "set", "lo", "up")
        self.internet.sh("ip", "link", "set", "lo", "up")
        wire = [
            "uplink",
            "mtu",
            str(UPLINK_MTU),
            "type",
            "veth",
            "peer",
            "name",
            "host",
            "netns",
            self.internet.path,
        ]
        self.host.sh("ip", "link", "add", *wire)
        self.internet.sh("ip", "addr", "add", f"{INTERNET}/24", "dev", "host")
        self.internet.sh("ip", "link", "set", "host", "up")
        self.host.sh("ip", "addr", "add", f"{HOST}/24", "dev", "uplink")
        self.host.sh("ip", "link", "set", "uplink", "up")
        self.host.sh("ip", "route", "add", "default", "via", INTERNET)

    def connect_by_ipv6(self) -> None:
        """Connect host and internet by IPv6, too."""
        self.internet.sh("ip", "addr", "add", f"{INTERNET6}/64", "dev", "host", "nodad")
        self.host.sh("ip", "addr", "add", f"{HOST6}/64", "dev", "uplink", "nodad")
        self.host.sh("ip", "-6", "route", "add", "default", "via", INTERNET6)

    @property
    def nat(self) -> bool:
        """Whether this kernel has NAT by nftables (Debian's User Mode Linux does not)."""
        if self._nat is None:

            def probe() -> bool:
                try:
                    table = nat.NatTable("probe", "none", Subnet.parse("10.77.0.0/24"))
                    table.rebuild([])
                except CapabilityError:
                    return False
                table.delete()
                return True

            self._nat = self.host.run(probe)
        return self._nat

    def need_nat(self) -> None:
        if not self.nat:
            pytest.skip("needs IPv4 NAT by nftables")

    def namespace(self) -> Netns:
        ns = Netns()
        self._namespaces.append(ns)
        return ns

    def config(
        self, name: str = "lab", cidr: str = "10.77.0.0/24", routed: bool = False, cidr6: str = ""
    ) -> NetworkConfig:
        return NetworkConfig(
            bridge=f"br-{name}", pod_cidr=cidr, state_dir=os.path.join(self._state_dir, name), node=name,
            routed=routed, pod_cidr6=cidr6,
        )  # fmt: skip

    def table(self, name: str = "lab") -> str:
        """The name of the node's nftables table."""
        return table_name(identity(name, os.path.realpath(self.config(name).state_dir)))

    def play(self, scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the host's namespace, like a daemon there."""
        return self.host.run(lambda: asyncio.run(scenario()))

    def with_node(self, scenario: Callable[[NetworkClient], Coroutine[Any, Any, T]], **config: Any) -> T:
        """Run a coroutine with a client of a node in the host's namespace; the node is taken down afterwards."""

        async def run() -> T:
            client = await NetworkClient.start(self.config(**config))
            try:
                result = await scenario(client)
                await client.teardown()
                return result
            finally:
                await client.close()

        return self.play(run)

    def close(self) -> None:
        for ns in self._namespaces:
            ns.close()


@contextlib.contextmanager
def lab(state_dir: str) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    if not shutil.which("ip"):
        pytest.skip("needs iproute2")
    world = Lab(state_dir)
    try:
        yield world
    finally:
        world.close()
