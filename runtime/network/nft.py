"""The node's nftables table: masquerading to the outside, and host ports.

    map   ports       protocol . port            : pod address . pod port     host ports on every address
    map   ports-addr  address . protocol . port  : pod address . pod port     host ports on one address (hostIP)
    chain guard       filter prerouting raw      nothing but the host itself may reach 127/8 (see below)
    chain prerouting  nat  ┐ to one of the host's addresses? look the port up in both maps, DNAT
    chain output      nat  ┘ (output: what the host itself sends, 127.0.0.1 included)
    chain postrouting nat    masquerade: pods to the outside; loopback into the bridge; a pod to a pod by host port

A port is one element of a map: rules are never rewritten, and a lookup costs the same for one port and for a thousand.
The replies of a pod to a pod on the same bridge would not pass this host's connection tracking, so a connection from a
pod by way of a host port is masqueraded too.

route_localnet, which 127.0.0.1 needs, lets 127/8 in from the bridge (CVE-2020-8558); `guard` closes that again.

Everything is sent as netlink transactions of this module's own encoding: nftables attributes are plain nested
type-length-values, pyroute2's classes for them would triple the helper's memory and lack correct `fib`
encoding, the nft program costs 3 ms a start, and neither it nor libnftables has to be installed this way.

Sources: linux/netfilter/nf_tables.h; nft(8); `nft --debug=netlink` shows the same expressions for the same rules.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Sequence
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
    message,
)
from runtime.network.plan import ANY_ADDRESS, PROTOCOLS, Lease, PortMapping, Subnet

NFNL_SUBSYS_CTNETLINK, NFNL_SUBSYS_NFTABLES = 1, 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN, NFT_MSG_NEWRULE = 0, 2, 3, 4, 6
NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM = 9, 12, 13, 14
IPCTNL_MSG_CT_DELETE = 2
NLM_F_APPEND = 0x800
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF

NF_INET_PRE_ROUTING, NF_INET_FORWARD, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING = 0, 2, 3, 4
NF_DROP, NF_ACCEPT = 0, 1
NFPROTO_INET = 1
RAW, DSTNAT, SRCNAT = -300, -100, 100  # NF_IP_PRI_*
NFT_SET_MAP = 0x8
# libnftables' data types; a concatenation's number is its parts', six bits each (only `nft list` needs them)
TYPE_IPADDR, TYPE_PROTO, TYPE_SERVICE = 7, 12, 13

PORTS, PORTS_BY_ADDRESS = "ports", "ports-addr"
_SET_IDS = {PORTS: 1, PORTS_BY_ADDRESS: 2}


# --- attributes and expressions -----------------------------------------------------------------------------


def attribute(kind: int, payload: bytes) -> bytes:
    size = 4 + len(payload)
    return struct.pack("=HH", size, kind) + payload + bytes(-size % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">i" if value < 0 else ">I", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a buffer by type (the last one, of several)."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def _expression(name: str, *parts: bytes) -> bytes:
    """NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA }"""
    return nested(1, text(1, name), nested(2, *parts))


NFT_REG_VERDICT, NFT_REG_1, NFT_REG32_00 = 0, 1, 8  # NFT_REG_1 is the 16 bytes of NFT_REG32_00 … _03
META_OIFNAME, META_IIFNAME, META_L4PROTO = 7, 6, 16
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
EQ, NEQ = 0, 1
SADDR, DADDR = 12, 16  # offsets in the IPv4 header


def _meta(key: int, register: int = NFT_REG_1) -> bytes:
    return _expression("meta", number(1, register), number(2, key))


def _payload(base: int, offset: int, size: int, register: int = NFT_REG_1) -> bytes:
    return _expression("payload", number(1, register), number(2, base), number(3, offset), number(4, size))


def _compare(operator: int, value: bytes) -> bytes:
    return _expression("cmp", number(1, NFT_REG_1), number(2, operator), nested(3, attribute(1, value)))


def _mask(mask: bytes) -> bytes:
    zero = bytes(len(mask))
    parts = (number(1, NFT_REG_1), number(2, NFT_REG_1), number(3, len(mask)))
    return _expression("bitwise", *parts, nested(4, attribute(1, mask)), nested(5, attribute(1, zero)))


def _interface(key: int, operator: int, name: str) -> bytes:
    return _meta(key) + _compare(operator, name.encode().ljust(16, b"\0"))


def _address(offset: int, operator: int, network: ipaddress.IPv4Network) -> bytes:
    masked = _mask(network.netmask.packed) if network.prefixlen < 32 else b""
    return _payload(NETWORK_HEADER, offset, 4) + masked + _compare(operator, network.network_address.packed)


def _to_this_host() -> bytes:
    """fib daddr type local: result ADDRTYPE (3) by NFTA_FIB_F_DADDR (2), compared with RTN_LOCAL (2, host order)."""
    fib = _expression("fib", number(1, NFT_REG_1), number(2, 3), number(3, 2))
    return fib + _compare(EQ, struct.pack("=I", 2))


def _was_redirected() -> bytes:
    """ct status dnat: NFT_CT_STATUS (2) & IPS_DST_NAT (1 << 5)"""
    status = _expression("ct", number(1, NFT_REG_1), number(2, 2))
    return status + _mask(struct.pack("=I", 1 << 5)) + _compare(NEQ, bytes(4))


def _redirect(map_name: str) -> bytes:
    """Look the packet up and DNAT to what the map says: address in the register's first 4 bytes, port in the next."""
    words = iter(range(NFT_REG32_00, NFT_REG32_00 + 3))
    key = _payload(NETWORK_HEADER, DADDR, 4, next(words)) if map_name == PORTS_BY_ADDRESS else b""
    key += _meta(META_L4PROTO, next(words)) + _payload(TRANSPORT_HEADER, 2, 2, next(words))
    lookup = (
        text(1, map_name),
        number(2, NFT_REG32_00),
        number(3, NFT_REG32_00),
        number(4, _SET_IDS[map_name]),
    )
    nat = (number(1, 1), number(2, socket.AF_INET), number(3, NFT_REG32_00), number(5, NFT_REG32_00 + 1))
    return key + _expression("lookup", *lookup) + _expression("nat", *nat)


