"""Which sets, chains and elements of the tables the policies and pods of a node need. Pure.

A policy has a chain for each direction that it restricts, and a pod has none: pods are elements. Pods that the same
policies restrict share a chain that jumps to those policies' chains, one after the other. So the number of rules
depends on the policies alone, and what a packet costs on the rules of its own pod's policies.
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from runtime.network.nft_messages import IPV4, IPV6, Family
from runtime.network.policies.plan import Block, NamedPort, PodRules, Policy, PortRange, Rule

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}  # IP protocol numbers
DNS_PORT = 53
LONGEST_NAME = 200  # bytes of a name in nftables that we use; NFT_NAME_MAXLEN is 256


class Direction(Enum):
    """The side of a connection whose policies a chain asks. The value begins the names of its chains."""

    EGRESS = "out"
    INGRESS = "in"


class Kind(Enum):
    """What the elements of a set or map are."""

    CHAINS = auto()  # address : goto chain
    PAIRS = auto()  # address . address
    MEMBERS = auto()  # address
    BLOCKS = auto()  # the beginning of a range of addresses, or (value END) the address behind it
    RANGES = auto()  # protocol . port, both ends joined
    NAMED = auto()  # address . protocol . port


@dataclass(frozen=True, slots=True)
class Shape:
    """What a set or map has. `family` is that of its addresses; None: it has no addresses."""

    kind: Kind
    family: Family | None = None


Key = tuple[str, bytes]  # set, key
Elements = dict[Key, bytes]  # value: the name of a chain, END (see Kind.BLOCKS), or b""
SELF, SERVERS = "self", "servers"
END = b"end"  # value of an element that ends a range of addresses
CHAINS = {Direction.EGRESS: "egress", Direction.INGRESS: "ingress"}  # the maps of restricted pods


@dataclass(frozen=True, slots=True)
class Match:
    """A rule of a policy's chain: accept what is in all of these sets. `peers` and `named` are looked up with
    addresses of the family, `ranges` with protocol and port."""

    family: Family | None = None
    peers: str = ""
    ranges: str = ""
    named: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything in the table but the elements of pods. `profiles`: the chains of pods, each with the policies' chains
    to which it jumps; `matches`: the chains of policies, with their direction. `families`: those of pods' addresses."""

    sets: Mapping[str, Shape]
    profiles: Mapping[str, tuple[str, ...]]
    matches: Mapping[str, tuple[Direction, tuple[Match, ...]]]
    elements: Elements
    families: tuple[Family, ...] = (IPV4,)


def layout(
    policies: Iterable[Policy],
    profiles: Iterable[tuple[Direction, tuple[str, ...]]],
    families: tuple[Family, ...] = (IPV4,),
) -> Layout:
    """`profiles`: the lists of policies that restrict some pod in a direction. A policy that is gone allows nothing: a
    deleted pod may still name it, until it has no address."""
    sets = {
        f"{name}{family.suffix}": Shape(kind, family)
        for family in families
        for name, kind in (
            *((name, Kind.CHAINS) for name in CHAINS.values()),
            (SELF, Kind.PAIRS),
            (SERVERS, Kind.NAMED),
        )
    }
    elements: Elements = {}
    matches: dict[str, tuple[Direction, tuple[Match, ...]]] = {}
    for policy in policies:
        for direction, rules in ((Direction.EGRESS, policy.egress), (Direction.INGRESS, policy.ingress)):
            if rules is not None:
                found = tuple(match for rule in rules for match in _matches(rule, families, sets, elements))
                matches[chain_of_policy(direction, policy.name)] = direction, found
    chains = {
        chain_of_profile(direction, names): tuple(
            chain for name in names if (chain := chain_of_policy(direction, name)) in matches
        )
        for direction, names in profiles
    }
    return Layout(sets, chains, matches, elements, families)


def pod_elements(pod: PodRules, addresses: tuple[str, ...], sets: Mapping[str, Shape]) -> Elements:
    """The elements of a pod, or of a server of the node, at its addresses, in these sets."""
    found: Elements = {}
    for address in addresses:
        found |= _elements_at(pod, packed(address))
    return {item: value for item, value in found.items() if item[0] in sets}


