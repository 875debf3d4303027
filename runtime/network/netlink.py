"""The only module that uses netlink and pyroute2.

pyroute2's message classes encode and decode. Its sockets are not used: in 0.9 even the synchronous ones run an asyncio
event loop (and NetNS forks a process). A batch is sent in one sendmsg(2): rtnetlink processes every message of a
datagram before sendmsg returns, and the acknowledgements are read afterwards.

`import pyroute2` would load the whole library (0.1 s, 20 MB in the warm helper). The message classes need only a few of
its modules, so the package's __init__ is bypassed while they are imported.

Sources: netlink(7), rtnetlink(7), Documentation/userspace-api/netlink/intro.rst in the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import socket
import struct
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from runtime.errors import CapabilityError, NetworkError


def _message_classes() -> tuple[Any, Any, Any]:
    """(ifinfmsg, ifaddrmsg, rtmsg), without the rest of pyroute2 unless it is loaded already. Raises
    CapabilityError."""
    spec = importlib.util.find_spec("pyroute2")
    if spec is None:
        raise CapabilityError("the Python package pyroute2 is not installed (pip install pyroute2)")
    placeholder = None
    if "pyroute2" not in sys.modules and spec.submodule_search_locations is not None:
        placeholder = types.ModuleType("pyroute2")
        placeholder.__path__ = list(spec.submodule_search_locations)
        sys.modules["pyroute2"] = placeholder
    try:
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
        from pyroute2.netlink.rtnl.rtmsg import rtmsg
    finally:
        if placeholder is not None:
            del sys.modules["pyroute2"]
    return ifinfmsg, ifaddrmsg, rtmsg


IfInfo, IfAddr, Route = _message_classes()

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK = 0x1, 0x2, 0x4
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_DUMP = 0x100, 0x200, 0x400, 0x300
NLM_F_DUMP_INTR, NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x10, 0x100, 0x200
NLMSGERR_ATTR_MSG = 1
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 10, 11, 12

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
IFF_UP = 0x1
RTEXT_FILTER_SKIP_STATS = 8
RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST = 254, 3, 1
NETLINK_NETFILTER, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 12, 32, 33
CREATE = NLM_F_CREATE | NLM_F_EXCL

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_IFINFO = struct.Struct("=4xiI4x")  # ifinfomsg: family and type, index, flags, change
IFINFO_SIZE = _IFINFO.size
_IFADDR = struct.Struct("=xB2xI")  # ifaddrmsg: family, prefix length, flags and scope, index
_RTMSG = struct.Struct("=xB2xB7x")  # rtmsg: family, length of the destination's prefix, …, table, …
IFA_ADDRESS, IFA_LOCAL, RTA_OIF, RTA_PRIORITY = 1, 2, 4, 6
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
NLA_TYPE_MASK = 0x3FFF
# include/uapi/linux/if_link.h
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS = 1, 3, 4, 10, 18, 20
IFLA_INFO_KIND = 1


class NetlinkError(NetworkError):
    """The kernel refused a request. Has the errno, the name of the request, and the kernel's message (extended ack) if
    any."""

    def __init__(self, errno_: int, request: str, detail: str = "") -> None:
        super().__init__(f"{request}: {os.strerror(errno_)}{f' ({detail})' if detail else ''}")
        self.errno = errno_


@dataclass(frozen=True, slots=True)
class Request:
    """An encoded message, and its name for errors. The sequence number is set when it is sent, so a request can be sent
    again (but only by one thread)."""

    data: bytearray
    about: str


def message(kind: int, flags: int, payload: bytes, about: str) -> Request:
    """A message of any family, from an encoded payload."""
    size = _HEADER.size + len(payload)
    data = bytearray(_HEADER.pack(size, kind, flags | NLM_F_REQUEST, 0, 0) + payload)
    data.extend(bytes(-size % 4))
    return Request(data, about)


def _encoded(msg: Any, kind: int, flags: int, about: str) -> Request:
    msg["header"]["type"] = kind
    msg["header"]["flags"] = flags | NLM_F_REQUEST
    msg.encode()
    return Request(bytearray(msg.data), about)


class NetlinkSocket:
    """A netlink socket. It stays in the network namespace in which it was opened."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise CapabilityError(
                f"this kernel has no netlink protocol {protocol}: {error.strerror}"
            ) from error
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        if protocol == socket.NETLINK_ROUTE:
            with contextlib.suppress(OSError):  # before Linux 4.20: dumps are only filtered less strictly
                self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        # A batch must fit into one buffer, its acknowledgements (1 KB each) into the other. Reading needs neither.
        with contextlib.suppress(PermissionError):
            for option, size in ((SO_SNDBUFFORCE, 1 << 26), (SO_RCVBUFFORCE, 1 << 20)):
                self._socket.setsockopt(socket.SOL_SOCKET, option, size)
        self._socket.bind((0, 0))
        self.port: int = self._socket.getsockname()[0]  # notifications name it as the origin of a change
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, requests: Sequence[Request], *, ignore: Iterable[int] = ()) -> None:
        """Send a batch in one datagram. Raises NetlinkError for the first refusal whose errno is not in `ignore`."""
        errors = self.attempt(requests)
        for request, (code, detail) in zip(requests, errors, strict=True):
            if code and code not in ignore:
                raise NetlinkError(code, request.about, detail)

    def attempt(self, requests: Sequence[Request]) -> list[tuple[int, str]]:
        """Send a batch in one datagram. Returns (errno or 0, the kernel's message) for each request, in order.

        A request without NLM_F_ACK (the begin and end of an nftables transaction) counts as accepted unless it is
        refused.
        """
        first = self._sequence + 1
        awaited = set()
        for request in requests:
            self._sequence += 1
            struct.pack_into("=I", request.data, 8, self._sequence)
            if struct.unpack_from("=H", request.data, 6)[0] & NLM_F_ACK:
                awaited.add(self._sequence)
        self._socket.sendto(b"".join(bytes(request.data) for request in requests), (0, 0))
        results: dict[int, tuple[int, str]] = {}
        while awaited - results.keys() and not any(s not in awaited for s in results):
            self._collect(results, first)
        # A request that is not awaited (the end of a transaction) may have been refused as well. Its answer has arrived
        # already, because the kernel processes a datagram inside sendto().
        with contextlib.suppress(BlockingIOError):
            while True:
                self._collect(results, first, socket.MSG_DONTWAIT)
        return [results.get(first + n, (0, "")) for n in range(len(requests))]

    def dump(self, request: Request) -> list[bytes]:
        """Every message of a dump. An inconsistent dump (NLM_F_DUMP_INTR) is repeated. Raises NetlinkError."""
        for _ in range(10):
            self._sequence += 1
            struct.pack_into("=I", request.data, 8, self._sequence)
            self._socket.sendto(bytes(request.data), (0, 0))
            found, interrupted, done = [], False, False
            while not done:
                for kind, flags, sequence, body in self._receive():
                    if sequence != self._sequence:
                        continue
                    interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
                    if kind in (NLMSG_ERROR, NLMSG_DONE):
                        code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                        if code:
                            raise NetlinkError(code, request.about)
                        done = True
                    else:
                        found.append(bytes(_HEADER.pack(16 + len(body), kind, flags, sequence, 0) + body))
                        done = done or not flags & NLM_F_MULTI
            if not interrupted:
                break
        return found

    def _collect(self, results: dict[int, tuple[int, str]], first: int, flags: int = 0) -> None:
        for kind, message_flags, sequence, body in self._receive(flags):
            if kind == NLMSG_ERROR and sequence >= first:
                results.setdefault(sequence, _error(message_flags, body))

    def _receive(self, flags: int = 0) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(1 << 18, flags)
        offset = 0
        while offset + _HEADER.size <= len(data):
            size, kind, message_flags, sequence, _ = _HEADER.unpack_from(data, offset)
            yield kind, message_flags, sequence, data[offset + _HEADER.size : offset + size]
            offset += (size + 3) & ~3


