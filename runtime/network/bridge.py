"""The node's bridge, and the sysctls it needs: create it, recognise it, and refuse a bridge of another owner.

Our bridge carries the interface alias "kubelite:<identity>" (plan.identity). A bridge without it is left alone,
whatever its name: it may connect guests of docker or libvirt.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
from collections.abc import Iterable

from runtime.errors import NetworkError, SpecError
from runtime.network import netlink
from runtime.network.netlink import Link, NetlinkSocket
from runtime.network.plan import BRIDGE_GROUP, Subnet, bridge_alias, mac_of

FORWARDING = "net/ipv4/ip_forward"
NO_ANSWER = "refused UDP packets to Services may get no answer"
DEFAULT_MTU = 1500  # for a host without a default route


class Bridge:
    """The bridge of one node, in the network namespace of the socket."""

    def __init__(self, route: NetlinkSocket, name: str, node: str, subnet: Subnet) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", name) or name in (".", ".."):
            raise SpecError(f"bridge name {name!r} must have 1 to 15 letters, digits, '-', '_' or '.'")
        self.name = name
        self.mac = mac_of(subnet.gateway)
        self.index = 0
        self._route = route
        self._alias = bridge_alias(node)
        self._subnet = subnet

    def set_up(self, *, mtu: int, held: Iterable[str], ipv6: bool = False) -> list[str]:
        """Create or repair the bridge: it exists, has the gateway's address, is up, and packets are forwarded.
        Idempotent. `held` are the addresses of pods. `ipv6`: ipv6/stack.py switches IPv6 on. Returns warnings. Raises
        NetworkError if the name or the network is taken."""
        present = netlink.links(self._route)
        bridge = next((link for link in present if link.name == self.name), None)
        if bridge is not None:
            self._refuse_foreign(bridge)
        self._refuse_overlap(present, bridge.index if bridge else 0)
        if bridge is None:
            # In one datagram, so that a crash cannot leave a bridge without its alias.
            make = netlink.new_bridge(self.name, mac=self.mac, mtu=mtu)
            self._route.request([make, netlink.set_alias(self.name, self._alias)])
        self.index = netlink.interface_index(self.name)
        if not (ipv6 and self.had_ipv6()):
            # With IPv6, a new bridge also comes up without it, so that it gets no link-local address. Later that would
            # remove the IPv6 addresses, neighbours and routes of the bridge.
            disable_ipv6(self.name)
        warnings = self._remove_stale_addresses(held)
        subnet = self._subnet
        address = netlink.new_address(
            self.index, ip=subnet.gateway, prefix=subnet.prefix, broadcast=subnet.broadcast
        )
        up = netlink.set_link(self.index, up=True, attributes=(("IFLA_GROUP", BRIDGE_GROUP),))
        self._route.request([address, up], ignore=(errno.EEXIST,))
        for key in (FORWARDING, self._forwarding):  # the first sets the second only when it changes
            warnings += _switch(key, "1", "pods cannot reach other networks")
        return warnings

    def had_ipv6(self) -> bool:
        """Whether an earlier helper of this node has given pods IPv6 addresses (ipv6/stack.py sets this sysctl)."""
        return read_sysctl(f"net/ipv6/conf/{self.name}/addr_gen_mode") == "1"

    @property
    def _forwarding(self) -> str:
        return f"net/ipv4/conf/{self.name}/forwarding"

    def problems(self, links: Iterable[Link]) -> list[str]:
        """The problems of the bridge itself, as sentences."""
        bridge = next((link for link in links if link.name == self.name), None)
        if bridge is None or bridge.index != self.index or not bridge.up:
            return [f"bridge {self.name} is missing or down"]
        subnet, found = self._subnet, []
        held = [address for address in netlink.addresses(self._route) if address.index == self.index]
        if not any((address.ip, address.prefix) == (subnet.gateway, subnet.prefix) for address in held):
            found.append(f"bridge {self.name} does not have the address {subnet.gateway}/{subnet.prefix}")
        for key in (FORWARDING, self._forwarding):
            if read_sysctl(key) == "0":
                found.append(f"pods cannot reach other networks: {key.replace('/', '.')} is 0")
        return found

    def delete(self) -> None:
        """Delete the bridge if it exists and is ours."""
        for link in netlink.links(self._route):
            if link.name == self.name and link.alias == self._alias:
                self._route.request([netlink.delete_link(self.name)], ignore=(errno.ENODEV,))

    def _refuse_foreign(self, bridge: Link) -> None:
        if bridge.kind != "bridge":
            raise NetworkError(
                f"{self.name} exists and is not a bridge ({bridge.kind or 'a device'}); choose another --bridge",
                retriable=False,
            )
        if bridge.alias != self._alias:
            whose = f"marked {bridge.alias!r}" if bridge.alias else "not made by kubelite"
            raise NetworkError(
                f"bridge {self.name} exists and is not this node's ({whose}); choose another --bridge, or remove "
                f"it with: ip link del {self.name}",
                retriable=False,
            )

    def _refuse_overlap(self, present: list[Link], bridge: int) -> None:
        """Refuse a pod network that overlaps a network of the host: one of the two would become unreachable."""
        names = {link.index: link.name for link in present}
        for address in netlink.addresses(self._route):
            other = Subnet.of(address.ip, address.prefix)
            if address.index != bridge and other.overlaps(self._subnet.network):
                raise NetworkError(
                    f"the pod network {self._subnet.network} overlaps {other} of {names.get(address.index, '?')}; "
                    "choose another --pod-cidr",
                    retriable=False,
                )

    def _remove_stale_addresses(self, held: Iterable[str]) -> list[str]:
        """Remove the bridge's addresses of earlier pod CIDRs, unless pods still use that network."""
        warnings = []
        pods = [ipaddress.IPv4Address(ip) for ip in held]
        for address in netlink.addresses(self._route):
            if address.index != self.index or address.ip == self._subnet.gateway:
                continue
            network = Subnet.of(address.ip, address.prefix)
            if any(ip in network for ip in pods):
                warnings.append(f"pods still use the earlier pod network {network} on {self.name}")
            else:
                gone = netlink.delete_address(self.index, ip=address.ip, prefix=address.prefix)
                self._route.request([gone], ignore=(errno.EADDRNOTAVAIL,))
        return warnings

    def allow_loopback(self, *, guarded: bool) -> list[str]:
        """Set route_localnet, so that host ports work at 127.0.0.1. That is only safe with the NAT table's guard chain
        (`guarded`)."""
        return _switch(
            f"net/ipv4/conf/{self.name}/route_localnet",
            "1" if guarded else "0",
            "host ports are not reachable at 127.0.0.1",
        )

    def silence_redirects(self) -> list[str]:
        """Send no ICMP redirects into the bridge. The kernel sends them for what it routes back into the bridge, and
        then limits the rate of other ICMP errors to the same pod. Both sysctls must be off (ip-sysctl.rst); other
        interfaces keep their own. Returns warnings."""
        return [warning for key in self._redirects for warning in _switch(key, "0", NO_ANSWER)]

    def redirect_problems(self) -> list[str]:
        """What `silence_redirects` has not set, as sentences."""
        return [
            f"{NO_ANSWER}: {key.replace('/', '.')} is 1" for key in self._redirects if read_sysctl(key) == "1"
        ]

    @property
    def _redirects(self) -> list[str]:
        return [f"net/ipv4/conf/{name}/send_redirects" for name in ("all", self.name)]


