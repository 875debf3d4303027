"""The node's nftables table: masquerading for traffic to other networks, host ports, and who may reach pods.

    map   ports       protocol . port            : pod address . pod port     host ports on every address
    map   ports-addr  address . protocol . port  : pod address . pod port     host ports on one address (hostIP)
    (If pods have IPv6 addresses, table ip6 has the same maps; its chains are in ipv6/outside.py.)
    chain guard       filter prerouting raw      only the host itself may reach 127/8 (see below)
    chain forward     filter forward             from other machines to pods: host ports and answers only
    chain prerouting  nat  ┐ to one of the host's addresses? look the port up in both maps, DNAT
    chain output      nat  ┘ (output: packets of the host itself, including to 127.0.0.1)
    chain postrouting nat    masquerade: pods to other networks; loopback into the bridge; a pod to a pod by host port

A port is one element of a map. Rules are never rewritten, and a look-up costs the same for one port and for a thousand.
The replies between two pods on the same bridge would bypass the host's connection tracking, so a connection from a pod
through a host port is masqueraded as well.

route_localnet, which 127.0.0.1 needs, admits packets for 127/8 from the bridge (CVE-2020-8558). And a packet for 127/8
that a neighbour puts on the wire would be redirected to a pod before the kernel could drop it as a martian. The `guard`
chain drops both.

The host forwards packets, so without the `forward` chain a neighbour with a route to the pods' network would reach
every port of every pod, also those published at 127.0.0.1 only or not at all. (docker drops such packets, too, since
version 28.) Pods of other nodes on this machine come in at bridges of the same interface group, and may pass.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
from collections.abc import Iterable, Sequence

from runtime.network.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NetlinkError,
    Request,
    attributes,
    message,
)
from runtime.network.nft_messages import (
    DADDR,
    DROP,
    DSTNAT,
    EQ,
    FILTER,
    IPCTNL_MSG_CT_DELETE,
    IPV4,
    IPV6,
    META_IIFGROUP,
    META_IIFNAME,
    META_L4PROTO,
    META_OIFNAME,
    NEQ,
    NETWORK_HEADER,
    NF_DROP,
    NF_INET_FORWARD,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
    NFNL_SUBSYS_CTNETLINK,
    NFNL_SUBSYS_NFTABLES,
    NFPROTO_INET,
    NFT_MSG_DELSETELEM,
    NFT_MSG_GETCHAIN,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_REG32_00,
    NFT_REG_1,
    NFT_SET_MAP,
    RAW,
    SADDR,
    SRCNAT,
    TRANSPORT_HEADER,
    TYPE_IP6ADDR,
    TYPE_IPADDR,
    TYPE_PROTO,
    TYPE_SERVICE,
    Chain,
    Family,
    Table,
    attribute,
    bitwise_and,
    compare,
    concatenated,
    expression,
    interface,
    load_meta,
    load_payload,
    nested,
    number,
    text,
)
from runtime.network.plan import (
    ANY_ADDRESS,
    ANY_ADDRESS6,
    BRIDGE_GROUP,
    PROTOCOLS,
    Lease,
    PortMapping,
    Subnet,
)

PORTS, PORTS_BY_ADDRESS = "ports", "ports-addr"
_SET_IDS = {PORTS: 1, PORTS_BY_ADDRESS: 2}
_NAMES = {IPV4: "ip", IPV6: "ip6"}  # as nft has them

Element = tuple[str, bytes, bytes]  # map, key, value


def _address(offset: int, operator: int, network: ipaddress.IPv4Network) -> bytes:
    masked = bitwise_and(network.netmask.packed) if network.prefixlen < 32 else b""
    return (
        load_payload(NETWORK_HEADER, offset, 4) + masked + compare(operator, network.network_address.packed)
    )


def _to_this_host() -> bytes:
    """fib daddr type local: result ADDRTYPE (3) for NFTA_FIB_F_DADDR (2), compared with RTN_LOCAL (2, host byte
    order)."""
    fib = expression("fib", number(1, NFT_REG_1), number(2, 3), number(3, 2))
    return fib + compare(EQ, struct.pack("=I", 2))


def was_redirected(operator: int = NEQ) -> bytes:
    """ct status dnat: NFT_CT_STATUS (2) & IPS_DST_NAT (1 << 5). With EQ: it was not."""
    status = expression("ct", number(1, NFT_REG_1), number(2, 2))
    return status + bitwise_and(struct.pack("=I", 1 << 5)) + compare(operator, bytes(4))


def begins_a_flow() -> bytes:
    """ct state is neither established nor related: NFT_CT_STATE (0) & NF_CT_STATE_BIT (1 << IP_CT_… + 1)"""
    state = expression("ct", number(1, NFT_REG_1), number(2, 0))
    return state + bitwise_and(struct.pack("=I", 1 << 1 | 1 << 2)) + compare(EQ, bytes(4))


def _redirect(map_name: str, family: Family) -> bytes:
    """Look the packet up and DNAT to the map's value: the address in the first bytes of the register, then the port."""
    width = family.size // 4
    word, key = NFT_REG32_00, b""
    if map_name == PORTS_BY_ADDRESS:
        word, key = word + width, load_payload(NETWORK_HEADER, family.destination, family.size, word)
    key += load_meta(META_L4PROTO, word) + load_payload(TRANSPORT_HEADER, 2, 2, word + 1)
    lookup = (
        text(1, map_name),
        number(2, NFT_REG32_00),
        number(3, NFT_REG32_00),
        number(4, _SET_IDS[map_name]),
    )
    nat = (number(1, 1), number(2, family.number), number(3, NFT_REG32_00), number(5, NFT_REG32_00 + width))
    return key + expression("lookup", *lookup) + expression("nat", *nat)


