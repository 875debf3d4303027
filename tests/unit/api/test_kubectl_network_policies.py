"""NetworkPolicies: the output of kubelite equals that of kubectl."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api.server import Served
from tests.unit.api.test_kubectl import _ageless, kubectl
from tests.unit.cli.kit import kubelite as command
from tests.unit.network_policies.kit import policy

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl (kubernetes-client)")

SPECS = {
    "deny": "{podSelector: {}, policyTypes: [Ingress, Egress]}",
    "open": "{podSelector: {matchLabels: {app: web}}, ingress: [{}]}",
    "rules": """
podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}
ingress:
- from:
  - {podSelector: {matchLabels: {a: b}}, namespaceSelector: {}}
  - ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.0/25, 192.0.2.128/26]}
  ports: [{port: 80}, {port: web, protocol: UDP}, {port: 70, endPort: 79}]
- from: [{podSelector: {}}]
egress:
- to: [{namespaceSelector: {matchLabels: {ns: x}}}]
""",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served.at(tmp_path) as served:
        for name, spec in SPECS.items():
            doc = policy(f"default/{name}", spec)
            doc["metadata"] |= {"uid": f"uid-{name}", "creationTimestamp": "2026-11-24T14:00:00Z"}
            served.run(served.node.store.create("NetworkPolicy", doc))
        yield served


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "netpol"),
        ("get", "networkpolicies", "rules", "-o", "json"),
        ("describe", "netpol", "deny"),
        ("describe", "netpol"),
    ],
)
def test_same_output(server: Served, arguments: tuple[str, ...]) -> None:
    theirs = kubectl(server, *arguments)
    assert theirs.returncode == 0, theirs.stderr
    ours = command(server, *arguments)
    assert _ageless(ours.stdout) == _ageless(theirs.stdout)
