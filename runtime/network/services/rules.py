"""The rules of the Services' tables, as expressions. Pure.

    table ip <node>-services, and table ip6 <node>-services on a node with IPv6
      map services    address . protocol . port          : chain         cluster IPs
      map external    address . protocol . port          : chain         external IPs; node ports at 0.0.0.0 or ::
      map endpoints   address . protocol . port . slot   : address . port
      set fronts      address . protocol . port                          what has endpoints, for `postrouting`
      set refused     address . protocol . port                          what has none
      chain prerouting, output   nat      look the packet up in `services`, then in `external`
      chain pick-<n>             DNAT to endpoints[address . protocol . port . random number below n]
      chain postrouting          nat      keep the client's address on the bridge; masquerade elsewhere
      chain input, forward       filter   refuse what no endpoint serves
      chain refuse-output        filter   the same for packets of this host
    table bridge <node>-services
      chain route     filter prerouting   hand the frames from pod to pod to the host's routing

No rule and no chain belongs to a Service: there is one `pick` chain for each number of endpoints in use. kube-proxy has
a chain for each Service and each endpoint, and rewrites the Service's chain when an endpoint changes. Here a change is
a few elements of maps.

The frames between two pods on the bridge bypass the host's connection tracking, which must translate the addresses of
replies. So the bridge hands them to the host, which routes them back into the bridge. The alternatives are worse:
masquerading hides the client's address, and br_netfilter applies to all bridges of the machine. Packets of IPv6 are
routed anyway (ipv6/__init__.py).

An IPv4 address fills one 4-byte register, an IPv6 address four. Each rule loads the front (address, protocol, port)
into the registers from R on, and its other values into the registers after it. With IPv6, the rules of session affinity
use all 16 registers.

A packet that meets a change may find a slot that is gone. The second rule of a pick chain then takes slot 0, which
exists as long as there are endpoints.
"""

from __future__ import annotations

import ipaddress
import struct

from runtime.network.nft_messages import (
    DROP,
    EQ,
    IPV4,
    LINK_HEADER,
    META_IIFNAME,
    META_L4PROTO,
    META_OIFNAME,
    NEQ,
    NETWORK_HEADER,
    NF_INET_FORWARD,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
    NFT_REG32_00,
    NFT_REG_1,
    NFT_REG_VERDICT,
    TRANSPORT_HEADER,
    Chain,
    Family,
    attribute,
    bitwise_and,
    compare,
    expression,
    interface,
    load_meta,
    load_payload,
    nested,
    number,
    text,
)
from runtime.network.plan import mac_of
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
    Pick,
)
from runtime.network.services.plan import Network

NF_INET_LOCAL_IN = 1
NFT_JUMP, NFT_GOTO = -3, -4
DSTNAT, FILTER, BEFORE_SRCNAT, AFTER_SRCNAT = -100, 0, 99, 200
NF_BR_PRE_ROUTING, AFTER_ANTISPOOF = 0, -250  # antispoof.FIRST is -300; br_netfilter runs at 0
META_PRIORITY, META_PKTTYPE, PACKET_HOST = 2, 19, 0
NFT_NG_RANDOM = 1
FRAME_DESTINATION, FRAME_KIND, ETH_P_IP = 0, 12, b"\x08\x00"
CT_STATE, CT_DIRECTION, CT_STATUS, CT_PROTO_SRC, CT_PROTO_DST = 0, 1, 2, 11, 12
CT_SRC_IP, CT_DST_IP, CT_SRC_IP6, CT_DST_IP6 = 19, 20, 21, 22
IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY = 0, 1
ESTABLISHED_OR_RELATED, IPS_DST_NAT = 1 << 1 | 1 << 2, 1 << 5
ICMP, ICMP_REDIRECT, ICMP_PORT_UNREACH = b"\x01", b"\x05", b"\x03"
ICMPV6, NDISC_REDIRECT, ICMPV6_PORT_UNREACH = b"\x3a", b"\x89", b"\x04"
REFUSE, SOURCE, OUTSIDE = "refuse", "source", "outside"
RTN_LOCAL = 2
SET_IDS = {
    name: index
    for index, name in enumerate(
        (SERVICES, EXTERNAL, ENDPOINTS, MEMBERS, AFFINITY, FRONTS, REFUSED, SELF, SOURCES, TAGS), 1
    )
}
R = NFT_REG32_00  # R + n: the n-th 4-byte register


def _words(family: Family) -> int:
    """Return how many 4-byte registers an address fills."""
    return family.size // 4


def _behind(family: Family) -> int:
    """Return the first register after a front that starts at R."""
    return R + _words(family) + 2


