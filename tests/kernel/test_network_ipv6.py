"""Pods with an IPv4 and an IPv6 address: what reaches what, what is dropped, and what a repair puts right."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import NetworkError
from runtime.network.client import NetworkClient
from runtime.network.ipv6 import connections
from runtime.network.netlink import NETLINK_NETFILTER, NetlinkSocket
from runtime.network.node import Node
from runtime.network.plan import Attachment, PortMapping, mac_of
from runtime.network.policies.conntrack import forget_address
from runtime.network.policies.plan import PodRules, Policy
from tests.kernel.netlab import HOST, HOST6, INTERNET, INTERNET6, NEVER, SOON, Lab, Netns, Server, ask, lab
from tests.programs import missing

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(missing("nft")), reason="needs nft"),
    pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="needs IPv6 in this kernel"),
]

CIDR6, GATEWAY = "fd00:77::/64", "fd00:77::1"
FIRST, SECOND = "fd00:77::a4d:2", "fd00:77::a4d:3"  # beside 10.77.0.2 and .3


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        made.need_nat()
        made.connect_by_ipv6()
        yield made


async def two(world: Lab, node: NetworkClient) -> tuple[Netns, Netns, Attachment, Attachment]:
    one, other = world.namespace(), world.namespace()
    return one, other, await node.add("one", one.path), await node.add("other", other.path)


def test_a_pod_has_an_address_of_both_families_at_once(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        one, _, first, _ = await two(world, node)
        assert (first.ip, first.ip6) == ("10.77.0.2", FIRST)
        listed = one.sh("ip", "-6", "addr", "show", "eth0")
        assert f"inet6 {FIRST}/128 scope global nodad" in listed
        assert "tentative" not in listed and "fe80" not in listed
        assert one.sh("ip", "-6", "route", "show", "default").split()[:5] == [
            "default", "via", GATEWAY, "dev", "eth0",
        ]  # fmt: skip
        assert f"inet6 {GATEWAY}/64" in world.host.sh("ip", "-6", "addr", "show", node.config.bridge)
        assert await node.check("one") == [] and await node.audit() == []
        await node.delete("one")
        assert FIRST not in world.host.sh("ip", "-6", "neigh", "show", "nud", "all")

    world.with_node(scenario, cidr6=CIDR6)
    assert world.host.sh("nft", "list", "tables") == ""


def test_pods_reach_pods_and_the_node_and_the_outside(world: Lab) -> None:
    world.internet.sh("ip", "-6", "route", "add", CIDR6, "via", HOST6)

    async def scenario(node: NetworkClient) -> None:
        one, other, *_ = await two(world, node)
        with Server(other, 7000, address="::"):
            assert ask(one, SECOND, 7000) == FIRST
            assert ask(world.host, SECOND, 7000) == GATEWAY
            assert ask(other, SECOND, 7000) == SECOND
            assert ask(world.internet, SECOND, 7000, timeout=NEVER) is None  # it has a route to the pods
        with Server(world.internet, 7001, "UDP", address="::"):
            assert ask(one, INTERNET6, 7001, "UDP") == HOST6  # masqueraded

    world.with_node(scenario, cidr6=CIDR6)


def test_the_connections_of_one_address_are_forgotten(world: Lab) -> None:
    """The kernel's own filter by address deletes those of the others instead."""

    async def scenario(node: NetworkClient) -> None:
        one, other, *_ = await two(world, node)
        with Server(world.internet, 7001, "UDP", address="::"):
            for ns in (one, other):
                assert ask(ns, INTERNET6, 7001, "UDP") == HOST6
            with contextlib.closing(NetlinkSocket(NETLINK_NETFILTER)) as sock:
                forget_address(sock, FIRST)
                left: list[bytes] = []

                def note(original: connections.Direction, _reply: connections.Direction) -> bool:
                    left.append(original.source)
                    return False

                connections.forget(sock, note)
        assert [str(ipaddress.IPv6Address(source)) for source in left] == [SECOND]

    world.with_node(scenario, cidr6=CIDR6)


