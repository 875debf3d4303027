"""Pods on the bridge: addresses, routes, access to other networks, deletes, a full pool, and many pods at once."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import CapabilityError, NetworkError, NotFoundError, SpecError
from runtime.network import helper, nat
from runtime.network.client import NetworkClient
from runtime.network.node import Node
from runtime.network.plan import NetworkConfig, PortMapping, mac_of
from tests.kernel.netlab import HOST, INTERNET, NEVER, UPLINK_MTU, Lab, Server, ask, lab

pytestmark = pytest.mark.kernel


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        yield made


def test_a_pod_gets_address_route_and_loopback(world: Lab) -> None:
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        attachment = await node.add("pod-a", pod.path)
        assert (attachment.ip, attachment.prefix, attachment.gateway) == ("10.77.0.2", 24, "10.77.0.1")
        assert attachment.mac == mac_of("10.77.0.2") == "0a:58:0a:4d:00:02"
        link = pod.sh("ip", "-d", "link", "show", "eth0")
        assert attachment.mac in link and f"mtu {UPLINK_MTU}" in link and "state UP" in link
        assert "inet 10.77.0.2/24 brd 10.77.0.255" in pod.sh("ip", "addr", "show", "eth0")
        assert "inet6" not in pod.sh("ip", "addr", "show", "eth0")
        assert "LOOPBACK,UP" in pod.sh("ip", "link", "show", "lo")
        assert pod.sh("ip", "route", "show", "default").split()[:5] == [
            "default",
            "via",
            "10.77.0.1",
            "dev",
            "eth0",
        ]
        assert f"master {node.config.bridge}" in world.host.sh("ip", "link", "show", attachment.host_ifname)
        assert await node.check("pod-a") == []
        assert await node.audit() == []

    world.with_node(scenario)


def test_pods_see_each_other_by_their_own_addresses(world: Lab) -> None:
    one, two = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        first, second = await node.add("one", one.path), await node.add("two", two.path)
        for protocol in ("TCP", "UDP"):
            with Server(two, 7000, protocol):
                assert ask(one, second.ip, 7000, protocol) == first.ip
                assert ask(world.host, second.ip, 7000, protocol) == "10.77.0.1"

    world.with_node(scenario)


def test_the_outside_sees_the_host_address(world: Lab) -> None:
    world.need_nat()
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        await node.add("pod", pod.path)
        for protocol in ("TCP", "UDP"):
            with Server(world.internet, 7001, protocol):
                assert ask(pod, INTERNET, 7001, protocol) == HOST

    world.with_node(scenario)


def test_pods_can_not_reach_what_listens_on_the_hosts_loopback(world: Lab) -> None:
    """CVE-2020-8558: route_localnet admits packets for 127/8 from the bridge; the guard chain drops them."""
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        attachment = await node.add("pod", pod.path)
        pod.sh("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
        pod.sh("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet")
        pod.sh(
            "ip", "route", "add", "127.0.0.1", "via", attachment.gateway, "dev", "eth0", "src", attachment.ip
        )
        with Server(world.host, 7002, address="127.0.0.1"):
            assert ask(world.host, "127.0.0.1", 7002) == "127.0.0.1"
            assert ask(pod, "127.0.0.1", 7002, timeout=NEVER) is None
            if world.nat and shutil.which("nft"):  # without the guard it would be reachable
                world.host.sh("nft", "flush", "chain", "ip", world.table(), "guard")
                assert ask(pod, "127.0.0.1", 7002) == attachment.ip

    world.with_node(scenario)


def test_adding_again_changes_nothing(world: Lab) -> None:
    world.need_nat()
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        first = await node.add("pod", pod.path, [PortMapping(8080, 80)])
        index = world.host.sh("cat", f"/proc/net/dev_snmp6/{first.host_ifname}").split()[1]
        assert await node.add("pod", pod.path, [PortMapping(8080, 80)]) == first
        assert world.host.sh("cat", f"/proc/net/dev_snmp6/{first.host_ifname}").split()[1] == index
        changed = await node.add("pod", pod.path, [PortMapping(8081, 80)])
        assert changed.ports == (PortMapping(8081, 80),)
        with Server(pod, 80):
            assert ask(world.host, "127.0.0.1", 8081) == "10.77.0.1"
            assert ask(world.host, "127.0.0.1", 8080, timeout=NEVER) is None
        assert await node.audit() == []

    world.with_node(scenario)


def test_a_new_sandbox_of_the_pod_keeps_its_address(world: Lab) -> None:
    world.need_nat()
    old, new = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        first = await node.add("pod", old.path, [PortMapping(8080, 80)])
        old.close()
        second = await node.add("pod", new.path, [PortMapping(8080, 80)])
        assert second.ip == first.ip
        with Server(new, 80):
            assert ask(world.internet, HOST, 8080) == INTERNET
        assert await node.check("pod") == []

    world.with_node(scenario)


def test_delete_leaves_nothing_and_needs_no_namespace(world: Lab) -> None:
    alive, gone = world.namespace(), world.namespace()

    async def scenario(node: NetworkClient) -> None:
        before = world.host.links()
        await node.add("alive", alive.path, [PortMapping(8080, 80)])
        await node.add("gone", gone.path, [PortMapping(8081, 80, "UDP", "127.0.0.1")])
        assert len(world.host.links()) == len(before) + 2
        gone.close()
        await asyncio.gather(node.delete("alive"), node.delete("gone"), node.delete("never was"))
        assert world.host.links() == before
        assert alive.links() == ["lo"]
        assert await node.list() == []
        assert await node.audit() == []
        assert os.listdir(os.path.join(node.config.state_dir, "leases")) == []
        with pytest.raises(NotFoundError):
            await node.check("alive")
        with Server(world.host, 8080), Server(world.host, 8081, "UDP"):  # the ports are free again
            assert ask(world.host, "127.0.0.1", 8080) == "127.0.0.1"
            assert ask(world.host, "127.0.0.1", 8081, "UDP") == "127.0.0.1"

    world.with_node(scenario)


def test_teardown_leaves_the_host_as_it_was(world: Lab) -> None:
    pods = [world.namespace() for _ in range(3)]
    before = world.host.links()
    routes = world.host.sh("ip", "route")

    async def scenario(node: NetworkClient) -> None:
        for number, pod in enumerate(pods):
            await node.add(f"pod-{number}", pod.path, [PortMapping(8080 + number, 80)])

    world.with_node(scenario)
    assert world.host.links() == before
    assert world.host.sh("ip", "route") == routes
    if world.nat and shutil.which("nft"):
        assert world.host.sh("nft", "list", "ruleset") == ""
    assert not list(Path(world.config().state_dir).glob("leases/*"))


def test_fifty_pods_at_once(world: Lab) -> None:
    pods = [world.namespace() for _ in range(50)]

    async def scenario(node: NetworkClient) -> None:
        made = await asyncio.gather(
            *(node.add(f"pod-{n}", pod.path, [PortMapping(9000 + n, 80)]) for n, pod in enumerate(pods))
        )
        assert len({a.ip for a in made}) == len({a.host_ifname for a in made}) == 50
        with Server(pods[0], 80), Server(pods[49], 80):
            assert ask(pods[49], made[0].ip, 80) == made[49].ip
            assert ask(world.internet, HOST, 9049) == (INTERNET if world.nat else None)
        assert await node.audit() == []
        await asyncio.gather(*(node.delete(f"pod-{n}") for n in range(50)))
        assert await node.audit() == []
        assert await node.list() == []

    world.with_node(scenario)


def test_a_full_pool_says_so_and_a_freed_address_is_given_again(world: Lab) -> None:
    pods = [world.namespace() for _ in range(6)]

    async def scenario(node: NetworkClient) -> None:
        # a /29 has eight addresses; network, gateway and broadcast are reserved
        made = [await node.add(f"pod-{n}", pods[n].path) for n in range(5)]
        with pytest.raises(NetworkError, match=r"10\.77\.0\.0/29") as refused:
            await node.add("pod-5", pods[5].path)
        assert refused.value.reason == "AddressPoolExhausted" and refused.value.retriable
        assert pods[5].links() == ["lo"]
        await node.delete("pod-2")
        assert (await node.add("pod-5", pods[5].path)).ip == made[2].ip
        assert await node.audit() == []

    world.with_node(scenario, cidr="10.77.0.0/29")


def test_two_nodes_share_a_host(world: Lab) -> None:
    world.need_nat()
    left, right = world.namespace(), world.namespace()

    async def scenario(first: NetworkClient) -> None:
        second = await NetworkClient.start(world.config("other", "10.78.0.0/24"))
        try:
            a = await first.add("pod", left.path, [PortMapping(8080, 80)])
            b = await second.add("pod", right.path, [PortMapping(8081, 80)])
            with Server(left, 80), Server(right, 80):
                assert ask(world.internet, HOST, 8080) == ask(world.internet, HOST, 8081) == INTERNET
                assert ask(left, b.ip, 80) == "10.78.0.1"  # across bridges: masqueraded
                assert ask(right, HOST, 8080) == "10.77.0.1"
            third = world.namespace()
            with pytest.raises(NetworkError, match=r"TCP 0\.0\.0\.0:8080 is in use") as refused:
                await second.add("third", third.path, [PortMapping(8080, 80)])
            assert refused.value.reason == "HostPortConflict"
            await second.teardown()
            with Server(left, 80):
                assert ask(world.internet, HOST, 8080) == INTERNET
            assert a.ip == "10.77.0.2" and await first.audit() == []
        finally:
            await second.close()

    world.with_node(scenario)


def test_the_nodes_own_namespace_is_refused(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        with pytest.raises(SpecError, match="own network namespace"):
            await node.add("pod", world.host.path)
        with pytest.raises(NetworkError, match="cannot open"):
            await node.add("pod", "/proc/0/ns/net")
        assert await node.list() == []

    world.with_node(scenario)


def test_a_pod_that_has_an_eth0_is_refused_and_left_alone(world: Lab) -> None:
    pod = world.namespace()
    pod.sh("ip", "link", "add", "eth0", "type", "bridge")

    async def scenario(node: NetworkClient) -> None:
        before = world.host.links()
        with pytest.raises(NetworkError, match="already has an interface eth0"):
            await node.add("pod", pod.path, [PortMapping(8080, 80)])
        assert pod.links() == ["eth0", "lo"]
        assert world.host.links() == before
        assert await node.list() == [] and await node.audit() == []

    world.with_node(scenario)


def test_somebody_elses_bridge_is_left_alone(world: Lab) -> None:
    world.host.sh("ip", "link", "add", "br-lab", "type", "bridge")
    world.host.sh("ip", "addr", "add", "172.17.0.1/16", "dev", "br-lab")

    async def start() -> None:
        with pytest.raises(NetworkError, match="br-lab exists and is not this node's") as refused:
            await NetworkClient.start(world.config())
        assert not refused.value.retriable
        assert "172.17.0.1/16" in world.host.sh("ip", "addr", "show", "br-lab")

    world.play(start)


def test_two_nodes_can_not_share_a_bridge(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        other = world.config("other", "10.78.0.0/24")
        with pytest.raises(NetworkError, match="marked 'kubelite:lab@"):
            await NetworkClient.start(
                NetworkConfig(node.config.bridge, other.pod_cidr, other.state_dir, "other")
            )

    world.with_node(scenario)


def test_a_renamed_machine_finds_its_pods(world: Lab) -> None:
    pod = world.namespace()

    async def scenario() -> None:
        before = await NetworkClient.start(world.config())
        made = await before.add("pod", pod.path, [PortMapping(8080, 80)])
        await before.close()
        config = world.config()
        after = await NetworkClient.start(
            NetworkConfig(config.bridge, config.pod_cidr, config.state_dir, "renamed")
        )
        assert await after.list() == [replace(made, warnings=())] and await after.audit() == []
        await after.teardown()
        assert "br-lab" not in world.host.links()
        await after.close()

    world.play(scenario)


def test_adds_do_not_wait_for_deletes_but_for_their_own(world: Lab) -> None:
    """Deleting an interface takes the kernel some 15 ms. Pods that start meanwhile do not wait."""
    pods = [world.namespace() for _ in range(12)]

    async def scenario(node: NetworkClient) -> None:
        for number in range(8):
            await node.add(f"pod-{number}", pods[number].path, [PortMapping(8080 + number, 80)])
        order: list[str] = []

        async def noted(name: str, call: Coroutine[Any, Any, Any]) -> None:
            await call
            order.append(name)

        await asyncio.gather(
            *(noted(f"delete {n}", node.delete(f"pod-{n}")) for n in range(8)),
            noted(
                "add", node.add("new", pods[8].path, [PortMapping(8080, 80)])
            ),  # a port that is being freed
            noted("again", node.add("pod-3", pods[9].path)),
        )
        assert order[: order.index("add")] in ([], ["delete 0"]), order  # its port was freed first
        assert order.index("again") > order.index("delete 3")
        assert sorted(a.uid for a in await node.list()) == ["new", "pod-3"]
        assert await node.check("new") == [] and await node.check("pod-3") == [] and await node.audit() == []

    world.with_node(scenario)


@pytest.mark.parametrize("cidr", ["198.51.100.0/25", "198.0.0.0/8"])
def test_a_pod_network_that_overlaps_another_is_refused(world: Lab, cidr: str) -> None:
    async def start() -> None:
        with pytest.raises(NetworkError, match=r"overlaps 198\.51\.100\.0/24 of uplink.*--pod-cidr"):
            await NetworkClient.start(world.config(cidr=cidr))

    world.play(start)


def test_check_and_audit_name_what_is_broken(world: Lab) -> None:
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        attachment = await node.add("pod", pod.path, [PortMapping(8080, 80)])
        pod.sh("ip", "route", "del", "default")
        assert await node.check("pod") == ["pod pod: no default route"]
        pod.sh("ip", "addr", "flush", "dev", "eth0")
        assert await node.check("pod") == ["pod pod: eth0 does not have the address 10.77.0.2"]
        world.host.sh("ip", "link", "set", attachment.host_ifname, "nomaster")
        assert f"pod pod: interface {attachment.host_ifname} is not up on br-lab" in await node.audit()
        world.host.sh("ip", "link", "del", attachment.host_ifname)
        assert f"pod pod: interface {attachment.host_ifname} is missing" in await node.audit()
        if world.nat and shutil.which("nft"):
            world.host.sh("nft", "flush", "map", "ip", world.table(), "ports")
            assert "pod pod: host port TCP 0.0.0.0:8080 is not in the NAT table" in await node.audit()

    world.with_node(scenario)


def test_a_dropping_forward_chain_is_said_at_the_start(world: Lab) -> None:
    world.need_nat()
    if not shutil.which("nft"):
        pytest.skip("needs the nft program to make another table")
    world.host.sh("nft", "add table ip filter")
    world.host.sh("nft", "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
    pod = world.namespace()

    async def scenario(node: NetworkClient) -> None:
        (warning,) = node.warnings
        assert "'ip filter FORWARD' drops forwarded packets" in warning
        await node.add("pod", pod.path)
        with Server(world.internet, 7003):
            assert ask(pod, INTERNET, 7003, timeout=NEVER) is None
            for remedy in warning.split("to allow it: ")[1].split("; "):  # the suggested commands work
                world.host.sh(*remedy.split())
            assert ask(pod, INTERNET, 7003) == HOST

    world.with_node(scenario)


def test_a_kernel_without_nat_runs_pods_and_says_so(world: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's User Mode Linux has no IPv4 nftables."""

    def refuse(*_: Any) -> None:
        raise CapabilityError("no nftables here")

    monkeypatch.setattr(nat.NatTable, "rebuild", refuse)
    pod = world.namespace()

    def body() -> None:
        node = Node(world.config())
        assert any(
            "cannot reach other networks and have no host ports: no nftables here" in w for w in node.warnings
        )
        attachment = node.add("pod", pod.path, [PortMapping(8080, 80)])
        assert attachment.ip == "10.77.0.2" and attachment.ports == ()
        assert "TCP 0.0.0.0:8080 is not published" in attachment.warnings[0]
        with Server(pod, 80):
            assert ask(world.host, attachment.ip, 80) == "10.77.0.1"
        # without the guard chain, nothing may reach 127.0.0.1 from the bridge
        assert world.host.sh("cat", "/proc/sys/net/ipv4/conf/br-lab/route_localnet") == "0\n"
        assert node.check("pod") == [] and node.audit() == []
        node.delete(["pod"])
        node.teardown()
        assert "br-lab" not in world.host.links()

    world.host.run(body)


