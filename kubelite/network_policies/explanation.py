"""Pure: why NetworkPolicies allow a connection or drop it, and which of them restrict a pod, in sentences."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kubelite.kube.json import Json
from kubelite.network_policies.compiled import compiled
from kubelite.network_policies.pods import dns_server, facts_of, pod_rules
from kubelite.services.backends import addresses_of
from runtime.network.policies.plan import NamedPort, PodRules
from runtime.network.policies.verdict import Connection, End, Judgement, verdict


@dataclass(frozen=True, slots=True)
class Cluster:
    """The documents that decide: NetworkPolicies, pods and Namespaces of the node."""

    policies: Sequence[Json]
    pods: Sequence[Json]
    namespaces: Sequence[Json]

    def labels(self) -> Mapping[str, Mapping[str, str]]:
        return {doc["metadata"]["name"]: doc["metadata"].get("labels") or {} for doc in self.namespaces}

    def pod(self, namespace: str, name: str) -> Json | None:
        wanted = namespace, name
        return next((pod for pod in self.pods if _name(pod) == wanted), None)

    def pod_at(self, address: str) -> Json | None:
        """The pod with this address, of either family."""
        return next((pod for pod in self.pods if address in addresses_of(pod)), None)


@dataclass(frozen=True, slots=True)
class Trace:
    """The answer to "may this connection be?": `allowed`, and a sentence for each step."""

    allowed: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """One end: what a person calls it, its address, and its pod, if it is one."""

    name: str
    address: str
    pod: Json | None = None


def trace(
    cluster: Cluster, source: Place, destination: Place, port: int, protocol: str, *, dns: str
) -> Trace:
    """Say which policies allow or drop a connection. `dns`: the address of the node's DNS server."""
    if source.pod is not None and source.pod is destination.pod:
        return Trace(True, ("a pod may always reach itself",))
    host = [
        f"{place.name} is in the host's network: no policy sees its packets"
        for place in (source, destination)
        if place.pod is not None and place.pod["spec"].get("hostNetwork")
    ]
    if host:
        return Trace(True, tuple(host))
    rules = compiled(cluster.policies)
    labels = cluster.labels()

    def end(place: Place) -> End:
        facts = facts_of(place.pod) if place.pod is not None else None
        if facts is None and place.address == dns and port == 53:
            facts = dns_server(dns)
        return End(place.address, pod_rules(facts, rules, labels) if facts else None)

    found = verdict(
        {policy.name: policy for policy in rules.policies},
        Connection(end(source), end(destination), protocol, port),
    )
    reasons = (
        f"{source.name} {_said(found.egress, 'egress')}",
        f"{destination.name} {_said(found.ingress, 'ingress')}",
    )
    return Trace(found.allowed, reasons)


def traces(
    cluster: Cluster,
    source: Sequence[Place],
    destination: Sequence[Place],
    port: int,
    protocol: str,
    *,
    dns: str,
) -> Mapping[str, Trace]:
    """Trace a connection over each family, IPv4 and IPv6, of which both ends have an address; nothing if there is none.
    `source`, `destination`: an end, once for each of its addresses."""
    return {
        _family(begin): trace(cluster, begin, end, port, protocol, dns=dns)
        for begin in source
        for end in destination
        if _family(begin) == _family(end)
    }


def together(found: Mapping[str, Trace]) -> Trace:
    """Return one answer for all families. Only answers that differ name their family; then the connection counts as
    allowed if every family allows it."""
    first, *others = found.values()
    if all(other == first for other in others):
        return first
    return Trace(
        all(one.allowed for one in found.values()),
        tuple(f"{family}: {reason}" for family, one in found.items() for reason in one.reasons),
    )


def _family(place: Place) -> str:
    return f"IPv{ipaddress.ip_address(place.address).version}"


def restrictions(cluster: Cluster, pod: Json) -> list[str]:
    """Say which policies restrict a pod; nothing if none does."""
    facts = facts_of(pod)
    if facts is None:
        return []
    found = pod_rules(facts, compiled(cluster.policies), cluster.labels())
    return [
        f"NetworkPolicies restrict its {direction}: {', '.join(names)}"
        for direction, names in _restricted(found).items()
    ]


def restricted_pods(cluster: Cluster) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return, by the "namespace/name" of each pod that policies restrict, their names by direction."""
    rules, labels = compiled(cluster.policies), cluster.labels()
    known = ((pod, facts_of(pod)) for pod in cluster.pods)
    found = {
        "/".join(_name(pod)): _restricted(pod_rules(facts, rules, labels)) for pod, facts in known if facts
    }
    return {name: directions for name, directions in found.items() if directions}


def _restricted(rules: PodRules) -> dict[str, tuple[str, ...]]:
    both = {"ingress": rules.ingress, "egress": rules.egress}
    return {direction: names for direction, names in both.items() if names is not None}


def named_port(pod: Json, name: str, protocol: str) -> int | None:
    """Return the number of a port that the pod's containers call so."""
    facts = facts_of(pod)
    return dict(facts.ports).get(NamedPort(protocol, name)) if facts else None


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _said(found: Judgement, direction: str) -> str:
    if found.policies is None:
        return f"({direction}): allowed, no policy restricts it"
    if found.by is not None:
        name, index = found.by
        return f"({direction}): allowed by rule {index + 1} of the {direction} of NetworkPolicy {name}"
    return f"({direction}): dropped, no rule of {' or '.join(found.policies)} allows it"


def _name(pod: Json) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]
