"""Counters of Services agree with traffic of a known size, outlive the helper, and end with their endpoint."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.network.client import NetworkClient
from runtime.network.services.plan import Endpoint, ServiceCount, ServiceNetwork, ServicePort
from tests.kernel.netlab import HOST, Lab, Server, ask, lab

pytestmark = pytest.mark.kernel
PLAIN = ServiceNetwork("10.96.0.0/16", (30000, 32767))
COUNTED = replace(PLAIN, counted=True)
WEB, NAME = "10.96.0.10", "default/web:80/UDP"
ASKED, ANSWERED = 20 + 8 + 1, 20 + 8 + 5  # bytes of a question "?" and of an answer "hello" over UDP


@pytest.fixture
def nft() -> str:
    if not (path := shutil.which("nft")):
        pytest.skip("needs nft")
    return path


@pytest.fixture(params=["0", "1"], ids=["", "br_netfilter"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        made.need_nat()
        switch = "/proc/sys/net/bridge/bridge-nf-call-iptables"
        if os.path.exists(switch):
            made.host.sh("sh", "-c", f"echo {request.param} > {switch}")
        elif request.param == "1":
            pytest.skip("needs br_netfilter")
        yield made


def port(*endpoints: Endpoint) -> ServicePort:
    return ServicePort(
        NAME, "UDP", 80, (WEB,), node_port=30080, endpoints=endpoints, external_endpoints=endpoints
    )


async def attach(world: Lab, node: NetworkClient, name: str) -> Server:
    ns = world.namespace()
    await node.add(name, ns.path)
    return Server(ns, 8080, "UDP", says="hello")


def test_packets_and_bytes_are_counted_once(world: Lab) -> None:
    one = Endpoint("10.77.0.2", 8080)

    async def scenario(node: NetworkClient) -> None:
        client = world.namespace()
        with await attach(world, node, "server"):
            await node.add("client", client.path)
            assert await node.replace_services(COUNTED, [port(one)]) == []
            assert await node.count_services() == []
            asked = (
                (client, WEB, 80),
                (world.host, WEB, 80),
                (world.internet, HOST, 30080),
                (world.host, HOST, 30080),
            )
            for count, (source, address, number) in enumerate(asked, 1):
                assert ask(source, address, number, "UDP") == "hello"
                expected = ServiceCount(NAME, one, count, count * ASKED, count, count * ANSWERED)
                assert await node.count_services() == [expected]
            assert ask(client, one.ip, 8080, "UDP") == "hello"  # not through the Service
            assert await node.count_services() == [expected]

    world.with_node(scenario)


def test_an_endpoint_of_the_host_itself_is_counted_once(world: Lab) -> None:
    one = Endpoint(HOST, 9090)

    async def scenario(node: NetworkClient) -> None:
        await node.replace_services(COUNTED, [port(one)])
        with Server(world.host, 9090, "UDP", says="hello"):
            assert ask(world.host, WEB, 80, "UDP") == "hello"
        assert await node.count_services() == [ServiceCount(NAME, one, 1, ASKED, 1, ANSWERED)]

    world.with_node(scenario)


def test_counters_outlive_the_helper_and_end_with_their_endpoint(world: Lab, nft: str) -> None:
    one, other = Endpoint("10.77.0.2", 8080), Endpoint("10.77.0.3", 8080)
    table = f"{world.table()}-services-counts"

    async def scenario(node: NetworkClient) -> None:
        with await attach(world, node, "one"), await attach(world, node, "other"):
            await node.replace_services(COUNTED, [port(one)])
            assert ask(world.host, WEB, 80, "UDP") == "hello"
            counted = [ServiceCount(NAME, one, 1, ASKED, 1, ANSWERED)]
            os.kill(node.helper_pid, signal.SIGKILL)
            assert await node.count_services() == counted
            assert "counter packets 1 bytes 29" in world.host.sh(nft, "list", "table", "ip", table)
            await node.change_services([port(other)], [])
            assert await node.count_services() == []
            assert "counter packets" not in world.host.sh(nft, "list", "set", "ip", table, "received")
            assert ask(world.host, WEB, 80, "UDP") == "hello"
            assert await node.count_services() == [ServiceCount(NAME, other, 1, ASKED, 1, ANSWERED)]
            world.host.sh(nft, "delete", "table", "ip", table)
            missing = "nftables: the table of the Services' counters is missing"
            assert missing in await node.audit()
            assert missing in (await node.repair()).repaired and await node.audit() == []
            await node.replace_services(PLAIN, [port(other)])
            assert "counts" not in world.host.sh(nft, "list", "tables")
            assert await node.count_services() == []
            await node.replace_services(COUNTED, [port(other)])
            await node.change_services([], [NAME])
            assert "counts" not in world.host.sh(nft, "list", "tables")

    world.with_node(scenario)
