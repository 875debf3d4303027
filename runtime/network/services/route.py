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
    NetlinkError,
    NetlinkSocket,
    Request,
    attributes,
    message,
)
from runtime.network.nft_messages import NLM_F_APPEND, attribute
from runtime.network.services.plan import Network

RTM_DELROUTE = 25
RTA_DST, RTA_OIF, RTA_PREFSRC = 1, 4, 7
RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 253, 255
OURS = 107  # the routes' protocol, by which they are recognised; `ip route` shows "proto 107"
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, prefix lengths, tos, table, protocol, scope, type, flags


def add(sock: NetlinkSocket, cluster: Network, *, bridge: int, gateway: str) -> None:
    """Add the route if it is missing. `bridge` is the interface's index. Another node's route to the same network
    stays."""
    source = attribute(RTA_PREFSRC, ipaddress.ip_address(gateway).packed)
    request = _request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK, cluster, bridge, source=source)
    sock.request([request], ignore=(errno.EEXIST,))


def remove(sock: NetlinkSocket, cluster: Network, *, bridge: int) -> None:
    """Remove the route. A missing one is no error."""
    request = _request(RTM_DELROUTE, NLM_F_ACK, cluster, bridge, scope=RT_SCOPE_NOWHERE)
    sock.request([request], ignore=(errno.ESRCH, errno.ENODEV))


def listed(sock: NetlinkSocket, *, bridge: int, ipv6: bool = False) -> list[Network]:
    """Return the networks of one family to which add() has made routes into this bridge."""
    family, nowhere = (socket.AF_INET6, bytes(16)) if ipv6 else (socket.AF_INET, bytes(4))
    # The kernel filters by protocol and interface, so that a host with many routes does not list them all.
    head = _RTMSG.pack(family, 0, 0, 0, 0, OURS, 0, 0, 0)
    index = struct.pack("=I", bridge)
    query = message(RTM_GETROUTE, NLM_F_DUMP, head + attribute(RTA_OIF, index), "list routes to cluster IPs")
    try:
        routes = sock.dump(query)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise
        return []  # the bridge is gone, and its routes with it
    found = []
    for data in routes:
        values = attributes(data[16 + _RTMSG.size :])
        if data[21] == OURS and values.get(RTA_OIF) == index:
            found.append(ipaddress.ip_network((values.get(RTA_DST, nowhere), data[17])))
    return found


def _request(
    kind: int,
    flags: int,
    cluster: Network,
    bridge: int,
    *,
    scope: int = RT_SCOPE_LINK,
    source: bytes = b"",
) -> Request:
    family = socket.AF_INET if cluster.version == 4 else socket.AF_INET6
    head = _RTMSG.pack(family, cluster.prefixlen, 0, 0, RT_TABLE_MAIN, OURS, scope, RTN_UNICAST, 0)
    target = attribute(RTA_DST, cluster.network_address.packed)
    payload = target + attribute(RTA_OIF, struct.pack("=I", bridge)) + source
    return message(kind, flags, head + payload, f"route {cluster} into the bridge")
