"""IPv6 of one node's pod network: set-up of the bridge and forwarding; pods; what an audit finds.

node.py and audit.py call this beside what they do for IPv4, and only if the node has an IPv6 network.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections.abc import Iterable, Sequence

from runtime.errors import CapabilityError, NetworkError
from runtime.network import netlink
from runtime.network.bridge import Bridge, read_sysctl, write_sysctl
from runtime.network.ipv6 import requests
from runtime.network.ipv6.outside import chains
from runtime.network.ipv6.plan import Subnet6
from runtime.network.netlink import Address, NetlinkSocket, Request
from runtime.network.plan import Lease, NetworkConfig

FORWARDING = "net/ipv6/conf/all/forwarding"
IN6_ADDR_GEN_MODE_NONE = "1"  # if_link.h: no link-local address
NEVER, BESIDE_FORWARDING = "0", "2"  # of accept_ra (ip-sysctl.rst)
POD_PREFIX = 128
_ABSENT = (errno.EADDRNOTAVAIL, errno.ENOENT, errno.ESRCH, errno.ENODEV)


class Stack6:
    """IPv6 of one node, in the network namespace of the socket."""

    def __init__(self, route: NetlinkSocket, bridge: Bridge, config: NetworkConfig) -> None:
        """Raises SpecError."""
        self.subnet = Subnet6.parse(config.pod_cidr6)
        self._route, self._bridge = route, bridge
        self.chains = chains(bridge.name, self.subnet.network, routed=config.routed)  # for nat.NatTable

    # --- the node ---------------------------------------------------------------------------------------------------

    def set_up(self, leases: Sequence[Lease]) -> None:
        """Give the bridge its address, forward packets, and make the pods' hardware addresses known. Idempotent. Raises
        NetworkError; CapabilityError if the kernel lacks IPv6."""
        self._refuse_overlap()
        self.prepare(self._bridge.name)
        _forward_packets()
        self._remove_stale_addresses(leases)
        address = requests.new_address(self._bridge.index, self.subnet.gateway, self.subnet.network.prefixlen)
        self._route.request([address])
        self.admit(*leases)
        wanted = {lease.ip6 for lease in leases}
        self.forget(
            [ip for ip, _ in requests.neighbours(self._route, self._bridge.index) if ip not in wanted]
        )

    def prepare(self, interface: str) -> None:
        """Switch IPv6 on at an interface of the calling thread's network namespace: without a link-local address, and
        deaf to router advertisements. Raises CapabilityError."""
        conf = f"net/ipv6/conf/{interface}"
        try:
            write_sysctl(f"{conf}/addr_gen_mode", IN6_ADDR_GEN_MODE_NONE)
            write_sysctl(f"{conf}/accept_ra", NEVER)
            write_sysctl(f"{conf}/disable_ipv6", "0")
        except OSError as error:
            raise CapabilityError(
                f"IPv6 cannot be switched on at {interface} ({error.strerror}: {error.filename}); "
                "leave the IPv6 network out of pod_cidr, or boot without ipv6.disable=1"
            ) from error

    def admit(self, *leases: Lease) -> None:
        """Make the pods' hardware addresses known to the node."""
        index = self._bridge.index
        known = [requests.set_neighbour(index, one.ip6, one.mac) for one in leases if one.ip6]
        if known:
            self._route.request(known)

    def inside(self, index: int, lease: Lease) -> list[Request]:
        """The requests that configure a pod's interface from inside its namespace. The interface has this index and is
        up. Repeating them is no error."""
        gateway = self.subnet.gateway
        return [
            requests.new_address(index, lease.ip6, POD_PREFIX),
            requests.set_neighbour(index, gateway, self._bridge.mac),
            requests.new_default_route(index, gateway),
        ]

    def forget(self, addresses: Iterable[str]) -> None:
        """Forget pods whose interfaces are gone, by their IPv6 addresses. Unknown ones are no error."""
        gone = [requests.delete_neighbour(self._bridge.index, ip) for ip in addresses if ip]
        if gone:
            self._route.request(gone, ignore=_ABSENT)

    # --- what an audit finds ----------------------------------------------------------------------------------------

    def problems(self, leases: Iterable[Lease]) -> list[str]:
        """What is wrong with IPv6 outside the pods' namespaces, as sentences: the bridge's address, forwarding, and the
        hardware addresses of these pods."""
        found, name, gateway = [], self._bridge.name, self.subnet.gateway
        held = requests.addresses(self._route)
        prefix = self.subnet.network.prefixlen
        if Address(self._bridge.index, gateway, prefix) not in held:
            found.append(f"bridge {name} does not have the address {gateway}/{prefix}")
        if read_sysctl(FORWARDING) != "1":
            found.append(f"pods cannot reach other networks: {FORWARDING.replace('/', '.')} is not 1")
        known = dict(requests.neighbours(self._route, self._bridge.index))
        found += [
            f"pod {lease.uid}: the hardware address of {lease.ip6} is not known to {name}"
            for lease in leases
            if lease.ip6 and known.get(lease.ip6) != lease.mac
        ]
        return found

    def inside_problems(self, pod: NetlinkSocket, index: int, lease: Lease) -> list[str]:
        """What is wrong with IPv6 inside a pod's namespace, as parts of sentences. `pod`: a socket of it."""
        if not lease.ip6:
            return []
        if not any((one.index, one.ip) == (index, lease.ip6) for one in requests.addresses(pod)):
            return [f"eth0 does not have the address {lease.ip6}"]
        if not requests.has_default_route(pod):
            return ["no default route of IPv6"]
        if dict(requests.neighbours(pod, index)).get(self.subnet.gateway) != self._bridge.mac:
            return [f"the hardware address of {self.subnet.gateway} is not known"]
        return []

    # --- parts of the set-up ----------------------------------------------------------------------------------------

    def _refuse_overlap(self) -> None:
        """Refuse a pod network that overlaps a network of the host: one of the two would become unreachable."""
        for one in requests.addresses(self._route):
            other = ipaddress.IPv6Network((one.ip, one.prefix), strict=False)
            if one.index != self._bridge.index and other.overlaps(self.subnet.network):
                names = {link.index: link.name for link in netlink.links(self._route)}
                raise NetworkError(
                    f"the pod network {self.subnet.network} overlaps {other} of {names.get(one.index, '?')}; "
                    "choose another --pod-cidr",
                    retriable=False,
                )

    def _remove_stale_addresses(self, leases: Sequence[Lease]) -> None:
        """Remove the bridge's addresses of earlier networks, unless pods still use that network. Its own address with
        another prefix length goes, too: the kernel does not change the length of an address that exists
        (net/ipv6/addrconf.c: inet6_addr_modify)."""
        own = (self.subnet.gateway, self.subnet.network.prefixlen)
        pods = [ipaddress.IPv6Address(lease.ip6) for lease in leases if lease.ip6]
        for one in requests.addresses(self._route):
            network = ipaddress.IPv6Network((one.ip, one.prefix), strict=False)
            if one.index != self._bridge.index or (one.ip, one.prefix) == own:
                continue
            if one.ip == self.subnet.gateway or not any(ip in network for ip in pods):
                gone = requests.delete_address(self._bridge.index, one.ip, one.prefix)
                self._route.request([gone], ignore=_ABSENT)


def _forward_packets() -> None:
    """Forward IPv6 packets. The kernel then ignores router advertisements, and forgets the default routes it has from
    them, unless accept_ra is 2: so it becomes 2 where it is 1. Raises NetworkError."""
    if read_sysctl(FORWARDING) == "1":
        return
    try:
        for name in os.listdir("/proc/sys/net/ipv6/conf"):
            with contextlib.suppress(FileNotFoundError):  # an interface that has just gone
                if read_sysctl(f"net/ipv6/conf/{name}/accept_ra") == "1":
                    write_sysctl(f"net/ipv6/conf/{name}/accept_ra", BESIDE_FORWARDING)
        write_sysctl(FORWARDING, "1")
    except OSError as error:
        raise NetworkError(
            f"cannot set sysctl {FORWARDING.replace('/', '.')} to 1 ({error.strerror}): pods need it for IPv6"
        ) from error
