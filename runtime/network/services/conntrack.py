"""What the kernel knows of connections: it forgets UDP flows, and says whether TCP connections between pods are open.

An existing flow never consults the tables again, so a sender that does not pause would keep
reaching an endpoint that is gone, or nothing. kube-proxy does the same (pkg/proxy/conntrack/cleanup.go).

TCP connections are left alone: an endpoint that terminates finishes its connections.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runtime.network.netlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NetlinkError,
    NetlinkSocket,
    Request,
    attributes,
    message,
)
from runtime.network.nft_messages import (
    IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_GET,
    IPV4,
    IPV6,
    NFNL_SUBSYS_CTNETLINK,
    Family,
    attribute,
    nested,
    number,
)
from runtime.network.services.arrange import (
    EVERY_ADDRESS,
    EVERY_ADDRESS6,
    PROTOCOLS,
    Front,
    Placed,
    fronts,
    packed,
)
from runtime.network.services.plan import Endpoint, Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_STATUS, CTA_PROTOINFO, CTA_FILTER, CTA_STATUS_MASK = 1, 2, 3, 4, 25, 26
IPS_DST_NAT = 1 << 5
ENDED = (7, 8)  # TCP_CONNTRACK_TIME_WAIT, TCP_CONNTRACK_CLOSE
SOURCE_ADDRESS, DESTINATION_ADDRESS, PROTOCOL, SOURCE_PORT, DESTINATION_PORT = (
    1,
    2,
    8,
    16,
    32,
)  # CTA_FILTER_F_CTA_*


@dataclass(frozen=True, slots=True)
class Flows:
    """UDP flows to an address and port, whatever endpoint has them if `endpoint` is None."""

    address: str
    port: int
    endpoint: Endpoint | None = None


def stale(before: Sequence[Placed], after: Sequence[Placed]) -> list[Flows]:
    """The flows that must be forgotten after a change from the one to the other. For a front that has no endpoint left,
    or had none before (its packets may have been accepted by something else), these are all of its flows."""
    old, new = _served(before), _served(after)
    found = []
    for key in dict.fromkeys((*old, *new)):
        had, has = set(old.get(key, ())), set(new.get(key, ()))
        if had != has and (not had or not has):
            found.append(Flows(*key))
        else:
            found += [Flows(*key, endpoint) for endpoint in old.get(key, ()) if endpoint not in has]
    return found


def _served(placed: Iterable[Placed]) -> dict[tuple[str, int], tuple[Endpoint, ...]]:
    udp: list[Front] = [front for one in placed if one.port.protocol == "UDP" for front in fronts(one)]
    return {(front.address, front.port): front.slots for front in udp}


def forget(sock: NetlinkSocket, flows: Iterable[Flows]) -> None:
    """Delete the entries of these flows. Best effort: kernels before 5.8 have no such filter for IPv4 (EINVAL), and
    there the flows expire by themselves."""
    ipv6 = []
    for one in flows:
        if ":" in one.address:
            ipv6.append(one)
        else:
            sock.attempt([_request(one)])
    if ipv6:
        _forget_ipv6(sock, ipv6)


def _forget_ipv6(sock: NetlinkSocket, flows: Iterable[Flows]) -> None:
    from runtime.network.ipv6 import connections

    # address of the front (None: any of the node's), port of the front, endpoint (None: any)
    gone: set[tuple[bytes | None, int, tuple[bytes, int] | None]] = set()
    for one in flows:
        front = None if one.address == EVERY_ADDRESS6 else packed(one.address)
        gone.add((front, one.port, (packed(one.endpoint.ip), one.endpoint.port) if one.endpoint else None))

    def is_gone(original: connections.Direction, reply: connections.Direction) -> bool:
        if original.protocol != PROTOCOLS["UDP"]:
            return False
        endpoint = reply.source, reply.source_port
        address, port = original.destination, original.destination_port
        return any((front, port, served) in gone for front in (address, None) for served in (endpoint, None))

    connections.forget(sock, is_gone)


def _request(flows: Flows) -> Request:
    flags = PROTOCOL | DESTINATION_PORT
    original = b""
    if flows.address != EVERY_ADDRESS:
        flags |= DESTINATION_ADDRESS
        original = nested(1, attribute(2, ipaddress.IPv4Address(flows.address).packed))
    original += nested(2, attribute(1, b"\x11"), attribute(3, struct.pack(">H", flows.port)))
    reply, reply_flags = b"", 0
    if flows.endpoint:
        reply_flags = SOURCE_ADDRESS | PROTOCOL | SOURCE_PORT
        reply = nested(
            CTA_TUPLE_REPLY,
            nested(1, attribute(1, ipaddress.IPv4Address(flows.endpoint.ip).packed)),
            nested(2, attribute(1, b"\x11"), attribute(2, struct.pack(">H", flows.endpoint.port))),
        )
    filters = nested(
        CTA_FILTER, attribute(1, struct.pack("=I", flags)), attribute(2, struct.pack("=I", reply_flags))
    )
    payload = struct.pack(">BBH", IPV4.number, 0, 0) + nested(CTA_TUPLE_ORIG, original) + reply + filters
    return message(
        NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, NLM_F_ACK, payload, "forget UDP flows of a Service"
    )


def _address_attributes(family: Family) -> tuple[int, int]:
    """CTA_IP_V4_SRC and CTA_IP_V4_DST, or those of IPv6."""
    return (1, 2) if family is IPV4 else (3, 4)


def between_pods(sock: NetlinkSocket, pods: Network) -> bool:
    """Whether a TCP or SCTP connection from one address of `pods` to another one is open by way of a Service."""
    family = IPV4 if pods.version == 4 else IPV6
    head = struct.pack(">BBH", family.number, 0, 0)
    # kernels before 5.16 list all connections, so that each is looked at
    status = number(CTA_STATUS, IPS_DST_NAT) + number(CTA_STATUS_MASK, IPS_DST_NAT)
    query = message(
        NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, NLM_F_DUMP, head + status, "list connections"
    )
    try:
        return any(_is_between(attributes(data[20:]), pods) for data in sock.dump(query))
    except NetlinkError:  # a kernel without ctnetlink
        return False


def _is_between(entry: dict[int, bytes], pods: Network) -> bool:
    family = IPV4 if pods.version == 4 else IPV6
    client, asked, protocol = _tuple(entry[CTA_TUPLE_ORIG], family)
    server, _, _ = _tuple(entry[CTA_TUPLE_REPLY], family)
    if asked == server or protocol not in (PROTOCOLS["TCP"], PROTOCOLS["SCTP"]):
        return False
    tcp = attributes(attributes(entry.get(CTA_PROTOINFO, b"")).get(1, b""))
    ended = protocol == PROTOCOLS["TCP"] and tcp.get(1, b"\0")[0] in ENDED
    return not ended and client in pods and server in pods


def _tuple(payload: bytes, family: Family) -> tuple[Address, Address, int]:
    """The source, the destination and the protocol of one direction of a connection."""
    parts = attributes(payload)
    addresses = attributes(parts[1])
    source, destination = _address_attributes(family)
    return (
        ipaddress.ip_address(addresses[source]),
        ipaddress.ip_address(addresses[destination]),
        attributes(parts[2])[1][0],
    )
