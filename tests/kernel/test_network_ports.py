"""Host ports: reachable from everywhere, by both protocols, with the right source addresses; and conflicts."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import NetworkError, SpecError
from runtime.network.client import NetworkClient
from runtime.network.plan import PortMapping
from tests.kernel.netlab import HOST, INTERNET, NEVER, Lab, Server, ask, lab
from tests.waiting import SECONDS

pytestmark = pytest.mark.kernel


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        made.need_nat()
        yield made


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_a_host_port_is_reachable_from_everywhere(world: Lab, protocol: str, br_netfilter: str) -> None:
    """Every client, every address, and the source address the pod sees. Replies must find their way back in every case,
    also if br_netfilter (which docker and kubelet load) applies the rules to bridged packets."""
    switch = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    if os.path.exists(switch):
        world.host.sh("sh", "-c", f"echo {br_netfilter} > {switch}")
    elif br_netfilter == "1":
        pytest.skip("needs br_netfilter")
    pod, other = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        await node.add("pod", pod.path, [PortMapping(8080, 80, protocol)])
        second = await node.add("other", other.path)
        gateway = second.gateway
        with Server(pod, 80, protocol):
            assert (
                ask(world.host, "127.0.0.1", 8080, protocol) == gateway
            )  # loopback addresses cannot leave the host: masqueraded
            assert ask(world.host, "127.9.9.9", 8080, protocol) == gateway
            assert ask(world.host, HOST, 8080, protocol) == HOST
            assert ask(world.host, gateway, 8080, protocol) == gateway
            assert ask(world.internet, HOST, 8080, protocol) == INTERNET  # the client's address is preserved
            assert ask(other, HOST, 8080, protocol) == gateway
            assert ask(other, gateway, 8080, protocol) == gateway
            assert ask(pod, HOST, 8080, protocol) == gateway  # the pod itself, through its host port
            assert ask(pod, "127.0.0.1", 80, protocol) == "127.0.0.1"
            assert ask(pod, "127.0.0.1", 8080, protocol, timeout=NEVER) is None  # the pod's own loopback
        assert await node.audit() == []
        await node.delete("pod")
        with Server(world.host, 8080, protocol, says="host"):
            assert ask(world.internet, HOST, 8080, protocol) == "host"

    world.with_node(scenario)


@pytest.mark.parametrize("br_netfilter", ["0", "1"])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_a_neighbour_reaches_host_ports_only(world: Lab, protocol: str, br_netfilter: str) -> None:
    """Whoever is on the same wire can send the host packets for anybody: for pods, and for 127.0.0.1."""
    switch = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    if os.path.exists(switch):
        world.host.sh("sh", "-c", f"echo {br_netfilter} > {switch}")
    elif br_netfilter == "1":
        pytest.skip("needs br_netfilter")
    pod, other = world.namespace(), world.namespace()
    world.internet.sh("ip", "route", "add", "10.77.0.0/24", "via", HOST)

    async def scenario(node: NetworkClient) -> None:
        published = [PortMapping(8080, 80, protocol, "127.0.0.1"), PortMapping(8081, 81, protocol)]
        first = await node.add("pod", pod.path, published)
        await node.add("other", other.path)
        with Server(pod, 80, protocol, says="local"), Server(pod, 81, protocol, says="open"):
            # … to the pod's own address, whether or not the port is published
            assert ask(world.internet, first.ip, 80, protocol, timeout=NEVER) is None
            assert ask(world.internet, first.ip, 81, protocol, timeout=NEVER) is None
            assert ask(world.internet, HOST, 8081, protocol) == "open"
            # … to the host's loopback
            world.internet.sh("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
            world.internet.sh("ip", "route", "add", "127.0.0.1", "via", HOST, "dev", "host", "src", INTERNET)
            world.internet.sh("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
            assert ask(world.internet, "127.0.0.1", 8080, protocol, timeout=NEVER) is None
            # the host, pods and answers from outside are as before
            assert ask(world.host, "127.0.0.1", 8080, protocol) == "local"
            assert ask(world.host, first.ip, 80, protocol) == "local"
            assert ask(other, first.ip, 80, protocol) == "local"
            assert ask(other, HOST, 8081, protocol) == "open"
        with Server(world.internet, 90, protocol):
            assert ask(pod, INTERNET, 90, protocol) == HOST
        assert await node.audit() == []

    world.with_node(scenario)


def test_pods_are_routed_to_where_that_is_wanted(world: Lab) -> None:
    pod = world.namespace()
    world.internet.sh("ip", "route", "add", "10.77.0.0/24", "via", HOST)

    async def scenario(node: NetworkClient) -> None:
        found = await node.add("pod", pod.path, [])
        with Server(pod, 80):
            assert ask(world.internet, found.ip, 80) == INTERNET

    world.with_node(scenario, routed=True)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_host_ip_limits_where_a_port_is_reachable(world: Lab, protocol: str) -> None:
    local, outer = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        await node.add("local", local.path, [PortMapping(8080, 80, protocol, "127.0.0.1")])
        await node.add("outer", outer.path, [PortMapping(8080, 81, protocol, HOST)])
        with Server(local, 80, protocol, says="local"), Server(outer, 81, protocol, says="outer"):
            assert ask(world.host, "127.0.0.1", 8080, protocol) == "local"
            assert ask(world.internet, HOST, 8080, protocol) == "outer"
            assert ask(world.host, HOST, 8080, protocol) == "outer"
            assert ask(world.host, "10.77.0.1", 8080, protocol, timeout=NEVER) is None
        assert await node.audit() == []

    world.with_node(scenario)


def test_a_port_of_another_pod_is_refused_by_name(world: Lab) -> None:
    first, second = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        await node.add("first", first.path, [PortMapping(8080, 80)])
        for clash in (PortMapping(8080, 80), PortMapping(8080, 90, "TCP", "127.0.0.1")):
            with pytest.raises(
                NetworkError, match=r"host port .*:8080 is already published by pod first"
            ) as refused:
                await node.add("second", second.path, [clash])
            assert refused.value.reason == "HostPortConflict" and refused.value.retriable
        assert second.links() == ["lo"]
        assert [a.uid for a in await node.list()] == ["first"]
        await node.add(
            "second", second.path, [PortMapping(8080, 80, "UDP")]
        )  # the same number of another protocol is free
        await node.delete("first")
        third = world.namespace()
        await node.add("third", third.path, [PortMapping(8080, 80)])
        assert await node.audit() == []

    world.with_node(scenario)


@pytest.mark.parametrize(
    ("protocol", "address"), [("TCP", "0.0.0.0"), ("TCP", "127.0.0.1"), ("UDP", "0.0.0.0")]
)
def test_a_port_a_host_process_listens_on_is_refused(world: Lab, protocol: str, address: str) -> None:
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        with Server(world.host, 2222, protocol, address=address, says="sshd"):
            with pytest.raises(NetworkError, match="2222 is in use by a process of the host") as refused:
                await node.add("pod", pod.path, [PortMapping(2222, 22, protocol)])
            assert refused.value.reason == "HostPortConflict"
            assert ask(world.host, "127.0.0.1", 2222, protocol) == "sshd"
            assert pod.links() == ["lo"] and await node.list() == []
        await node.add("pod", pod.path, [PortMapping(2222, 22, protocol)])

    world.with_node(scenario)


def test_ended_connections_of_the_host_do_not_block_a_port(world: Lab) -> None:
    """A server that closes first leaves its port in TIME_WAIT for a minute."""
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        with Server(world.host, 8080, says="old"):
            assert ask(world.host, "127.0.0.1", 8080) == "old"
        assert ":1F90 " in world.host.sh(
            "sh", "-c", "grep ' 06 ' /proc/thread-self/net/tcp"
        )  # TIME_WAIT on 8080
        await node.add("pod", pod.path, [PortMapping(8080, 80)])
        with Server(pod, 80, says="pod"):
            assert ask(world.host, "127.0.0.1", 8080) == "pod"

        def take() -> None:
            with pytest.raises(OSError, match="Address already in use"):
                socket.create_server(("0.0.0.0", 8080))

        world.host.run(take)

    world.with_node(scenario)


def test_what_is_published_can_not_be_taken_by_a_host_process(world: Lab) -> None:
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        await node.add("pod", pod.path, [PortMapping(8080, 80)])

        def take() -> None:
            with pytest.raises(OSError, match="Address already in use"):
                socket.create_server(("127.0.0.1", 8080))  # sets SO_REUSEADDR, as servers do

        world.host.run(take)

    world.with_node(scenario)


def test_udp_senders_that_never_pause_reach_the_new_pod(world: Lab) -> None:
    """A tracked UDP flow never consults the NAT table again, so its record must be deleted when the port's target
    changes."""
    old, new = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        with world.internet.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            sender.settimeout(SECONDS)

            def exchange() -> str | None:
                try:
                    sender.sendto(b"?", (HOST, 5140))
                    return sender.recv(100).decode()
                except OSError:
                    return None

            with Server(world.host, 5140, "UDP", says="host"):
                assert exchange() == "host"  # the flow is tracked now, without NAT
            await node.add("old", old.path, [PortMapping(5140, 514, "UDP")])
            with Server(old, 514, "UDP", says="old"):
                assert exchange() == "old"
            await node.delete("old")
            assert (await node.add("new", new.path, [PortMapping(5140, 514, "UDP")])).ip != "10.77.0.2"
            with Server(new, 514, "UDP", says="new"):
                assert exchange() == "new"

    world.with_node(scenario)


def test_what_can_not_be_published_is_said(world: Lab) -> None:
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        made = await node.add(
            "pod", pod.path, [PortMapping(8080, 80, "SCTP"), PortMapping(8081, 80, "TCP", "::1")]
        )
        assert made.ports == ()
        assert made.warnings == (
            "host port SCTP 0.0.0.0:8080 is not published: only TCP and UDP are supported",
            "host port TCP [::1]:8081 is not published: pods have no IPv6 addresses, see pod_cidr",
        )
        other = world.namespace()
        with pytest.raises(SpecError, match="between 1 and 65535"):
            await node.add("other", other.path, [PortMapping(70000, 80)])
        with pytest.raises(NetworkError, match=r"the host has no address 192\.0\.2\.77"):
            await node.add("other", other.path, [PortMapping(8082, 80, "TCP", "192.0.2.77")])

    world.with_node(scenario)


def test_flushed_rules_are_found_and_mended(world: Lab) -> None:
    """`systemctl restart nftables` flushes the rules of all programs."""
    if not shutil.which("nft"):
        pytest.skip("needs the nft program to flush the rules")
    pod, other = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        await node.add("pod", pod.path, [PortMapping(8080, 80)])
        with Server(pod, 80):
            world.host.sh("nft", "flush", "ruleset")
            assert ask(world.internet, HOST, 8080, timeout=NEVER) is None
            assert (
                "pod pod: host port TCP 0.0.0.0:8080 is not in the NAT table"
                in (await node.repair()).repaired
            )
            assert ask(world.internet, HOST, 8080) == INTERNET
            world.host.sh("nft", "flush", "ruleset")
            await node.add("other", other.path, [PortMapping(8081, 80)])  # the node notices by itself
            assert ask(world.internet, HOST, 8080) == INTERNET
            world.host.sh("ip", "link", "del", node.config.bridge)
            assert "bridge br-lab is missing or down" in (await node.repair()).repaired
            assert ask(world.internet, HOST, 8080) == INTERNET
            assert ask(pod, HOST, 8080) == "10.77.0.1"
            assert ask(world.host, "127.0.0.1", 8080) == "10.77.0.1"
        assert await node.audit() == []

    world.with_node(scenario)


def test_a_change_of_ports_that_fails_changes_nothing(world: Lab) -> None:
    pod, other = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        await node.add("pod", pod.path, [PortMapping(8080, 80)])
        in_the_way = Path(node.config.state_dir) / "leases" / "pod.json.tmp"  # like a full disk
        in_the_way.mkdir()
        with Server(pod, 80):
            with pytest.raises(NetworkError, match="Is a directory"):
                await node.add("pod", pod.path, [PortMapping(8081, 80)])
            assert ask(world.internet, HOST, 8080) == INTERNET
            assert ask(world.internet, HOST, 8081, timeout=NEVER) is None
            assert await node.audit() == []
            await node.add("other", other.path, [PortMapping(8081, 80)])  # no socket of ours is bound to it
            in_the_way.rmdir()
            await node.delete("other")
            await node.add("pod", pod.path, [PortMapping(8081, 80)])
            assert ask(world.internet, HOST, 8081) == INTERNET
        assert await node.audit() == []

    world.with_node(scenario)


def test_many_ports_of_one_pod(world: Lab) -> None:
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        ports = [PortMapping(20000 + n, 1000 + n, "UDP" if n % 2 else "TCP") for n in range(600)]
        await node.add("pod", pod.path, ports)
        with Server(pod, 1598), Server(pod, 1599, "UDP"):
            assert ask(world.internet, HOST, 20598) == ask(world.internet, HOST, 20599, "UDP") == INTERNET
        assert await node.audit() == []
        await node.delete("pod")
        assert await node.audit() == []

    world.with_node(scenario)
