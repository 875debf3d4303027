"""Pure: the documents of NetworkPolicies as rules: selectors by name, networks and ports as ranges.

Source: Kubernetes staging/src/k8s.io/api/networking/v1/types.go. Documents have Kubernetes' defaults already.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kubelite.kube.json import Json
from runtime.network.policies.plan import Block, NamedPort, Peers, Policy, PortRange, Ports, Rule

ALL_PORTS = (0, 65535)
_Addresses = tuple[int, int]  # first and last


@dataclass(frozen=True, slots=True)
class Selected:
    """Pods by their labels. `namespace`: those of that namespace alone; "": of the namespaces whose labels match
    `namespaces`. No `pods`: all of them."""

    namespace: str
    namespaces: Json | None
    pods: Json | None


@dataclass(frozen=True, slots=True)
class Compiled:
    """All policies of a node. `targets`: by name, the pods that each policy selects. `groups`: by name, pods that
    rules name as peers. `named`: the ports by name that rules use."""

    policies: tuple[Policy, ...]
    targets: Mapping[str, Selected]
    groups: Mapping[str, tuple[Selected, ...]]
    named: frozenset[NamedPort]


def compiled(documents: Iterable[Json]) -> Compiled:
    """Compile all NetworkPolicies of a node. Peers with the same selectors are one group, whichever policies have
    them."""
    policies, targets = [], {}
    groups: dict[str, tuple[Selected, ...]] = {}
    for doc in sorted(documents, key=policy_name):
        namespace, spec = doc["metadata"]["namespace"], doc["spec"]
        types = spec.get("policyTypes") or ()
        name = policy_name(doc)
        ingress, egress = (
            tuple(_rule(rule, alias, namespace, groups) for rule in spec.get(direction.lower()) or ())
            if direction in types
            else None
            for direction, alias in (("Ingress", "from"), ("Egress", "to"))
        )
        policies.append(Policy(name, ingress, egress))
        targets[name] = Selected(namespace, None, spec.get("podSelector"))
    named = frozenset(
        port
        for policy in policies
        for rule in (*(policy.ingress or ()), *(policy.egress or ()))
        for port in (rule.ports.named if rule.ports else ())
    )
    return Compiled(tuple(policies), targets, groups, named)


def policy_name(doc: Json) -> str:
    return f"{doc['metadata']['namespace']}/{doc['metadata']['name']}"


def _rule(rule: Json, alias: str, namespace: str, groups: dict[str, tuple[Selected, ...]]) -> Rule:
    """No peers and no ports mean all of them (types.go: NetworkPolicyIngressRule, NetworkPolicyEgressRule)."""
    peers, ports = rule.get(alias) or (), rule.get("ports") or ()
    return Rule(_peers(peers, namespace, groups) if peers else None, _ports(ports) if ports else None)


def _peers(peers: Sequence[Json], namespace: str, groups: dict[str, tuple[Selected, ...]]) -> Peers:
    selected = tuple(_selected(peer, namespace) for peer in peers if "ipBlock" not in peer)
    group = ""
    if selected:
        group = _group_name(selected)
        groups[group] = selected
    return Peers(group, tuple(_blocks(peer["ipBlock"] for peer in peers if "ipBlock" in peer)))


def _selected(peer: Json, namespace: str) -> Selected:
    """types.go: NetworkPolicyPeer: without a namespaceSelector, pods of the policy's own namespace."""
    if "namespaceSelector" in peer:
        return Selected("", peer["namespaceSelector"] or {}, peer.get("podSelector"))
    return Selected(namespace, None, peer.get("podSelector"))


def _group_name(selected: tuple[Selected, ...]) -> str:
    listed = sorted(json.dumps([one.namespace, one.namespaces, one.pods], sort_keys=True) for one in selected)
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:12]


def _blocks(blocks: Iterable[Json]) -> Iterator[Block]:
    """Yield the addresses of networks without their exceptions, as ranges that do not touch each other."""
    ranges: dict[int, list[_Addresses]] = {4: [], 6: []}
    for block in blocks:
        network = _network(block["cidr"])
        parts = [(int(network.network_address), int(network.broadcast_address))]
        for text in block.get("except") or ():
            hole = _network(text)
            if hole.version == network.version:
                parts = _without(parts, (int(hole.network_address), int(hole.broadcast_address)))
        ranges[network.version] += parts
    for version, kind in ((4, ipaddress.IPv4Address), (6, ipaddress.IPv6Address)):
        for first, last in merged(ranges[version]):
            yield Block(str(kind(first)), str(kind(last)))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text.strip(), strict=False)


def _without(parts: Iterable[_Addresses], hole: _Addresses) -> list[_Addresses]:
    left = []
    for first, last in parts:
        if first < hole[0]:
            left.append((first, min(last, hole[0] - 1)))
        if last > hole[1]:
            left.append((max(first, hole[1] + 1), last))
    return left


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers as ranges that neither overlap nor touch, in order."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def _ports(ports: Iterable[Json]) -> Ports:
    """types.go: NetworkPolicyPort: no port means all ports of the protocol; endPort ends a range."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    named = set()
    for port in ports:
        protocol, number = port.get("protocol") or "TCP", port.get("port")
        if isinstance(number, str):
            named.add(NamedPort(protocol, number))
        else:
            whole = ALL_PORTS if number is None else (number, port.get("endPort") or number)
            ranges.setdefault(protocol, []).append(whole)
    return Ports(
        tuple(
            PortRange(protocol, first, last)
            for protocol, found in sorted(ranges.items())
            for first, last in merged(found)
        ),
        tuple(sorted(named)),
    )
