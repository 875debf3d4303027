"""Compare a node's network with the kernel: find what is missing, damaged or left over, for the node and each pod.

Every audit queries the kernel, and changes nothing. node.py repairs the problems found, and audits again before it
reports them as repaired.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.errors import NetworkError
from runtime.network import antispoof, nat, netlink
from runtime.network.bridge import Bridge, read_sysctl
from runtime.network.ipam import LeaseStore
from runtime.network.namespaces import Namespaces, identity_of, opened
from runtime.network.nat import Element
from runtime.network.netlink import NetlinkError, NetlinkSocket
from runtime.network.plan import POD_IFNAME, Lease
from runtime.network.shaping.limits import Limits

if TYPE_CHECKING:  # loaded when pods have IPv6 addresses
    from runtime.network.ipv6.stack import Stack6


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `inside`: the pod whose namespace lacks it; `detached`: the pod that has lost its interface;
    `refused`: the kernel cannot do it, so that no repair helps."""

    sentence: str
    inside: str = ""
    detached: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Audit:
    """The parts of one node's network. `prefix` starts the names of the node's interfaces."""

    route: NetlinkSocket
    bridge: Bridge
    leases: LeaseStore
    namespaces: Namespaces
    senders: antispoof.SenderTable | None
    nat: nat.NatTable | None
    limits: Limits
    prefix: str
    ipv6: Stack6 | None = None

    def problems(self, inside: Iterable[Lease] | None = None) -> list[Problem]:
        """Every problem; [] if there are none. Also checks the pod's own namespace for each lease in `inside` (None:
        for all leases)."""
        links = {link.name: link for link in netlink.links(self.route)}
        leases = self.leases.all()
        published = self._published()
        found = [Problem(sentence) for sentence in self.bridge.problems(links.values())]
        if self.nat and read_sysctl(f"net/ipv4/conf/{self.bridge.name}/route_localnet") == "0":
            found.append(Problem("host ports are not reachable at 127.0.0.1: route_localnet is off"))
        if self.ipv6:
            found += map(Problem, self.ipv6.problems(leases))
        if self.nat and self.nat.lacks_second():
            found.append(Problem(f"nftables: table ip6 {self.nat.name} is missing"))
        for lease in leases:
            found += self._lease_problems(lease, links, published)
        found += [
            Problem(
                f"pod {lease.uid}: {lease.host_ifname} does not limit the pod's bandwidth",
                refused=self.limits.is_refused(lease),
            )
            for lease in self.limits.unlimited(links)
        ]
        known = {name for lease in leases for name in lease.interfaces}
        found += [
            Problem(f"interface {name} belongs to no pod")
            for name in links
            if name.startswith(self.prefix) and name not in known
        ]
        if self.nat and published is not None:
            wanted = {item for lease in leases for item in self.nat.elements_of(lease)}
            found += [
                Problem(f"nftables: {nat.describe(item)} is published for no pod")
                for item in published - wanted
            ]
        found += self._sender_problems(leases, others=True)
        detached = {problem.detached for problem in found}
        for lease in leases if inside is None else inside:
            if lease.uid not in detached:
                found += self.inside_problems(lease, ended=False)
        return found

    def of_pod(self, lease: Lease) -> list[Problem]:
        """The problems of one pod's attachment."""
        links = {link.name: link for link in netlink.links(self.route)}
        found = self._lease_problems(lease, links, self._published())
        if self.ipv6:
            found += map(Problem, self.ipv6.problems([lease]))
        return found + self._sender_problems([lease], others=False) + self.inside_problems(lease, ended=True)

    def inside_problems(self, lease: Lease, *, ended: bool) -> list[Problem]:
        """Check that the pod's own namespace has its address and a default route. Any default route will do, because a
        pod may set its own (a VPN's). `ended`: report a namespace that is gone. Otherwise, it is ignored, because the
        pod has just ended."""
        try:
            with opened(lease.netns) as namespace:
                if identity_of(namespace) != lease.netns_id:
                    words = f"pod {lease.uid}: {lease.netns} is a different namespace now"
                    return [Problem(words)] if ended else []
                with self.namespaces.inside(namespace):
                    index = netlink.interface_index(POD_IFNAME, missing_ok=True)
                    pod = NetlinkSocket()
        except NetworkError as error:
            return [Problem(f"pod {lease.uid}: {error}")] if ended else []
        with pod:
            if not any((held.index, held.ip) == (index, lease.ip) for held in netlink.addresses(pod)):
                return [
                    Problem(
                        f"pod {lease.uid}: {POD_IFNAME} does not have the address {lease.ip}",
                        inside=lease.uid,
                    )
                ]
            if netlink.uplink(pod) is None:
                return [Problem(f"pod {lease.uid}: no default route", inside=lease.uid)]
            if self.ipv6:
                lacks = self.ipv6.inside_problems(pod, index, lease)
                return [Problem(f"pod {lease.uid}: {words}", inside=lease.uid) for words in lacks]
        return []

    def _lease_problems(
        self, lease: Lease, links: dict[str, netlink.Link], published: set[Element] | None
    ) -> list[Problem]:
        found = []
        link = links.get(lease.host_ifname)
        if link is None:
            words = f"pod {lease.uid}: interface {lease.host_ifname} is missing"
            found.append(Problem(words, detached=lease.uid))
        elif link.master != self.bridge.index or not link.up:
            words = f"pod {lease.uid}: interface {lease.host_ifname} is not up on {self.bridge.name}"
            found.append(Problem(words))
        if self.nat and published is not None:
            found += [
                Problem(f"pod {lease.uid}: host port {port.describe()} is not in the NAT table")
                for port in lease.ports
                if not published.issuperset(self.nat.elements_of(lease, port))
            ]
        return found

    def _sender_problems(self, leases: Sequence[Lease], *, others: bool) -> list[Problem]:
        """Pods that are not restricted to their addresses. With `others`, also elements that belong to no pod."""
        if self.senders is None:
            return []
        try:
            admitted = self.senders.admitted()
        except NetlinkError:  # the table has been removed
            admitted = set()
        found = [
            Problem(f"pod {lease.uid}: {lease.host_ifname} is not restricted to its own addresses")
            for lease in leases
            if not admitted.issuperset(self.senders.elements_of(lease))
        ]
        known = {item for lease in leases for item in self.senders.elements_of(lease)}
        leftover = sorted(admitted - known) if others else []
        return found + [
            Problem(f"nftables: {antispoof.describe(item)} is admitted for no pod") for item in leftover
        ]

    def _published(self) -> set[Element] | None:
        """The elements that the NAT table publishes. None without NAT; empty if the table has been removed."""
        if self.nat is None:
            return None
        try:
            return self.nat.published()
        except NetlinkError:
            return set()
