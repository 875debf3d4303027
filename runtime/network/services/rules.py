"""The rules of the Services' tables, as expressions. Pure.

    table ip <node>-services
      map services    address . protocol . port          : chain         cluster IPs
      map external    address . protocol . port          : chain         external IPs; node ports at 0.0.0.0
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
masquerading hides the client's address, and br_netfilter applies to all bridges of the machine.

A packet that meets a change may find a slot that is gone. The second rule of a pick chain then takes slot 0, which
exists as long as there are endpoints.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from runtime.network.nft_messages import (
    DADDR,
    DROP,
    EQ,
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
    SADDR,
    TRANSPORT_HEADER,
    Chain,
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
from runtime.network.plan import Subnet, mac_of
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

NF_INET_LOCAL_IN = 1
NFT_JUMP, NFT_GOTO = -3, -4
DSTNAT, FILTER, BEFORE_SRCNAT, AFTER_SRCNAT = -100, 0, 99, 200
NF_BR_PRE_ROUTING, AFTER_ANTISPOOF = 0, -250  # antispoof.FIRST is -300; br_netfilter runs at 0
META_PRIORITY, META_PKTTYPE, PACKET_HOST = 2, 19, 0
NFT_NG_RANDOM = 1
FRAME_DESTINATION, FRAME_KIND, ETH_P_IP = 0, 12, b"\x08\x00"
CT_STATE, CT_DIRECTION, CT_STATUS, CT_PROTO_SRC, CT_PROTO_DST, CT_SRC_IP, CT_DST_IP = 0, 1, 2, 11, 12, 19, 20
IP_CT_DIR_ORIGINAL, IP_CT_DIR_REPLY = 0, 1
ESTABLISHED_OR_RELATED, IPS_DST_NAT = 1 << 1 | 1 << 2, 1 << 5
ICMP_REDIRECT = b"\x05"
REFUSE, SOURCE, OUTSIDE = "refuse", "source", "outside"
RTN_LOCAL = 2
LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
SET_IDS = {
    name: index
    for index, name in enumerate(
        (SERVICES, EXTERNAL, ENDPOINTS, MEMBERS, AFFINITY, FRONTS, REFUSED, SELF, SOURCES, TAGS), 1
    )
}
R = NFT_REG32_00  # R + n: the n-th 4-byte register


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


def _front(register: int, *, node: bool = False) -> bytes:
    """Load address . protocol . port of the packet's destination into three registers."""
    address = _immediate(register, bytes(4)) if node else load_payload(NETWORK_HEADER, DADDR, 4, register)
    ports = load_payload(TRANSPORT_HEADER, 2, 2, register + 2)
    return address + load_meta(META_L4PROTO, register + 1) + ports


def _original_front(register: int, *, node: bool = False) -> bytes:
    """The same for the destination before DNAT."""
    address = _immediate(register, bytes(4)) if node else _ct(CT_DST_IP, register, IP_CT_DIR_ORIGINAL)
    port = _ct(CT_PROTO_DST, register + 2, IP_CT_DIR_ORIGINAL)
    return address + load_meta(META_L4PROTO, register + 1) + port


def _address(offset: int, operator: int, network: ipaddress.IPv4Network) -> bytes:
    masked = bitwise_and(network.netmask.packed)
    return (
        load_payload(NETWORK_HEADER, offset, 4) + masked + compare(operator, network.network_address.packed)
    )


def _to_this_host() -> bytes:
    """fib daddr type local, but not 127/8: localhost has no node ports, as in kube-proxy's nftables mode
    (pkg/proxy/nftables/proxier.go, noLocalhost)."""
    fib = expression("fib", number(1, NFT_REG_1), number(2, 3), number(3, 2))
    return fib + compare(EQ, struct.pack("=I", RTN_LOCAL)) + _address(DADDR, NEQ, LOOPBACK)


def _nat(kind: int, address: int, port: int | None = None) -> bytes:
    parts = [number(1, kind), number(2, socket.AF_INET), number(3, address)]
    return expression("nat", *parts, *([] if port is None else [number(5, port)]))