def _loopback(family: Family) -> Network:
    return ipaddress.ip_network("127.0.0.0/8" if family is IPV4 else "::1/128")


def _verdict(code: int, chain: str) -> bytes:
    verdict = nested(2, number(1, code), text(2, chain))
    return expression("immediate", number(1, NFT_REG_VERDICT), nested(2, verdict))


def _immediate(register: int, value: bytes) -> bytes:
    return expression("immediate", number(1, register), nested(2, attribute(1, value)))


def _meta_set(key: int, register: int) -> bytes:
    return expression("meta", number(3, register), number(2, key))


def _lookup(name: str, source: int, into: int | None = None, *, missing: bool = False) -> bytes:
    """Look up the key in `source`. The rule ends if there is no element; with `missing`, if there is one."""
    parts = [text(1, name), number(2, source), *([] if into is None else [number(3, into)])]
    return expression("lookup", *parts, number(4, SET_IDS[name]), *([number(5, 1)] if missing else []))


def _ct(key: int, register: int, direction: int | None = None) -> bytes:
    parts = [] if direction is None else [attribute(3, bytes((direction,)))]
    return expression("ct", number(1, register), number(2, key), *parts)


def _front(family: Family, register: int, *, node: bool = False) -> bytes:
    """Load address . protocol . port of the packet's destination into the registers from `register` on. `node`: load
    the address that stands for a node port instead."""
    address = (
        _immediate(register, bytes(family.size)) if node else _load(family, family.destination, register)
    )
    behind = register + _words(family)
    ports = load_payload(TRANSPORT_HEADER, 2, 2, behind + 1)
    return address + load_meta(META_L4PROTO, behind) + ports


def _load(family: Family, offset: int, register: int) -> bytes:
    """Load the address at `offset` of the packet's IP header."""
    return load_payload(NETWORK_HEADER, offset, family.size, register)


def _original_front(family: Family, register: int, *, node: bool = False) -> bytes:
    """Load what _front loads, for the packet's destination before DNAT."""
    key = CT_DST_IP if family is IPV4 else CT_DST_IP6
    address = _immediate(register, bytes(family.size)) if node else _ct(key, register, IP_CT_DIR_ORIGINAL)
    behind = register + _words(family)
    return address + load_meta(META_L4PROTO, behind) + _ct(CT_PROTO_DST, behind + 1, IP_CT_DIR_ORIGINAL)


