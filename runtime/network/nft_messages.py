"""nftables over netlink: attributes, expressions of rules, messages, and transactions.

This is our own encoder. nftables attributes are plain nested type-length-values. pyroute2's classes for them would
triple the helper's memory and do not encode `fib` correctly. The nft program costs 3 ms per call. And this way neither
nft nor libnftables needs to be installed.

Sources: linux/netfilter/nf_tables.h; nft(8); `nft --debug=netlink` shows the same expressions for the same rules.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from runtime.errors import CapabilityError
from runtime.network.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NetlinkError,
    NetlinkSocket,
    Request,
    attributes,
    message,
)

NFNL_SUBSYS_CTNETLINK, NFNL_SUBSYS_NFTABLES = 1, 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN, NFT_MSG_NEWRULE = 0, 2, 3, 4, 6
NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM = 9, 12, 13, 14
NFT_MSG_GETTABLE, NFT_MSG_GETRULE, NFT_MSG_GETGEN = 1, 7, 16
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
NLM_F_APPEND = 0x800
NLA_F_NESTED = 0x8000

NF_INET_PRE_ROUTING, NF_INET_FORWARD, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING = 0, 2, 3, 4
NF_DROP, NF_ACCEPT = 0, 1
NFPROTO_INET, NFPROTO_IPV4, NFPROTO_BRIDGE = 1, 2, 7
RAW, DSTNAT, FILTER, SRCNAT = -300, -100, 0, 100  # NF_IP_PRI_*
NFT_SET_MAP = 0x8
# libnftables' data types. The number of a concatenation is that of its parts, six bits each (only `nft list` uses it).
TYPE_IPADDR, TYPE_IP6ADDR, TYPE_ETHERADDR, TYPE_PROTO, TYPE_SERVICE, TYPE_IFNAME = 7, 8, 9, 12, 13, 41


def attribute(kind: int, payload: bytes) -> bytes:
    size = 4 + len(payload)
    return struct.pack("=HH", size, kind) + payload + bytes(-size % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">i" if value < 0 else ">I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def expression(name: str, *parts: bytes) -> bytes:
    """NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA }"""
    return nested(1, text(1, name), nested(2, *parts))


NFT_REG_VERDICT, NFT_REG_1, NFT_REG32_00 = 0, 1, 8  # NFT_REG_1 is the 16 bytes of NFT_REG32_00 … _03
META_OIFNAME, META_IIFNAME, META_L4PROTO, META_IIFGROUP = 7, 6, 16, 21
LINK_HEADER, NETWORK_HEADER, TRANSPORT_HEADER = 0, 1, 2
EQ, NEQ = 0, 1
SADDR, DADDR = 12, 16  # offsets in the IPv4 header


@dataclass(frozen=True, slots=True)
class Family:
    """An address family: the suffix of its sets' names, its number in nftables (NFPROTO_*, equal to AF_*), the bytes of
    an address, and where the addresses are in the header."""

    suffix: str
    number: int
    size: int
    source: int
    destination: int


IPV4 = Family("4", 2, 4, SADDR, DADDR)
IPV6 = Family("6", 10, 16, 8, 24)


def load_meta(key: int, register: int = NFT_REG_1) -> bytes:
    return expression("meta", number(1, register), number(2, key))


def load_payload(base: int, offset: int, size: int, register: int = NFT_REG_1) -> bytes:
    return expression("payload", number(1, register), number(2, base), number(3, offset), number(4, size))


def compare(operator: int, value: bytes) -> bytes:
    return expression("cmp", number(1, NFT_REG_1), number(2, operator), nested(3, attribute(1, value)))


def bitwise_and(mask: bytes) -> bytes:
    """NFT_REG_1 &= mask."""
    zero = bytes(len(mask))
    parts = (number(1, NFT_REG_1), number(2, NFT_REG_1), number(3, len(mask)))
    return expression("bitwise", *parts, nested(4, attribute(1, mask)), nested(5, attribute(1, zero)))


def interface(key: int, operator: int, name: str) -> bytes:
    return load_meta(key) + compare(operator, name.encode().ljust(16, b"\0"))


DROP, ACCEPT = (
    expression("immediate", number(1, NFT_REG_VERDICT), nested(2, nested(2, number(1, verdict))))
    for verdict in (NF_DROP, NF_ACCEPT)
)


def table_message(family: int, kind: int, flags: int, payload: bytes, about: str) -> Request:
    head = struct.pack(">BBH", family, 0, 0)  # nfgenmsg: family, version, resource
    return message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, head + payload, about)


def batch_marker(kind: int) -> Request:
    return message(kind, 0, struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES), "nftables transaction")


def concatenated(types: tuple[int, ...]) -> int:
    """The number of a concatenated type, with the first part in its highest bits (libnftables' concat_type_alloc)."""
    result = 0
    for part in types:
        result = result << 6 | part
    return result


@dataclass(frozen=True, slots=True)
class Chain:
    name: str
    type: str
    hook: int
    priority: int
    rules: tuple[bytes, ...]  # expressions


LACKING = (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)


class Table:
    """A table of one family. Every change is one transaction: it happens completely or not at all."""

    def __init__(self, family: int, name: str) -> None:
        """Raises CapabilityError if the kernel has no netfilter netlink."""
        self.family = family
        self.name = name
        self.socket = NetlinkSocket(NETLINK_NETFILTER)

    def close(self) -> None:
        self.socket.close()

    def message(self, kind: int, flags: int, payload: bytes, about: str) -> Request:
        return table_message(self.family, kind, flags, payload, about)

    def replacement(self) -> list[Request]:
        """The first messages of a transaction that replaces the table, whether or not it exists."""
        table, make = text(1, self.name), NLM_F_CREATE | NLM_F_ACK
        return [
            self.message(NFT_MSG_NEWTABLE, make, table, f"create nftables table {self.name}"),
            self.message(NFT_MSG_DELTABLE, NLM_F_ACK, table, f"replace nftables table {self.name}"),
            self.message(NFT_MSG_NEWTABLE, make, table, f"create nftables table {self.name}"),
        ]

    def replace(
        self, sets: Sequence[Request], chains: Iterable[Chain], elements: Sequence[Request], *, lacking: str
    ) -> None:
        """Replace the table, if there is one, in one transaction. Raises CapabilityError, with the message `lacking`,
        if the kernel lacks a part of nftables."""
        requests = [*self.replacement(), *sets]
        for chain in chains:
            requests.append(self.new_chain(chain))
            requests.extend(self.new_rule(chain, rule) for rule in chain.rules)
        try:
            self.transaction([*requests, *elements])
        except NetlinkError as error:
            if error.errno not in LACKING:
                raise
            raise CapabilityError(f"{lacking}: {error}") from error

    def remove(self, together: Sequence[Request], singly: Iterable[Request]) -> None:
        """Remove elements of sets and maps; missing ones are no error. Uses one transaction. If an element is missing,
        that transaction removes none, and each element is then removed in a transaction of its own."""
        try:
            self.transaction(together)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            for one in singly:
                self.transaction([one], ignore=(errno.ENOENT,))

    def elements(self, name: str) -> list[tuple[bytes, bytes]]:
        """(key, value) of each element of a map, or of a set (with b"" as value). Raises NetlinkError if the table does
        not exist."""
        query = text(1, self.name) + text(2, name)
        listed = self.socket.dump(self.message(NFT_MSG_GETSETELEM, NLM_F_DUMP, query, f"list {name}"))
        return [item for data in listed for item in elements_of(data[20:])]

    def items(self, name: str) -> Iterator[bytes]:
        """The attributes of each element of a map or set. Raises NetlinkError if the table does not exist."""
        query = text(1, self.name) + text(2, name)
        for data in self.socket.dump(self.message(NFT_MSG_GETSETELEM, NLM_F_DUMP, query, f"list {name}")):
            yield from items_of(data[20:])

    def rules(self) -> list[bytes]:
        """Every rule of the table as the kernel lists it: chain, handle and expressions."""
        query = self.message(NFT_MSG_GETRULE, NLM_F_DUMP, text(1, self.name), f"list rules of {self.name}")
        return [bytes(data[20:]) for data in self.socket.dump(query)]

    def exists(self) -> bool:
        query = self.message(NFT_MSG_GETTABLE, 0, text(1, self.name), f"look for nftables table {self.name}")
        try:
            return bool(self.socket.dump(query))
        except NetlinkError:
            return False

    def generation(self) -> int:
        """The number of the ruleset's last change, by whomever; -1 if the kernel does not say."""
        answer = self.socket.dump(self.message(NFT_MSG_GETGEN, 0, b"", "read the ruleset's generation"))
        return int.from_bytes(attributes(answer[0][20:])[1], "big") if answer else -1

    def delete(self) -> None:
        request = self.message(
            NFT_MSG_DELTABLE, NLM_F_ACK, text(1, self.name), f"delete nftables table {self.name}"
        )
        self.transaction(
            [request], ignore=(errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL)
        )

    def transaction(self, requests: Sequence[Request], *, ignore: Iterable[int] = ()) -> None:
        if requests:
            batch = [batch_marker(NFNL_MSG_BATCH_BEGIN), *requests, batch_marker(NFNL_MSG_BATCH_END)]
            self.socket.request(batch, ignore=ignore)

    def new_chain(self, chain: Chain) -> Request:
        hook = nested(4, number(1, chain.hook), number(2, chain.priority))
        payload = text(1, self.name) + text(3, chain.name) + hook + number(5, NF_ACCEPT) + text(7, chain.type)
        return self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, payload, f"create chain {chain.name}")

    def new_rule(self, chain: Chain, expressions: bytes) -> Request:
        payload = text(1, self.name) + text(2, chain.name) + nested(4, expressions)
        flags = NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK
        return self.message(NFT_MSG_NEWRULE, flags, payload, f"add a rule to chain {chain.name}")


def table_exists(family: int, name: str) -> bool:
    """Whether there is such a table; a kernel without nftables has none."""
    with contextlib.suppress(CapabilityError), contextlib.closing(Table(family, name)) as table:
        return table.exists()
    return False


def remove_table(family: int, name: str) -> None:
    """Remove a table. A missing one is no error."""
    with contextlib.suppress(CapabilityError), contextlib.closing(Table(family, name)) as table:
        table.delete()


def elements_of(payload: bytes) -> list[tuple[bytes, bytes]]:
    """(key, value) of each element in an NFT_MSG_NEWSETELEM; the value is b"" for a set."""
    found = []
    for item in items_of(payload):
        parts = attributes(item)
        value = attributes(parts[2])[1] if 2 in parts else b""
        found.append((attributes(parts[1])[1], value))
    return found


def items_of(payload: bytes) -> Iterator[bytes]:
    """The attributes of each element in an NFT_MSG_NEWSETELEM."""
    elements, offset = attributes(payload).get(3, b""), 0
    while offset + 4 <= len(elements):
        size = struct.unpack_from("=H", elements, offset)[0]
        yield elements[offset + 4 : offset + size]
        offset += (size + 3) & ~3
