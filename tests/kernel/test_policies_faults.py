"""NetworkPolicies in the kernel when something happens: pods that come, policies that change under load, a helper that
is killed, tables that another program flushes. A prober tries a connection that must stay shut all the time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from runtime.network.client import NetworkClient
from runtime.network.plan import Subnet, mac_of
from runtime.network.policies.arrange import Direction, layout, pod_elements
from runtime.network.policies.plan import PodRules, PolicySet
from runtime.network.policies.tables import PolicyTables, Scope
from runtime.network.policies.watch import RulesetWatch
from runtime.network.services.plan import Endpoint, ServiceNetwork, ServicePort
from tests.kernel.netlab import HOST, INTERNET, NEVER, SOON, Lab, ask, lab
from tests.kernel.policy_kit import Pods, Probe, pods_of
from tests.unit.network_policies.kit import pod, policy, uid, world

pytestmark = pytest.mark.kernel
DENY_A = "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}"
SAME_BY_PORT = (
    "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}], ports: [{port: 80}]}]}"
)
OPEN, SHUT = ("x/b", "x/a", 80, "TCP"), ("x/c", "x/a", 80, "TCP")
NAMES = ("x/a", "x/b", "x/c")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        made.need_nat()
        yield made


@pytest.fixture
def nft() -> str:
    if not (path := shutil.which("nft")):
        pytest.skip("needs nft")
    return path


async def put(node: NetworkClient, *specs: str, names: Sequence[str] = NAMES) -> None:
    rules = world(
        *(policy(f"x/p{n}", spec) for n, spec in enumerate(specs)), pods=[pod(one) for one in names]
    ).rules
    await node.replace_policies(rules.policies, rules.pods)


class Prober:
    """Tries an open and a shut connection again and again; `wrong`: when they were not so (seconds since the start)."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self.rounds = 0
        self.shut: list[float] = []  # the open connection was not answered
        self.open: list[float] = []  # the shut one was
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.began = time.monotonic()

    def _run(self) -> None:
        while not self._ended.is_set():
            at = time.monotonic() - self.began
            found = self._pods.answered([OPEN, SHUT], within=0.05)
            self.rounds += 1
            if OPEN not in found:
                self.shut.append(at)
            if SHUT in found:
                self.open.append(at)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def test_changes_and_a_killed_helper_open_nothing(network: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        with pods_of(network, node) as pods:
            for name in NAMES:
                await pods.add(name)
            await put(node, DENY_A)
            with Prober(pods) as prober:
                for turn in range(20):
                    await put(node, *((DENY_A,), (SAME_BY_PORT,), (DENY_A, SAME_BY_PORT))[turn % 3])
                    await asyncio.sleep(0.05)
                for _ in range(3):
                    os.kill(node.helper_pid, signal.SIGKILL)
                    await asyncio.sleep(0.1)
                    assert await node.audit() == []
            assert prober.rounds > 10
            assert not prober.open and not prober.shut

    network.with_node(scenario)


def test_the_first_packet_is_judged(network: Lab) -> None:
    """The pod answers as soon as it has its interface, and is tried before, at that moment and afterwards."""

    async def scenario(node: NetworkClient) -> None:
        with pods_of(network, node) as pods:
            await pods.add("x/c")
            await pods.add("x/b")
            for turn in range(5):
                await put(node, DENY_A)
                ns, address = network.namespace(), f"10.77.0.{4 + turn}"
                pods.places["x/a"] = ns, address
                for place, device in (
                    (pods.places["x/b"][0], "eth0"),
                    (pods.places["x/c"][0], "eth0"),
                    (network.host, "br-lab"),
                ):  # nobody has to wait for ARP
                    place.sh("ip", "neigh", "replace", address, "lladdr", mac_of(address), "dev", device)
                for protocol in ("TCP", "UDP"):
                    pods.servers.listen(ns, protocol, 80)
                with Prober(pods) as prober:
                    given = await node.add(uid("x/a"), ns.path)
                    assert given.ip == address
                    await asyncio.sleep(0.2)
                assert not prober.open and pods.answered([OPEN]) == {OPEN}
                await node.delete(uid("x/a"))

    network.with_node(scenario)


def test_an_address_of_another_pod_brings_no_connections_along(network: Lab) -> None:
    """A UDP sender that does not pause keeps its entry in connection tracking, which would pass without a look."""

    async def scenario(node: NetworkClient) -> None:
        with pods_of(network, node) as pods:
            address = await pods.add("x/b")  # not restricted
            await pods.add("x/c")
            sender = pods.places["x/c"][0].run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with sender:
                sender.settimeout(SOON)
                sender.connect((address, 80))
                sender.send(b"?")
                assert sender.recv(10) == b"?"
                sender.settimeout(NEVER)
                await put(node, DENY_A)
                await node.delete(uid("x/b"))
                ns = network.namespace()
                pods.servers.listen(ns, "UDP", 80)
                again = await node.add(uid("x/a"), ns.path, had=address)
                assert again.ip == address
                sender.send(b"?")
                with pytest.raises(OSError):
                    sender.recv(10)

    network.with_node(scenario)


def test_a_deleted_pod_stays_shut_until_its_interface_is_gone(network: Lab, nft: str) -> None:
    """Its object, and the policy that restricted it, may go before its sandbox does."""

    async def scenario(node: NetworkClient) -> None:
        with pods_of(network, node) as pods:
            for name in NAMES:
                await pods.add(name)
            await put(node, DENY_A)
            await node.change_policies((), (), [uid(name) for name in NAMES])
            assert pods.answered([SHUT, OPEN]) == set()
            await node.delete(uid("x/a"))
            assert await node.audit() == []
            assert "policies" not in network.host.sh(nft, "list", "tables")

    network.with_node(scenario)


async def change(
    node: NetworkClient, before: PolicySet, after: PolicySet, *, gone: Sequence[str] = ()
) -> None:
    """Send what differs, as the daemon does. `gone`: the names of deleted pods."""
    changed = [one for one in after.pods if one not in before.pods]
    await node.change_policies(after.policies, changed, [uid(name) for name in gone])


def rules_of(*policies: tuple[str, str], names: Sequence[str] = NAMES) -> PolicySet:
    return world(*(policy(*one) for one in policies), pods=[pod(one) for one in names]).rules


def test_a_set_goes_before_a_deleted_pod_that_is_in_it(network: Lab) -> None:
    async def scenario(node: NetworkClient) -> None:
        with pods_of(network, node) as pods:
            for name in NAMES:
                await pods.add(name)
            before, helper = rules_of(("x/p", DENY_A)), node.helper_pid
            await node.replace_policies(before.policies, before.pods)
            without = rules_of(("x/p", "{podSelector: {matchLabels: {pod: a}}}"), names=("x/a", "x/c"))
            await change(node, before, without, gone=["x/b"])
            assert await node.audit() == [] and pods.answered([OPEN, SHUT]) == set()
            await node.delete(uid("x/b"))
            assert await node.audit() == [] and node.helper_pid == helper

    network.with_node(scenario)


def test_a_later_policy_finds_the_named_ports_of_pods(network: Lab) -> None:
    """The first policy names the port for peers that an IPv4 network does not have, and so needs no set of it."""
    first = (
        "x/p",
        "{podSelector: {matchLabels: {pod: c}}, policyTypes: [Egress],"
        " egress: [{to: [{ipBlock: {cidr: '2001:db8::/32'}}], ports: [{port: serve-80-tcp}]}]}",
    )
    later = (
        "x/q",
        "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{ports: [{port: serve-80-tcp}]}]}",
    )

    async def scenario(node: NetworkClient) -> None:
        with pods_of(network, node) as pods:
            for name in NAMES:
                await pods.add(name)
            before, after = rules_of(first), rules_of(first, later)
            await node.replace_policies(before.policies, before.pods)
            await change(node, before, after)
            other: Probe = ("x/b", "x/a", 81, "TCP")
            assert pods.answered([OPEN, SHUT, other]) == {OPEN}
            assert await node.audit() == []

    network.with_node(scenario)


def test_a_change_does_not_wait_for_interfaces_of_deleted_pods(network: Lab) -> None:
    async def first(node: NetworkClient, turn: int) -> str:
        ns = network.namespace()
        await node.add(f"pod-{turn}", ns.path)
        rules = rules_of(("x/p", DENY_A))
        both = [
            asyncio.create_task(node.delete(f"pod-{turn}"), name="delete"),
            asyncio.create_task(node.change_policies(rules.policies, rules.pods, ()), name="change"),
        ]
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*both)
        return "both" if len(done) > 1 else done.pop().get_name()

    async def scenario(node: NetworkClient) -> None:
        await put(node, DENY_A)
        assert "change" in [await first(node, turn) for turn in range(5)]

    network.with_node(scenario)