def _remember(operation: int, seconds: int = 0) -> bytes:
    """Change AFFINITY at the client in the registers R + 5 … R + 8, with the value in R + 3 (ignored by _DELETE)."""
    parts = [text(1, AFFINITY), number(2, SET_IDS[AFFINITY]), number(3, operation), number(4, R + 5)]
    parts.append(number(5, R + 3))
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


def pick_rules(pick: Pick) -> tuple[bytes, ...]:
    """The rules of a pick chain: DNAT to one of the front's endpoints."""
    random = expression("numgen", number(1, R + 3), number(2, pick.count), number(3, NFT_NG_RANDOM))
    to_slot = _lookup(ENDPOINTS, R, R + 4) + _nat(_DNAT, R + 4, R + 5)
    front = _front(R, node=pick.node)
    rules = [front + random + to_slot, front + _immediate(R + 3, bytes(4)) + to_slot]
    if pick.affinity:
        rules = [*_affinity_rules(pick), *rules]
    if pick.restricted:
        source = load_payload(NETWORK_HEADER, SADDR, 4, R + 3)
        rules = [front + source + _lookup(SOURCES, R, missing=True) + DROP, *rules]
    return tuple(rules)


def _affinity_rules(pick: Pick) -> list[bytes]:
    """Take the client's last endpoint if it still serves; otherwise pick one and remember it. Both restart the time.
    If the map of clients is full, the rules behind these pick an endpoint without remembering it.

    An endpoint is remembered by its tag. A rule hands it to the next one as the packet's priority, which the kernel
    sets anew when it forwards the packet: nft(8) aborts when it lists a rule that looks up the result of a look-up.
    """
    front, again = _front(R, node=pick.node), _front(R + 5, node=pick.node)
    client = again + load_payload(NETWORK_HEADER, SADDR, 4, R + 8)
    known = client + _lookup(AFFINITY, R + 5, R + 3) + _meta_set(META_PRIORITY, R + 3)
    random = expression("numgen", number(1, R + 3), number(2, pick.count), number(3, NFT_NG_RANDOM))
    fresh = front + random + _lookup(TAGS, R, R + 4) + _meta_set(META_PRIORITY, R + 4)
    serve = (
        front
        + load_meta(META_PRIORITY, R + 3)
        + _lookup(MEMBERS, R, R + 10)
        + client
        + _remember(_UPDATE, pick.affinity)
        + _nat(_DNAT, R + 10, R + 11)
    )
    return [known, serve, fresh, client + load_meta(META_PRIORITY, R + 3) + _remember(_DELETE), serve]


def inner_chains(bridge: str) -> dict[str, tuple[bytes, ...]]:
    """The chains without a hook, and their rules.

    `source` decides what becomes of a client's address. SNAT to the address that the packet has already keeps it, and
    no later chain masquerades the connection.
    """
    tcp = load_meta(META_L4PROTO) + compare(EQ, b"\x06")
    reset = expression("reject", number(1, 1), attribute(2, b"\0"))  # NFT_REJECT_TCP_RST
    unreachable = expression("reject", number(1, 0), attribute(2, b"\x03"))  # ICMP_PORT_UNREACH
    keep = load_payload(NETWORK_HEADER, SADDR, 4, R) + _nat(_SNAT, R)
    return {
        OUTSIDE: (
            _front(R) + _lookup(EXTERNAL, R, NFT_REG_VERDICT),
            _to_this_host() + _front(R, node=True) + _lookup(EXTERNAL, R, NFT_REG_VERDICT),
        ),
        REFUSE: (tcp + reset, unreachable),
        SOURCE: (
            interface(META_OIFNAME, EQ, bridge) + _address(SADDR, NEQ, LOOPBACK) + keep,
            interface(META_OIFNAME, NEQ, "lo") + _MASQUERADE,
        ),
    }


