"""Policies, pods and namespaces in a few words, and what the decision says about connections between them.

The world is that of Kubernetes' tests (test/e2e/network/netpol/model.go, kubemanager.go): three namespaces x, y and z
with the label ns=NAME, each with pods a, b and c with the label pod=NAME, which serve the ports 80 and 81 with TCP and
UDP, named serve-80-tcp and so on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from kubelite.kube.json import Json
from kubelite.network_policies.decide import decide
from kubelite.network_policies.pods import PodFacts, facts_of
from manifests.types.services.network_policy import NetworkPolicy
from manifests.validation.checking import check
from runtime.network.policies.plan import PolicySet
from runtime.network.policies.verdict import Connection, End, Verdict, verdict

NAMESPACES = {name: {"ns": name} for name in "xyz"}
PODS = [f"{namespace}/{pod}" for namespace in "xyz" for pod in "abc"]
ADDRESSES = {name: f"10.88.{1 + index // 3}.{index % 3 + 2}" for index, name in enumerate(PODS)}
OUTSIDE = "192.0.2.7"
PORTS, PROTOCOLS = (80, 81), ("TCP", "UDP")


def uid(name: str) -> str:
    return name.replace("/", ".")


def pod(name: str, labels: Json | None = None, ports: list[Json] | None = None, **spec: Any) -> Json:
    namespace, _, short = name.partition("/")
    named = [
        {"containerPort": number, "protocol": protocol, "name": f"serve-{number}-{protocol.lower()}"}
        for number in PORTS
        for protocol in PROTOCOLS
    ]
    metadata = {"namespace": namespace, "name": short, "uid": uid(name), "labels": labels or {"pod": short}}
    container = {"name": "c", "ports": named if ports is None else ports}
    return {"metadata": metadata, "spec": {"containers": [container], **spec}}


def policy(name: str, spec: str) -> Json:
    """A policy "namespace/name" with this spec in YAML, with its defaults."""
    namespace, _, short = name.partition("/")
    found, wrong = check(
        NetworkPolicy,
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"namespace": namespace, "name": short},
            "spec": yaml.safe_load(spec),
        },
    )
    assert found is not None and not wrong, wrong
    return found.to_json()


@dataclass(frozen=True)
class World:
    """Decided rules, and the addresses of pods."""

    rules: PolicySet
    addresses: dict[str, str]

    def end(self, name: str) -> End:
        rules = {one.uid: one for one in self.rules.pods}
        return End(self.addresses.get(name, name), rules.get(uid(name)))

    def judge(self, source: str, destination: str, port: int = 80, protocol: str = "TCP") -> Verdict:
        policies = {one.name: one for one in self.rules.policies}
        return verdict(policies, Connection(self.end(source), self.end(destination), protocol, port))

    def allows(self, source: str, destination: str, port: int = 80, protocol: str = "TCP") -> bool:
        return self.judge(source, destination, port, protocol).allowed


def world(
    *policies: Json,
    pods: list[Json] | None = None,
    namespaces: Json | None = None,
    addresses: dict[str, str] = ADDRESSES,
) -> World:
    listed = [pod(name) for name in PODS] if pods is None else pods
    facts: list[PodFacts] = [found for one in listed if (found := facts_of(one)) is not None]
    labels = NAMESPACES if namespaces is None else namespaces
    return World(decide(policies, facts, labels), addresses)
