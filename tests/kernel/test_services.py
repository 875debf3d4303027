"""Services in the kernel: who reaches which endpoint, with which source address, and what a change does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.network.client import NetworkClient
from runtime.network.services.plan import Endpoint, ServiceNetwork, ServicePort
from tests.kernel.netlab import HOST, INTERNET, NEVER, SOON, Lab, Netns, Server, ask, lab

pytestmark = pytest.mark.kernel

NETWORK = ServiceNetwork("10.96.0.0/16", (30000, 32767))
WEB = "10.96.0.10"
MANY = 40  # connections; all to one of two endpoints by chance: 2^-39


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        made.need_nat()
        yield made


@pytest.fixture(params=["bridge-nf-call-iptables=0", "bridge-nf-call-iptables=1"])
def bridged(request: pytest.FixtureRequest, world: Lab) -> Lab:
    """The laboratory with and without br_netfilter's rules for bridged packets, which docker and kubelet switch on."""
    value = request.param[-1]
    switch = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    if os.path.exists(switch):
        world.host.sh("sh", "-c", f"echo {value} > {switch}")
    elif value == "1":
        pytest.skip("needs br_netfilter")
    return world


def service(
    endpoints: Sequence[Endpoint] = (), *, protocol: str = "TCP", port: int = 80, **more: Any
) -> ServicePort:
    """A Service's port with the same endpoints for all clients."""
    name, listed = f"default/web:{port}/{protocol}", tuple(endpoints)
    return ServicePort(name, protocol, port, (WEB,), endpoints=listed, external_endpoints=listed, **more)


class Pods:
    """Pods with a server each, which says the client's address or the pod's name."""

    def __init__(self, world: Lab, node: NetworkClient) -> None:
        self._world, self._node = world, node
        self._servers = contextlib.ExitStack()
        self.ips: dict[str, str] = {}
        self.ns: dict[str, Netns] = {}

    async def add(self, name: str, *, port: int = 8080, protocol: str = "TCP", says: str = "") -> Endpoint:
        self.ns[name] = self._world.namespace()
        self.ips[name] = (await self._node.add(name, self.ns[name].path)).ip
        self._servers.enter_context(Server(self.ns[name], port, protocol, says=says))
        return Endpoint(self.ips[name], port)

    def close(self) -> None:
        self._servers.close()


@contextlib.asynccontextmanager
async def pods_of(world: Lab, node: NetworkClient) -> AsyncIterator[Pods]:
    pods = Pods(world, node)
    try:
        yield pods
    finally:
        pods.close()


def refusal(ns: Netns, address: str, port: int, protocol: str = "TCP") -> int:
    """The errno with which a connection or datagram is refused; 0 if it is not, ETIMEDOUT if nothing answers."""
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    with ns.run(lambda: socket.socket(socket.AF_INET, kind)) as client:
        client.settimeout(NEVER)
        try:
            client.connect((address, port))
            if protocol == "UDP":
                client.send(b"?")
                client.recv(100)
        except TimeoutError:
            return errno.ETIMEDOUT
        except OSError as error:
            return error.errno or -1
    return 0


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_a_service_is_reachable_from_everywhere(bridged: Lab, protocol: str) -> None:
    world = bridged

    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            server = await pods.add("server", protocol=protocol)
            await pods.add("client", port=1, protocol=protocol)
            port = service([server], protocol=protocol, node_port=30080, external=("203.0.113.7",))
            assert await node.replace_services(NETWORK, [port]) == []
            client, gateway = pods.ns["client"], "10.77.0.1"
            assert ask(client, WEB, 80, protocol) == pods.ips["client"]  # a pod's address is visible
            assert ask(client, server.ip, 8080, protocol) == pods.ips["client"]
            assert ask(client, HOST, 30080, protocol) == pods.ips["client"]
            assert ask(client, gateway, 30080, protocol) == pods.ips["client"]
            assert ask(client, "203.0.113.7", 80, protocol) == pods.ips["client"]
            assert ask(pods.ns["server"], WEB, 80, protocol) == gateway  # a pod to itself: masqueraded
            assert ask(pods.ns["server"], HOST, 30080, protocol) == gateway
            assert ask(world.host, WEB, 80, protocol) == gateway
            assert ask(world.host, HOST, 30080, protocol) == HOST
            assert ask(world.internet, HOST, 30080, protocol) == INTERNET  # the client's address is preserved
            world.internet.sh("ip", "route", "add", "203.0.113.7", "via", HOST)
            assert ask(world.internet, "203.0.113.7", 80, protocol) == INTERNET
            world.internet.sh("ip", "route", "add", "10.96.0.0/16", "via", HOST)
            assert (
                ask(world.internet, WEB, 80, protocol, timeout=NEVER) is None
            )  # cluster IPs are for the node alone
            assert ask(world.host, "127.0.0.1", 30080, protocol, timeout=NEVER) is None  # as in kube-proxy
            assert await node.audit() == []

    world.with_node(scenario)
    assert world.host.sh("nft", "list", "tables") == ""