_MASQUERADE = _expression("masq")
_DROP = _expression("immediate", number(1, NFT_REG_VERDICT), nested(2, nested(2, number(1, NF_DROP))))


# --- the table ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chain:
    name: str
    type: str
    hook: int
    priority: int
    rules: tuple[bytes, ...]  # expressions


def chains(bridge: str, subnet: Subnet) -> tuple[Chain, ...]:
    """The table's chains and rules, as in the module's head."""
    pods = subnet.network
    loopback = ipaddress.IPv4Network("127.0.0.0/8")
    multicast = ipaddress.IPv4Network("224.0.0.0/4")
    redirect = (_to_this_host() + _redirect(PORTS_BY_ADDRESS), _to_this_host() + _redirect(PORTS))
    from_pods = _address(SADDR, EQ, pods)
    into_bridge = _interface(META_OIFNAME, EQ, bridge)
    postrouting = (
        from_pods + _interface(META_OIFNAME, NEQ, bridge) + _address(DADDR, NEQ, multicast) + _MASQUERADE,
        into_bridge + _address(SADDR, EQ, loopback) + _MASQUERADE,
        into_bridge + from_pods + _was_redirected() + _MASQUERADE,
    )
    guard = (_interface(META_IIFNAME, EQ, bridge) + _address(DADDR, EQ, loopback) + _DROP,)
    return (
        Chain("guard", "filter", NF_INET_PRE_ROUTING, RAW, guard),
        Chain("prerouting", "nat", NF_INET_PRE_ROUTING, DSTNAT, redirect),
        Chain("output", "nat", NF_INET_LOCAL_OUT, DSTNAT, redirect),
        Chain("postrouting", "nat", NF_INET_POST_ROUTING, SRCNAT, postrouting),
    )


def element(port: PortMapping, ip: str) -> tuple[str, bytes, bytes]:
    """(map, key, value) of a published port; every part of a concatenation fills whole 4-byte registers."""
    key = bytes((PROTOCOLS[port.protocol], 0, 0, 0)) + struct.pack(">HH", port.host_port, 0)
    value = ipaddress.IPv4Address(ip).packed + struct.pack(">HH", port.container_port, 0)
    if port.address == ANY_ADDRESS:
        return PORTS, key, value
    return PORTS_BY_ADDRESS, ipaddress.IPv4Address(port.address).packed + key, value


def describe(item: tuple[str, bytes, bytes]) -> str:
    """An element in words, for people."""
    _, key, value = item
    address = str(ipaddress.IPv4Address(key[:4])) if len(key) == 12 else ANY_ADDRESS
    protocol, port = key[-8], struct.unpack(">H", key[-4:-2])[0]
    name = next((name for name, n in PROTOCOLS.items() if n == protocol), str(protocol))
    return (
        f"{name} {address}:{port} → {ipaddress.IPv4Address(value[:4])}:{struct.unpack('>H', value[4:6])[0]}"
    )