def redirects(family: Family) -> tuple[bytes, bytes]:
    """The rules that lead packets for published ports to pods."""
    return _to_this_host() + _redirect(PORTS_BY_ADDRESS, family), _to_this_host() + _redirect(PORTS, family)


MASQUERADE = expression("masq")


# --- the table ----------------------------------------------------------------------------------------------


def chains(bridge: str, subnet: Subnet, *, routed: bool = False) -> tuple[Chain, ...]:
    """The table's chains and rules, as listed in the module's docstring. `routed`: leave out the forward chain's
    rule."""
    pods = subnet.network
    loopback = ipaddress.IPv4Network("127.0.0.0/8")
    multicast = ipaddress.IPv4Network("224.0.0.0/4")
    redirect = redirects(IPV4)
    from_pods = _address(SADDR, EQ, pods)
    into_bridge = interface(META_OIFNAME, EQ, bridge)
    postrouting = (
        from_pods + interface(META_OIFNAME, NEQ, bridge) + _address(DADDR, NEQ, multicast) + MASQUERADE,
        into_bridge + _address(SADDR, EQ, loopback) + MASQUERADE,
        into_bridge + from_pods + was_redirected() + MASQUERADE,
    )
    guard = (interface(META_IIFNAME, NEQ, "lo") + _address(DADDR, EQ, loopback) + DROP,)
    not_of_a_node = load_meta(META_IIFGROUP) + compare(NEQ, struct.pack("=I", BRIDGE_GROUP))
    from_outside = interface(META_IIFNAME, NEQ, bridge) + not_of_a_node + into_bridge
    forward = () if routed else (from_outside + begins_a_flow() + was_redirected(EQ) + DROP,)
    return (
        Chain("guard", "filter", NF_INET_PRE_ROUTING, RAW, guard),
        Chain("forward", "filter", NF_INET_FORWARD, FILTER, forward),
        Chain("prerouting", "nat", NF_INET_PRE_ROUTING, DSTNAT, redirect),
        Chain("output", "nat", NF_INET_LOCAL_OUT, DSTNAT, redirect),
        Chain("postrouting", "nat", NF_INET_POST_ROUTING, SRCNAT, postrouting),
    )


def element(port: PortMapping, ip: str) -> Element:
    """(map, key, value) of a port published for a pod's address. Every part of a concatenation fills whole 4-byte
    registers."""
    key = bytes((PROTOCOLS[port.protocol], 0, 0, 0)) + struct.pack(">HH", port.host_port, 0)
    value = ipaddress.ip_address(ip).packed + struct.pack(">HH", port.container_port, 0)
    if port.host_ip in ("", ANY_ADDRESS, ANY_ADDRESS6):
        return PORTS, key, value
    return PORTS_BY_ADDRESS, ipaddress.ip_address(port.address).packed + key, value


def elements(lease: Lease, port: PortMapping) -> list[Element]:
    """The elements of a published port: one for each of the pod's addresses whose family `host_ip` allows."""
    wanted = [ip for ip in lease.addresses if not port.host_ip or (":" in ip) == (":" in port.host_ip)]
    return [element(port, ip) for ip in wanted]


