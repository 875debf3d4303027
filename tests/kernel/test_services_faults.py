"""Services in the kernel when somebody interferes: flushed tables, a killed helper, many changes, two nodes."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import NetworkError
from runtime.network.client import NetworkClient
from runtime.network.nft_messages import expression
from runtime.network.node import Node
from runtime.network.services import rules
from runtime.network.services.plan import Endpoint, ServiceNetwork, ServicePort
from tests.kernel.netlab import HOST, SOON, Lab, Netns, ask, lab
from tests.kernel.test_services import NETWORK, WEB, Listener, pods_of, refusal, service

pytestmark = pytest.mark.kernel


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        made.need_nat()
        yield made


@pytest.fixture
def nft() -> str:
    """The nft program, with which tests do damage and look at tables."""
    if not (path := shutil.which("nft")):
        pytest.skip("needs nft")
    return path


DAMAGE = {
    "everything flushed": ("flush", "ruleset"),
    "one table removed": ("delete", "table", "bridge", "TABLE"),
    "an element removed": ("delete", "element", "ip", "TABLE", "services", "{ 10.96.0.10 . tcp . 80 }"),
    "an element added": ("add", "element", "ip", "TABLE", "fronts", "{ 10.96.0.11 . tcp . 80 }"),
    "a chain flushed": ("flush", "chain", "ip", "TABLE", "pick-1"),
}


@pytest.mark.parametrize("command", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_found_and_repaired(world: Lab, nft: str, command: tuple[str, ...]) -> None:
    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            server = await pods.add("server", says="served")
            await pods.add("client", port=1)
            await node.replace_services(NETWORK, [service([server], node_port=30080)])
            assert await node.audit() == []
            world.host.sh(nft, *(word.replace("TABLE", world.table() + "-services") for word in command))
            found = await node.audit()
            assert any("Service" in sentence for sentence in found), found
            result = await node.repair()
            assert set(found) <= set(result.repaired)
            assert not result.left
            assert ask(pods.ns["client"], WEB, 80) == ask(world.internet, HOST, 30080) == "served"

    world.with_node(scenario)


def test_a_change_after_a_flush_restores_everything(world: Lab, nft: str) -> None:
    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            server = await pods.add("server", says="served")
            await pods.add("client", port=1)
            await node.replace_services(NETWORK, [service([server]), service([server], port=81)])
            world.host.sh(nft, "flush", "ruleset")
            await node.change_services([service([server], port=82)], [])
            assert [ask(pods.ns["client"], WEB, port) for port in (80, 81, 82)] == ["served"] * 3

    world.with_node(scenario)


def test_a_lost_route_is_found_and_repaired(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            server = await pods.add("server", says="served")
            await node.replace_services(NETWORK, [service([server])])
            world.host.sh("ip", "route", "del", "10.96.0.0/16")
            world.host.sh("ip", "route", "del", "default")
            assert await node.audit() == ["the route to the cluster IPs 10.96.0.0/16 is missing"]
            assert (await node.repair()).left == []
            assert ask(world.host, WEB, 80) == "served"  # also without a default route
            world.host.sh("ip", "link", "del", "br-lab")
            assert (await node.repair()).left == []
            assert ask(world.host, WEB, 80) == "served"

    world.with_node(scenario)


def test_another_service_cidr_replaces_the_route(world: Lab) -> None:
    """Also if a daemon with another setting was there before: its routes would lead into the bridge for ever."""

    async def first(node: NetworkClient) -> None:
        await node.replace_services(ServiceNetwork("10.97.0.0/16", (30000, 32767)), [service()])
        await node.close()  # the network stays

    async def second(node: NetworkClient) -> None:
        await node.replace_services(NETWORK, [service()])
        assert routes(world) == ["10.96.0.0/16"]
        await node.change_services([], [service().name])
        assert routes(world) == []

    async def leave() -> None:
        await first(await NetworkClient.start(world.config()))

    world.play(leave)
    assert routes(world) == ["10.97.0.0/16"]
    world.with_node(second)


def routes(world: Lab) -> list[str]:
    return [line.split()[0] for line in world.host.sh("ip", "route", "show", "proto", "107").splitlines()]


def test_services_outlive_their_helper(world: Lab) -> None:
    """The tables work while there is no helper. The next one has the desired state, and still changes it."""

    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            one, two = [await pods.add(name, says=name) for name in ("one", "two")]
            await pods.add("client", port=1)
            client = pods.ns["client"]
            await node.replace_services(NETWORK, [service([one])])
            os.kill(node.helper_pid, signal.SIGKILL)
            assert ask(client, WEB, 80) == "one"
            await node.change_services([service([one], port=81)], [])
            assert [ask(client, WEB, port) for port in (80, 81)] == ["one", "one"]
            changes = [
                asyncio.create_task(node.change_services([service([endpoint], port=port)], []))
                for port in range(100, 150)
                for endpoint in (one, two)
            ]
            await asyncio.sleep(0.01)
            os.kill(node.helper_pid, signal.SIGKILL)
            await asyncio.gather(*changes)
            assert {ask(client, WEB, port) for port in range(100, 150)} == {"two"}
            assert await node.audit() == []

    world.with_node(scenario)


def test_ten_thousand_changes_leave_nothing_behind(world: Lab, nft: str) -> None:
    """Of endpoints, while a client makes requests to another Service of the node: it loses none."""

    def listed() -> str:
        text = world.host.sh(nft, "list", "table", "ip", world.table() + "-services")
        return "\n".join(
            sorted(line.strip(" \t,}").removeprefix("elements = { ") for line in text.splitlines())
        )

    async def scenario(node: NetworkClient) -> None:
        few = [Endpoint("10.77.0.2", 80), Endpoint("10.77.0.3", 80)]
        async with pods_of(world, node) as pods:
            server = await pods.add("server", says="served")
            await pods.add("client", port=1)
            steady = service([server], port=81)
            await node.replace_services(NETWORK, [service(few, affinity=60, node_port=30080), steady])
            before = listed()
            resident, descriptors = memory(node.helper_pid), open_files(node.helper_pid)
            with Asking(pods.ns["client"], 81) as asking:
                for turn in range(2_500):  # each adds and removes several endpoints
                    some = [Endpoint(f"10.77.0.{2 + (turn + n) % 200}", 80) for n in range(1 + turn % 7)]
                    await node.change_services([service(some, affinity=60, node_port=30080)], [])
            assert len(asking.answers) > 100 and set(asking.answers) == {"served"}
            await node.change_services([service(few, affinity=60, node_port=30080)], [])
            assert listed() == before
            assert memory(node.helper_pid) < resident + (4 << 20)
            assert open_files(node.helper_pid) == descriptors
            assert await node.audit() == []

    world.with_node(scenario)


class Asking:
    """A client that makes one request after the other to a port of the Service, in a thread."""

    def __init__(self, ns: Netns, port: int) -> None:
        self.answers: list[str | None] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, args=(ns, port))

    def _ask(self, ns: Netns, port: int) -> None:
        while not self._stop.is_set():
            self.answers.append(ask(ns, WEB, port))
            self._stop.wait(0.005)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid: int) -> int:
    """Bytes of memory that a process has to itself."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Private_Dirty")


