"""The Services' tables in the kernel: one transaction for each change, and a comparison with what the kernel has.

rules.py lists the tables. IPv4 and IPv6 have tables of their own. The table of the bridge family is changed together
with that of IPv4, in the same transactions.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from runtime.errors import CapabilityError
from runtime.network.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NetlinkError, Request, attributes
from runtime.network.nft_messages import (
    IPV4,
    NFPROTO_BRIDGE,
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_SET_MAP,
    TYPE_IP6ADDR,
    TYPE_IPADDR,
    TYPE_PROTO,
    TYPE_SERVICE,
    Family,
    Table,
    attribute,
    concatenated,
    items_of,
    nested,
    number,
    text,
)
from runtime.network.services import rules
from runtime.network.services.arrange import (
    AFFINITY,
    ENDPOINTS,
    EXTERNAL,
    FRONTS,
    MEMBERS,
    REFUSED,
    SELF,
    SERVICES,
    SOURCES,
    TAGS,
    Elements,
    Key,
    Pick,
    bracketed,
)
from runtime.network.services.plan import Network

NFT_MSG_DELCHAIN = 5
NFT_SET_INTERVAL, NFT_SET_TIMEOUT, NFT_SET_EVAL, NFT_SET_CONCAT = 0x4, 0x10, 0x20, 0x80
NFT_DATA_VERDICT = 0xFFFFFF00
TYPE_MARK = 19
CLIENTS = 1 << 18  # clients of Services with session affinity that are remembered
LACKS = (
    "this kernel cannot route Services with nftables (it needs CONFIG_NFT_NAT, CONFIG_NFT_MASQ, "
    "CONFIG_NFT_NUMGEN, CONFIG_NFT_REJECT_IPV4, CONFIG_NFT_FIB_IPV4 and CONFIG_NF_TABLES_BRIDGE)"
)
LACKS6 = (
    "this kernel cannot route Services of IPv6 with nftables (it needs CONFIG_NFT_NAT, CONFIG_NFT_MASQ, "
    "CONFIG_NFT_NUMGEN, CONFIG_NFT_REJECT_IPV6 and CONFIG_NFT_FIB_IPV6)"
)
_MANY = 200  # elements in a message: an attribute holds at most 64 KB


@dataclass(frozen=True, slots=True)
class _Set:
    """A set or map: the types of its key, what its values are, and flags of the kernel. The first part of each key is
    an address."""

    key: tuple[int, ...]
    chains: bool = False
    endpoints: bool = False
    tags: bool = False
    flags: int = 0

    @property
    def width(self) -> int:
        """The bytes of a key. Every part fills whole 4-byte registers."""
        return sum(max(4, _LENGTHS[part]) for part in self.key)

    @property
    def target(self) -> tuple[int, ...]:
        """The types of an endpoint: its address and port."""
        return (self.key[0], TYPE_SERVICE)

    @property
    def length(self) -> int:
        """The bytes of a value that is an endpoint or a tag; 0 for a set or map with other values."""
        return _LENGTHS[self.key[0]] + 4 if self.endpoints else 4 if self.tags else 0


def _sets(family: Family) -> dict[str, _Set]:
    address = TYPE_IPADDR if family is IPV4 else TYPE_IP6ADDR
    front = (address, TYPE_PROTO, TYPE_SERVICE)
    return {
        SERVICES: _Set(front, chains=True),
        EXTERNAL: _Set(front, chains=True),
        ENDPOINTS: _Set((*front, TYPE_MARK), endpoints=True),
        TAGS: _Set((*front, TYPE_MARK), tags=True),
        MEMBERS: _Set((*front, TYPE_MARK), endpoints=True),
        AFFINITY: _Set((*front, address), tags=True, flags=NFT_SET_TIMEOUT | NFT_SET_EVAL),
        FRONTS: _Set(front),
        REFUSED: _Set(front),
        SELF: _Set((address, address)),
        SOURCES: _Set((*front, address), flags=NFT_SET_INTERVAL | NFT_SET_CONCAT),
    }


_LENGTHS = {TYPE_IPADDR: 4, TYPE_IP6ADDR: 16, TYPE_PROTO: 1, TYPE_SERVICE: 2, TYPE_MARK: 4}


@dataclass(frozen=True, slots=True)
class Scope:
    """Where the tables apply: the bridge, the bridge's IPv4 address, the prefix of the pods' interfaces, the network of
    cluster IPs, and whether other machines may connect to cluster IPs."""

    bridge: str
    gateway: str
    prefix: str
    cluster: Network
    routed: bool


class ServiceTables(Table):
    """The tables for one node's Services of one family. Every change is one transaction: the kernel applies all of it
    or nothing."""

    def __init__(self, name: str, addresses: Family = IPV4) -> None:
        """Raises CapabilityError if the kernel has no nftables."""
        self._lacking = LACKS if addresses is IPV4 else LACKS6
        try:
            super().__init__(addresses.number, name)
        except CapabilityError as error:
            raise CapabilityError(f"{self._lacking}: {error}") from error
        self._addresses, self._sets = addresses, _sets(addresses)
        # the sets that only the daemon changes; the kernel adds clients to the other one
        self._ours = tuple(name for name in self._sets if name != AFFINITY)
        self._bridged = Table(NFPROTO_BRIDGE, name) if addresses is IPV4 else None
        self._rules: list[bytes] = []  # as the kernel listed them after the last change of a chain
        self._generation = -1  # the ruleset's generation at which the kernel had all of it

    def close(self) -> None:
        super().close()
        if self._bridged:
            self._bridged.close()

    def rebuild(self, scope: Scope, picks: Iterable[Pick], elements: Elements) -> None:
        """Replace the tables, if there are any. Clients keep their endpoints. Raises CapabilityError if the kernel
        lacks a part of nftables, NetlinkError for anything else."""
        clients = self._clients()
        requests: list[Request] = []
        if self._bridged:
            bridged = rules.bridge_chain(scope.prefix, scope.gateway)
            requests = [*self._bridged.replacement(), self._bridged.new_chain(bridged)]
            requests += [self._bridged.new_rule(bridged, rule) for rule in bridged.rules]
        sets = [self._new_set(name) for name in self._sets]
        inner = rules.inner_chains(self._addresses, scope.bridge)
        chains = [*(self._new_inner(name) for name in inner), *self._new_rules(inner)]
        for pick in picks:
            chains += self._new_pick(pick)
        listed = [*self._changes(NFT_MSG_NEWSETELEM, elements), *clients, *requests]
        self.replace(
            [*sets, *chains],
            rules.base_chains(self._addresses, scope.bridge, scope.cluster, routed=scope.routed),
            listed,
            lacking=self._lacking,
        )
        self._rules = self._listed_rules()
        self._generation = -1

    def change(
        self, gone: Elements, new: Elements, *, unused: Sequence[Pick] = (), needed: Sequence[Pick] = ()
    ) -> None:
        """Remove and add elements, and the chains that are no longer or newly in use. Raises NetlinkError, with ENOENT
        if the tables or an element have been removed by somebody else."""
        chains = [request for pick in needed for request in self._new_pick(pick)]
        ends = [self._delete_chain(pick.name) for pick in unused]
        before = self._generation
        self.transaction(
            [
                *chains,
                *self._changes(NFT_MSG_DELSETELEM, gone),
                *self._changes(NFT_MSG_NEWSETELEM, new),
                *ends,
            ]
        )
        if chains or ends:
            self._rules = self._listed_rules()
        if before >= 0 and self.generation() == before + 1:
            self._generation = before + 1  # nobody else has changed the ruleset

    def differences(self, wanted: Callable[[], Elements]) -> list[str]:
        """What the kernel's tables lack or have too much of, as sentences. If nobody has changed the ruleset since they
        were as wanted, that costs one request, whatever their size."""
        generation = self.generation()
        if generation == self._generation:
            return []
        try:
            found = {name: self._elements(name) for name in self._ours}
            listed = self._listed_rules()
        except NetlinkError:
            return ["nftables: the Services' tables are missing"]
        problems = []
        expected: dict[str, dict[bytes, bytes]] = {name: {} for name in self._ours}
        for (name, key), value in wanted().items():
            expected[name][key] = value
        for name in self._ours:
            if expected[name] != found[name]:
                problems.append(_sentence(name, expected[name], found[name], self._addresses.size))
        if listed != self._rules:
            problems.append("nftables: rules of the Services' tables were changed or removed")
        if not problems:
            self._generation = generation
        return problems

    def exist(self) -> bool:
        try:
            self._elements(SERVICES)
        except NetlinkError:
            return False
        return True

    def delete(self) -> None:
        """Remove both tables. Missing ones are no error."""
        super().delete()
        if self._bridged:
            self._bridged.delete()
        self._rules, self._generation = [], -1

    def _new_set(self, name: str) -> Request:
        kind = self._sets[name]
        flags = kind.flags | (NFT_SET_MAP if kind.chains or kind.endpoints or kind.tags else 0)
        description = b""
        if flags & NFT_SET_CONCAT:
            description = nested(9, nested(2, *(nested(1, number(1, _LENGTHS[part])) for part in kind.key)))
        elif flags & NFT_SET_EVAL:
            description = nested(9, number(1, CLIENTS))
        payload = (
            text(1, self.name)
            + text(2, name)
            + number(3, flags)
            + number(4, concatenated(kind.key))
            + number(5, kind.width)
            + (attribute(6, struct.pack(">I", NFT_DATA_VERDICT)) if kind.chains else b"")
            + (number(6, TYPE_MARK) + number(7, kind.length) if kind.tags else b"")
            + (number(6, concatenated(kind.target)) + number(7, kind.length) if kind.endpoints else b"")
            + description
            + number(10, rules.SET_IDS[name])
        )
        return self.message(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_ACK, payload, f"create set {name}")

    def _new_inner(self, name: str) -> Request:
        payload = text(1, self.name) + text(3, name)
        return self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, payload, f"create chain {name}")

    def _new_rules(self, chains: Mapping[str, Iterable[bytes]]) -> list[Request]:
        flags = NLM_F_CREATE | 0x800 | NLM_F_ACK
        return [
            self.message(
                NFT_MSG_NEWRULE,
                flags,
                text(1, self.name) + text(2, name) + nested(4, rule),
                f"add a rule to chain {name}",
            )
            for name, listed in chains.items()
            for rule in listed
        ]

    def _new_pick(self, pick: Pick) -> list[Request]:
        return [
            self._new_inner(pick.name),
            *self._new_rules({pick.name: rules.pick_rules(self._addresses, pick)}),
        ]

    def _delete_chain(self, name: str) -> Request:
        payload = text(1, self.name) + text(3, name)
        return self.message(NFT_MSG_DELCHAIN, NLM_F_ACK, payload, f"delete chain {name}")

    def _changes(self, kind: int, elements: Elements) -> list[Request]:
        """The messages that change elements: one per set and 200 elements."""
        grouped: dict[str, list[bytes]] = {}
        for (name, key), value in elements.items():
            grouped.setdefault(name, []).append(_element(self._sets[name], key, value))
        flags = NLM_F_ACK | (NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0)
        return [
            self.message(
                kind,
                flags,
                text(1, self.name) + text(2, name) + nested(3, *encoded[start : start + _MANY]),
                f"change {name} of Services",
            )
            for name, encoded in grouped.items()
            for start in range(0, len(encoded), _MANY)
        ]

    def _elements(self, name: str) -> dict[bytes, bytes]:
        """The kernel's elements of a set, in arrange.Elements' form."""
        query = text(1, self.name) + text(2, name)
        listed = self.socket.dump(self.message(13, NLM_F_DUMP, query, f"list {name}"))
        return {key: value for data in listed for key, value in _parsed(self._sets[name], data[20:])}

    def _clients(self) -> list[Request]:
        """The messages that add the clients of Services with session affinity again, each with its time left."""
        query = text(1, self.name) + text(2, AFFINITY)
        try:
            listed = self.socket.dump(self.message(13, NLM_F_DUMP, query, "list clients"))
        except NetlinkError:
            return []  # no table
        kept = []
        for data in listed:
            for item in items_of(data[20:]):
                parts = attributes(item)
                kept.append(nested(1, *(_again(kind, parts[kind]) for kind in (1, 2, 4, 5) if kind in parts)))
        flags = NLM_F_ACK | NLM_F_CREATE
        return [
            self.message(
                NFT_MSG_NEWSETELEM,
                flags,
                text(1, self.name) + text(2, AFFINITY) + nested(3, *kept[start : start + _MANY]),
                "keep clients of Services",
            )
            for start in range(0, len(kept), _MANY)
        ]

    def _listed_rules(self) -> list[bytes]:
        return [*self.rules(), *(self._bridged.rules() if self._bridged else ())]


def _element(kind: _Set, key: bytes, value: bytes) -> bytes:
    if kind.flags & NFT_SET_INTERVAL:
        half = len(key) // 2
        return nested(1, nested(1, attribute(1, key[:half])), nested(10, attribute(1, key[half:])))
    encoded = nested(1, attribute(1, key))
    if kind.chains:
        verdict = nested(2, number(1, rules.NFT_GOTO), attribute(2, value + b"\0"))
        return nested(1, encoded, nested(2, verdict))
    if kind.endpoints or kind.tags:
        return nested(1, encoded, nested(2, attribute(1, value)))
    return nested(1, encoded)


def _again(kind: int, payload: bytes) -> bytes:
    """An attribute of a listed element, for a message that adds it: key and value are nested, times are not."""
    return nested(kind, payload) if kind in (1, 2) else attribute(kind, payload)


def _parsed(kind: _Set, payload: bytes) -> Iterable[tuple[bytes, bytes]]:
    """(key, value) of each element. One that has nothing but a key and a value has them at fixed places: decoding the
    attributes of twenty thousand elements would take 0.1 s."""
    width, length = kind.width, kind.length
    simple = 8 + width + (8 + length if length else 0)
    if kind.chains or kind.flags & NFT_SET_INTERVAL:
        simple = 0
    for item in items_of(payload):
        if len(item) == simple:
            yield item[8 : 8 + width], item[simple - length : simple]
        else:
            yield _decoded(item)


def _decoded(item: bytes) -> tuple[bytes, bytes]:
    parts = attributes(item)
    key = attributes(parts[1])[1]
    if 10 in parts:
        key += attributes(parts[10])[1]
    value = b""
    if 2 in parts:
        data = attributes(parts[2])
        value = data[1] if 1 in data else attributes(data[2])[2].rstrip(b"\0")
    return key, value


def describe(item: Key, size: int) -> str:
    """An element as text, for messages. `size`: the bytes of an address."""
    name, key = item
    address = ipaddress.ip_address(key[:size])
    if name == SELF:
        return f"{name}: {address}"
    port = struct.unpack_from(">H", key, size + 4)[0]
    protocol = {6: "TCP", 17: "UDP", 132: "SCTP"}.get(key[size], str(key[size]))
    return f"{name}: {protocol} {bracketed(str(address))}:{port}"


def _sentence(name: str, wanted: dict[bytes, bytes], found: dict[bytes, bytes], size: int) -> str:
    """One sentence about a set that differs, with one element as an example."""
    missing = [key for key in wanted if wanted[key] != found.get(key)]
    extra = [key for key in found if key not in wanted]
    example = describe((name, (missing or extra)[0]), size)
    if missing:
        return f"nftables: {len(missing)} elements of Services are missing or changed, such as {example}"
    return f"nftables: {len(extra)} elements belong to no Service, such as {example}"