def _switch(key: str, value: str, otherwise: str) -> list[str]:
    """Set a sysctl. Returns a warning if that fails; `otherwise` states the consequence."""
    try:
        write_sysctl(key, value)
    except OSError as error:
        name = key.replace("/", ".")
        return [f"cannot set sysctl {name} to {value} ({error.strerror}): {otherwise}"]
    return []


def uplink_mtu(route: NetlinkSocket) -> int:
    """The MTU of the interface with the default route: larger packets would be lost or fragmented on the way out."""
    index = netlink.uplink(route)
    return next((link.mtu for link in netlink.links(route) if link.index == index), DEFAULT_MTU)


def write_sysctl(key: str, value: str) -> None:
    """Write below /proc/sys, which shows the network namespace of the thread that opens the file. If it is read-only, a
    value that is correct already suffices. Raises OSError."""
    path = f"/proc/sys/{key}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        with open(path) as file:
            if file.read().strip() == value:
                return
        raise
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def read_sysctl(key: str) -> str:
    """Read a sysctl such as net/ipv4/ip_forward, in the network namespace of the calling thread. Returns "" if it
    cannot be read."""
    try:
        with open(f"/proc/sys/{key}") as file:
            return file.read().strip()
    except OSError:
        return ""


def disable_ipv6(interface: str) -> None:
    """Disable IPv6 on an interface, because only IPv4 is supported: then no link-local address appears, and nothing
    waits for duplicate address detection (as docker does for networks without IPv6). A kernel without IPv6 does not
    have the file, which is fine."""
    with contextlib.suppress(OSError):
        write_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6", "1")
