"""A node on a kernel without netfilter's netlink: a filter of system calls refuses such sockets to the network
helper."""

from __future__ import annotations

import errno
import socket
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import NetworkError
from runtime.network.client import NetworkClient
from runtime.network.netlink import NETLINK_NETFILTER
from runtime.network.services.plan import Endpoint, ServiceNetwork, ServicePort
from runtime.security import seccomp
from tests.kernel.netlab import Lab, Server, ask, lab
from tests.unit.network_policies.kit import pod, policy, uid, world

pytestmark = pytest.mark.kernel
CLUSTER = ServiceNetwork("10.96.0.0/16", (30000, 32767))
LACKS = "this kernel cannot filter pods' connections with nftables"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        yield made


def refuse_netfilter() -> None:
    """No socket of netfilter's netlink for this thread, and the processes that it starts."""
    rule = {
        "names": ["socket"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": errno.EPROTONOSUPPORT,
        "args": [
            {"index": 0, "value": int(socket.AF_NETLINK), "op": "SCMP_CMP_EQ"},
            {"index": 2, "value": NETLINK_NETFILTER, "op": "SCMP_CMP_EQ"},
        ],
    }
    seccomp.install(seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))


def with_node(network: Lab, scenario: Coroutine[Any, Any, None]) -> None:
    async def run() -> None:
        refuse_netfilter()
        await scenario

    network.play(run)


def test_a_node_without_policies_runs(network: Lab) -> None:
    async def scenario() -> None:
        node = await NetworkClient.start(network.config())
        try:
            assert await node.replace_policies((), ()) == []
            assert await node.replace_services(CLUSTER, []) == []
            ns = network.namespace()
            address = (await node.add("pod", ns.path)).ip
            with Server(ns, 80):
                assert ask(network.host, address, 80) == "10.77.0.1"
            assert await node.audit() == [] and not (await node.repair()).failures
            await node.delete("pod")
            await node.teardown()
        finally:
            await node.close()

    with_node(network, scenario())


def test_a_node_with_policies_says_so_and_starts_no_restricted_pod(network: Lab) -> None:
    rules = world(
        policy("x/p", "{podSelector: {matchLabels: {pod: a}}}"), pods=[pod("x/a"), pod("x/b")]
    ).rules

    async def scenario() -> None:
        node = await NetworkClient.start(network.config())
        try:
            with pytest.raises(NetworkError, match=LACKS) as refused:
                await node.replace_policies(rules.policies, rules.pods)
            assert (refused.value.reason, refused.value.retriable) == ("NetworkPoliciesNotSupported", False)
            a, b = network.namespace(), network.namespace()
            with pytest.raises(NetworkError, match=LACKS):
                await node.add(uid("x/a"), a.path)
            assert a.links() == ["lo"]
            assert (await node.add(uid("x/b"), b.path)).ip
            (said,) = await node.audit()
            assert said.startswith(f"NetworkPolicies are not in force: {LACKS}")
            done = await node.repair()
            assert done.left == [said] and not done.repaired
            with pytest.raises(NetworkError, match=LACKS):
                await node.change_policies(rules.policies, rules.pods, ())
            await node.replace_policies((), ())
            assert (await node.add(uid("x/a"), a.path)).ip and await node.audit() == []
            await node.teardown()
        finally:
            await node.close()

    with_node(network, scenario())


def test_services_are_refused_with_their_reason(network: Lab) -> None:
    port = ServicePort("x/web:80/TCP", "TCP", 80, ("10.96.0.10",), endpoints=(Endpoint("10.77.0.2", 80),))

    async def scenario() -> None:
        node = await NetworkClient.start(network.config())
        try:
            with pytest.raises(NetworkError, match="cannot route Services with nftables") as refused:
                await node.replace_services(CLUSTER, [port])
            assert (refused.value.reason, refused.value.retriable) == ("ServicesNotSupported", False)
            (said,) = await node.audit()
            assert said.startswith("no Service is reachable: this kernel cannot route Services with nftables")
            assert (await node.repair()).left == [said]
            await node.replace_services(CLUSTER, [])
            assert await node.audit() == []
            await node.teardown()
        finally:
            await node.close()

    with_node(network, scenario())