def test_two_nodes_of_one_machine_have_the_same_cluster_ips(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        other = await NetworkClient.start(world.config("second", "10.78.0.0/24"))
        try:
            async with pods_of(world, node) as pods, pods_of(world, other) as others:
                server, second = await pods.add("a", says="first"), await others.add("b", says="second")
                await pods.add("c", port=1)
                await others.add("d", port=1)
                await node.replace_services(NETWORK, [service([server])])
                await other.replace_services(NETWORK, [service([second]), service([second], port=81)])
                assert ask(pods.ns["c"], WEB, 80) == "first"
                assert ask(others.ns["d"], WEB, 80) == "second"
                assert ask(world.host, WEB, 81) == "second"
                await other.teardown()
                assert ask(pods.ns["c"], WEB, 80) == ask(world.host, WEB, 80) == "first"
        finally:
            await other.close()

    world.with_node(scenario)
    assert "10.96" not in world.host.sh("ip", "route")


def test_a_node_without_services_has_no_tables(world: Lab, nft: str) -> None:
    async def scenario(node: NetworkClient) -> None:
        await node.replace_services(NETWORK, [])
        assert "services" not in world.host.sh(nft, "list", "tables")
        await node.change_services([service()], [])
        assert "services" in world.host.sh(nft, "list", "tables")
        await node.change_services([], [service().name])
        assert "services" not in world.host.sh(nft, "list", "tables")
        assert "10.96" not in world.host.sh("ip", "route")

    world.with_node(scenario)


def test_connections_outlive_the_last_service(world: Lab, nft: str) -> None:
    """The tables stay for them without a Service, are repaired, and go with the last of them."""

    def tables() -> bool:
        return "services" in world.host.sh(nft, "list", "tables")

    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            server = await pods.add("server", says="served")
            await pods.add("client", port=1)
            with Listener(pods.ns["server"], 8081) as listener:
                await node.replace_services(NETWORK, [service([Endpoint(server.ip, 8081)])])
                connection = pods.ns["client"].run(lambda: socket.create_connection((WEB, 80), SOON))
                assert listener.echoes(connection)
                await node.change_services([], [service().name])
                assert listener.echoes(connection)
                assert refusal(pods.ns["client"], WEB, 80) == errno.ECONNREFUSED
                assert await node.audit() == []
                world.host.sh(nft, "delete", "table", "bridge", world.table() + "-services")
                assert (await node.repair()).left == []
                assert listener.echoes(connection)
                await node.change_services([service([server], port=81)], [])
                assert ask(pods.ns["client"], WEB, 81) == "served"
                os.kill(node.helper_pid, signal.SIGKILL)
                await node.replace_services(NETWORK, [])
                assert listener.echoes(connection)  # for another helper, too
                connection.close()
            await node.repair()
            assert not tables()

    world.with_node(scenario)


def test_a_kernel_without_a_part_of_nftables_is_named(
    world: Lab, nft: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses a rule with an expression that it does not have. Nothing of the tables is left."""
    monkeypatch.setattr(rules, "_to_this_host", lambda _family: expression("fib-of-tomorrow"))

    def body() -> None:
        node = Node(world.config())
        try:
            with pytest.raises(NetworkError, match="cannot route Services with nftables") as refused:
                node.tables.replace_services(NETWORK, [service()])
            assert (refused.value.reason, refused.value.retriable) == ("ServicesNotSupported", False)
            assert "services" not in world.host.sh(nft, "list", "tables")
            assert routes(world) == []
        finally:
            node.teardown()

    world.host.run(body)


def test_what_cannot_be_served_is_said(world: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        async with pods_of(world, node) as pods:
            server = await pods.add("server", says="served")
            twin = ServicePort("default/twin:80/TCP", "TCP", 80, (WEB,), endpoints=(server,))
            v6 = ServicePort("default/six:80/TCP", "TCP", 80, ("fd00::1",))
            said = await node.replace_services(NETWORK, [service([server]), twin, v6])
            assert list(said) == [
                f"Service {twin.name}: TCP {WEB}:80 is already that of Service {service().name}",
                f"Service {v6.name}: this node has no Services of its family",
            ]
            assert ask(world.host, WEB, 80) == "served"
            with pytest.raises(NetworkError, match=r"overlaps 10\.77\.0\.0/24"):
                await node.replace_services(ServiceNetwork("10.77.0.0/16", (30000, 32767)), [])
            assert refusal(world.host, WEB, 80) == 0
            (found,) = await node.audit()
            assert found.startswith("Services are not served: the service CIDR 10.77.0.0/16 overlaps")
            await node.replace_services(NETWORK, [service([server])])
            assert await node.audit() == []

    world.with_node(scenario)
