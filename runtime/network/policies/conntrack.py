"""Forget the connections of an address that another pod had before: packets of an established connection pass without
a look at the policies, and a UDP sender that does not pause would reach the new pod by the old one's permission."""

from __future__ import annotations

import ipaddress
import socket
import struct

from runtime.network.netlink import NLM_F_ACK, NetlinkSocket, Request, message
from runtime.network.nft_messages import (
    IPCTNL_MSG_CT_DELETE,
    NFNL_SUBSYS_CTNETLINK,
    attribute,
    nested,
)

CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_FILTER = 1, 2, 25
SOURCE_ADDRESS = 1  # CTA_FILTER_F_CTA_IP_SRC


def forget_address(sock: NetlinkSocket, address: str) -> None:
    """Delete the entries of connections from and to an address, those through Services included. Best effort: kernels
    before 5.8 have no such filter (EINVAL), and there the entries expire by themselves."""
    if ":" in address:
        _forget_ipv6(sock, ipaddress.IPv6Address(address).packed)
        return
    for tuple_ in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY):
        sock.attempt([_request(tuple_, address)])


def _forget_ipv6(sock: NetlinkSocket, address: bytes) -> None:
    from runtime.network.ipv6 import connections  # its docstring says why CTA_FILTER cannot be used

    connections.forget(
        sock, lambda original, reply: address in (original.source, reply.source), address=address
    )


def _request(direction: int, address: str) -> Request:
    """`direction`: the tuple whose source is the address: that of the first packet's, or of the answers."""
    tuple_ = nested(direction, nested(1, attribute(1, ipaddress.IPv4Address(address).packed)))
    flags = struct.pack("=I", SOURCE_ADDRESS), bytes(4)
    original, reply = flags if direction == CTA_TUPLE_ORIG else reversed(flags)
    filters = nested(CTA_FILTER, attribute(1, original), attribute(2, reply))
    payload = struct.pack(">BBH", socket.AF_INET, 0, 0) + tuple_ + filters
    return message(
        NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
        NLM_F_ACK,
        payload,
        "forget connections of a pod's address",
    )
