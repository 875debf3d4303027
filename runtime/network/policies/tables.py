"""The policies' tables over netlink: the sets, chains and elements of arrange.py in the kernel, and what differs there.

Every change is one transaction: a packet is judged by the rules before it, or by those after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from runtime.errors import CapabilityError
from runtime.network.netlink import NLM_F_ACK, NLM_F_CREATE, NetlinkError, Request, attributes
from runtime.network.nft_messages import (
    IPV6,
    LACKING,
    NFPROTO_BRIDGE,
    NFPROTO_INET,
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_SET_MAP,
    NLM_F_APPEND,
    TYPE_IP6ADDR,
    TYPE_IPADDR,
    TYPE_PROTO,
    TYPE_SERVICE,
    Chain,
    Table,
    attribute,
    concatenated,
    nested,
    number,
    text,
)
from runtime.network.plan import Subnet
from runtime.network.policies import rules
from runtime.network.policies.arrange import END, Elements, Kind, Layout, Shape
from runtime.network.services.rules import bridge_chain

NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET = 5, 8, 11
NFT_SET_INTERVAL, NFT_SET_CONCAT, NFT_SET_ELEM_INTERVAL_END = 0x4, 0x80, 0x1
NFT_DATA_VERDICT = 0xFFFFFF00
_MANY = 200  # elements in a message: an attribute holds at most 64 KB
_PARTS = {
    Kind.CHAINS: (TYPE_IPADDR,),
    Kind.PAIRS: (TYPE_IPADDR, TYPE_IPADDR),
    Kind.MEMBERS: (TYPE_IPADDR,),
    Kind.BLOCKS: (TYPE_IPADDR,),
    Kind.RANGES: (TYPE_PROTO, TYPE_SERVICE),
    Kind.NAMED: (TYPE_IPADDR, TYPE_PROTO, TYPE_SERVICE),
}
_LENGTHS = {TYPE_IPADDR: 4, TYPE_IP6ADDR: 16, TYPE_PROTO: 1, TYPE_SERVICE: 2}


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the tables apply: the pods' network, and the prefix of their interfaces' names."""

    pods: Subnet
    prefix: str


def chains_of(layout: Layout) -> dict[str, tuple[bytes, ...]]:
    """Rules by chain. The chains to which others jump come first."""
    found = {
        name: tuple(rules.match_rule(direction, match) for match in matches)
        for name, (direction, matches) in layout.matches.items()
    }
    return found | {name: rules.profile_rules(jumps) for name, jumps in layout.profiles.items()}