def _message(kind: int, flags: int, payload: bytes, about: str) -> Request:
    head = struct.pack(">BBH", socket.AF_INET, 0, 0)  # nfgenmsg: family, version, resource
    return message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, head + payload, about)


def _bracket(kind: int) -> Request:
    return message(kind, 0, struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES), "nftables transaction")


class NatTable:
    """One node's table. Every change is one transaction: it happens whole or not at all."""

    def __init__(self, name: str, bridge: str, subnet: Subnet) -> None:
        """Raises CapabilityError when the kernel has no netfilter netlink at all."""
        self.name = name
        self._bridge = bridge
        self._subnet = subnet
        self._socket = NetlinkSocket(NETLINK_NETFILTER)

    def close(self) -> None:
        self._socket.close()

    def rebuild(self, leases: Iterable[Lease]) -> None:
        """Replace the table, whatever it was, by one that publishes these leases' ports. Raises CapabilityError when
        the kernel lacks nftables or a part of it that is needed."""
        published = [element(port, lease.ip) for lease in leases for port in lease.ports]
        table = text(1, self.name)
        requests = [
            _message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, table, f"create nftables table {self.name}"),
            _message(NFT_MSG_DELTABLE, NLM_F_ACK, table, f"replace nftables table {self.name}"),
            _message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, table, f"create nftables table {self.name}"),
            self._new_map(PORTS, (TYPE_PROTO, TYPE_SERVICE)),
            self._new_map(PORTS_BY_ADDRESS, (TYPE_IPADDR, TYPE_PROTO, TYPE_SERVICE)),
        ]
        for chain in chains(self._bridge, self._subnet):
            requests.append(self._new_chain(chain))
            requests.extend(self._new_rule(chain, rule) for rule in chain.rules)
        requests.extend(self._elements(NFT_MSG_NEWSETELEM, published))
        try:
            self._transaction(requests)
        except NetlinkError as error:
            if error.errno in (
                errno.ENOENT,
                errno.EOPNOTSUPP,
                errno.EINVAL,
                errno.EPROTONOSUPPORT,
                errno.EAFNOSUPPORT,
            ):
                raise CapabilityError(
                    "this kernel can not do address translation by nftables (it needs CONFIG_NFT_NAT, NFT_MASQ and "
                    f"NFT_FIB_IPV4): {error}"
                ) from error
            raise

    def publish(self, lease: Lease) -> None:
        """Add the lease's ports. Fine when they are there already; another value for a key is an error (EEXIST)."""
        self._transaction(
            self._elements(NFT_MSG_NEWSETELEM, [element(port, lease.ip) for port in lease.ports])
        )
        self._forget_flows(lease.ports)

    def withdraw(self, leases: Sequence[Lease]) -> None:
        """Remove the leases' ports; fine when none is there."""
        gone = [(lease, element(port, lease.ip)) for lease in leases for port in lease.ports]
        try:
            self._transaction(self._elements(NFT_MSG_DELSETELEM, [item for _, item in gone]))
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            for _, item in gone:  # one was missing, so none was removed: take them one by one
                self._transaction(self._elements(NFT_MSG_DELSETELEM, [item]), ignore=(errno.ENOENT,))
        self._forget_flows([port for lease in leases for port in lease.ports])

    def published(self) -> set[tuple[str, bytes, bytes]]:
        """The elements both maps have now, in the form of element(); NetworkError when the table is not there."""
        found: set[tuple[str, bytes, bytes]] = set()
        for name in (PORTS, PORTS_BY_ADDRESS):
            query = _message(
                NFT_MSG_GETSETELEM, NLM_F_DUMP, text(1, self.name) + text(2, name), f"list {name}"
            )
            for data in self._socket.dump(query):
                found.update((name, key, value) for key, value in _elements_of(data[20:]))
        return found

    def delete(self) -> None:
        request = _message(
            NFT_MSG_DELTABLE, NLM_F_ACK, text(1, self.name), f"delete nftables table {self.name}"
        )
        self._transaction(
            [request], ignore=(errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL)
        )

    def dropping_chains(self) -> list[str]:
        """Other tables' forward chains whose policy is drop: pods' packets die there, whatever this table says.

        A verdict of accept in one base chain never overrides a drop in another of the same hook (nft(8))."""
        head = struct.pack(">BBH", 0, 0, 0)
        query = message(
            NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, NLM_F_DUMP, head, "list nftables chains"
        )
        found = []
        for data in self._socket.dump(query):
            chain = attributes(data[20:])
            hook, policy = attributes(chain.get(4, b"")), chain.get(5, b"")
            if data[16] not in (socket.AF_INET, NFPROTO_INET) or 1 not in hook or len(policy) != 4:
                continue
            if (
                struct.unpack(">I", hook[1])[0] == NF_INET_FORWARD
                and struct.unpack(">I", policy)[0] == NF_DROP
            ):
                family = "inet" if data[16] == NFPROTO_INET else "ip"
                found.append(f"{family} {_string(chain[1])} {_string(chain[3])}")
        return found

    def has_chain(self, table: str, name: str) -> bool:
        query = text(1, table) + text(3, name)
        try:
            return bool(self._socket.dump(_message(NFT_MSG_GETCHAIN, 0, query, f"look for chain {name}")))
        except NetlinkError:
            return False

    def _transaction(self, requests: Sequence[Request], *, ignore: Iterable[int] = ()) -> None:
        if requests:
            batch = [_bracket(NFNL_MSG_BATCH_BEGIN), *requests, _bracket(NFNL_MSG_BATCH_END)]
            self._socket.request(batch, ignore=ignore)

    def _new_map(self, name: str, key: tuple[int, ...]) -> Request:
        payload = (
            text(1, self.name)
            + text(2, name)
            + number(3, NFT_SET_MAP)
            + number(4, _concatenated(key))
            + number(5, 4 * len(key))
            + number(6, _concatenated((TYPE_IPADDR, TYPE_SERVICE)))
            + number(7, 8)
            + number(10, _SET_IDS[name])
        )
        return _message(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_ACK, payload, f"create map {name}")

    def _new_chain(self, chain: Chain) -> Request:
        hook = nested(4, number(1, chain.hook), number(2, chain.priority))
        payload = text(1, self.name) + text(3, chain.name) + hook + number(5, NF_ACCEPT) + text(7, chain.type)
        return _message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, payload, f"create chain {chain.name}")

    def _new_rule(self, chain: Chain, expressions: bytes) -> Request:
        payload = text(1, self.name) + text(2, chain.name) + nested(4, expressions)
        flags = NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK
        return _message(NFT_MSG_NEWRULE, flags, payload, f"add a rule to chain {chain.name}")

    def _elements(self, kind: int, items: Iterable[tuple[str, bytes, bytes]]) -> list[Request]:
        """One message a map (at most 200 elements each: an attribute holds 64 KB)."""
        requests = []
        listed = list(items)
        for name in (PORTS, PORTS_BY_ADDRESS):
            ours = [(key, value) for map_name, key, value in listed if map_name == name]
            for start in range(0, len(ours), 200):
                elements = [
                    nested(1, nested(1, attribute(1, key)), nested(2, attribute(1, value)))
                    for key, value in ours[start : start + 200]
                ]
                payload = text(1, self.name) + text(2, name) + nested(3, *elements)
                flags = NLM_F_ACK | (NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0)
                requests.append(_message(kind, flags, payload, f"change published ports in {self.name}"))
        return requests

    def _forget_flows(self, ports: Iterable[PortMapping]) -> None:
        """Drop the connection tracking of UDP to these host ports: a flow that goes on never consults the NAT table
        again, so a sender that does not pause would keep reaching the old pod's address (or none). Best effort: kernels
        before CTA_FILTER (5.8) say EINVAL and the flows run out by themselves.

        ctnetlink's delete with CTA_FILTER { orig: IP protocol, destination port }, CTA_TUPLE_ORIG {
        CTA_TUPLE_PROTO }."""
        requests = []
        for port in ports:
            if port.protocol == "UDP":
                proto = nested(2, attribute(1, b"\x11"), attribute(3, struct.pack(">H", port.host_port)))
                flags = struct.pack("=I", 1 << 3 | 1 << 5)  # CTA_FILTER_F_CTA_PROTO_NUM, …_PROTO_DST_PORT
                filters = nested(25, attribute(1, flags), attribute(2, bytes(4)))
                payload = struct.pack(">BBH", socket.AF_INET, 0, 0) + nested(1, proto) + filters
                kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
                requests.append(message(kind, NLM_F_ACK, payload, "forget UDP flows"))
        for request in requests:
            self._socket.attempt([request])


def _concatenated(types: tuple[int, ...]) -> int:
    result = 0
    for part in types:
        result = result << 6 | part
    return result


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _elements_of(payload: bytes) -> list[tuple[bytes, bytes]]:
    """(key, value) of each element in a NFT_MSG_NEWSETELEM."""
    found = []
    elements, offset = attributes(payload).get(3, b""), 0
    while offset + 4 <= len(elements):
        size = struct.unpack_from("=H", elements, offset)[0]
        parts = attributes(elements[offset + 4 : offset + size])
        found.append((attributes(parts[1])[1], attributes(parts[2])[1]))
        offset += (size + 3) & ~3
    return found
