"""Finds the pods whose bandwidth is limited. qdiscs.py sets the limits in the kernel; it is loaded with the first such
pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runtime.errors import NotFoundError
from runtime.network import netlink
from runtime.network.ipam import LeaseStore
from runtime.network.netlink import NetlinkSocket
from runtime.network.plan import Bandwidth, Lease


class Limits:
    """The limits of one node's pods. It remembers which of them the kernel refused: they are missing, but nothing that
    a repair could mend."""

    def __init__(self, sock: NetlinkSocket, leases: LeaseStore) -> None:
        self._sock, self._leases = sock, leases
        self._refused: dict[str, Bandwidth] = {}  # by uid

    def set(self, uid: str, bandwidth: Bandwidth) -> list[str]:
        """Limit what an attached pod receives and sends. Returns a warning if the kernel cannot. Raises NotFoundError
        if the pod has no attachment, NetlinkError."""
        if (lease := self._leases.get(uid)) is None:
            raise NotFoundError(f"pod {uid} has no address from this node")
        limited = replace(lease, bandwidth=bandwidth)
        self._leases.update(limited)  # first: the next start removes what it does not name
        return self._shape(limited)

    def unlimited(self, links: Mapping[str, netlink.Link]) -> list[Lease]:
        """The pods whose limits are missing in the kernel."""
        wanted = [lease for lease in self._leases.all() if lease.bandwidth and lease.host_ifname in links]
        if not wanted:
            return []
        from runtime.network.shaping.qdiscs import in_force, is_shaped

        found = in_force(self._sock, [links[one.host_ifname].index for one in wanted if one.bandwidth.egress])
        return [lease for lease in wanted if not is_shaped(lease, links, found)]

    def is_refused(self, lease: Lease) -> bool:
        """Whether the kernel refused this limit at the last attempt to set it."""
        return self._refused.get(lease.uid) == lease.bandwidth

    def restore(self) -> list[str]:
        """Limit pods that have lost their limits. Returns a sentence for each failure."""
        if not any(lease.bandwidth for lease in self._leases.all()):
            return []
        links = {link.name: link for link in netlink.links(self._sock)}
        return [f"pod {one.uid}: {said}" for one in self.unlimited(links) for said in self._shape(one)]

    def _shape(self, lease: Lease) -> list[str]:
        from runtime.network.shaping.qdiscs import shape

        said = shape(self._sock, lease)
        self._refused = {uid: limit for uid, limit in self._refused.items() if self._leases.get(uid)}
        if said:
            self._refused[lease.uid] = lease.bandwidth
        else:
            self._refused.pop(lease.uid, None)
        return said
