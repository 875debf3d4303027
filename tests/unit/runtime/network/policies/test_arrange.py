"""The tables of policies do what the model of their verdicts says, in random worlds and in Kubernetes' cases."""

from __future__ import annotations

import random
import re

import pytest

from runtime.network.policies.arrange import (
    LONGEST_NAME,
    Direction,
    chain_of_policy,
    difference,
    layout,
    pod_elements,
)
from runtime.network.policies.plan import PodRules
from tests.unit.network_policies.cases import CASES, EVERY, Case
from tests.unit.network_policies.kit import PODS, policy, uid, world
from tests.unit.network_policies.simulation import Tables, random_policies

ADDRESSES = {name: f"10.77.0.{index}" for index, name in enumerate(PODS, 2)}
ADDRESSES6 = {name: f"fd00:77::{index:x}" for index, name in enumerate(PODS, 2)}
BY_UID = {uid(name): address for name, address in ADDRESSES.items()}


def _in_ipv6(spec: str) -> str:
    """The same policy, with the blocks of ADDRESSES in ADDRESSES6."""
    return re.sub(r"10\.77\.0\.(\d+)/(\d+)", lambda m: f"'fd00:77::{int(m[1]):x}/{int(m[2]) + 96}'", spec)


@pytest.mark.parametrize("seed", range(150))
def test_the_tables_agree_with_the_verdicts(seed: int) -> None:
    second = seed % 3 == 0  # of IPv6
    addresses, stranger = (ADDRESSES6, "fd00:77::c") if second else (ADDRESSES, "10.77.0.12")
    policies = [
        policy(name, _in_ipv6(spec) if second else spec)
        for name, spec in random_policies(random.Random(seed))
    ]
    found = world(*policies, addresses=addresses)
    tables = Tables(found.rules, {uid(name): address for name, address in addresses.items()})
    outside = [(stranger, PODS[0], 80, "TCP"), (PODS[0], stranger, 80, "TCP")]
    for source, destination, port, protocol in (*EVERY, *outside):
        ends = addresses.get(source, source), addresses.get(destination, destination)
        assert tables.forwards(*ends, protocol, port) == found.allows(source, destination, port, protocol)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_of_kubernetes(case: Case) -> None:
    policies = [policy(name, spec.replace("Y_B", ADDRESSES["y/b"])) for name, spec in case.policies.items()]
    tables = Tables(world(*policies, addresses=ADDRESSES).rules, BY_UID)
    allowed = {
        (source, destination, port, protocol)
        for source, destination, port, protocol in EVERY
        if tables.forwards(ADDRESSES[source], ADDRESSES[destination], protocol, port)
    }
    assert allowed == case.allowed()


def test_the_number_of_rules_depends_on_policies_alone() -> None:
    spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 80}, {port: 81}]}]}"
    found = world(policy("x/p", spec)).rules
    many = [PodRules(f"u{n}", ("x/p",), None, found.pods[0].groups) for n in range(1000)]
    one = layout(found.policies, [(Direction.INGRESS, ("x/p",))])
    assert sum(len(matches) for _, matches in one.matches.values()) == 1
    elements = [pod_elements(pod, (f"10.1.{n >> 8}.{n & 255}",), one.sets) for n, pod in enumerate(many)]
    assert {len(found) for found in elements} == {3}


def test_a_change_of_one_pod_touches_its_elements() -> None:
    found = world(policy("x/p", "{podSelector: {}}")).rules
    sets = layout(found.policies, [(Direction.INGRESS, ("x/p",))]).sets
    before = pod_elements(found.pods[0], ("10.0.0.1",), sets)
    assert difference(before, before) == ({}, {})
    assert difference(before, {}) == (before, {})


def test_long_names_stay_names() -> None:
    long, other = (chain_of_policy(Direction.INGRESS, f"{'n' * 63}/{'p' * 252}{end}") for end in "ab")
    assert len(long) <= LONGEST_NAME and long != other
