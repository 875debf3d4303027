"""The chains of the node's nftables table of IPv6: masquerading, host ports, and who may reach pods. Pure.

    chain forward     filter forward        from other machines to pods: host ports and answers only
    chain prerouting  nat  ┐ to one of the host's addresses? look the port up in both maps, DNAT
    chain output      nat  ┘ (output: packets of the host itself, but for ::1)
    chain postrouting nat    masquerade: pods to other networks, and to pods by host port

nat.py has the table, the same for IPv4, and the reasons. IPv6 has no route_localnet: the kernel takes no packet for ::1
from outside, and does not route one from ::1. So a connection to ::1 is not redirected, and refused at once: a program
that tries the addresses of "localhost" goes on with 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
import struct

from runtime.network.nat import MASQUERADE, begins_a_flow, redirects, was_redirected
from runtime.network.nft_messages import (
    DROP,
    DSTNAT,
    EQ,
    FILTER,
    IPV6,
    META_IIFGROUP,
    META_IIFNAME,
    META_OIFNAME,
    NEQ,
    NETWORK_HEADER,
    NF_INET_FORWARD,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
    SRCNAT,
    Chain,
    bitwise_and,
    compare,
    interface,
    load_meta,
    load_payload,
)
from runtime.network.plan import BRIDGE_GROUP

_MULTICAST, _LOOPBACK = ipaddress.IPv6Network("ff00::/8"), ipaddress.IPv6Network("::1/128")


def _address(offset: int, operator: int, network: ipaddress.IPv6Network) -> bytes:
    return (
        load_payload(NETWORK_HEADER, offset, 16)
        + bitwise_and(network.netmask.packed)
        + compare(operator, network.network_address.packed)
    )


def chains(bridge: str, pods: ipaddress.IPv6Network, *, routed: bool) -> tuple[Chain, ...]:
    """The table's chains and rules. `routed`: other machines may connect to pods."""
    into_bridge = interface(META_OIFNAME, EQ, bridge)
    not_of_a_node = load_meta(META_IIFGROUP) + compare(NEQ, struct.pack("=I", BRIDGE_GROUP))
    from_outside = interface(META_IIFNAME, NEQ, bridge) + not_of_a_node + into_bridge
    forward = () if routed else (from_outside + begins_a_flow() + was_redirected(EQ) + DROP,)
    from_pods = _address(IPV6.source, EQ, pods)
    postrouting = (
        from_pods
        + interface(META_OIFNAME, NEQ, bridge)
        + _address(IPV6.destination, NEQ, _MULTICAST)
        + MASQUERADE,
        into_bridge + from_pods + was_redirected() + MASQUERADE,
    )
    elsewhere = _address(IPV6.destination, NEQ, _LOOPBACK)
    return (
        Chain("forward", "filter", NF_INET_FORWARD, FILTER, forward),
        Chain("prerouting", "nat", NF_INET_PRE_ROUTING, DSTNAT, redirects(IPV6)),
        Chain(
            "output", "nat", NF_INET_LOCAL_OUT, DSTNAT, tuple(elsewhere + rule for rule in redirects(IPV6))
        ),
        Chain("postrouting", "nat", NF_INET_POST_ROUTING, SRCNAT, postrouting),
    )
