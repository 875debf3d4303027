"""What the policies' tables do with a connection, from the layout and the elements that the kernel would get."""

from __future__ import annotations

import random
from collections.abc import Iterable

from runtime.network.nft_messages import IPV4, IPV6
from runtime.network.policies.arrange import (
    CHAINS,
    END,
    SELF,
    Direction,
    Elements,
    Kind,
    Layout,
    Match,
    layout,
    packed,
    pod_elements,
    port_key,
    profiles_of,
)
from runtime.network.policies.plan import PolicySet


class Tables:
    """The sets and chains of a node, filled."""

    def __init__(self, rules: PolicySet, addresses: dict[str, str]) -> None:
        """`addresses`: by uid, of pods that have one; all of one family."""
        profiles = dict.fromkeys(profile for one in rules.pods for profile in profiles_of(one))
        self.layout: Layout = layout(rules.policies, profiles, (IPV4, IPV6))
        self.elements: Elements = dict(self.layout.elements)
        for one in rules.pods:
            if address := one.address or addresses.get(one.uid, ""):
                self.elements |= pod_elements(one, (address,), self.layout.sets)

    def forwards(self, source: str, destination: str, protocol: str, port: int) -> bool:
        """Whether the first packet of a connection passes the chains `egress` and `ingress`."""
        packet = source, destination, protocol, port
        return self._passes(Direction.EGRESS, packet) and self._passes(Direction.INGRESS, packet)

    def _passes(self, direction: Direction, packet: tuple[str, str, str, int]) -> bool:
        source, destination = packed(packet[0]), packed(packet[1])
        family = IPV4 if len(source) == IPV4.size else IPV6
        if (f"{SELF}{family.suffix}", source + destination) in self.elements:
            return True
        own, peer = (source, destination) if direction is Direction.EGRESS else (destination, source)
        chain = self.elements.get((f"{CHAINS[direction]}{family.suffix}", own))
        if chain is None:
            return True
        for jump in self.layout.profiles[chain.decode()]:
            found, matches = self.layout.matches[jump]
            assert found is direction
            if any(self._accepts(match, peer, destination, *packet[2:]) for match in matches):
                return True
        return False

    def _accepts(self, match: Match, peer: bytes, destination: bytes, protocol: str, port: int) -> bool:
        wanted = port_key(protocol, port)
        if match.family is not None and match.family.size != len(peer):
            return False
        if match.peers and not self._contains(match.peers, peer):
            return False
        if match.named and (match.named, destination + wanted) not in self.elements:
            return False
        return not match.ranges or any(
            key[:8][:4] == wanted[:4] and key[4:6] <= wanted[4:6] <= key[12:14]
            for name, key in self.elements
            if name == match.ranges
        )

    def _contains(self, name: str, address: bytes) -> bool:
        if self.layout.sets[name].kind is Kind.MEMBERS:
            return (name, address) in self.elements
        edges = sorted((key, value) for (found, key), value in self.elements.items() if found == name)
        below = [value for key, value in edges if key <= address]
        return bool(below) and below[-1] != END


def random_spec(chance: random.Random) -> str:
    """A NetworkPolicy's spec, in YAML, for the world of kit.py."""
    types = chance.choice(("[Ingress]", "[Egress]", "[Ingress, Egress]"))
    ingress = ", ".join(_rule(chance, "from") for _ in range(chance.randrange(3)))
    egress = ", ".join(_rule(chance, "to") for _ in range(chance.randrange(3)))
    return (
        f"{{podSelector: {_labels(chance, 'pod', 'abc')}, policyTypes: {types}, "
        f"ingress: [{ingress}], egress: [{egress}]}}"
    )


def _rule(chance: random.Random, alias: str) -> str:
    peers = ", ".join(_peer(chance) for _ in range(chance.randrange(3)))
    ports = ", ".join(_port(chance) for _ in range(chance.randrange(3)))
    return f"{{{alias}: [{peers}], ports: [{ports}]}}"


def _peer(chance: random.Random) -> str:
    match chance.randrange(4):
        case 0:
            return f"{{podSelector: {_labels(chance, 'pod', 'abc')}}}"
        case 1:
            return f"{{namespaceSelector: {_labels(chance, 'ns', 'xyz')}}}"
        case 2:
            namespaces, pods = _labels(chance, "ns", "xyz"), _labels(chance, "pod", "abc")
            return f"{{namespaceSelector: {namespaces}, podSelector: {pods}}}"
    start, hole = chance.randrange(0, 16, 8), chance.randrange(0, 8, 2)
    return f"{{ipBlock: {{cidr: 10.77.0.{start}/29, except: [10.77.0.{start + hole}/31]}}}}"


def _labels(chance: random.Random, key: str, values: str) -> str:
    value = chance.choice(values)
    return chance.choice(
        (
            "{}",
            f"{{matchLabels: {{{key}: {value}}}}}",
            f"{{matchExpressions: [{{key: {key}, operator: NotIn, values: [{value}]}}]}}",
            f"{{matchExpressions: [{{key: {key}, operator: Exists}}]}}",
        )
    )


def _port(chance: random.Random) -> str:
    protocol = chance.choice(("TCP", "UDP", "SCTP"))
    given = chance.choice(
        (
            "port: 80, ",
            "port: 81, ",
            "port: 79, endPort: 80, ",
            f"port: serve-{chance.choice((80, 81))}-tcp, ",
            "",
        )
    )
    return f"{{{given}protocol: {protocol}}}"


def random_policies(chance: random.Random, most: int = 4) -> Iterable[tuple[str, str]]:
    """Names and specs of some policies."""
    for number in range(chance.randint(1, most)):
        yield f"{chance.choice('xyz')}/p{number}", random_spec(chance)