def test_only_changes_of_other_programs_are_looked_for(network: Lab, nft: str) -> None:
    rules = rules_of(("x/p", DENY_A))
    wanted = layout(rules.policies, [(Direction.INGRESS, ("x/p",))])

    def body() -> None:
        tables = PolicyTables("lab-policies")
        watch = RulesetWatch("lab-policies", ours=tables.ports)
        try:
            tables.rebuild(Scope(Subnet.parse("10.77.0.0/24"), "k"), wanted, wanted.elements)
            tables.add(pod_elements(rules.pods[0], ("10.77.0.9",), wanted.sets), wanted.sets)
            assert not watch.changed()
            network.host.sh(nft, "flush", "chain", "inet", "lab-policies", "ingress")
            assert watch.changed() and not watch.changed()
        finally:
            watch.close()
            tables.close()

    network.host.run(body)


@pytest.mark.parametrize(
    "damage", ["flush ruleset", "delete table inet TABLE", "flush chain inet TABLE ingress"]
)
def test_damage_is_repaired_at_once(network: Lab, nft: str, damage: str) -> None:
    async def scenario(node: NetworkClient) -> None:
        with pods_of(network, node) as pods:
            for name in NAMES:
                await pods.add(name)
            await put(node, DENY_A)
            with Prober(pods) as prober:
                await asyncio.sleep(0.1)
                network.host.sh(nft, *damage.replace("TABLE", f"{network.table()}-policies").split())
                repaired = time.monotonic() - prober.began + 0.05
                await asyncio.sleep(0.4)
            assert [at for at in prober.open if at > repaired] == []
            assert not [one for one in await node.audit() if "Policies" in one]
            assert any("NetworkPolicies" in one for one in (await node.repair()).repaired)

    network.with_node(scenario)


