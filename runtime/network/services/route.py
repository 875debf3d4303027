"""The route to the cluster IPs: into the bridge, with the gateway's address as source.

It lets the host connect to cluster IPs also without a default route, and its connections have a source address to which
pods answer. No packet leaves by this route: the tables translate its destination or refuse it.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from runtime.network.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    RT_TABLE_MAIN,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTPROT_BOOT,
    NetlinkSocket,
    Request,
    attributes,
    message,
)
from runtime.network.nft_messages import NLM_F_APPEND, attribute

RTM_DELROUTE = 25
RTA_DST, RTA_OIF, RTA_PREFSRC = 1, 4, 7
RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 253, 255
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, prefix lengths, tos, table, protocol, scope, type, flags


class ClusterRoute:
    """The route of one node. Two nodes of one machine may have the same cluster IPs; each has its own route."""

    def __init__(self, sock: NetlinkSocket, cluster: ipaddress.IPv4Network, gateway: str) -> None:
        self._socket = sock
        self._cluster = cluster
        self._gateway = gateway

    def add(self, bridge: int) -> None:
        """Add the route if it is missing. `bridge` is the interface's index."""
        flags = NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK
        self._socket.request([self._request(RTM_NEWROUTE, flags, bridge)], ignore=(errno.EEXIST,))

    def remove(self, bridge: int) -> None:
        request = self._request(RTM_DELROUTE, NLM_F_ACK, bridge, scope=RT_SCOPE_NOWHERE)
        self._socket.request([request], ignore=(errno.ESRCH, errno.ENODEV))

    def exists(self, bridge: int) -> bool:
        head = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        query = message(RTM_GETROUTE, NLM_F_DUMP, head, "list routes")
        for data in self._socket.dump(query):
            length, table = data[17], data[20]
            values = attributes(data[16 + _RTMSG.size :])
            index = struct.unpack("=I", values.get(RTA_OIF, bytes(4)))[0]
            target = values.get(RTA_DST)
            ours = (length, target) == (self._cluster.prefixlen, self._cluster.network_address.packed)
            if ours and table == RT_TABLE_MAIN and index == bridge:
                return True
        return False

    def _request(self, kind: int, flags: int, bridge: int, *, scope: int = RT_SCOPE_LINK) -> Request:
        head = _RTMSG.pack(
            socket.AF_INET, self._cluster.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0
        )
        payload = (
            attribute(RTA_DST, self._cluster.network_address.packed)
            + attribute(RTA_OIF, struct.pack("=I", bridge))
            + attribute(RTA_PREFSRC, socket.inet_aton(self._gateway))
        )
        return message(kind, flags, head + payload, f"route {self._cluster} into the bridge")