def _error(flags: int, body: bytes) -> tuple[int, str]:
    """(errno, message) of an nlmsgerr: the code, the request's header (and body unless capped), then attributes."""
    code = -struct.unpack_from("=i", body)[0]
    if not code or not flags & NLM_F_ACK_TLVS:
        return code, ""
    request_size = _HEADER.size if flags & NLM_F_CAPPED else struct.unpack_from("=I", body, 4)[0]
    offset = 4 + ((request_size + 3) & ~3)
    while offset + 4 <= len(body):
        size, kind = struct.unpack_from("=HH", body, offset)
        if size < 4:
            break
        if kind == NLMSGERR_ATTR_MSG:
            return code, body[offset + 4 : offset + size].rstrip(b"\0").decode(errors="replace")
        offset += (size + 3) & ~3
    return code, ""


# --- rtnetlink requests ------------------------------------------------------------------------------------
#
# pyroute2 takes 0.4 ms to encode one pod's requests, as long as the kernel takes to execute them. So the requests of
# an add are encoded once, with the placeholders below, which are then replaced in the bytes by the pod's values.

IFNAMSIZ = 16
_NAME, _MAC, _DESCRIPTOR, _IP = "placeholder-nam", "fe:ed:ba:be:ca:fe", 0x7EEDBABE, "241.186.211.77"