def _address(offset: int, operator: int, network: Network) -> bytes:
    masked = bitwise_and(network.netmask.packed)
    load = load_payload(NETWORK_HEADER, offset, network.max_prefixlen // 8)
    return load + masked + compare(operator, network.network_address.packed)


def _to_this_host(family: Family) -> bytes:
    """fib daddr type local, but not localhost, which has no node ports, as in kube-proxy's nftables mode
    (pkg/proxy/nftables/proxier.go, noLocalhost)."""
    fib = expression("fib", number(1, NFT_REG_1), number(2, 3), number(3, 2))
    elsewhere = _address(family.destination, NEQ, _loopback(family))
    return fib + compare(EQ, struct.pack("=I", RTN_LOCAL)) + elsewhere


def _nat(family: Family, kind: int, address: int, port: int | None = None) -> bytes:
    parts = [number(1, kind), number(2, family.number), number(3, address)]
    return expression("nat", *parts, *([] if port is None else [number(5, port)]))


def _to_endpoint(family: Family, register: int) -> bytes:
    """Translate the packet's destination (DNAT) to the address and port in the registers from `register` on."""
    return _nat(family, _DNAT, register, register + _words(family))


def _remember(family: Family, operation: int, seconds: int = 0) -> bytes:
    """Update or delete an element of AFFINITY. Its key, a front and the client's address, starts at R; the register
    after the key holds the endpoint's tag, which _DELETE ignores."""
    parts = [text(1, AFFINITY), number(2, SET_IDS[AFFINITY]), number(3, operation), number(4, R)]
    parts.append(number(5, _behind(family) + _words(family)))
    if seconds:
        parts.append(attribute(6, struct.pack(">Q", seconds * 1000)))
    return expression("dynset", *parts)


_SNAT, _DNAT = 0, 1
_ADD, _UPDATE, _DELETE = 0, 1, 2  # NFT_DYNSET_OP_*
_MASQUERADE = expression("masq")
_REDIRECTED = _ct(CT_STATUS, NFT_REG_1) + bitwise_and(struct.pack("=I", IPS_DST_NAT)) + compare(NEQ, bytes(4))
_BEGINS = (
    _ct(CT_STATE, NFT_REG_1) + bitwise_and(struct.pack("=I", ESTABLISHED_OR_RELATED)) + compare(EQ, bytes(4))
)


def pick_rules(family: Family, pick: Pick) -> tuple[bytes, ...]:
    """The rules of a pick chain: DNAT to one of the front's endpoints."""
    slot = _behind(family)
    to_slot = _lookup(ENDPOINTS, R, slot + 1) + _to_endpoint(family, slot + 1)
    front = _front(family, R, node=pick.node)
    rules = [front + _random(pick, slot) + to_slot, front + _immediate(slot, bytes(4)) + to_slot]
    if pick.affinity:
        rules = [*_affinity_rules(family, pick), *rules]
    if pick.restricted:
        source = _load(family, family.source, slot)
        rules = [front + source + _lookup(SOURCES, R, missing=True) + DROP, *rules]
    return tuple(rules)


def _random(pick: Pick, register: int) -> bytes:
    return expression("numgen", number(1, register), number(2, pick.count), number(3, NFT_NG_RANDOM))


def _affinity_rules(family: Family, pick: Pick) -> list[bytes]:
    """Take the client's last endpoint if it still serves; otherwise pick one and remember it. Both restart the time.
    If the map of clients is full, the rules behind these pick an endpoint without remembering it.

    An endpoint is remembered by its tag. A rule hands it to the next one as the packet's priority, which the kernel
    sets anew when it forwards the packet: nft(8) aborts when it lists a rule that looks up the result of a look-up.
    """
    front, behind = _front(family, R, node=pick.node), _behind(family)
    tag = behind + _words(family)  # behind the client's address
    target = tag + 1
    client = _load(family, family.source, behind)
    known = front + client + _lookup(AFFINITY, R, tag) + _meta_set(META_PRIORITY, tag)
    random = _random(pick, behind)
    fresh = front + random + _lookup(TAGS, R, behind + 1) + _meta_set(META_PRIORITY, behind + 1)
    serve = (
        front
        + load_meta(META_PRIORITY, behind)
        + _lookup(MEMBERS, R, target)
        + client
        + load_meta(META_PRIORITY, tag)
        + _remember(family, _UPDATE, pick.affinity)
        + _to_endpoint(family, target)
    )
    forget = front + client + load_meta(META_PRIORITY, tag) + _remember(family, _DELETE)
    return [known, serve, fresh, forget, serve]


def inner_chains(family: Family, bridge: str) -> dict[str, tuple[bytes, ...]]:
    """The chains without a hook, and their rules.

    `source` decides what becomes of a client's address. SNAT to the address that the packet has already keeps it, and
    no later chain masquerades the connection.
    """
    tcp = load_meta(META_L4PROTO) + compare(EQ, b"\x06")
    reset = expression("reject", number(1, 1), attribute(2, b"\0"))  # NFT_REJECT_TCP_RST
    code = ICMP_PORT_UNREACH if family is IPV4 else ICMPV6_PORT_UNREACH
    unreachable = expression("reject", number(1, 0), attribute(2, code))
    keep = _load(family, family.source, R) + _nat(family, _SNAT, R)
    from_elsewhere = _address(family.source, NEQ, _loopback(family))
    return {
        OUTSIDE: (
            _front(family, R) + _lookup(EXTERNAL, R, NFT_REG_VERDICT),
            _to_this_host(family) + _front(family, R, node=True) + _lookup(EXTERNAL, R, NFT_REG_VERDICT),
        ),
        REFUSE: (tcp + reset, unreachable),
        SOURCE: (
            interface(META_OIFNAME, EQ, bridge) + from_elsewhere + keep,
            interface(META_OIFNAME, NEQ, "lo") + _MASQUERADE,
        ),
    }


def base_chains(family: Family, bridge: str, cluster: Network, *, routed: bool) -> tuple[Chain, ...]:
    """The chains with a hook. `routed`: other machines may connect to cluster IPs, too."""
    from_pods = b"" if routed else interface(META_IIFNAME, EQ, bridge)
    to_services = _front(family, R) + _lookup(SERVICES, R, NFT_REG_VERDICT)
    outside = _verdict(NFT_JUMP, OUTSIDE)
    refuse = _verdict(NFT_GOTO, REFUSE)
    unserved = _address(family.destination, EQ, cluster) + refuse
    refused = _BEGINS + _front(family, R) + _lookup(REFUSED, R) + refuse
    node_refused = (
        _BEGINS + _front(family, R, node=True) + _lookup(REFUSED, R) + _to_this_host(family) + refuse
    )
    protocol, kind = (ICMP, ICMP_REDIRECT) if family is IPV4 else (ICMPV6, NDISC_REDIRECT)
    redirect = (
        interface(META_OIFNAME, EQ, bridge)
        + load_meta(META_L4PROTO) + compare(EQ, protocol)
        + load_payload(TRANSPORT_HEADER, 0, 1) + compare(EQ, kind)
        + DROP
    )  # fmt: skip
    itself = (
        _load(family, family.source, R) + _load(family, family.destination, R + _words(family))
        + _lookup(SELF, R)
    )  # fmt: skip
    postrouting = (
        _REDIRECTED + itself + interface(META_OIFNAME, EQ, bridge) + _MASQUERADE,
        _REDIRECTED + _original_front(family, R) + _lookup(FRONTS, R) + _verdict(NFT_GOTO, SOURCE),
        _REDIRECTED + _original_front(family, R, node=True) + _lookup(FRONTS, R) + _verdict(NFT_GOTO, SOURCE),
    )
    return (
        Chain("prerouting", "nat", NF_INET_PRE_ROUTING, DSTNAT, (from_pods + to_services, outside)),
        Chain("output", "nat", NF_INET_LOCAL_OUT, DSTNAT, (to_services, outside)),
        Chain("postrouting", "nat", NF_INET_POST_ROUTING, BEFORE_SRCNAT, postrouting),
        Chain("input", "filter", NF_INET_LOCAL_IN, FILTER, (refused, node_refused)),
        Chain("forward", "filter", NF_INET_FORWARD, FILTER, (unserved, refused)),
        Chain("refuse-output", "filter", NF_INET_LOCAL_OUT, FILTER, (unserved, refused, redirect)),
    )


def bridge_chain(prefix: str, gateway: str) -> Chain:
    """Hand unicast IPv4 frames from this node's pods to pods to the host, by giving them the bridge's hardware address.
    The kernel has classified the frame before this hook, so its class is set, too."""
    mac = bytes.fromhex(mac_of(gateway).replace(":", ""))
    destination = load_payload(LINK_HEADER, FRAME_DESTINATION, 6)
    write = expression(
        "payload", number(5, NFT_REG_1), number(2, LINK_HEADER), number(3, FRAME_DESTINATION), number(4, 6)
    )
    rule = (
        load_meta(META_IIFNAME) + compare(EQ, prefix.encode())
        + load_payload(LINK_HEADER, FRAME_KIND, 2) + compare(EQ, ETH_P_IP)
        + load_payload(LINK_HEADER, FRAME_DESTINATION, 1) + bitwise_and(b"\x01") + compare(EQ, b"\x00")
        + destination + compare(NEQ, mac)
        + _immediate(NFT_REG_1, mac) + write
        + _immediate(NFT_REG_1, bytes((PACKET_HOST,)))
        + _meta_set(META_PKTTYPE, NFT_REG_1)
    )  # fmt: skip
    return Chain("route", "filter", NF_BR_PRE_ROUTING, AFTER_ANTISPOOF, (rule,))


COUNTERS = RECEIVED, SENT = "received", "sent"  # sets: what endpoints get, and what they answer


def counting_chains(family: Family) -> tuple[Chain, ...]:
    """The chains of counts.py. A packet through lo passes both, so only one of them counts it."""
    server = CT_SRC_IP if family is IPV4 else CT_SRC_IP6
    address, port = _behind(family), _behind(family) + _words(family)
    counted = tuple(
        _REDIRECTED
        + _ct(CT_DIRECTION, NFT_REG_1) + compare(EQ, bytes((direction,)))
        + _original_front(family, R)
        + _ct(server, address, IP_CT_DIR_REPLY) + _ct(CT_PROTO_SRC, port, IP_CT_DIR_REPLY)
        + _counted(name)
        for name, direction in ((RECEIVED, IP_CT_DIR_ORIGINAL), (SENT, IP_CT_DIR_REPLY))
    )  # fmt: skip
    elsewhere = tuple(interface(META_OIFNAME, NEQ, "lo") + rule for rule in counted)
    return (
        Chain("postrouting", "filter", NF_INET_POST_ROUTING, AFTER_SRCNAT, elsewhere),
        Chain("input", "filter", NF_INET_LOCAL_IN, AFTER_SRCNAT, counted),
    )


def _counted(name: str) -> bytes:
    """Count the packet in the element whose key is in the registers from R on. The kernel adds a missing element."""
    counter = nested(7, text(1, "counter"), nested(2))
    number_in_batch = COUNTERS.index(name) + 1
    return expression(
        "dynset", text(1, name), number(2, number_in_batch), number(3, _ADD), number(4, R), counter
    )
