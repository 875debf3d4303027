"""rtnetlink requests and queries of IPv6: addresses, neighbours and the default route (rtnetlink(7), neighbour.h)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator

from runtime.network.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REPLACE,
    RT_TABLE_MAIN,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWROUTE,
    RTN_UNICAST,
    RTPROT_BOOT,
    Address,
    NetlinkSocket,
    Request,
    attributes,
    message,
)
from runtime.network.nft_messages import attribute

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD = 1, 2, 0x02
NDA_DST, NDA_LLADDR, NUD_PERMANENT = 1, 2, 0x80
RTA_OIF, RTA_GATEWAY, RTNH_F_ONLINK = 4, 5, 4
RT_SCOPE_LINK = 253  # link-local addresses have this scope or a narrower one

_HEADER_SIZE = 16  # nlmsghdr
_IFADDR = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_NDMSG = struct.Struct("=B3xiHBB")  # ndmsg: family, index, state, flags, type
_RTMSG = struct.Struct(
    "=BBBBBBBBI"
)  # rtmsg: family, dst and src lengths, tos, table, protocol, scope, type, flags


def _packed(ip: str) -> bytes:
    return ipaddress.IPv6Address(ip).packed


def new_address(index: int, ip: str, prefix: int) -> Request:
    """Add an address, valid at once: without duplicate address detection (RFC 4862 5.4). No error if it exists."""
    body = _IFADDR.pack(socket.AF_INET6, prefix, IFA_F_NODAD, 0, index)
    flags = NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK
    return message(RTM_NEWADDR, flags, body + attribute(IFA_LOCAL, _packed(ip)), f"add address {ip}/{prefix}")


def delete_address(index: int, ip: str, prefix: int) -> Request:
    """Remove an address. EADDRNOTAVAIL if the interface does not have it."""
    body = _IFADDR.pack(socket.AF_INET6, prefix, 0, 0, index) + attribute(IFA_LOCAL, _packed(ip))
    return message(RTM_DELADDR, NLM_F_ACK, body, f"remove address {ip}/{prefix}")


def set_neighbour(index: int, ip: str, mac: str) -> Request:
    """Make the hardware address of an address known for good. No packet of anybody changes a permanent entry."""
    body = _NDMSG.pack(socket.AF_INET6, index, NUD_PERMANENT, 0, 0)
    parts = attribute(NDA_DST, _packed(ip)) + attribute(NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    flags = NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK
    return message(RTM_NEWNEIGH, flags, body + parts, f"set the hardware address of {ip}")


def delete_neighbour(index: int, ip: str) -> Request:
    """Forget the hardware address of an address. ENOENT if it is not known."""
    body = _NDMSG.pack(socket.AF_INET6, index, 0, 0, 0) + attribute(NDA_DST, _packed(ip))
    return message(RTM_DELNEIGH, NLM_F_ACK, body, f"forget the hardware address of {ip}")


def new_default_route(index: int, gateway: str) -> Request:
    """The default route. The gateway is on the link, although no address of the interface says so. EEXIST if there is
    one already."""
    body = _RTMSG.pack(socket.AF_INET6, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, RTNH_F_ONLINK)
    parts = attribute(RTA_GATEWAY, _packed(gateway)) + attribute(RTA_OIF, struct.pack("=I", index))
    flags = NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK
    return message(RTM_NEWROUTE, flags, body + parts, f"add default route via {gateway}")


def addresses(sock: NetlinkSocket) -> list[Address]:
    """Every IPv6 address of the socket's namespace, link-local ones and loopback left out."""
    query = message(RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(socket.AF_INET6, 0, 0, 0, 0), "list addresses")
    found = []
    for data in sock.dump(query):
        _, prefix, _, scope, index = _IFADDR.unpack_from(data, _HEADER_SIZE)
        values = attributes(data[_HEADER_SIZE + _IFADDR.size :])
        if scope < RT_SCOPE_LINK:
            ip = ipaddress.IPv6Address(values.get(IFA_LOCAL) or values[IFA_ADDRESS])
            found.append(Address(index, str(ip), prefix))
    return found


def neighbours(sock: NetlinkSocket, index: int) -> Iterator[tuple[str, str]]:
    """(IPv6 address, hardware address) of each permanent entry of an interface."""
    query = message(RTM_GETNEIGH, NLM_F_DUMP, _NDMSG.pack(socket.AF_INET6, 0, 0, 0, 0), "list neighbours")
    for data in sock.dump(query):
        _, of, state, _, _ = _NDMSG.unpack_from(data, _HEADER_SIZE)
        values = attributes(data[_HEADER_SIZE + _NDMSG.size :])
        if of == index and state & NUD_PERMANENT and NDA_LLADDR in values:
            yield str(ipaddress.IPv6Address(values[NDA_DST])), values[NDA_LLADDR].hex(":")


def has_default_route(sock: NetlinkSocket) -> bool:
    query = message(RTM_GETROUTE, NLM_F_DUMP, _RTMSG.pack(socket.AF_INET6, *[0] * 8), "list routes")
    for data in sock.dump(query):
        found = _RTMSG.unpack_from(data, _HEADER_SIZE)
        oif = attributes(data[_HEADER_SIZE + _RTMSG.size :]).get(RTA_OIF)
        if found[1] == 0 and found[4] == RT_TABLE_MAIN and found[7] == RTN_UNICAST and oif:
            return True
    return False
