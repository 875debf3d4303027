"""The nftables table of IPv6: masquerading for traffic to other networks, and who may reach pods.

    chain forward      filter forward   from other machines to pods: answers only, unless the node is routed
    chain postrouting  nat              masquerade: pods to other networks

nat.py says why; it has the same for IPv4, and the published ports, which IPv6 does not have.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from runtime.network.nat import begins_a_flow
from runtime.network.nft_messages import (
    DROP,
    EQ,
    FILTER,
    META_IIFGROUP,
    META_IIFNAME,
    META_OIFNAME,
    NEQ,
    NETWORK_HEADER,
    NF_INET_FORWARD,
    NF_INET_POST_ROUTING,
    SRCNAT,
    Chain,
    Table,
    bitwise_and,
    compare,
    expression,
    interface,
    load_meta,
    load_payload,
)
from runtime.network.plan import BRIDGE_GROUP

SADDR6, DADDR6 = 8, 24  # offsets in the IPv6 header
_MULTICAST = ipaddress.IPv6Network("ff00::/8")


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
    forward = () if routed else (from_outside + begins_a_flow() + DROP,)
    masquerade = (
        _address(SADDR6, EQ, pods)
        + interface(META_OIFNAME, NEQ, bridge)
        + _address(DADDR6, NEQ, _MULTICAST)
        + expression("masq")
    )
    return (
        Chain("forward", "filter", NF_INET_FORWARD, FILTER, forward),
        Chain("postrouting", "nat", NF_INET_POST_ROUTING, SRCNAT, (masquerade,)),
    )


class OutsideTable(Table):
    """One node's table of IPv6."""

    def __init__(self, name: str, bridge: str, pods: ipaddress.IPv6Network, *, routed: bool) -> None:
        """Raises CapabilityError if the kernel has no netfilter netlink."""
        super().__init__(socket.AF_INET6, name)
        self._chains = chains(bridge, pods, routed=routed)

    def rebuild(self) -> None:
        """Replace the table, if there is one. Raises CapabilityError if the kernel lacks a part of nftables."""
        self.replace(
            (), self._chains, (),
            lacking="this kernel cannot do NAT of IPv6 with nftables (it needs CONFIG_NF_TABLES_IPV6, CONFIG_NFT_NAT "
            "and CONFIG_NFT_MASQ)",
        )  # fmt: skip
