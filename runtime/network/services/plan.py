"""Ports of Services as plain data: where each is reachable, and where its packets go.

Nothing here touches the kernel, and imports are cheap: the daemon decides these values, and the network helper carries
them out. Every choice (ready or terminating endpoints, traffic policies, allocated addresses) has been made before.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NOT_SUPPORTED = "ServicesNotSupported"  # reason of an error: the kernel lacks a part of nftables
_ENDPOINTS = ("endpoints", "external_endpoints")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address and port of a pod, or of a machine, that serves a Service."""

    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service.

    `name` identifies it: "namespace/name:port name or number/protocol". `protocol` is TCP, UDP or SCTP. It is reachable
    at `port` of `addresses` (the cluster IPs) and of `external` (externalIPs and the addresses of a load balancer), and
    at `node_port` of every address of the node (0: none).

    `endpoints` are for connections from pods and this host to `addresses`, with internalTrafficPolicy applied;
    `external_endpoints` are for `external` and `node_port`, with externalTrafficPolicy applied. No endpoints means that
    connections are refused. `affinity` is the timeout of ClientIP session affinity in seconds (0: none).
    `preserve_source` is externalTrafficPolicy: Local, which keeps the client's address. `sources` are the networks that
    may connect to `external` (loadBalancerSourceRanges); empty means all.

    The daemon sends a port with its addresses of both families; of_family() returns the part of one family.
    """

    name: str
    protocol: str
    port: int
    addresses: tuple[str, ...]
    external: tuple[str, ...] = ()
    node_port: int = 0
    endpoints: tuple[Endpoint, ...] = ()
    external_endpoints: tuple[Endpoint, ...] = ()
    affinity: int = 0
    preserve_source: bool = False
    sources: tuple[str, ...] = ()

    @property
    def ipv6(self) -> bool:
        """Whether a port that of_family() has returned is the IPv6 part."""
        return bool(self.addresses) and ":" in self.addresses[0]

    def of_family(self, *, ipv6: bool) -> ServicePort | None:
        """Return the port with the addresses of one family only; None if the Service has no address of it."""
        addresses = _of_family(self.addresses, ipv6)
        if not addresses:
            return None
        return replace(
            self,
            addresses=addresses,
            external=_of_family(self.external, ipv6),
            sources=_of_family(self.sources, ipv6),
            endpoints=_endpoints_of_family(self.endpoints, ipv6),
            external_endpoints=_endpoints_of_family(self.external_endpoints, ipv6),
        )

    def to_json(self) -> dict[str, Any]:
        """The port as JSON. Endpoints are pairs, because a node may have ten thousand."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in _ENDPOINTS:
            data[name] = [(endpoint.ip, endpoint.port) for endpoint in data[name]]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ServicePort:
        """Build a port from to_json()'s form. Raises KeyError or TypeError for anything else."""
        lists = {name: tuple(data[name]) for name in ("addresses", "external", "sources")}
        endpoints = {name: tuple(Endpoint(ip, port) for ip, port in data[name]) for name in _ENDPOINTS}
        return cls(**{**data, **lists, **endpoints})


def _of_family(addresses: Iterable[str], ipv6: bool) -> tuple[str, ...]:
    return tuple(address for address in addresses if (":" in address) == ipv6)


def _endpoints_of_family(endpoints: Iterable[Endpoint], ipv6: bool) -> tuple[Endpoint, ...]:
    return tuple(endpoint for endpoint in endpoints if (":" in endpoint.ip) == ipv6)


@dataclass(frozen=True, slots=True)
class ServiceCount:
    """What an endpoint of a port (ServicePort.name) has received through the Service and sent back since the counters
    exist."""

    name: str
    endpoint: Endpoint
    received_packets: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    sent_bytes: int = 0

    def to_json(self) -> list[Any]:
        """A flat list, because a node may have ten thousand endpoints."""
        numbers = self.received_packets, self.received_bytes, self.sent_packets, self.sent_bytes
        return [self.name, self.endpoint.ip, self.endpoint.port, *numbers]

    @classmethod
    def from_json(cls, data: list[Any]) -> ServiceCount:
        """Build it from to_json()'s form."""
        name, ip, port, *numbers = data
        return cls(name, Endpoint(ip, port), *numbers)


@dataclass(frozen=True, slots=True)
class ServiceNetwork:
    """The networks of Services: the CIDR of their cluster IPs of IPv4, the first and last node port, and the CIDR of
    their cluster IPs of IPv6 ("": none). `counted`: packets and bytes are counted by endpoint."""

    service_cidr: str
    node_port_range: tuple[int, int]
    counted: bool = False
    service_cidr6: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
