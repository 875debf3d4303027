"""Whether NetworkPolicies allow a connection, from the same values that the tables are made of. Pure.

Source: Kubernetes' API (networking/v1 types.go: NetworkPolicySpec and its parts): a pod that no policy selects for a
direction may have all connections in it; otherwise one rule of one of its policies must allow the connection. A
connection needs the egress of its source and the ingress of its destination. A pod may always reach itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.network.policies.plan import Peers, PodRules, Policy, Ports


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: an address, and the pod that has it; None: something outside."""

    address: str
    pod: PodRules | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """A new connection, after the translation of a Service's address. `protocol` is TCP, UDP or SCTP, `port` that of
    the destination."""

    source: End
    destination: End
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the policies of one pod say in one direction. `policies`: those that restrict it; None: it is not
    restricted. `by`: the name of a policy that allows the connection, and the index of its rule."""

    policies: tuple[str, ...] | None = None
    by: tuple[str, int] | None = None

    @property
    def allowed(self) -> bool:
        return self.policies is None or self.by is not None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgements of the source's egress and of the destination's ingress."""

    egress: Judgement
    ingress: Judgement

    @property
    def allowed(self) -> bool:
        return self.egress.allowed and self.ingress.allowed


def verdict(policies: Mapping[str, Policy], connection: Connection) -> Verdict:
    """Judge a connection. `policies`: by name."""
    source, destination = connection.source, connection.destination
    if source.address == destination.address:
        return Verdict(Judgement(), Judgement())

    def judged(names: tuple[str, ...] | None, peer: End, *, egress: bool) -> Judgement:
        for name in names or ():
            rules = policies[name].egress if egress else policies[name].ingress
            for index, rule in enumerate(rules or ()):
                if _is_peer(rule.peers, peer) and _has_port(rule.ports, connection):
                    return Judgement(names, (name, index))
        return Judgement(names)

    return Verdict(
        judged(source.pod.egress if source.pod else None, destination, egress=True),
        judged(destination.pod.ingress if destination.pod else None, source, egress=False),
    )


def _is_peer(peers: Peers | None, end: End) -> bool:
    if peers is None:
        return True
    if end.pod is not None and peers.group in end.pod.groups:
        return True
    address = ipaddress.ip_address(end.address)
    return any(
        first.version == address.version
        and int(first) <= int(address) <= int(ipaddress.ip_address(block.last))
        for block in peers.blocks
        for first in (ipaddress.ip_address(block.first),)
    )


def _has_port(ports: Ports | None, connection: Connection) -> bool:
    """Whether a rule has the port. By name, it is what the destination's containers call so."""
    if ports is None:
        return True
    protocol, port, server = connection.protocol, connection.port, connection.destination.pod
    if any(one.protocol == protocol and one.first <= port <= one.last for one in ports.ranges):
        return True
    return server is not None and any(
        number == port and name.protocol == protocol and name in ports.named for name, number in server.ports
    )
