"""The IPv6 pod network as plain data. Pure.

A pod's IPv6 address ends in its IPv4 address (10.88.0.5 and fd00:88::a58:5 belong together). So one allocator serves
both families, and two pods cannot have the same address, whatever networks the node had before.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from runtime.errors import SpecError

LONGEST_PREFIX = 96  # leaves the 32 bits of an IPv4 address


@dataclass(frozen=True, slots=True)
class Subnet6:
    """The IPv6 pod network."""

    network: ipaddress.IPv6Network

    @classmethod
    def parse(cls, cidr: str) -> Subnet6:
        """Parse "fd00:88::/64". Raises SpecError."""
        try:
            network = ipaddress.IPv6Network(cidr)
        except ValueError as error:
            raise SpecError(
                f"pod CIDR {cidr!r} is not an IPv6 network such as fd00:88::/64: {error}"
            ) from error
        if not 8 <= network.prefixlen <= LONGEST_PREFIX:
            raise SpecError(f"pod CIDR {cidr} must have a prefix between /8 and /{LONGEST_PREFIX}")
        return cls(network)

    @property
    def gateway(self) -> str:
        """The bridge's address. No pod gets it, because no pod has the address 0.0.0.1."""
        return str(self.network.network_address + 1)

    def address(self, ip: str) -> str:
        """The IPv6 address of the pod with this IPv4 address."""
        return str(self.network.network_address + int(ipaddress.IPv4Address(ip)))