def _bytes_of(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _filled(template: Request, changes: dict[bytes, bytes], about: str) -> Request:
    data = template.data
    for old, new in changes.items():
        data = data.replace(old, new)
    if len(data) != len(template.data) or data == template.data:
        raise NetlinkError(errno.EINVAL, about, "a value does not fit into the template")
    return Request(data, about)


def new_veth(*, host: str, master: int, peer: str, peer_mac: str, peer_netns: int, mtu: int) -> Request:
    """A veth pair, created in one step: the host side is up and on the bridge, and the peer starts in the namespace
    `peer_netns` (a descriptor). Moving it there later would cost a synchronize_net() and show the peer on the host."""
    changes = {
        _NAME.encode(): host.encode().ljust(IFNAMSIZ - 1, b"\0"),
        _bytes_of(_MAC): _bytes_of(peer_mac),
        struct.pack("=I", _DESCRIPTOR): struct.pack("=I", peer_netns),
    }
    return _filled(_veth_template(master, peer, mtu), changes, f"create veth {host}")


@lru_cache
def _veth_template(master: int, peer: str, mtu: int) -> Request:
    msg = IfInfo()
    msg["flags"] = msg["change"] = IFF_UP
    peer_attributes = [
        ("IFLA_IFNAME", peer),
        ("IFLA_ADDRESS", _MAC),
        ("IFLA_MTU", mtu),
        ("IFLA_NET_NS_FD", _DESCRIPTOR),
    ]
    link = {
        "attrs": [
            ("IFLA_INFO_KIND", "veth"),
            ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": peer_attributes})]}),
        ]
    }
    msg["attrs"] = [
        ("IFLA_IFNAME", _NAME),
        ("IFLA_MTU", mtu),
        ("IFLA_MASTER", master),
        ("IFLA_LINKINFO", link),
    ]
    return _encoded(msg, RTM_NEWLINK, CREATE | NLM_F_ACK, "create veth")


def new_bridge(name: str, *, mac: str, mtu: int) -> Request:
    """A bridge with a fixed hardware address. Otherwise it takes the address of a port and changes it as ports come and
    go."""
    msg = IfInfo()
    msg["attrs"] = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_MTU", mtu),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
    ]
    return _encoded(msg, RTM_NEWLINK, CREATE | NLM_F_ACK, f"create bridge {name}")


