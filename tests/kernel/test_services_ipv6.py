"""Services on a node with IPv4 and IPv6: reachable by both, each family by itself, repaired and removed."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.network.client import NetworkClient
from runtime.network.services.plan import Endpoint, ServiceNetwork, ServicePort
from tests.kernel.netlab import HOST, HOST6, INTERNET6, NEVER, SOON, Lab, Netns, Server, ask, lab
from tests.programs import missing

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(missing("nft")), reason="needs nft"),
    pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="needs IPv6 in this kernel"),
]

CIDR6, GATEWAY = "fd00:77::/64", "fd00:77::1"
EXTERNAL6 = "2001:db8:7::7"
NETWORK = ServiceNetwork("10.96.0.0/16", (30000, 32767), service_cidr6="fd00:96::/112")
WEB, WEB6 = "10.96.0.10", "fd00:96::10"
MANY = 40  # connections; all to one of two endpoints by chance: 2^-39


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        made.need_nat()
        made.connect_by_ipv6()
        yield made


class Pods:
    """Pods that each serve IPv4 and IPv6. A server answers with the client's address, or with the text `says`."""

    def __init__(self, world: Lab, node: NetworkClient, protocol: str = "TCP") -> None:
        self._world, self._node, self._protocol = world, node, protocol
        self._servers = contextlib.ExitStack()
        self.ns: dict[str, Netns] = {}

    async def add(self, name: str, *, says: str = "") -> tuple[Endpoint, Endpoint]:
        self.ns[name] = self._world.namespace()
        made = await self._node.add(name, self.ns[name].path)
        for port, address in ((8080, "0.0.0.0"), (8086, "::")):
            server = Server(self.ns[name], port, self._protocol, address=address, says=says)
            self._servers.enter_context(server)
        return Endpoint(made.ip, 8080), Endpoint(made.ip6, 8086)

    def __enter__(self) -> Pods:
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.close()


def web(*endpoints: Endpoint, protocol: str = "TCP", **more: object) -> ServicePort:
    found = ServicePort(f"default/web:80/{protocol}", protocol, 80, (WEB, WEB6), endpoints=endpoints)
    return replace(found, external_endpoints=endpoints, **more)  # type: ignore[arg-type]


def refusal(ns: Netns, address: str, port: int) -> int:
    """Return the errno of a TCP connection; 0 if it succeeds."""
    with ns.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM)) as client:
        client.settimeout(SOON)
        return client.connect_ex((address, port))


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_a_service_is_reachable_by_both_families(world: Lab, protocol: str) -> None:
    world.internet.sh("ip", "-6", "route", "add", EXTERNAL6, "via", HOST6)
    world.internet.sh("ip", "-6", "route", "add", "fd00:96::/112", "via", HOST6)

    async def scenario(node: NetworkClient) -> None:
        with Pods(world, node, protocol) as pods:
            server, client = await pods.add("server"), await pods.add("client")
            port = web(*server, protocol=protocol, node_port=30080, external=("203.0.113.7", EXTERNAL6))
            assert await node.replace_services(NETWORK, [port]) == []
            ns, own = pods.ns["client"], client[1].ip
            assert ask(ns, WEB6, 80, protocol) == own  # a pod's address is visible
            assert ask(ns, WEB, 80, protocol) == client[0].ip
            assert ask(ns, HOST6, 30080, protocol) == ask(ns, GATEWAY, 30080, protocol) == own
            assert ask(ns, EXTERNAL6, 80, protocol) == own
            assert ask(pods.ns["server"], WEB6, 80, protocol) == GATEWAY  # a pod to itself: masqueraded
            assert ask(pods.ns["server"], HOST6, 30080, protocol) == GATEWAY
            assert ask(world.host, WEB6, 80, protocol) == GATEWAY
            assert ask(world.host, HOST6, 30080, protocol) == HOST6
            assert ask(world.internet, HOST6, 30080, protocol) == INTERNET6
            assert ask(world.internet, EXTERNAL6, 80, protocol) == INTERNET6
            assert ask(world.internet, WEB6, 80, protocol, timeout=NEVER) is None  # for the node alone
            assert ask(world.host, "::1", 30080, protocol, timeout=NEVER) is None  # as in kube-proxy
            assert "pick-1" in world.host.sh("nft", "list", "ruleset")
            assert await node.audit() == []

    world.with_node(scenario, cidr6=CIDR6)
    assert world.host.sh("nft", "list", "tables") == ""


def test_each_family_has_the_endpoints_that_it_has(world: Lab) -> None:
    """A Service of one family is not reachable by the other, and a change sets the endpoints of each family."""

    async def scenario(node: NetworkClient) -> None:
        with Pods(world, node) as pods:
            one, two = [await pods.add(name, says=name) for name in ("one", "two")]
            await pods.add("client")
            client = pods.ns["client"]
            only6 = replace(web(*one, *two), addresses=(WEB6,), node_port=30080)
            await node.replace_services(NETWORK, [only6])
            assert {ask(client, WEB6, 80) for _ in range(MANY)} == {"one", "two"}
            assert ask(client, HOST6, 30080) is not None and ask(client, HOST, 30080, timeout=NEVER) is None
            await node.change_services([web(one[1], two[0])], [])  # a family with an endpoint each
            assert {ask(client, WEB6, 80) for _ in range(5)} == {"one"}
            assert {ask(client, WEB, 80) for _ in range(5)} == {"two"}
            await node.change_services([web(two[0], node_port=30080)], [])
            for target in ((WEB6, 80), (HOST6, 30080), ("fd00:96::99", 80)):
                assert refusal(client, *target) == errno.ECONNREFUSED
            assert ask(client, WEB, 80) == "two"
            await node.change_services([], ["default/web:80/TCP"])
            assert refusal(client, WEB6, 80) != 0
            assert await node.audit() == []

    world.with_node(scenario, cidr6=CIDR6)