def test_an_earlier_pod_network_of_the_bridge_is_replaced(world: Lab) -> None:
    async def scenario() -> None:
        first = await NetworkClient.start(world.config())
        await first.close()
        second = await NetworkClient.start(world.config(cidr="10.79.0.0/24"))
        addresses = world.host.sh("ip", "-4", "addr", "show", "br-lab")
        assert "10.79.0.1/24" in addresses and "10.77.0.1" not in addresses
        await second.teardown()
        await second.close()

    world.play(scenario)


def test_the_machine_is_told_when_the_state_directory_is_taken(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        patience, helper.LOCK_PATIENCE = helper.LOCK_PATIENCE, 0.05
        try:
            with pytest.raises(NetworkError, match=r"another kubelite daemon \(pid \d+\) uses"):
                helper.lock(node.config.state_dir)
        finally:
            helper.LOCK_PATIENCE = patience

    world.with_node(scenario)


def test_the_helper_is_small(world: Lab) -> None:
    """The helper runs as long as the node, so it must not load all of pyroute2."""

    async def scenario(node: NetworkClient) -> None:
        text = Path(f"/proc/{node.helper_pid}/smaps_rollup").read_text()
        private = sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private"))
        assert private < 20_000, f"{private} kB private memory"
        threads = os.listdir(f"/proc/{node.helper_pid}/task")
        assert len(threads) <= 2  # a worker, and one that waits for the kernel to delete

    world.with_node(scenario)


def test_no_config_reaches_a_bad_bridge_name(world: Lab) -> None:
    async def start() -> None:
        config = world.config()
        for name in ("", "..", "a/b", "way-too-long-for-linux"):
            with pytest.raises(SpecError, match="bridge name"):
                await NetworkClient.start(NetworkConfig(name, config.pod_cidr, config.state_dir, config.node))
        with pytest.raises(NetworkError, match="uplink exists and is not a bridge"):
            await NetworkClient.start(NetworkConfig("uplink", config.pod_cidr, config.state_dir, config.node))

    world.play(start)


def test_nothing_of_these_tests_shows_on_the_machine(world: Lab) -> None:
    names = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout
    assert "br-lab" not in names and "uplink" not in names