def base_chains(bridge: str, cluster: ipaddress.IPv4Network, *, routed: bool) -> tuple[Chain, ...]:
    """The chains with a hook. `routed`: other machines may connect to cluster IPs, too."""
    from_pods = b"" if routed else interface(META_IIFNAME, EQ, bridge)
    to_services = _front(R) + _lookup(SERVICES, R, NFT_REG_VERDICT)
    outside = _verdict(NFT_JUMP, OUTSIDE)
    refuse = _verdict(NFT_GOTO, REFUSE)
    unserved = _address(DADDR, EQ, cluster) + refuse
    refused = _BEGINS + _front(R) + _lookup(REFUSED, R) + refuse
    node_refused = _BEGINS + _front(R, node=True) + _lookup(REFUSED, R) + _to_this_host() + refuse
    redirect = (
        interface(META_OIFNAME, EQ, bridge)
        + load_meta(META_L4PROTO) + compare(EQ, b"\x01")
        + load_payload(TRANSPORT_HEADER, 0, 1) + compare(EQ, ICMP_REDIRECT)
        + DROP
    )  # fmt: skip
    itself = (
        load_payload(NETWORK_HEADER, SADDR, 4, R) + load_payload(NETWORK_HEADER, DADDR, 4, R + 1)
        + _lookup(SELF, R)
    )  # fmt: skip
    postrouting = (
        _REDIRECTED + itself + interface(META_OIFNAME, EQ, bridge) + _MASQUERADE,
        _REDIRECTED + _original_front(R) + _lookup(FRONTS, R) + _verdict(NFT_GOTO, SOURCE),
        _REDIRECTED + _original_front(R, node=True) + _lookup(FRONTS, R) + _verdict(NFT_GOTO, SOURCE),
    )
    return (
        Chain("prerouting", "nat", NF_INET_PRE_ROUTING, DSTNAT, (from_pods + to_services, outside)),
        Chain("output", "nat", NF_INET_LOCAL_OUT, DSTNAT, (to_services, outside)),
        Chain("postrouting", "nat", NF_INET_POST_ROUTING, BEFORE_SRCNAT, postrouting),
        Chain("input", "filter", NF_INET_LOCAL_IN, FILTER, (refused, node_refused)),
        Chain("forward", "filter", NF_INET_FORWARD, FILTER, (unserved, refused)),
        Chain("refuse-output", "filter", NF_INET_LOCAL_OUT, FILTER, (unserved, refused, redirect)),
    )


def bridge_chain(prefix: str, pods: Subnet) -> Chain:
    """Hand unicast IPv4 frames from this node's pods to pods to the host, by giving them the bridge's hardware address.
    The kernel has classified the frame before this hook, so its class is set, too."""
    mac = bytes.fromhex(mac_of(pods.gateway).replace(":", ""))
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


def counting_chains() -> tuple[Chain, ...]:
    """The chains of counts.py. A packet through lo passes both, so only one of them counts it."""
    counted = tuple(
        _REDIRECTED
        + _ct(CT_DIRECTION, NFT_REG_1) + compare(EQ, bytes((direction,)))
        + _original_front(R) + _ct(CT_SRC_IP, R + 3, IP_CT_DIR_REPLY) + _ct(CT_PROTO_SRC, R + 4, IP_CT_DIR_REPLY)
        + _counted(name)
        for name, direction in ((RECEIVED, IP_CT_DIR_ORIGINAL), (SENT, IP_CT_DIR_REPLY))
    )  # fmt: skip
    elsewhere = tuple(interface(META_OIFNAME, NEQ, "lo") + rule for rule in counted)
    return (
        Chain("postrouting", "filter", NF_INET_POST_ROUTING, AFTER_SRCNAT, elsewhere),
        Chain("input", "filter", NF_INET_LOCAL_IN, AFTER_SRCNAT, counted),
    )


def _counted(name: str) -> bytes:
    """Count the packet at the element whose key the registers R … R + 4 have; the kernel adds the element."""
    counter = nested(7, text(1, "counter"), nested(2))
    number_in_batch = COUNTERS.index(name) + 1
    return expression(
        "dynset", text(1, name), number(2, number_in_batch), number(3, _ADD), number(4, R), counter
    )