def test_clients_keep_their_endpoint_and_others_may_be_refused(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        with Pods(world, node) as pods:
            listed = [(await pods.add(name, says=name))[1] for name in ("one", "two", "three")]
            await pods.add("client")
            client = pods.ns["client"]
            sticky = web(*listed, affinity=60, node_port=30080)
            await node.replace_services(NETWORK, [sticky])
            (first,) = {ask(client, WEB6, 80) for _ in range(MANY)}
            assert first is not None
            assert len({ask(world.internet, HOST6, 30080) for _ in range(MANY)}) == 1
            world.host.sh("nft", "list", "ruleset")  # nft(8) can list the rules of session affinity
            await node.replace_services(NETWORK, [sticky])
            assert {ask(client, WEB6, 80) for _ in range(MANY)} == {first}
            served = {"one": 0, "two": 1, "three": 2}[first]
            others = [one for index, one in enumerate(listed) if index != served]
            await node.change_services([web(*others, affinity=60)], [])
            (second,) = {ask(client, WEB6, 80) for _ in range(MANY)}
            assert second not in (None, first)
            closed = web(*listed, external=(HOST6,), sources=("2001:db8:9::/64", "192.0.2.0/24"))
            await node.change_services([closed], [])
            assert ask(world.internet, HOST6, 80, timeout=NEVER) is None
            await node.change_services([replace(closed, sources=(f"{INTERNET6}/128",))], [])
            assert ask(world.internet, HOST6, 80) is not None
            assert await node.audit() == []

    world.with_node(scenario, cidr6=CIDR6)


def test_a_udp_sender_follows_a_change(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        with Pods(world, node, "UDP") as pods:
            one, two = [(await pods.add(name, says=name))[1] for name in ("one", "two")]
            await pods.add("client")
            for ns, target in ((pods.ns["client"], (WEB6, 80)), (world.internet, (HOST6, 30080))):
                await node.replace_services(NETWORK, [web(one, protocol="UDP", node_port=30080)])
                with ns.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as client:
                    client.settimeout(SOON)
                    client.connect(target)
                    for wanted in (one, two, one):
                        await node.change_services([web(wanted, protocol="UDP", node_port=30080)], [])
                        client.send(b"?")
                        assert client.recv(100).decode() == ("one" if wanted is one else "two")

    world.with_node(scenario, cidr6=CIDR6)


def test_a_repair_restores_tables_and_route_and_packets_are_counted(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        with Pods(world, node) as pods:
            server = await pods.add("server")
            await pods.add("client")
            await node.replace_services(replace(NETWORK, counted=True), [web(*server)])
            tables = world.host.sh("nft", "list", "tables").splitlines()
            (table,) = [
                line for line in tables if line.startswith("table ip6") and line.endswith("-services")
            ]
            world.host.sh("nft", "delete", *table.split())
            world.host.sh("ip", "-6", "route", "del", "fd00:96::/112", "dev", node.config.bridge)
            assert any("Services" in said for said in await node.audit())
            await node.repair()
            assert await node.audit() == []
            assert ask(pods.ns["client"], WEB6, 80) is not None and ask(world.host, WEB6, 80) == GATEWAY
            counted = {one.endpoint: one.received_packets for one in await node.count_services()}
            assert counted[server[1]] > 3 and server[0] not in counted

    world.with_node(scenario, cidr6=CIDR6)
    assert world.host.sh("nft", "list", "tables") == ""


def test_tables_of_an_earlier_setting_go(world: Lab) -> None:
    """When the IPv6 service CIDR is removed from the settings, the Service stays reachable by IPv4, and nothing of IPv6
    is left."""

    async def scenario(node: NetworkClient) -> None:
        with Pods(world, node) as pods:
            server = await pods.add("server")
            await node.replace_services(replace(NETWORK, counted=True), [web(*server)])
            assert "table ip6 kubelite-" in world.host.sh("nft", "list", "tables")
            assert "fd00:96::/112" in world.host.sh("ip", "-6", "route")
            await node.close()  # the helper ends, and the tables stay
            again = await NetworkClient.start(node.config)
            try:
                await again.replace_services(replace(NETWORK, service_cidr6=""), [web(*server)])
                tables = world.host.sh("nft", "list", "tables").splitlines()
                assert not [one for one in tables if one.startswith("table ip6") and one.endswith("services")]
                assert not [one for one in tables if one.startswith("table ip6") and one.endswith("-counts")]
                assert "fd00:96::/112" not in world.host.sh("ip", "-6", "route")
                assert ask(world.host, WEB, 80) is not None
                await again.teardown()
            finally:
                await again.close()

    async def run() -> None:
        await scenario(await NetworkClient.start(world.config(cidr6=CIDR6)))

    world.play(run)