@lru_cache
def set_link(index: int, *, up: bool = False, attributes: tuple[tuple[str, Any], ...] = ()) -> Request:
    """Change an interface: set it up (never down) and set attributes, with their names in rtnetlink."""
    msg = IfInfo()
    msg["index"] = index
    if up:
        msg["flags"] = msg["change"] = IFF_UP
    msg["attrs"] = list(attributes)
    return _encoded(msg, RTM_SETLINK, NLM_F_ACK, f"set up interface {index}")


def set_alias(name: str, alias: str) -> Request:
    """Set the interface's alias (`ip link set … alias`), which names its owner."""
    msg = IfInfo()
    msg["attrs"] = [("IFLA_IFNAME", name), ("IFLA_IFALIAS", alias)]
    return _encoded(msg, RTM_SETLINK, NLM_F_ACK, f"mark interface {name}")


def set_hairpin(name: str) -> Request:
    """Let a bridge port send a frame back to the port it came from (hairpin mode). If br_netfilter is loaded, a packet
    from a pod to its own host port needs this: DNAT then happens in the bridge, and the packet is not routed."""
    changes = {_NAME.encode(): name.encode().ljust(IFNAMSIZ - 1, b"\0")}
    return _filled(_hairpin_template(), changes, f"set hairpin mode of {name}")


@lru_cache
def _hairpin_template() -> Request:
    msg = IfInfo()
    port = {
        "attrs": [
            ("IFLA_INFO_SLAVE_KIND", "bridge"),
            ("IFLA_INFO_SLAVE_DATA", {"attrs": [("IFLA_BRPORT_MODE", 1)]}),
        ]
    }
    msg["attrs"] = [("IFLA_IFNAME", _NAME), ("IFLA_LINKINFO", port)]
    return _encoded(msg, RTM_NEWLINK, NLM_F_ACK, "set hairpin mode")  # only NEWLINK reads slave data


def set_group(name: str, group: int) -> Request:
    """Put the interface into a group, so that several can be deleted together."""
    msg = IfInfo()
    msg["attrs"] = [("IFLA_IFNAME", name), ("IFLA_GROUP", group)]
    return _encoded(msg, RTM_SETLINK, NLM_F_ACK, f"mark interface {name}")


def delete_link(name: str) -> Request:
    """Delete the interface and, for a veth, its peer. ENODEV if it does not exist."""
    msg = IfInfo()
    msg["attrs"] = [("IFLA_IFNAME", name)]
    return _encoded(msg, RTM_DELLINK, NLM_F_ACK, f"delete interface {name}")


def delete_group(group: int) -> Request:
    """Delete every interface of a group: the kernel waits for its grace periods once, not once per interface."""
    msg = IfInfo()
    msg["attrs"] = [("IFLA_GROUP", group)]
    return _encoded(msg, RTM_DELLINK, NLM_F_ACK, "delete interfaces")


def new_address(index: int, *, ip: str, prefix: int, broadcast: str) -> Request:
    changes = {socket.inet_aton(_IP): socket.inet_aton(ip)}
    return _filled(_address_template(index, prefix, broadcast), changes, f"add address {ip}/{prefix}")


@lru_cache
def _address_template(index: int, prefix: int, broadcast: str) -> Request:
    msg = IfAddr()
    msg["family"], msg["prefixlen"], msg["index"] = socket.AF_INET, prefix, index
    msg["attrs"] = [("IFA_LOCAL", _IP), ("IFA_ADDRESS", _IP), ("IFA_BROADCAST", broadcast)]
    return _encoded(msg, RTM_NEWADDR, CREATE | NLM_F_ACK, "add address")


def delete_address(index: int, *, ip: str, prefix: int) -> Request:
    """Remove an address from an interface. EADDRNOTAVAIL if the interface does not have it."""
    msg = IfAddr()
    msg["family"], msg["prefixlen"], msg["index"] = socket.AF_INET, prefix, index
    msg["attrs"] = [("IFA_LOCAL", ip)]
    return _encoded(msg, RTM_DELADDR, NLM_F_ACK, f"remove address {ip}/{prefix}")