def test_services_the_host_and_dns(network: Lab) -> None:
    """A connection through a Service is judged by its pod, the host's own passes, and the DNS server is a peer."""

    async def scenario(node: NetworkClient) -> None:
        with pods_of(network, node) as pods:
            for name in NAMES:
                await pods.add(name)
            target = Endpoint(pods.addresses["x/a"], 80)
            port = ServicePort(
                "x/web:80/TCP", "TCP", 8000, ("10.96.0.10",), node_port=30080, endpoints=(target,),
                external_endpoints=(target,),
            )  # fmt: skip
            await node.replace_services(ServiceNetwork("10.96.0.0/16", (30000, 32767)), [port])
            pods.servers.listen(network.host, "UDP", 53, "10.77.0.1")
            dns: list[Probe] = [(name, "10.77.0.1", 53, "UDP") for name in NAMES]
            through: list[Probe] = [(name, "10.96.0.10", 8000, "TCP") for name in NAMES]
            assert pods.answered([*dns, *through]) == {*dns, *through}
            await put(node, DENY_A)
            assert pods.answered([*dns, *through]) == {*dns, *through[:2]}, "a pod reaches itself"
            pods.places["host"], pods.places["internet"] = (network.host, HOST), (network.internet, INTERNET)
            own: Probe = ("host", "x/a", 80, "TCP")
            outside: Probe = ("internet", HOST, 30080, "TCP")
            assert pods.answered([own, outside]) == {own}
            await put(node, "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 198.51.100.1/32}}]}]}")
            assert pods.answered([own, outside, *through]) == {own, outside, through[0]}
            await put(node, "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress]}")
            rules = world(
                policy("x/p", "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress]}"),
                pods=[pod(one) for one in NAMES],
            ).rules
            await node.replace_policies(rules.policies, [*rules.pods, PodRules("dns", address="10.77.0.1")])
            assert pods.answered([*dns, *through]) == {dns[0], dns[2], through[0], through[2]}

    network.with_node(scenario)


def test_copies_between_pods_are_dropped_while_a_policy_restricts_one(network: Lab) -> None:
    def heard(pods: Pods) -> bool:
        with contextlib.ExitStack() as opened:
            listener = opened.enter_context(
                pods.places["x/b"][0].run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            )
            listener.bind(("0.0.0.0", 999))
            listener.settimeout(NEVER)
            sender = opened.enter_context(
                pods.places["x/c"][0].run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            )
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sender.sendto(b"!", ("10.77.0.255", 999))
            try:
                return listener.recv(10) == b"!"
            except TimeoutError:
                return False

    async def scenario(node: NetworkClient) -> None:
        with pods_of(network, node) as pods:
            for name in NAMES:
                await pods.add(name)
            assert heard(pods)
            await put(node, DENY_A)
            assert not heard(pods) and ask(network.host, pods.addresses["x/a"], 81) is not None

    network.with_node(scenario)
