"""NetworkPolicies: defaults and rules.

Rows follow Kubernetes 1.36: pkg/apis/networking/v1/defaults_test.go (TestSetDefaultNetworkPolicy) and
pkg/apis/networking/validation/validation_test.go (TestValidateNetworkPolicy).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.manifests.workloads.kit import Doc, defaulted, document, one, problems


def network_policy(**spec: Any) -> Doc:
    return document("NetworkPolicy", {"podSelector": {}, **spec})


@pytest.mark.parametrize(
    ("given", "types"),
    [
        ({}, ["Ingress"]),
        ({"ingress": [{}]}, ["Ingress"]),
        ({"egress": []}, ["Ingress"]),
        ({"egress": [{}]}, ["Ingress", "Egress"]),
        ({"egress": [{}], "policyTypes": ["Egress"]}, ["Egress"]),
        ({"policyTypes": ["Egress"]}, ["Egress"]),
    ],
)
def test_default_policy_types(given: Doc, types: list[str]) -> None:
    assert defaulted(network_policy(**given))["spec"]["policyTypes"] == types


def test_default_protocol_and_what_an_empty_selector_means() -> None:
    rule = {
        "from": [{"podSelector": {}}, {"namespaceSelector": {}}],
        "ports": [{"port": 80}, {"port": "web"}],
    }
    found = defaulted(network_policy(ingress=[rule, {}]))["spec"]
    assert found["podSelector"] == {}
    assert found["ingress"] == [
        {
            "from": [{"podSelector": {}}, {"namespaceSelector": {}}],
            "ports": [{"port": 80, "protocol": "TCP"}, {"port": "web", "protocol": "TCP"}],
        },
        {},
    ]


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"ports": [{"port": 0}]}, "spec.ingress[0].ports[0].port: Invalid value: 0: must be between"),
        (
            {"ports": [{"port": 70000}]},
            "spec.ingress[0].ports[0].port: Invalid value: 70000: must be between",
        ),
        (
            {"ports": [{"port": "Not_A_Name"}]},
            'spec.ingress[0].ports[0].port: Invalid value: "Not_A_Name": must contain only alphanumeric',
        ),
        (
            {"ports": [{"port": 80, "protocol": "ICMP"}]},
            'spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
        ),
        (
            {"ports": [{"endPort": 80}]},
            "spec.ingress[0].ports[0].endPort: Invalid value: 80: may not be specified when `port` is not specified",
        ),
        (
            {"ports": [{"port": "web", "endPort": 80}]},
            "spec.ingress[0].ports[0].endPort: Invalid value: 80: may not be specified when `port` is non-numeric",
        ),
        (
            {"ports": [{"port": 80, "endPort": 79}]},
            "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
        ),
        ({"from": [{}]}, "spec.ingress[0].from[0]: Required value: must specify a peer"),
        (
            {"from": [{"podSelector": {}, "ipBlock": {"cidr": "192.0.2.0/24"}}]},
            "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
        ),
        ({"from": [{"ipBlock": {"cidr": ""}}]}, "spec.ingress[0].from[0].ipBlock.cidr: Required value"),
        (
            {"from": [{"ipBlock": {"cidr": "192.0.2.0"}}]},
            'spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "192.0.2.0": must be a valid CIDR value',
        ),
        (
            {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["198.51.100.0/25"]}}]},
            'spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "198.51.100.0/25": must be a strict subset',
        ),
        (
            {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/24"]}}]},
            'spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "192.0.2.0/24": must be a strict subset',
        ),
        (
            {"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}]},
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].operator: Invalid value: "
            '"Is": not a valid selector operator',
        ),
    ],
)
def test_a_rule_that_is_wrong(rule: Doc, sentence: str) -> None:
    one(problems(network_policy(ingress=[rule])), sentence)


def test_egress_rules_are_checked_alike() -> None:
    one(problems(network_policy(egress=[{"to": [{}]}])), "spec.egress[0].to[0]: Required value")


def test_policy_types_that_are_wrong() -> None:
    one(problems(network_policy(policyTypes=["In"])), 'spec.policyTypes[0]: Unsupported value: "In"')
    many = ["Ingress", "Egress", "Ingress"]
    one(problems(network_policy(policyTypes=many)), "spec.policyTypes: Invalid value")