@lru_cache
def new_default_route(index: int, gateway: str) -> Request:
    """The default route via the gateway, in the main table. EEXIST if there is one already."""
    msg = Route()
    msg["family"], msg["table"], msg["proto"], msg["type"] = (
        socket.AF_INET,
        RT_TABLE_MAIN,
        RTPROT_BOOT,
        RTN_UNICAST,
    )
    msg["attrs"] = [("RTA_GATEWAY", gateway), ("RTA_OIF", index)]
    return _encoded(msg, RTM_NEWROUTE, CREATE | NLM_F_ACK, f"add default route via {gateway}")


# --- queries ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    kind: str
    master: int
    mtu: int
    up: bool
    alias: str
    mac: str


@dataclass(frozen=True, slots=True)
class Address:
    index: int
    ip: str
    prefix: int


def interface_index(name: str, *, missing_ok: bool = False) -> int:
    """The index of an interface in the calling thread's namespace. If it is missing, 0 with `missing_ok`, else
    NetlinkError."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        if missing_ok:
            return 0
        raise NetlinkError(error.errno or errno.ENODEV, f"look for interface {name}") from error


def links(sock: NetlinkSocket) -> list[Link]:
    """Every interface of the socket's namespace."""
    query = IfInfo()
    query["attrs"] = [("IFLA_EXT_MASK", RTEXT_FILTER_SKIP_STATS)]
    found = []
    for data in sock.dump(_encoded(query, RTM_GETLINK, NLM_F_DUMP, "list interfaces")):
        # decoded by hand: pyroute2 decodes all sixty attributes, 0.3 ms per interface, and this runs every 20 s
        index, flags = _IFINFO.unpack_from(data, _HEADER.size)
        values = attributes(data[_HEADER.size + IFINFO_SIZE :])
        found.append(
            Link(
                index=index,
                name=_text(values.get(IFLA_IFNAME)),
                kind=_text(attributes(values.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND)),
                master=_number(values.get(IFLA_MASTER)),
                mtu=_number(values.get(IFLA_MTU)),
                up=bool(flags & IFF_UP),
                alias=_text(values.get(IFLA_IFALIAS)),
                mac=values.get(IFLA_ADDRESS, b"").hex(":"),
            )
        )
    return found


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in a buffer, by type (the last one of each type)."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def _text(value: bytes | None) -> str:
    return value.rstrip(b"\0").decode(errors="replace") if value else ""


def _number(value: bytes | None) -> int:
    return int.from_bytes(value[:4], sys.byteorder) if value else 0


def addresses(sock: NetlinkSocket) -> list[Address]:
    """Every IPv4 address of the socket's namespace."""
    query = IfAddr()
    query["family"] = socket.AF_INET
    found = []
    for data in sock.dump(_encoded(query, RTM_GETADDR, NLM_F_DUMP, "list addresses")):
        prefix, index = _IFADDR.unpack_from(data, _HEADER.size)
        values = attributes(data[_HEADER.size + _IFADDR.size :])
        ip = values.get(IFA_LOCAL) or values[IFA_ADDRESS]
        found.append(Address(index, socket.inet_ntoa(ip), prefix))
    return found


def uplink(sock: NetlinkSocket) -> int | None:
    """The interface index of the IPv4 default route with the lowest metric, or None."""
    query = Route()
    query["family"] = socket.AF_INET
    best: tuple[int, int] | None = None
    for data in sock.dump(_encoded(query, RTM_GETROUTE, NLM_F_DUMP, "list routes")):
        length, table = _RTMSG.unpack_from(data, _HEADER.size)
        values = attributes(data[_HEADER.size + _RTMSG.size :])
        oif = _number(values.get(RTA_OIF))
        if length == 0 and table == RT_TABLE_MAIN and oif:
            best = min(best or (1 << 32, 0), (_number(values.get(RTA_PRIORITY)), oif))
    return best[1] if best else None
