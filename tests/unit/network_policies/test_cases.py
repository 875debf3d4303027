"""The cases of Kubernetes' tests, decided and judged without a kernel (tests/kernel/test_policies.py has one)."""

from __future__ import annotations

import pytest

from tests.unit.network_policies.cases import CASES, EVERY, Case
from tests.unit.network_policies.kit import PODS, policy, world

ADDRESSES = {name: f"10.77.0.{index}" for index, name in enumerate(PODS, 2)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_of_kubernetes(case: Case) -> None:
    policies = [policy(name, spec.replace("Y_B", ADDRESSES["y/b"])) for name, spec in case.policies.items()]
    found = world(*policies, addresses=ADDRESSES)
    assert {probe for probe in EVERY if found.allows(*probe)} == case.allowed()
