"""Deletes entries of IPv6 connections from the kernel's connection tracking.

For IPv4, one request with a filter by address (CTA_FILTER) deletes all matching entries. For IPv6, the kernel inverts
the comparison and deletes the entries whose address differs (net/netfilter/nf_conntrack_netlink.c,
ctnetlink_filter_match_tuple, in every version since 5.8). So this module lists the entries and deletes each by itself.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runtime.network.netlink import NLM_F_ACK, NLM_F_DUMP, NetlinkError, NetlinkSocket, attributes, message
from runtime.network.nft_messages import (
    IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_GET,
    NFNL_SUBSYS_CTNETLINK,
    nested,
)

CTA_TUPLE_ORIG, CTA_TUPLE_REPLY = 1, 2
CTA_IP_V6_SRC, CTA_IP_V6_DST = 3, 4
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
_HEAD = struct.pack(">BBH", socket.AF_INET6, 0, 0)  # nfgenmsg: family, version, resource


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction of a connection: packed addresses, the IP protocol, and ports (0 if the protocol has none)."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    destination_port: int

    @classmethod
    def parse(cls, payload: bytes) -> Direction:
        """Parse a CTA_TUPLE_*."""
        parts = attributes(payload)
        addresses, transport = attributes(parts[1]), attributes(parts[2])
        return cls(
            addresses[CTA_IP_V6_SRC],
            addresses[CTA_IP_V6_DST],
            transport[CTA_PROTO_NUM][0],
            int.from_bytes(transport.get(CTA_PROTO_SRC_PORT, b""), "big"),
            int.from_bytes(transport.get(CTA_PROTO_DST_PORT, b""), "big"),
        )


def forget(
    sock: NetlinkSocket, chosen: Callable[[Direction, Direction], bool], *, address: bytes = b""
) -> None:
    """Delete the entries for which `chosen(original, reply)` is true. Best effort: a kernel without ctnetlink deletes
    nothing. `address`: an address that all of them have; entries without it are not parsed."""
    for original, reply, tuple_ in list(_listed(sock, address)):
        if chosen(original, reply):
            request = message(
                NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE,
                NLM_F_ACK,
                _HEAD + nested(CTA_TUPLE_ORIG, tuple_),
                "forget a connection",
            )
            sock.request([request], ignore=(errno.ENOENT,))


def _listed(sock: NetlinkSocket, address: bytes) -> Iterator[tuple[Direction, Direction, bytes]]:
    kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
    try:
        entries = sock.dump(message(kind, NLM_F_DUMP, _HEAD, "list connections"))
    except NetlinkError:
        return
    for data in entries:
        if address not in data:
            continue
        entry = attributes(data[20:])
        original = entry[CTA_TUPLE_ORIG]
        yield Direction.parse(original), Direction.parse(entry[CTA_TUPLE_REPLY]), original
