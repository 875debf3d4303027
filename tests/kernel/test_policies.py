"""NetworkPolicies in the kernel: the cases of Kubernetes' tests, each connection tried before and after each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.network.client import NetworkClient
from tests.kernel.netlab import Lab, lab
from tests.kernel.policy_kit import pods_of
from tests.unit.network_policies.cases import CASES, EVERY
from tests.unit.network_policies.kit import PODS, policy, world

pytestmark = pytest.mark.kernel


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Lab]:
    with lab(str(tmp_path)) as made:
        made.need_nat()
        yield made


def test_the_cases_of_kubernetes(network: Lab) -> None:
    """Each case replaces the policies of the one before, on the same nine pods."""

    async def scenario(node: NetworkClient) -> None:
        with pods_of(network, node) as pods:
            for name in PODS:
                await pods.add(name)
            assert pods.settled(EVERY, set(EVERY)) == set(EVERY)
            for case in CASES:
                specs = {
                    name: spec.replace("Y_B", pods.addresses["y/b"]) for name, spec in case.policies.items()
                }
                rules = world(*(policy(name, spec) for name, spec in specs.items())).rules
                await node.replace_policies(rules.policies, rules.pods)
                allowed = case.allowed()
                assert pods.settled(EVERY, allowed) == allowed, case.name
                assert await node.audit() == [], case.name
            await node.replace_policies((), ())
            assert pods.settled(EVERY, set(EVERY)) == set(EVERY)

    network.with_node(scenario)
    assert network.host.sh("nft", "list", "tables") == ""