def test_connections_are_distributed_and_survive_a_change(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            one, two, three = [await pods.add(name, says=name) for name in ("one", "two", "three")]
            await pods.add("client", port=1)
            client = pods.ns["client"]
            await node.replace_services(NETWORK, [service([one, two])])
            assert {ask(client, WEB, 80) for _ in range(MANY)} == {"one", "two"}
            with Listener(pods.ns["one"], 8081) as listener:
                await node.change_services([service([Endpoint(one.ip, 8081)])], [])
                connection = client.run(lambda: socket.create_connection((WEB, 80), SOON))
                await node.change_services([service([two, three])], [])
                assert listener.echoes(connection)  # the endpoint is gone, the connection is not
                assert {ask(client, WEB, 80) for _ in range(MANY)} == {"two", "three"}
                await node.change_services([], ["default/web:80/TCP"])
                assert refusal(client, WEB, 80) != 0
            assert await node.audit() == []

    world.with_node(scenario)


class Listener:
    """A server that keeps its first connection open."""

    def __init__(self, ns: Netns, port: int) -> None:
        self._socket = ns.run(lambda: socket.create_server(("0.0.0.0", port)))
        self._socket.settimeout(SOON)
        self._accepted: socket.socket | None = None

    def echoes(self, client: socket.socket) -> bool:
        """Whether bytes of an open connection arrive in both directions."""
        if self._accepted is None:
            self._accepted, _ = self._socket.accept()
        self._accepted.settimeout(SOON)
        client.settimeout(SOON)
        client.sendall(b"ping")
        there = self._accepted.recv(10)
        self._accepted.sendall(b"pong")
        return (there, client.recv(10)) == (b"ping", b"pong")

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        if self._accepted:
            self._accepted.close()


def test_clients_keep_their_endpoint(world: Lab) -> None:
    """Session affinity by the client's address: while the endpoint serves, over the repair of a flush, until the time
    is over."""

    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            endpoints = [await pods.add(name, says=name) for name in ("one", "two", "three")]
            await pods.add("client", port=1)
            client = pods.ns["client"]
            sticky: dict[str, Any] = {"affinity": 60, "node_port": 30080}
            await node.replace_services(NETWORK, [service(endpoints, **sticky)])
            (first,) = {ask(client, WEB, 80) for _ in range(MANY)}
            assert first is not None
            assert len({ask(world.host, WEB, 80) for _ in range(MANY)}) == 1
            assert len({ask(world.internet, HOST, 30080) for _ in range(MANY)}) == 1
            await node.replace_services(NETWORK, [service(endpoints, **sticky)])
            assert {ask(client, WEB, 80) for _ in range(MANY)} == {first}
            others = [endpoint for endpoint in endpoints if endpoint.ip != pods.ips[first]]
            await node.change_services([service(others, **sticky)], [])
            (second,) = {ask(client, WEB, 80) for _ in range(MANY)}
            assert second not in (None, first)
            await node.change_services([service(endpoints, **sticky)], [])
            assert {ask(client, WEB, 80) for _ in range(MANY)} == {second}
            await node.change_services([service(endpoints, affinity=1)], [])
            met = set()
            for _ in range(8):  # all to one of three endpoints by chance: 3^-7
                met.add(ask(client, WEB, 80))
                await asyncio.sleep(1.1)
            assert len(met) > 1
            assert await node.audit() == []

    world.with_node(scenario)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_what_nobody_serves_is_refused(bridged: Lab, protocol: str) -> None:
    world = bridged

    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            await pods.add("client", port=1)
            client = pods.ns["client"]
            world.internet.sh("ip", "route", "add", "203.0.113.7", "via", HOST)
            empty = service(protocol=protocol, node_port=30080, external=("203.0.113.7",))
            await node.replace_services(NETWORK, [empty])
            with Server(world.host, 30080, protocol, says="not the Service"):
                targets = ((WEB, 80), (WEB, 81), ("10.96.3.4", 80), (HOST, 30080), ("203.0.113.7", 80))
                for ns in (client, world.host):
                    # the kernel reports the host's own dropped datagrams as EPERM
                    said = {refusal(ns, *target, protocol) for target in targets} - {errno.EPERM}
                    assert said == {errno.ECONNREFUSED}
                for target in ((HOST, 30080), ("203.0.113.7", 80)):
                    assert refusal(world.internet, *target, protocol) == errno.ECONNREFUSED
            assert await node.audit() == []

    world.with_node(scenario)


def test_a_load_balancer_admits_its_sources_only(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            server = await pods.add("server", says="served")
            closed = service([server], node_port=30080, external=(HOST,), sources=("192.0.2.0/24",))
            await node.replace_services(NETWORK, [closed])
            assert refusal(world.internet, HOST, 80) == errno.ETIMEDOUT
            assert (
                ask(world.internet, HOST, 30080) == "served"
            )  # node ports have no such list, as in Kubernetes
            opened = replace(closed, sources=("192.0.2.0/24", f"{INTERNET}/32"))
            await node.change_services([opened], [])
            assert ask(world.internet, HOST, 80) == "served"
            assert await node.audit() == []

    world.with_node(scenario)


def test_a_udp_sender_follows_a_change(bridged: Lab) -> None:
    """One socket that never pauses: to the next endpoint, to none, and to one again."""
    world = bridged

    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            one = await pods.add("one", protocol="UDP", says="one")
            two = await pods.add("two", protocol="UDP", says="two")
            await pods.add("client", port=1)
            for ns, target in ((pods.ns["client"], (WEB, 80)), (world.internet, (HOST, 30080))):
                await node.replace_services(NETWORK, [service([one], protocol="UDP", node_port=30080)])
                with ns.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
                    client.settimeout(SOON)
                    client.connect(target)
                    assert answer(client) == "one"
                    await node.change_services([service([two], protocol="UDP", node_port=30080)], [])
                    assert answer(client) == "two"
                    await node.change_services([service(protocol="UDP", node_port=30080)], [])
                    with pytest.raises(ConnectionRefusedError):
                        answer(client)
                    await node.change_services([service([one], protocol="UDP", node_port=30080)], [])
                    assert answer(client) == "one"

    world.with_node(scenario)


def answer(client: socket.socket) -> str:
    client.send(b"?")
    return client.recv(100).decode()


def test_endpoints_that_are_no_pods(bridged: Lab) -> None:
    """A pod with hostNetwork has the node's address, and Endpoints may name another machine."""
    world = bridged

    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            await pods.add("client", port=1)
            client = pods.ns["client"]
            with Server(world.host, 9000), Server(world.internet, 9001):
                own = service([Endpoint(HOST, 9000)], node_port=30080)
                far = service([Endpoint(INTERNET, 9001)], port=81, node_port=30081)
                await node.replace_services(NETWORK, [own, far])
                assert ask(client, WEB, 80) == ask(client, HOST, 30080) == pods.ips["client"]
                assert ask(world.host, WEB, 80) == ask(world.host, HOST, 30080) == HOST
                assert ask(world.internet, HOST, 30080) == INTERNET
                assert ask(client, WEB, 81) == ask(client, HOST, 30081) == HOST  # masqueraded
                assert ask(world.host, WEB, 81) == ask(world.host, HOST, 30081) == HOST
                assert ask(world.internet, HOST, 30081) == HOST

    world.with_node(scenario)


def test_large_datagrams_find_their_way_back(bridged: Lab) -> None:
    """Fragments but the first have no ports."""
    world = bridged

    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            server = await pods.add("server", protocol="UDP", says="x" * 8000)
            await pods.add("client", port=1)
            await node.replace_services(NETWORK, [service([server], protocol="UDP")])
            with pods.ns["client"].run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
                client.settimeout(SOON)
                client.connect((WEB, 80))
                client.send(b"?" * 8000)
                assert len(client.recv(10000)) == 8000

    world.with_node(scenario)