def describe(item: Element) -> str:
    """An element as text, for messages."""
    name, key, value = item
    size = _family(item).size
    target, any_address = ipaddress.ip_address(value[:size]), ANY_ADDRESS if size == 4 else ANY_ADDRESS6
    address = str(ipaddress.ip_address(key[:size])) if name == PORTS_BY_ADDRESS else any_address
    protocol, port = key[-8], struct.unpack(">H", key[-4:-2])[0]
    said = next((name for name, n in PROTOCOLS.items() if n == protocol), str(protocol))
    published, behind = (f"[{one}]" if size == 16 else str(one) for one in (address, target))
    return f"{said} {published}:{port} → {behind}:{struct.unpack('>H', value[size : size + 2])[0]}"


def _family(item: Element) -> Family:
    """The family of an element's addresses: its value is an address and a port."""
    return IPV4 if len(item[2]) == IPV4.size + 4 else IPV6


class NatTable(Table):
    """One node's table, and a second one of family ip6 if pods have IPv6 addresses. Every change is one transaction: it
    happens completely or not at all."""

    def __init__(
        self, name: str, bridge: str, subnet: Subnet, *, routed: bool = False, chains6: Sequence[Chain] = ()
    ) -> None:
        """`chains6`: the chains of the table of family ip6; without any, there is no such table. Raises CapabilityError
        if the kernel has no netfilter netlink."""
        super().__init__(socket.AF_INET, name)
        self._chains6 = chains6
        self._tables: dict[Family, Table] = {IPV4: self}
        if chains6:
            self._tables[IPV6] = Table(socket.AF_INET6, name)
        self._routed = routed
        self._bridge = bridge
        self._subnet = subnet

    def elements_of(self, lease: Lease, *ports: PortMapping) -> list[Element]:
        """The elements of these ports of a pod, or of all its ports, in the tables that exist: a pod keeps an IPv6
        address in its lease after the node has lost its IPv6 network."""
        found = (item for port in ports or lease.ports for item in elements(lease, port))
        return [item for item in found if _family(item) in self._tables]

    def rebuild(self, leases: Iterable[Lease]) -> None:
        """Replace the table, if there is one, by one that publishes these leases' ports. Raises CapabilityError if the
        kernel lacks nftables or a part of it."""
        published = [item for lease in leases for item in self.elements_of(lease)]
        second: list[Request] = []
        if table := self._tables.get(IPV6):
            second += [*table.replacement(), *self._new_maps(IPV6)]
            for chain in self._chains6:
                second += [table.new_chain(chain), *(table.new_rule(chain, rule) for rule in chain.rules)]
        self.replace(
            self._new_maps(IPV4),
            chains(self._bridge, self._subnet, routed=self._routed),
            [*second, *self._elements(NFT_MSG_NEWSETELEM, published)],
            lacking="this kernel cannot do NAT with nftables (it needs CONFIG_NFT_NAT, CONFIG_NFT_MASQ and "
            "CONFIG_NFT_FIB_IPV4)",
        )

    def publish(self, lease: Lease) -> None:
        """Publish the lease's ports. Existing elements are no error, but another value for a key is (EEXIST)."""
        self.transaction(self._elements(NFT_MSG_NEWSETELEM, self.elements_of(lease)))
        self._forget_flows(lease.ports)

    def withdraw(self, leases: Sequence[Lease]) -> None:
        """Remove the leases' ports. Missing elements are no error."""
        gone = [item for lease in leases for item in self.elements_of(lease)]
        singly = (one for item in gone for one in self._elements(NFT_MSG_DELSETELEM, [item]))
        self.remove(self._elements(NFT_MSG_DELSETELEM, gone), singly)
        self._forget_flows([port for lease in leases for port in lease.ports])

    def published(self) -> set[Element]:
        """The current elements of the maps, in the form of element(). Raises NetlinkError if a table does not exist."""
        return {
            (name, key, value)
            for table in self._tables.values()
            for name in (PORTS, PORTS_BY_ADDRESS)
            for key, value in table.elements(name)
        }

    def lacks_second(self) -> bool:
        """Whether pods have IPv6 addresses, and their table is missing."""
        return IPV6 in self._tables and not self._tables[IPV6].exists()

    def delete(self) -> None:
        """Remove the tables. Missing ones are no error."""
        super().delete()
        if table := self._tables.get(IPV6):
            table.delete()

    def dropping_chains(self) -> list[str]:
        """Other tables' forward chains whose policy is drop: they drop the pods' packets, whatever this table says.

        An accept verdict in one base chain never overrides a drop in another of the same hook (nft(8)).
        """
        head = struct.pack(">BBH", 0, 0, 0)
        query = message(
            NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, NLM_F_DUMP, head, "list nftables chains"
        )
        found = []
        families = {NFPROTO_INET: "inet", **{one.number: _NAMES[one] for one in self._tables}}
        for data in self.socket.dump(query):
            chain = attributes(data[20:])
            hook, policy = attributes(chain.get(4, b"")), chain.get(5, b"")
            if data[16] not in families or 1 not in hook or len(policy) != 4:
                continue
            if (
                struct.unpack(">I", hook[1])[0] == NF_INET_FORWARD
                and struct.unpack(">I", policy)[0] == NF_DROP
            ):
                found.append(f"{families[data[16]]} {_string(chain[1])} {_string(chain[3])}")
        return found

    def has_chain(self, table: str, name: str) -> bool:
        query = text(1, table) + text(3, name)
        try:
            return bool(self.socket.dump(self.message(NFT_MSG_GETCHAIN, 0, query, f"look for chain {name}")))
        except NetlinkError:
            return False

    def _new_maps(self, family: Family) -> list[Request]:
        address = TYPE_IPADDR if family is IPV4 else TYPE_IP6ADDR
        keys = {PORTS: (TYPE_PROTO, TYPE_SERVICE), PORTS_BY_ADDRESS: (address, TYPE_PROTO, TYPE_SERVICE)}
        return [
            self._tables[family].message(
                NFT_MSG_NEWSET,
                NLM_F_CREATE | NLM_F_ACK,
                text(1, self.name)
                + text(2, name)
                + number(3, NFT_SET_MAP)
                + number(4, concatenated(key))
                + number(5, 8 + (family.size if address in key else 0))
                + number(6, concatenated((address, TYPE_SERVICE)))
                + number(7, family.size + 4)
                + number(10, _SET_IDS[name]),
                f"create map {name}",
            )
            for name, key in keys.items()
        ]

    def _elements(self, kind: int, items: Iterable[Element]) -> list[Request]:
        """The messages that change elements: one per map and 200 elements, because an attribute holds at most 64 KB."""
        requests = []
        listed = list(items)
        for family, name in itertools.product(self._tables, (PORTS, PORTS_BY_ADDRESS)):
            ours = [item[1:] for item in listed if item[0] == name and _family(item) is family]
            for start in range(0, len(ours), 200):
                encoded = [
                    nested(1, nested(1, attribute(1, key)), nested(2, attribute(1, value)))
                    for key, value in ours[start : start + 200]
                ]
                payload = text(1, self.name) + text(2, name) + nested(3, *encoded)
                flags = NLM_F_ACK | (NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0)
                about = f"change published ports in {self.name}"
                requests.append(self._tables[family].message(kind, flags, payload, about))
        return requests

    def _forget_flows(self, ports: Iterable[PortMapping]) -> None:
        """Delete the connection tracking entries of UDP flows to these host ports. An existing flow never consults the
        NAT table again, so a sender that does not pause would keep reaching the old pod's address (or none). Best
        effort: kernels before CTA_FILTER (5.8) return EINVAL, and the flows expire by themselves.

        Uses ctnetlink's delete with CTA_FILTER { orig: IP protocol, destination port }, CTA_TUPLE_ORIG {
        CTA_TUPLE_PROTO }.
        """
        requests = []
        for family, port in itertools.product(self._tables, ports):
            if port.protocol == "UDP":
                proto = nested(2, attribute(1, b"\x11"), attribute(3, struct.pack(">H", port.host_port)))
                flags = struct.pack("=I", 1 << 3 | 1 << 5)  # CTA_FILTER_F_CTA_PROTO_NUM, …_PROTO_DST_PORT
                filters = nested(25, attribute(1, flags), attribute(2, bytes(4)))
                payload = struct.pack(">BBH", family.number, 0, 0) + nested(1, proto) + filters
                kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
                requests.append(message(kind, NLM_F_ACK, payload, "forget UDP flows"))
        for request in requests:
            self.socket.attempt([request])


def drop_warning(chain: str, bridge: str, *, docker: bool) -> str:
    """A warning about another program's forward chain that drops by default (docker and many firewalls have one)."""
    if docker:
        command = f"{'ip6tables' if chain.startswith('ip6 ') else 'iptables'} -I DOCKER-USER"
        remedy = f"{command} -i {bridge} -j ACCEPT; {command} -o {bridge} -j ACCEPT"
    else:
        remedy = f"nft insert rule {chain} iifname {bridge} accept; nft insert rule {chain} oifname {bridge} accept"
    return (
        f"nftables chain '{chain}' drops forwarded packets by default, so pods may not reach other networks or be "
        f"reached through host ports from there; to allow it: {remedy}"
    )


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
