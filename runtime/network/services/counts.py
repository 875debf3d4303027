"""Counts the packets and bytes of Services by endpoint, while somebody wants to know (setting service_counters).

    table ip <node>-services-counts, and the same of family ip6 on a node with IPv6
      set received   address . protocol . port . endpoint's address . port   counter   from clients to endpoints
      set sent       the same                                                counter   their answers
      chain postrouting, input    filter   count every packet of a connection that a Service has led somewhere

The counters have a table of their own, because a repair replaces the tables that route Services and would reset them.
The rules take the addresses before and after DNAT from the connection tracking entry, so one rule counts each
direction, whatever path the packets take. The kernel adds an element with the first packet. A read removes the elements
that no Service has any more. A node that does not count has no such table, and its packets cost nothing more.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from runtime.network.netlink import NLM_F_ACK, NLM_F_CREATE, Request, attributes
from runtime.network.nft_messages import (
    IPV4,
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWSET,
    TYPE_IP6ADDR,
    TYPE_IPADDR,
    TYPE_PROTO,
    TYPE_SERVICE,
    Family,
    Table,
    attribute,
    concatenated,
    nested,
    number,
    text,
)
from runtime.network.services import rules
from runtime.network.services.arrange import Placed
from runtime.network.services.plan import Endpoint, ServiceCount

NFT_SET_EVAL = 0x20
MOST = 1 << 16  # pairs of address and endpoint that are counted
_MANY = 200  # elements in a message
LACKS = (
    "this kernel cannot count packets by element (it needs CONFIG_NF_TABLES with sets that rules can change)"
)


class _Pair(NamedTuple):
    packets: int
    bytes: int


class ServiceCounters(Table):
    """The table of one node and family. Not for several threads."""

    def __init__(self, name: str, addresses: Family = IPV4) -> None:
        """Raises CapabilityError if the kernel has no nftables."""
        super().__init__(addresses.number, name)
        self._addresses = addresses

    def ensure(self) -> None:
        """Create the table unless it exists. Raises CapabilityError if the kernel lacks a part of nftables."""
        if not self.exists():
            sets = [self._new_set(name, index) for index, name in enumerate(rules.COUNTERS, 1)]
            self.replace(sets, rules.counting_chains(self._addresses), (), lacking=LACKS)

    def read(self, owners: Mapping[bytes, str], placed: Mapping[str, Placed]) -> list[ServiceCount]:
        """Count what each endpoint of each port has received and sent. `owners` maps fronts (arrange.Front.key) to the
        names of their ports. Counters of endpoints that are gone are removed. Raises NetlinkError."""
        found: dict[tuple[str, Endpoint], dict[str, _Pair]] = {}
        owner = _Owners(owners, placed, self._addresses.size)
        for direction in rules.COUNTERS:
            stale = []
            for key, pair in self._counters(direction):
                owned = owner.of(key)
                if owned is None:
                    stale.append(key)
                    continue
                sums = found.setdefault(owned, dict.fromkeys(rules.COUNTERS, _Pair(0, 0)))
                old = sums[direction]
                sums[direction] = _Pair(old.packets + pair.packets, old.bytes + pair.bytes)
            self._forget(direction, stale)
        return [
            ServiceCount(name, endpoint, *sums[rules.RECEIVED], *sums[rules.SENT])
            for (name, endpoint), sums in found.items()
        ]

    def _counters(self, name: str) -> Iterator[tuple[bytes, _Pair]]:
        for item in self.items(name):
            parts = attributes(item)
            counter = attributes(attributes(parts[7])[2])  # NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS
            yield (
                attributes(parts[1])[1],
                _Pair(int.from_bytes(counter[2], "big"), int.from_bytes(counter[1], "big")),
            )

    def _forget(self, name: str, keys: list[bytes]) -> None:
        for start in range(0, len(keys), _MANY):
            elements = (nested(1, nested(1, attribute(1, key))) for key in keys[start : start + _MANY])
            payload = text(1, self.name) + text(2, name) + nested(3, *elements)
            request = self.message(NFT_MSG_DELSETELEM, NLM_F_ACK, payload, "forget counters of Services")
            self.transaction([request], ignore=(errno.ENOENT,))

    def _new_set(self, name: str, number_in_batch: int) -> Request:
        address = TYPE_IPADDR if self._addresses is IPV4 else TYPE_IP6ADDR
        key = (address, TYPE_PROTO, TYPE_SERVICE, address, TYPE_SERVICE)
        payload = (
            text(1, self.name)
            + text(2, name)
            + number(3, NFT_SET_EVAL)
            + number(4, concatenated(key))
            + number(5, 2 * self._addresses.size + 12)
            + nested(9, number(1, MOST))
            + number(10, number_in_batch)
        )
        return self.message(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_ACK, payload, f"create set {name}")


class _Owners:
    """Finds the port and the endpoint that a counter belongs to. `size`: the bytes of an address."""

    def __init__(self, fronts: Mapping[bytes, str], placed: Mapping[str, Placed], size: int) -> None:
        self._size = size
        self._fronts = fronts
        self._placed = placed
        self._endpoints: dict[str, frozenset[Endpoint]] = {}

    def of(self, key: bytes) -> tuple[str, Endpoint] | None:
        """The name of the port and the endpoint; None if the port is gone or no longer has this endpoint."""
        size = self._size
        front, where = key[: size + 8], key[size + 8 :]
        name = self._fronts.get(front) or self._fronts.get(bytes(size) + front[size:])  # a node port
        if name is None:
            return None
        if name not in self._endpoints:
            self._endpoints[name] = frozenset((*self._placed[name].slots, *self._placed[name].external_slots))
        ip = str(ipaddress.ip_address(where[:size]))
        endpoint = Endpoint(ip, int.from_bytes(where[size : size + 2], "big"))
        return (name, endpoint) if endpoint in self._endpoints[name] else None