def _elements_at(pod: PodRules, key: bytes) -> Elements:
    """`key`: one of the pod's addresses."""
    family = IPV4 if len(key) == IPV4.size else IPV6
    suffix, found = family.suffix, dict[Key, bytes]()
    for direction, names in ((Direction.EGRESS, pod.egress), (Direction.INGRESS, pod.ingress)):
        if names is not None:
            found[(f"{CHAINS[direction]}{suffix}", key)] = chain_of_profile(direction, names).encode()
    if pod.restricted:
        found[(f"{SELF}{suffix}", key * 2)] = b""
    if pod.address:
        for protocol in ("TCP", "UDP"):
            found[(f"{SERVERS}{suffix}", key + port_key(protocol, DNS_PORT))] = b""
    found |= {(group_set(group, family), key): b"" for group in pod.groups}
    found |= {(named_set(name, family), key + port_key(name.protocol, port)): b"" for name, port in pod.ports}
    return found


def profiles_of(pod: PodRules) -> Iterable[tuple[Direction, tuple[str, ...]]]:
    """The lists of policies that restrict a pod, each with its direction."""
    both = ((Direction.EGRESS, pod.egress), (Direction.INGRESS, pod.ingress))
    return [(direction, names) for direction, names in both if names is not None]


def chain_of_policy(direction: Direction, name: str) -> str:
    whole = f"{direction.value}-{name}"
    return whole if len(whole) <= LONGEST_NAME else f"{whole[: LONGEST_NAME - 13]}-{digest(whole)}"


def chain_of_profile(direction: Direction, names: tuple[str, ...]) -> str:
    return f"{direction.value}-{digest(' '.join(names))}"


def group_set(group: str, family: Family) -> str:
    return f"pods{family.suffix}-{group}"


def named_set(port: NamedPort, family: Family) -> str:
    return f"named{family.suffix}-{port.protocol.lower()}-{port.name}"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def port_key(protocol: str, port: int) -> bytes:
    """Every part of a concatenation fills whole 4-byte registers."""
    return bytes((PROTOCOLS[protocol], 0, 0, 0)) + struct.pack(">HH", port, 0)


def difference(before: Elements, after: Elements) -> tuple[Elements, Elements]:
    """(elements to remove, elements to add). An element with another value is in both."""
    gone = {key: value for key, value in before.items() if after.get(key) != value}
    new = {key: value for key, value in after.items() if before.get(key) != value}
    return gone, new


def _matches(
    rule: Rule, families: tuple[Family, ...], sets: dict[str, Shape], elements: Elements
) -> Iterable[Match]:
    """The matches of a rule; the sets that they need are added to `sets`, and their elements to `elements`."""
    ranges = _ranges_set(rule.ports.ranges, sets, elements) if rule.ports else ""
    if rule.peers is None and (rule.ports is None or ranges):
        yield Match(ranges=ranges)
    for family in families:
        peers = _peer_sets(rule, family, sets, elements) if rule.peers else [""]
        for name in peers:
            if name and (rule.ports is None or ranges):
                yield Match(family, peers=name, ranges=ranges)
            for port in rule.ports.named if rule.ports else ():
                named = named_set(port, family)
                sets[named] = Shape(Kind.NAMED, family)
                yield Match(family, peers=name, named=named)


def _peer_sets(rule: Rule, family: Family, sets: dict[str, Shape], elements: Elements) -> list[str]:
    assert rule.peers is not None
    names = []
    if rule.peers.group:
        names.append(group_set(rule.peers.group, family))
        sets[names[-1]] = Shape(Kind.MEMBERS, family)
    if blocks := [block for block in rule.peers.blocks if len(packed(block.first)) == family.size]:
        names.append(_blocks_set(blocks, family, sets, elements))
    return names


def _blocks_set(blocks: list[Block], family: Family, sets: dict[str, Shape], elements: Elements) -> str:
    name = f"blocks{family.suffix}-{digest(' '.join(f'{one.first}-{one.last}' for one in blocks))}"
    sets[name] = Shape(Kind.BLOCKS, family)
    for block in blocks:
        elements[(name, packed(block.first))] = b""
        behind = int.from_bytes(packed(block.last), "big") + 1
        if behind < 1 << 8 * family.size:
            elements[(name, behind.to_bytes(family.size, "big"))] = END
    return name


def _ranges_set(ranges: tuple[PortRange, ...], sets: dict[str, Shape], elements: Elements) -> str:
    if not ranges:
        return ""
    name = f"ports-{digest(' '.join(f'{one.protocol}:{one.first}-{one.last}' for one in ranges))}"
    sets[name] = Shape(Kind.RANGES)
    for one in ranges:
        elements[(name, port_key(one.protocol, one.first) + port_key(one.protocol, one.last))] = b""
    return name
