"""Which slot each endpoint has, and which elements of the tables' sets a Service's port needs. Pure.

An endpoint keeps its slot while it serves. When one goes, the last endpoint takes its slot, so that the slots stay
0 … n-1 and one change touches two elements, whatever the number of endpoints.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

from runtime.network.services.plan import Endpoint, ServicePort

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}  # IP protocol numbers
SERVICES, EXTERNAL, ENDPOINTS = "services", "external", "endpoints"
MEMBERS, AFFINITY, FRONTS, REFUSED = "members", "affinity", "fronts", "refused"
SELF, SOURCES, TAGS = "self", "sources", "tags"
# All addresses of the node itself: where node ports are reachable.
EVERY_ADDRESS, EVERY_ADDRESS6 = "0.0.0.0", "::"

Key = tuple[str, bytes]  # set, key; an interval's key is its two ends, joined
Elements = dict[Key, bytes]  # value: an address and port, the name of a chain, a tag, or b"" in a set


@dataclass(frozen=True, slots=True)
class Pick:
    """A chain that sends a new connection to one of `count` endpoints. All ports with these properties share it.

    `node`: for node ports, which have no address of their own. `affinity` is in seconds. `restricted`: only listed
    sources may connect.
    """

    count: int
    node: bool = False
    affinity: int = 0
    restricted: bool = False

    @property
    def name(self) -> str:
        parts = ["node" if self.node else "pick", str(self.count)]
        parts += ["affinity", str(self.affinity)] if self.affinity else []
        return "-".join(parts + (["restricted"] if self.restricted else []))


@dataclass(frozen=True, slots=True)
class Placed:
    """A port of a Service. Its endpoints are numbered; a number is the slot of an endpoint in the maps."""

    port: ServicePort
    slots: tuple[Endpoint, ...]
    external_slots: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Front:
    """One address and port at which a Service is reachable, the map that has it, and the slots behind it."""

    map_name: str
    address: str
    protocol: str
    port: int
    slots: tuple[Endpoint, ...]

    @property
    def key(self) -> bytes:
        return address_key(self.address, self.protocol, self.port)

    def describe(self) -> str:
        address = "node port " if self.is_node_port else f"{bracketed(self.address)}:"
        return f"{self.protocol} {address}{self.port}"

    @property
    def is_node_port(self) -> bool:
        return self.address in (EVERY_ADDRESS, EVERY_ADDRESS6)


def place(port: ServicePort, before: Placed | None) -> Placed:
    """The port with slots for its endpoints. Endpoints that it had before keep theirs."""
    slots = arrange(before.slots if before else (), port.endpoints)
    external = arrange(before.external_slots if before else (), port.external_endpoints)
    return Placed(port, slots, slots if external == slots else external)


def arrange(before: Sequence[Endpoint], wanted: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """The wanted endpoints, each once, as near to their earlier slots as possible."""
    new, old = dict.fromkeys(wanted), set(before)
    coming = iter([endpoint for endpoint in new if endpoint not in old])
    slots = [endpoint if endpoint in new else next(coming, None) for endpoint in before]
    slots += coming
    while None in slots:
        last = slots.pop()
        if last is not None:
            slots[slots.index(None)] = last
    return tuple(endpoint for endpoint in slots if endpoint is not None)


def address_key(address: str, protocol: str, port: int) -> bytes:
    """The key of a front, which begins with the address. Every part fills whole 4-byte registers."""
    return packed(address) + bytes((PROTOCOLS[protocol], 0, 0, 0)) + struct.pack(">HH", port, 0)


def fronts(placed: Placed) -> list[Front]:
    """Every address and port at which the port is reachable."""
    port = placed.port
    inside = [Front(SERVICES, address, port.protocol, port.port, placed.slots) for address in port.addresses]
    outside = [
        Front(EXTERNAL, address, port.protocol, port.port, placed.external_slots) for address in port.external
    ]
    if port.node_port:
        every = EVERY_ADDRESS6 if port.ipv6 else EVERY_ADDRESS
        outside.append(Front(EXTERNAL, every, port.protocol, port.node_port, placed.external_slots))
    return inside + outside


def picks(placed: Placed) -> list[Pick]:
    """The chains that the port's fronts use, one for each front that has endpoints."""
    return [_pick(placed.port, front) for front in fronts(placed) if front.slots]


def elements(placed: Placed) -> Elements:
    """The elements of the port. The addresses of its endpoints in SELF are counted apart: see addresses()."""
    found: Elements = {}
    for front in fronts(placed):
        if front.slots:
            found.update(_served(placed.port, front))
        elif front.map_name == EXTERNAL:  # an unknown port of a cluster IP is refused without an element
            found[(REFUSED, front.key)] = b""
    return found


def addresses(placed: Placed) -> set[str]:
    """The addresses of the port's endpoints."""
    return {endpoint.ip for endpoint in (*placed.slots, *placed.external_slots)}


def self_element(ip: str) -> Key:
    return SELF, packed(ip) * 2


def difference(before: Mapping[Key, bytes], after: Mapping[Key, bytes]) -> tuple[Elements, Elements]:
    """(elements to remove, elements to add). An element with another value is in both."""
    gone = {key: value for key, value in before.items() if after.get(key) != value}
    new = {key: value for key, value in after.items() if before.get(key) != value}
    return gone, new


def problem(port: ServicePort) -> str:
    """Why the port cannot be put into the tables, as a sentence; "" if it can."""
    if port.protocol not in PROTOCOLS:
        return f"Service {port.name}: protocol {port.protocol} is not TCP, UDP or SCTP"
    try:
        targets = dict.fromkeys((*port.endpoints, *port.external_endpoints))
        for address in (*port.addresses, *port.external, *(endpoint.ip for endpoint in targets)):
            (ipaddress.IPv6Address if port.ipv6 else ipaddress.IPv4Address)(address)
        for network in port.sources:
            (ipaddress.IPv6Network if port.ipv6 else ipaddress.IPv4Network)(network)
    except ValueError as error:
        return f"Service {port.name} is not for {'IPv6' if port.ipv6 else 'IPv4'}: {error}"
    return ""


def _pick(port: ServicePort, front: Front) -> Pick:
    node = front.is_node_port
    restricted = bool(port.sources) and front.map_name == EXTERNAL and not node
    return Pick(len(front.slots), node, port.affinity, restricted)


def _served(port: ServicePort, front: Front) -> Elements:
    key, pick = front.key, _pick(port, front)
    found: Elements = {(front.map_name, key): pick.name.encode(), (FRONTS, key): b""}
    for slot, endpoint in enumerate(front.slots):
        target = packed(endpoint.ip) + struct.pack(">HH", endpoint.port, 0)
        found[(ENDPOINTS, key + struct.pack("=I", slot))] = target
        if port.affinity:
            tag = struct.pack("=I", crc32(target))
            found[(TAGS, key + struct.pack("=I", slot))] = tag
            found[(MEMBERS, key + tag)] = target
    for network in map(ipaddress.ip_network, port.sources if pick.restricted else ()):
        ends = key + network.network_address.packed, key + network.broadcast_address.packed
        found[(SOURCES, b"".join(ends))] = b""
    return found


def packed(address: str) -> bytes:
    """Return the bytes of a valid address (see problem()), ten times as fast as ipaddress does."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def bracketed(address: str) -> str:
    """Return an address as it is written before a port: an IPv6 address in brackets."""
    return f"[{address}]" if ":" in address else address
