"""Finds the pods whose bandwidth is limited. qdiscs.py sets the limits in the kernel; it is loaded with the first such
pod."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from runtime.errors import NotFoundError
from runtime.network import netlink
from runtime.network.ipam import LeaseStore
from runtime.network.netlink import NetlinkSocket
from runtime.network.plan import Bandwidth, Lease


def set_limit(sock: NetlinkSocket, leases: LeaseStore, uid: str, bandwidth: Bandwidth) -> list[str]:
    """Limit what an attached pod receives and sends. Returns a warning if the kernel cannot. Raises NotFoundError if
    the pod has no attachment, NetlinkError."""
    if (lease := leases.get(uid)) is None:
        raise NotFoundError(f"pod {uid} has no address from this node")
    limited = replace(lease, bandwidth=bandwidth)
    leases.update(limited)  # first: the next start removes what it does not name
    from runtime.network.shaping.qdiscs import shape

    return shape(sock, limited)


def unlimited(sock: NetlinkSocket, leases: Sequence[Lease], links: Mapping[str, netlink.Link]) -> list[Lease]:
    """The pods whose limits are missing in the kernel."""
    wanted = [lease for lease in leases if lease.bandwidth and lease.host_ifname in links]
    if not wanted:
        return []
    from runtime.network.shaping.qdiscs import is_shaped, qdiscs

    found = qdiscs(sock)
    return [lease for lease in wanted if not is_shaped(lease, links, found)]


def restore(sock: NetlinkSocket, leases: Sequence[Lease]) -> list[str]:
    """Limit pods that have lost their limits. Returns a sentence for each failure."""
    if not any(lease.bandwidth for lease in leases):
        return []
    from runtime.network.shaping.qdiscs import shape

    links = {link.name: link for link in netlink.links(sock)}
    return [
        f"pod {lease.uid}: {said}" for lease in unlimited(sock, leases, links) for said in shape(sock, lease)
    ]
