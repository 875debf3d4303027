"""Frames with forged addresses do not arrive; those with the pod's own addresses do, in every direction."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import CapabilityError, NetworkError
from runtime.network import antispoof
from runtime.network.client import NetworkClient
from runtime.network.node import Node
from runtime.network.plan import Attachment, PortMapping, mac_of
from tests.kernel.netlab import HOST, INTERNET, NEVER, SOON, Lab, Netns, Server, ask, lab
from tests.programs import missing

pytestmark = pytest.mark.kernel
needs_nft = pytest.mark.skipif(bool(missing("nft")), reason="needs nft")

ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_8021Q, ETH_P_IPV6, ETH_P_LLDP = 3, 0x800, 0x806, 0x8100, 0x86DD, 0x88CC
BROADCAST, LLDP_GROUP = b"\xff" * 6, bytes.fromhex("0180c200000e")
GATEWAY, EVERYBODY = "10.77.0.1", "10.77.0.255"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        need_tables(made)
        yield made


def need_tables(world: Lab) -> None:
    def probe() -> bool:
        try:
            table = antispoof.SenderTable("probe", "none")
            table.rebuild([])
        except CapabilityError:
            return False
        table.delete()
        return True

    if not world.host.run(probe):
        pytest.skip("needs nftables of the bridge family")


# --- frames ---------------------------------------------------------------------------------------------------


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def frame(source: bytes, kind: int, body: bytes, *, to: bytes = BROADCAST) -> bytes:
    return to + source + struct.pack(">H", kind) + body


def arp(
    operation: int, mac: bytes, ip: str, *, lengths: bytes = b"\x06\x04", about: str = "0.0.0.0"
) -> bytes:
    head = struct.pack(">HH", 1, ETH_P_IP) + lengths + struct.pack(">H", operation)
    return head + mac + socket.inet_aton(ip) + bytes(6) + socket.inet_aton(about)


def datagram(ip: str, text: bytes, *, to: str = EVERYBODY) -> bytes:
    """A UDP datagram to the discard port. Only the header has a checksum (RFC 768: zero means none)."""
    udp = struct.pack(">HHHH", 9, 9, 8 + len(text), 0) + text
    addresses = socket.inet_aton(ip) + socket.inet_aton(to)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack(">H", ~total & 0xFFFF) + head[12:] + udp


def advertisement(mac: bytes, text: bytes) -> bytes:
    """An unsolicited neighbour advertisement (RFC 4861 4.4) of fe80::1, checksum aside."""
    target = bytes.fromhex("fe80") + bytes(13) + b"\x01"
    icmp = bytes((136, 0, 0, 0, 0x20, 0, 0, 0)) + target + b"\x02\x01" + mac + text
    return (
        struct.pack(">IHBB", 6 << 28, len(icmp), 58, 255)
        + target
        + bytes.fromhex("ff02" + "00" * 13 + "01")
        + icmp
    )


def forged(me: Attachment, victim: Attachment) -> dict[str, bytes]:
    """Frames that `me` must not be able to send, by name. Each frame ends with its name."""
    mine, theirs, gateway = raw(me.mac), raw(victim.mac), raw(mac_of(GATEWAY))
    datagrams = {
        "another pod's IP": (mine, victim.ip),
        "another pod's MAC": (theirs, me.ip),
        "another pod's both": (theirs, victim.ip),
        "the gateway's both": (gateway, GATEWAY),
        "the gateway's IP": (mine, GATEWAY),
        "an address of the internet": (mine, INTERNET),
        "an address of the node's loopback": (mine, "127.0.0.1"),
        "no address": (mine, "0.0.0.0"),
    }
    packets = {
        "ARP reply for another pod": (mine, arp(2, mine, victim.ip)),
        "ARP reply for the gateway": (mine, arp(2, mine, GATEWAY)),
        "ARP reply with another's MAC": (mine, arp(2, theirs, victim.ip)),
        "ARP reply that gives mine another's MAC": (mine, arp(2, theirs, me.ip)),
        "ARP reply from another's MAC": (theirs, arp(2, theirs, victim.ip)),
        "gratuitous ARP": (mine, arp(1, mine, victim.ip, about=victim.ip)),
        "ARP with other lengths": (mine, arp(2, mine, victim.ip, lengths=b"\x04\x06")),
    }
    frames = {
        name: frame(mac, ETH_P_IP, datagram(ip, name.encode())) for name, (mac, ip) in datagrams.items()
    }
    frames |= {name: frame(mac, ETH_P_ARP, body + name.encode()) for name, (mac, body) in packets.items()}
    others = {
        "ARP within VLAN 0": (mine, ETH_P_8021Q, b"\0\0\x08\x06" + arp(2, mine, victim.ip)),
        "my own address within VLAN 0": (mine, ETH_P_8021Q, b"\0\0\x08\x06" + arp(2, mine, me.ip)),
        "neighbour advertisement": (mine, ETH_P_IPV6, advertisement(mine, b"neighbour advertisement")),
        "802.3": (theirs, 38, b"\x42\x42\x03"),
    }
    frames |= {name: frame(mac, kind, body + name.encode()) for name, (mac, kind, body) in others.items()}
    return frames | {"LLDP": frame(theirs, ETH_P_LLDP, b"LLDP", to=LLDP_GROUP)}


class Tap:
    """Captures every frame that arrives at an interface."""

    def __init__(self, ns: Netns, interface: str) -> None:
        def listen() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            made.bind((interface, ETH_P_ALL))
            return made

        self.socket = ns.run(listen)
        self.socket.settimeout(10 * SOON)

    def until(self, last: bytes) -> bytes:
        """The frames up to one that contains this text."""
        heard = b""
        while last not in heard:
            heard += self.socket.recv(2000)
        return heard

    def close(self) -> None:
        self.socket.close()


def send(pod: Netns, *frames: bytes) -> None:
    def speak() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind(("eth0", 0))
            for one in frames:
                out.send(one)

    pod.run(speak)


# --- tests ----------------------------------------------------------------------------------------------------


def test_what_is_forged_is_not_heard(world: Lab) -> None:
    evil, victim, witness = (world.namespace() for _ in range(3))

    async def scenario(node: NetworkClient) -> None:
        me, other = await node.add("evil", evil.path), await node.add("victim", victim.path)
        await node.add("witness", witness.path)
        assert me.antispoof
        taps = [Tap(witness, "eth0"), Tap(victim, "eth0"), Tap(world.host, "br-lab")]
        frames = forged(me, other)
        mine = raw(me.mac)
        honest = frame(mine, ETH_P_ARP, arp(1, mine, me.ip, about=other.ip) + b"an honest question")
        send(evil, *frames.values(), honest, frame(mine, ETH_P_IP, datagram(me.ip, b"the honest end")))
        for tap in taps:
            heard = tap.until(b"the honest end")
            tap.close()
            assert [name for name in frames if name.encode() in heard] == []
            assert b"an honest question" in heard
        learnt = world.host.sh("bridge", "fdb", "show", "br", "br-lab", "brport", me.host_ifname)
        assert other.mac not in learnt and mac_of(GATEWAY) not in learnt

    world.with_node(scenario)


def test_without_the_table_they_would_be_heard(world: Lab) -> None:
    """Control for the test above: without the table, the same frames arrive."""
    evil, victim, witness = (world.namespace() for _ in range(3))

    async def scenario(node: NetworkClient) -> None:
        me, other = await node.add("evil", evil.path), await node.add("victim", victim.path)
        await node.add("witness", witness.path)
        table = antispoof.SenderTable(world.table(), "")
        table.delete()
        table.close()
        tap = Tap(witness, "eth0")
        frames = forged(me, other)
        end = frame(raw(me.mac), ETH_P_IP, datagram(me.ip, b"the honest end"))
        send(evil, *frames.values(), end)
        heard = tap.until(b"the honest end")
        tap.close()
        assert [name for name in frames if name.encode() not in heard] == ["LLDP"]  # the bridge's own address
        assert other.mac in world.host.sh("bridge", "fdb", "show", "br", "br-lab", "brport", me.host_ifname)

    world.with_node(scenario)


def test_a_pod_that_takes_anothers_address_is_cut_off(world: Lab) -> None:
    """As root of its network namespace, a pod can set any address. With its own address it is reachable again."""
    evil, victim = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        me, other = await node.add("evil", evil.path), await node.add("victim", victim.path)
        with Server(victim, 80):
            assert ask(evil, other.ip, 80) == me.ip
            evil.sh("ip", "link", "set", "eth0", "address", "0a:58:0a:4d:00:63")
            evil.sh("ip", "neigh", "flush", "dev", "eth0")
            assert ask(evil, other.ip, 80, timeout=NEVER) is None
            evil.sh("ip", "link", "set", "eth0", "address", me.mac)
            evil.sh("ip", "addr", "add", "10.77.0.99/32", "dev", "eth0")
            evil.sh("ip", "route", "add", f"{other.ip}/32", "dev", "eth0", "src", "10.77.0.99")
            assert ask(evil, other.ip, 80, timeout=NEVER) is None
            evil.sh("ip", "route", "del", f"{other.ip}/32")
            assert ask(evil, other.ip, 80) == me.ip

    world.with_node(scenario)


def test_honest_traffic_of_all_kinds(world: Lab) -> None:
    one, two = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        ports = [PortMapping(8080, 80), PortMapping(8053, 53, "UDP")] if world.nat else []
        a, b = await node.add("one", one.path, ports), await node.add("two", two.path)
        with Server(one, 80), Server(one, 53, "UDP"), Server(world.host, 7000), Server(world.internet, 7001):
            for protocol, port in (("TCP", 80), ("UDP", 53)):
                assert ask(two, a.ip, port, protocol) == b.ip
                assert ask(world.host, a.ip, port, protocol) == GATEWAY
            assert ask(one, GATEWAY, 7000) == a.ip
            if not world.nat:
                return
            assert ask(one, INTERNET, 7001) == HOST
            for protocol, port in (("TCP", 8080), ("UDP", 8053)):
                assert ask(world.internet, HOST, port, protocol) == INTERNET
                assert ask(two, HOST, port, protocol) is not None
                assert ask(one, HOST, port, protocol) is not None  # its own host port
            assert ask(world.host, "127.0.0.1", 8080) is not None

    world.with_node(scenario)


def admitted(world: Lab) -> set[antispoof.Element]:
    def look() -> set[antispoof.Element]:
        table = antispoof.SenderTable(world.table(), "")
        try:
            return table.admitted()
        finally:
            table.close()

    return world.host.run(look)


@needs_nft
def test_it_comes_and_goes_with_the_pod_and_survives_the_daemon(world: Lab) -> None:
    first, second = world.namespace(), world.namespace()

    async def scenario() -> None:
        client = await NetworkClient.start(world.config())
        a, b = await client.add("one", first.path), await client.add("two", second.path)
        assert len(admitted(world)) == 4
        await client.close()
        assert len(admitted(world)) == 4  # no daemon runs, and the pods are restricted all the same
        world.host.sh("nft", "flush", "ruleset")
        client = await NetworkClient.start(world.config())
        assert {antispoof.describe(item) for item in admitted(world)} == {
            a.host_ifname,
            b.host_ifname,
            f"{a.host_ifname} {a.mac} {a.ip}",
            f"{b.host_ifname} {b.mac} {b.ip}",
        }
        await client.delete("one")
        assert {antispoof.describe(item).split()[0] for item in admitted(world)} == {b.host_ifname}
        await client.teardown()
        await client.close()
        assert "table bridge" not in world.host.sh("nft", "list", "ruleset")

    world.play(scenario)


@needs_nft
def test_a_flushed_table_is_noticed_and_made_anew(world: Lab) -> None:
    first, second = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        a = await node.add("one", first.path)
        assert await node.audit() == [] and await node.check("one") == []
        world.host.sh("nft", "flush", "ruleset")
        said = f"pod one: {a.host_ifname} is not restricted to its own addresses"
        assert said in await node.audit() and said in await node.check("one")
        b = await node.add("two", second.path)  # rebuilds the table with all pods
        assert {antispoof.describe(item).split()[0] for item in admitted(world)} == {
            a.host_ifname,
            b.host_ifname,
        }
        world.host.sh("nft", "flush", "ruleset")
        assert (await node.repair()).repaired
        assert await node.audit() == []
        world.host.sh("nft", "flush", "ruleset")
        await node.delete("one")

    world.with_node(scenario)


def test_an_add_that_fails_leaves_nobody_admitted(world: Lab) -> None:
    pod = world.namespace()
    pod.sh("ip", "link", "add", "eth0", "type", "bridge")

    async def scenario(node: NetworkClient) -> None:
        with pytest.raises(NetworkError, match="already has an interface eth0"):
            await node.add("pod", pod.path)
        assert admitted(world) == set()

    world.with_node(scenario)


def test_a_kernel_without_it_runs_pods_and_says_so(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CapabilityError("no nftables of bridges here")

    monkeypatch.setattr(antispoof.SenderTable, "rebuild", refuse)
    pod = world.namespace()

    def body() -> None:
        node = Node(world.config())
        assert any(
            "pods are not restricted to their own addresses: no nftables of bridges here" in w
            for w in node.warnings
        )
        assert not node.add("pod", pod.path, []).antispoof
        assert node.check("pod") == [] and node.audit() == []
        node.delete(["pod"])
        node.teardown()

    world.host.run(body)


@needs_nft
def test_no_rule_is_added_for_a_pod(world: Lab) -> None:
    pods = [world.namespace() for _ in range(20)]

    async def scenario(node: NetworkClient) -> None:
        for number, pod in enumerate(pods):
            await node.add(f"pod{number}", pod.path)
        rules = world.host.sh("nft", "list", "table", "bridge", world.table())
        assert rules.count(" accept") == 2 + 2 and rules.count(" drop") == 2  # two of them are policies

    world.with_node(scenario)