class PolicyTables(Table):
    """One node's tables for NetworkPolicies."""

    def __init__(self, name: str) -> None:
        """Raises CapabilityError if the kernel has no nftables."""
        super().__init__(NFPROTO_INET, name)
        self._bridged = Table(NFPROTO_BRIDGE, name)
        self._rules: list[bytes] = []  # as the kernel listed them after the last change of a chain
        self._generation = -1  # the ruleset's generation at which the kernel had all of it

    def close(self) -> None:
        super().close()
        self._bridged.close()

    @property
    def ports(self) -> frozenset[int]:
        """The netlink ports from which the tables are changed."""
        return frozenset((self.socket.port, self._bridged.socket.port))

    def rebuild(self, scope: Scope, layout: Layout, elements: Elements) -> None:
        """Replace the tables, if there are any, in one transaction. Raises CapabilityError if the kernel lacks a part
        of nftables, NetlinkError for anything else."""
        bridged = (bridge_chain(scope.prefix, scope.pods.gateway), rules.copies_chain(scope.prefix))
        chains = chains_of(layout)
        requests = [
            *self.replacement(),
            *(
                self._new_set(name, shape, index)
                for index, (name, shape) in enumerate(layout.sets.items(), 1)
            ),
            *map(self._new_inner, chains),
            *self._new_rules(chains),
            *self._elements(NFT_MSG_NEWSETELEM, elements, layout.sets),
            *self._base(self, rules.base_chains(layout.families)),
            *self._bridged.replacement(),
            *self._base(self._bridged, bridged),
        ]
        try:
            self.transaction(requests)
        except NetlinkError as error:
            if error.errno not in LACKING:
                raise
            raise CapabilityError(str(error)) from error
        self._note_rules()
        self._generation = -1

    def change(self, before: Layout, after: Layout, gone: Elements, new: Elements) -> None:
        """Turn one layout into another, and remove and add elements of both, and of pods. Raises NetlinkError, with
        ENOENT, EEXIST or EBUSY if the tables have been changed by somebody else."""
        old, chains = chains_of(before), chains_of(after)
        had, sets = before.sets, after.sets
        added = {name: shape for name, shape in sets.items() if name not in had}
        changed = {name: listed for name, listed in chains.items() if old.get(name) != listed}
        unused = [name for name in old if name not in chains]
        requests = [
            *(self._new_set(name, shape, index) for index, (name, shape) in enumerate(added.items(), 1)),
            *(self._new_inner(name) for name in changed if name not in old),
            *(self._flush(name) for name in (*changed, *unused) if name in old),
            *self._new_rules(changed),
            *self._elements(
                NFT_MSG_DELSETELEM, {key: value for key, value in gone.items() if key[0] in sets}, had
            ),
            *self._elements(NFT_MSG_NEWSETELEM, new, sets),
            *(self._delete(NFT_MSG_DELSET, 2, name) for name in had if name not in sets),
            *(self._delete(NFT_MSG_DELCHAIN, 3, name) for name in reversed(unused)),
        ]
        self._commit(requests, rules_changed=bool(changed or unused))

    def add(self, new: Elements, sets: Mapping[str, Shape]) -> None:
        """Add the elements of a pod. Those that exist are no error. Raises NetlinkError, as change() does."""
        self._commit([*self._elements(NFT_MSG_NEWSETELEM, new, sets)])

    def remove_elements(self, gone: Elements, sets: Mapping[str, Shape]) -> None:
        """Remove the elements of a pod. Missing ones are no error."""
        singly = (
            one for key, value in gone.items()
            for one in self._elements(NFT_MSG_DELSETELEM, {key: value}, sets)
        )  # fmt: skip
        before = self._generation
        self.remove([*self._elements(NFT_MSG_DELSETELEM, gone, sets)], singly)
        self._follow(before)

    def differences(self, layout: Layout, wanted: Callable[[], Elements]) -> list[str]:
        """What the kernel's tables lack or have too much of, as sentences. If nobody has changed the ruleset since they
        were as wanted, that costs one request, whatever their size."""
        generation = self.generation()
        if generation == self._generation:
            return []
        expected: dict[str, dict[bytes, bytes]] = {name: {} for name in layout.sets}
        for (name, key), value in wanted().items():
            expected[name][key] = value
        try:
            found = {name: dict(self._listed(name)) for name in expected}
            listed = [*self.rules(), *self._bridged.rules()]
        except NetlinkError:
            return ["nftables: the tables of NetworkPolicies are missing"]
        problems = [
            _sentence(name, expected[name], found[name]) for name in expected if expected[name] != found[name]
        ]
        if listed != self._rules:
            problems.append("nftables: rules of NetworkPolicies were changed or removed")
        if not problems:
            self._generation = generation
        return problems

    def delete(self) -> None:
        """Remove both tables. Missing ones are no error."""
        super().delete()
        self._bridged.delete()
        self._rules, self._generation = [], -1

    def _commit(self, requests: list[Request], *, rules_changed: bool = False) -> None:
        before = self._generation
        self.transaction(requests)
        if rules_changed:
            self._note_rules()
        self._follow(before)

    def _follow(self, before: int) -> None:
        """After a transaction of ours: the kernel still has all of it, if nobody else has changed the ruleset."""
        self._generation = before + 1 if before >= 0 and self.generation() == before + 1 else -1

    def _note_rules(self) -> None:
        self._rules = [*self.rules(), *self._bridged.rules()]

    def _base(self, table: Table, chains: Iterable[Chain]) -> Iterator[Request]:
        for chain in chains:
            yield table.new_chain(chain)
            for rule in chain.rules:
                yield table.new_rule(chain, rule)

    def _new_set(self, name: str, shape: Shape, number_in_batch: int) -> Request:
        second = shape.family is IPV6
        parts = tuple(TYPE_IP6ADDR if second and one == TYPE_IPADDR else one for one in _PARTS[shape.kind])
        flags, description = 0, b""
        match shape.kind:
            case Kind.CHAINS:
                flags = NFT_SET_MAP
                description = attribute(6, NFT_DATA_VERDICT.to_bytes(4, "big"))
            case Kind.BLOCKS:
                flags = NFT_SET_INTERVAL
            case Kind.RANGES:
                flags = NFT_SET_INTERVAL | NFT_SET_CONCAT
                description = nested(9, nested(2, *(nested(1, number(1, _LENGTHS[part])) for part in parts)))
        payload = (
            text(1, self.name)
            + text(2, name)
            + number(3, flags)
            + number(4, concatenated(parts))
            + number(5, sum(_LENGTHS[part] + -_LENGTHS[part] % 4 for part in parts))
            + description
            + number(10, number_in_batch)
        )
        return self.message(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_ACK, payload, f"create set {name}")

    def _new_inner(self, name: str) -> Request:
        payload = text(1, self.name) + text(3, name)
        return self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, payload, f"create chain {name}")

    def _new_rules(self, chains: Mapping[str, Iterable[bytes]]) -> Iterator[Request]:
        flags = NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK
        for name, listed in chains.items():
            for rule in listed:
                payload = text(1, self.name) + text(2, name) + nested(4, rule)
                yield self.message(NFT_MSG_NEWRULE, flags, payload, f"add a rule to chain {name}")

    def _flush(self, name: str) -> Request:
        payload = text(1, self.name) + text(2, name)
        return self.message(NFT_MSG_DELRULE, NLM_F_ACK, payload, f"remove the rules of chain {name}")

    def _delete(self, kind: int, attribute_of_name: int, name: str) -> Request:
        payload = text(1, self.name) + text(attribute_of_name, name)
        return self.message(kind, NLM_F_ACK, payload, f"delete {name}")

    def _elements(self, kind: int, elements: Elements, sets: Mapping[str, Shape]) -> Iterator[Request]:
        """The messages that change elements: one per set and 200 elements."""
        grouped: dict[str, list[bytes]] = {}
        for (name, key), value in elements.items():
            grouped.setdefault(name, []).append(_element(sets[name].kind, key, value))
        flags = NLM_F_ACK | (NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0)
        for name, encoded in grouped.items():
            for start in range(0, len(encoded), _MANY):
                payload = text(1, self.name) + text(2, name) + nested(3, *encoded[start : start + _MANY])
                yield self.message(kind, flags, payload, f"change the set {name} of NetworkPolicies")

    def _listed(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """The kernel's elements of a set, in arrange.Elements' form."""
        for item in self.items(name):
            parts = attributes(item)
            key = attributes(parts[1])[1] + (attributes(parts[10])[1] if 10 in parts else b"")
            if int.from_bytes(parts.get(3, b""), "big") & NFT_SET_ELEM_INTERVAL_END:
                yield key, END
            elif 2 in parts:
                yield key, attributes(attributes(parts[2])[2])[2].rstrip(b"\0")
            else:
                yield key, b""


def _sentence(name: str, wanted: dict[bytes, bytes], found: dict[bytes, bytes]) -> str:
    missing = sum(wanted[key] != found.get(key) for key in wanted)
    extra = sum(key not in wanted for key in found)
    return f"nftables: the set {name} of NetworkPolicies lacks {missing} elements, and has {extra} too many"


def _element(kind: Kind, key: bytes, value: bytes) -> bytes:
    if kind is Kind.RANGES:
        half = len(key) // 2
        return nested(1, nested(1, attribute(1, key[:half])), nested(10, attribute(1, key[half:])))
    encoded = nested(1, attribute(1, key))
    if kind is Kind.CHAINS:
        verdict = nested(2, number(1, rules.NFT_GOTO), attribute(2, value + b"\0"))
        return nested(1, encoded, nested(2, verdict))
    if value == END:
        return nested(1, encoded, number(3, NFT_SET_ELEM_INTERVAL_END))
    return nested(1, encoded)
