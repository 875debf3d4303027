"""What a pod's own network namespace gets: lo up, and eth0 with its addresses and default routes."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from runtime.network import netlink
from runtime.network.bridge import disable_ipv6
from runtime.network.namespaces import Namespaces
from runtime.network.netlink import NetlinkSocket
from runtime.network.plan import POD_IFNAME, Lease, Subnet

if TYPE_CHECKING:  # loaded when pods have IPv6 addresses
    from runtime.network.ipv6.stack import Stack6

LO_INDEX = 1  # LOOPBACK_IFINDEX: lo has index 1 in every network namespace


def configure(
    namespaces: Namespaces,
    namespace: int,
    lease: Lease,
    subnet: Subnet,
    ipv6: Stack6 | None,
    *,
    again: bool,
) -> None:
    """Configure lo (up) and eth0 (addresses, up, default routes). The socket is opened inside the namespace and used
    from outside. `again`: addresses and routes that exist already are no error. Raises NetworkError."""
    second = ipv6 if lease.ip6 else None
    with namespaces.inside(namespace):
        if second:
            second.prepare(POD_IFNAME)
        else:
            disable_ipv6(POD_IFNAME)
        index = netlink.interface_index(POD_IFNAME)
        pod = NetlinkSocket()
    with pod:
        pod.request(
            [
                netlink.set_link(LO_INDEX, up=True),
                netlink.new_address(index, ip=lease.ip, prefix=subnet.prefix, broadcast=subnet.broadcast),
                netlink.set_link(index, up=True),
                netlink.new_default_route(index, subnet.gateway),
                *(second.inside(index, lease) if second else ()),
            ],
            ignore=(errno.EEXIST,) if again else (),
        )