def test_other_machines_reach_pods_of_a_routed_node(world: Lab) -> None:
    world.internet.sh("ip", "-6", "route", "add", CIDR6, "via", HOST6)

    async def scenario(node: NetworkClient) -> None:
        _, other, *_ = await two(world, node)
        with Server(other, 7000, address="::"):
            assert ask(world.internet, SECOND, 7000) == INTERNET6

    world.with_node(scenario, cidr6=CIDR6, routed=True)


def test_a_route_from_an_advertisement_is_kept(world: Lab) -> None:
    """The kernel forgets such routes when it begins to forward, unless accept_ra is 2."""
    world.host.sh("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")

    async def scenario(node: NetworkClient) -> None:
        assert world.host.sh("sysctl", "-n", "net.ipv6.conf.uplink.accept_ra").strip() == "2"
        assert world.host.sh("sysctl", "-n", "net.ipv6.conf.all.forwarding").strip() == "1"
        assert world.host.sh("sysctl", "-n", f"net.ipv6.conf.{node.config.bridge}.accept_ra").strip() == "0"

    world.with_node(scenario, cidr6=CIDR6)


@pytest.mark.parametrize("cidr6", ["", CIDR6], ids=["IPv4 only", "both"])
def test_no_link_local_path_leads_past_policies(world: Lab, cidr6: str) -> None:
    """A pod with CAP_NET_ADMIN gives itself addresses and neighbours, and still reaches nobody on the bridge."""
    denied = Policy("x/deny", ingress=())

    async def scenario(node: NetworkClient) -> None:
        await node.replace_policies([denied], [PodRules("other", ingress=("x/deny",))])
        one, other, first, second = await two(world, node)
        for pod, attached, peer, end in ((one, first, second, "a"), (other, second, first, "b")):
            pod.run(lambda: Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6").write_text("0"))
            pod.sh("ip", "-6", "addr", "add", f"fe80::{end}/64", "dev", "eth0", "nodad")
            pod.sh("ip", "-6", "addr", "add", f"fd00:99::{end}/64", "dev", "eth0", "nodad")
            other_end = "b" if end == "a" else "a"
            for address in (f"fe80::{other_end}", f"fd00:99::{other_end}", *filter(None, [peer.ip6])):
                pod.sh("ip", "-6", "neigh", "replace", address, "lladdr", peer.mac, "dev", "eth0")
            if peer.ip6:  # past the gateway
                pod.sh("ip", "-6", "route", "add", f"{peer.ip6}/128", "dev", "eth0")
            assert attached.antispoof
        with Server(other, 7000, "UDP", address="::"):
            for address in ("fe80::b%eth0", "fd00:99::b", *filter(None, [second.ip6])):
                target = one.run(lambda a=address: socket.getaddrinfo(a, 7000)[0][4])  # type: ignore[misc]
                assert _asked(one, target) is None, address
            world.host.sh("nft", "delete", "table", "bridge", world.table())  # the same without anti-spoofing
            target = one.run(lambda: socket.getaddrinfo("fe80::b%eth0", 7000)[0][4])
            assert _asked(one, target) == b"fe80::a"

    world.with_node(scenario, cidr6=cidr6)


def _asked(ns: Netns, target: tuple[object, ...]) -> bytes | None:
    with ns.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as client:
        client.settimeout(NEVER)
        try:
            client.connect(target)
            client.send(b"?")
            return client.recv(100)
        except OSError:
            return None


def test_a_pod_cannot_send_with_other_addresses(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        one, other, *_ = await two(world, node)
        one.sh("ip", "-6", "addr", "add", "fd00:77::a4d:9/128", "dev", "eth0", "nodad")
        with Server(other, 7000, "UDP", address="::"):
            with one.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as client:
                client.bind(("fd00:77::a4d:9", 0))
                client.settimeout(NEVER)
                client.sendto(b"?", (SECOND, 7000))
                with pytest.raises(TimeoutError):
                    client.recv(100)
            assert ask(one, SECOND, 7000, "UDP") is not None

    world.with_node(scenario, cidr6=CIDR6)


def test_discovery_of_a_pod_does_not_reach_the_node(world: Lab) -> None:
    """Advertisements of routers and neighbours, also behind an extension header: the node believes none."""

    async def scenario(node: NetworkClient) -> None:
        one, *_, first, second = await two(world, node)
        for kind in (134, 136):
            for behind in (b"", bytes((58, 0, 1, 4, 0, 0, 0, 0))):  # a header of destination options
                one.run(lambda k=kind, b=behind: _advertise(k, b, first, node))  # type: ignore[misc]
        with Server(one, 7000, "UDP", address="::"):
            assert ask(world.host, FIRST, 7000, "UDP") == GATEWAY
        known = world.host.sh("ip", "-6", "neigh", "show", "dev", node.config.bridge, "nud", "all")
        assert f"{SECOND} lladdr {second.mac} PERMANENT" in known and "a4d:9" not in known
        dropped = world.host.sh("nft", "list", "table", "bridge", world.table())
        assert "ip6" in dropped

    world.with_node(scenario, cidr6=CIDR6)


def _advertise(kind: int, behind: bytes, me: Attachment, node: NetworkClient) -> None:
    target = ipaddress.IPv6Address("fd00:77::a4d:9").packed
    body = bytes((kind, 0, 0, 0, 0x60, 0, 0, 0)) + target
    source, bridge = (bytes.fromhex(mac.replace(":", "")) for mac in (me.mac, mac_of("10.77.0.1")))
    ends = ipaddress.IPv6Address(FIRST).packed + ipaddress.IPv6Address(GATEWAY).packed
    payload = behind + body
    head = b"\x60\0\0\0" + len(payload).to_bytes(2, "big") + bytes((60 if behind else 58, 255))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind(("eth0", 0))
        out.send(bridge + source + b"\x86\xdd" + head + ends + payload)


def test_policies_restrict_both_families(world: Lab) -> None:
    allow = Policy("x/allow", ingress=())

    async def scenario(node: NetworkClient) -> None:
        one, other, *_ = await two(world, node)
        with Server(other, 7000, address="::"), Server(other, 7001, address="0.0.0.0"):
            assert ask(one, SECOND, 7000) == FIRST
            await node.replace_policies([allow], [PodRules("other", ingress=("x/allow",))])
            assert ask(one, SECOND, 7000, timeout=NEVER) is None
            assert ask(one, "10.77.0.3", 7001, timeout=NEVER) is None
            assert ask(world.host, SECOND, 7000) == GATEWAY  # the node itself always may
            assert ask(other, SECOND, 7000) == SECOND
            assert await node.audit() == []
            await node.change_policies(None, [PodRules("other")], [])
            assert ask(one, SECOND, 7000) == FIRST

    world.with_node(scenario, cidr6=CIDR6)


def test_a_repair_puts_ipv6_right(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        one, other, *_ = await two(world, node)
        bridge = node.config.bridge
        damages = (
            (world.host, ("nft", "flush", "ruleset")),
            (world.host, ("ip", "-6", "neigh", "del", SECOND, "dev", bridge)),
            (world.host, ("ip", "-6", "addr", "flush", "dev", bridge)),
            (
                world.host,
                (
                    "sh",
                    "-c",
                    f"ip addr del {GATEWAY}/64 dev {bridge}; ip addr add {GATEWAY}/80 dev {bridge} nodad",
                ),
            ),
            (world.host, ("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")),
            (other, ("ip", "-6", "addr", "flush", "dev", "eth0")),
            (other, ("ip", "-6", "neigh", "del", GATEWAY, "dev", "eth0")),
            (other, ("ip", "link", "set", "eth0", "down")),
            (world.host, ("ip", "link", "del", bridge)),
        )
        with Server(other, 7000, address="::"):
            for ns, command in damages:
                ns.sh(*command)
                assert await node.audit(), command
                done = await node.repair()
                assert (list(done.left), list(done.failures)) == ([], []), command
                assert await node.audit() == [], command
                assert ask(one, SECOND, 7000) == FIRST, command

    world.with_node(scenario, cidr6=CIDR6)


def test_the_bridge_keeps_ipv6_during_a_repair_and_a_restart(world: Lab) -> None:
    """The kernel forgets a route when IPv6 is switched off at its interface, if only for a moment."""
    route = "2001:db8:9::/64"

    async def scenario(node: NetworkClient) -> None:
        await two(world, node)
        world.host.sh("ip", "-6", "route", "add", route, "dev", node.config.bridge)
        world.host.sh("nft", "flush", "ruleset")
        assert (await node.repair()).repaired
        assert route in world.host.sh("ip", "-6", "route")
        os.kill(node.helper_pid, signal.SIGKILL)
        assert await node.audit() == []
        assert route in world.host.sh("ip", "-6", "route")

    world.with_node(scenario, cidr6=CIDR6)


def test_the_prefix_length_of_the_network_may_change(world: Lab) -> None:
    """The bridge's address stays the same, and so do the pods'."""
    pod = world.namespace()

    def scenario() -> None:
        for prefix in (64, 80, 64):
            node = Node(world.config(cidr6=f"fd00:77::/{prefix}"))
            assert node.add("one", pod.path, ()).ip6 == FIRST
            held = world.host.sh("ip", "-6", "addr", "show", node.config.bridge)
            assert held.count("inet6") == 1 and f"inet6 {GATEWAY}/{prefix}" in held
            assert node.audit() == []
            with Server(pod, 7000, address="::"):
                assert ask(world.host, FIRST, 7000) == GATEWAY
        node.teardown()

    world.host.run(scenario)


def test_damage_inside_a_pod_is_repaired_there_alone(world: Lab) -> None:
    """A privileged pod can switch IPv6 off in its namespace again and again. The node's tables are not rebuilt for it:
    what another program has added to them stays."""

    async def scenario(node: NetworkClient) -> None:
        _, other, *_ = await two(world, node)
        added = ("bridge", world.table(), "mark-of-this-test")
        world.host.sh("nft", "add", "chain", *added)
        other.sh("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
        done = await node.repair()
        assert (len(done.repaired), list(done.left), list(done.failures)) == (1, [], [])
        assert f"inet6 {SECOND}" in other.sh("ip", "-6", "addr", "show", "eth0")
        assert added[-1] in world.host.sh("nft", "list", "table", *added[:2])
        world.host.sh("ip", "-6", "addr", "flush", "dev", node.config.bridge)
        await node.repair()
        assert added[-1] not in world.host.sh(
            "nft", "list", "table", *added[:2]
        )  # a rebuild would have shown

    world.with_node(scenario, cidr6=CIDR6)


def test_pods_stay_when_the_node_gets_and_loses_ipv6(world: Lab) -> None:
    old, new = world.namespace(), world.namespace()

    def node(cidr6: str) -> Node:
        return Node(world.config(cidr6=cidr6))

    def scenario() -> None:
        assert node("").add("old", old.path, ()).ip6 == ""
        both = node(CIDR6)
        assert both.add("old", old.path, ()).ip6 == ""  # until its pod is created again
        assert both.add("new", new.path, ()).ip6 == SECOND
        assert both.audit() == []
        again = node(CIDR6)
        assert (again.add("new", new.path, ()).ip6, again.audit()) == (SECOND, [])
        alone = node("")
        assert alone.audit() == [] and "table ip6" not in world.host.sh("nft", "list", "tables")
        alone.teardown()

    world.host.run(scenario)


def test_host_ports_stay_when_the_node_loses_ipv6(world: Lab) -> None:
    pod = world.namespace()

    async def before() -> None:
        node = await NetworkClient.start(world.config(cidr6=CIDR6))
        await node.add("pod", pod.path, [PortMapping(8080, 80), PortMapping(8081, 80, host_ip="::")])
        await node.close()

    async def after(node: NetworkClient) -> None:
        assert await node.audit() == []
        with Server(pod, 80):
            assert ask(world.internet, HOST, 8080) == INTERNET
        await node.delete("pod")
        assert await node.audit() == []

    world.play(before)
    world.with_node(after)


def test_overlapping_networks_are_refused(world: Lab) -> None:
    with pytest.raises(NetworkError, match="2001:db8::/64 overlaps 2001:db8::/64 of uplink"):
        world.host.run(lambda: Node(world.config(cidr6="2001:db8::/64")))


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_a_host_port_is_reachable_at_addresses_of_both_families(
    world: Lab, protocol: str, br_netfilter: str
) -> None:
    switch = Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables")
    if switch.exists():
        world.host.sh("sh", "-c", f"echo {br_netfilter} > {switch}")
    elif br_netfilter == "1":
        pytest.skip("needs br_netfilter")
    one, other = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        await node.add("one", one.path, [PortMapping(8080, 80, protocol)])
        await node.add("other", other.path)
        with Server(one, 80, protocol, address="::"):
            assert (
                ask(world.internet, HOST6, 8080, protocol) == INTERNET6
            )  # the client's address is preserved
            assert ask(world.host, HOST6, 8080, protocol) == HOST6
            assert ask(world.host, GATEWAY, 8080, protocol) == GATEWAY
            assert ask(other, HOST6, 8080, protocol) == GATEWAY
            assert ask(one, HOST6, 8080, protocol) == GATEWAY  # the pod itself, through its host port
            if protocol == "TCP":
                with pytest.raises(ConnectionRefusedError):  # so that "localhost" falls back to 127.0.0.1
                    world.host.run(lambda: socket.create_connection(("::1", 8080), SOON))
        with Server(one, 80, protocol, says="IPv4"):
            assert ask(world.internet, HOST, 8080, protocol) == "IPv4"
        assert await node.audit() == []
        world.host.sh("nft", "delete", "table", "ip6", world.table())
        assert f"nftables: table ip6 {world.table()} is missing" in (await node.repair()).repaired
        await node.delete("one")
        with Server(world.host, 8080, protocol, address="::", says="host"):
            assert ask(world.internet, HOST6, 8080, protocol) == "host"
        assert await node.audit() == []

    world.with_node(scenario, cidr6=CIDR6)


def test_a_host_ip_chooses_the_family(world: Lab) -> None:
    pods = [world.namespace() for _ in range(3)]
    addresses = ("0.0.0.0", "::", HOST6)

    async def scenario(node: NetworkClient) -> None:
        for number, (pod, address) in enumerate(zip(pods, addresses, strict=True)):
            await node.add(f"u{number}", pod.path, [PortMapping(8080 + (number == 2), 80, host_ip=address)])
        with Server(pods[0], 80, says="first"), Server(pods[1], 80, address="::", says="second"):
            assert ask(world.internet, HOST, 8080) == "first"
            assert ask(world.internet, HOST6, 8080) == "second"
        with Server(pods[2], 80, address="::", says="third"):
            assert ask(world.internet, HOST6, 8081) == "third"
            assert ask(world.host, GATEWAY, 8081, timeout=NEVER) is None
        another = world.namespace()
        for clash in (PortMapping(8080, 80), PortMapping(8080, 80, host_ip=HOST6)):
            with pytest.raises(NetworkError, match="is already published by pod u"):
                await node.add("another", another.path, [clash])
        assert await node.audit() == []

    world.with_node(scenario, cidr6=CIDR6)


def test_a_port_of_a_program_of_the_host_is_refused_in_both_families(world: Lab) -> None:
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        for address in ("::", "0.0.0.0"):
            with (
                Server(world.host, 8080, address=address),
                pytest.raises(NetworkError, match="in use by a process of the host"),
            ):
                await node.add("pod", pod.path, [PortMapping(8080, 80)])
        await node.add("pod", pod.path, [PortMapping(8080, 80)])

    world.with_node(scenario, cidr6=CIDR6)
