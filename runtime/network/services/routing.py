"""The Services of one node and family: their desired state, and the tables and the route that carry it out.

The daemon sends the desired state: all of it when the helper has started, then changes. The helper keeps it, so that an
audit can compare it with the kernel, and a repair can restore it. The tables exist only while there are ports, or
connections of pods to pods through ports that are gone: without the tables, the bridge would switch their frames, and
nobody translate the addresses. dual_stack.py has the two families of a node with IPv6.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from runtime.errors import CapabilityError, NetworkError, SpecError
from runtime.network import netlink
from runtime.network.bridge import Bridge
from runtime.network.netlink import Address, NetlinkError, NetlinkSocket
from runtime.network.nft_messages import IPV4, IPV6, Table, table_exists
from runtime.network.plan import Subnet
from runtime.network.services import arrange, conntrack, route
from runtime.network.services.arrange import Elements, Pick, Placed
from runtime.network.services.plan import NOT_SUPPORTED, Network, ServiceCount, ServiceNetwork, ServicePort
from runtime.network.services.tables import Scope, ServiceTables

if TYPE_CHECKING:  # loaded when packets are counted, and on a node with IPv6
    from runtime.network.ipv6.plan import Subnet6
    from runtime.network.services.counts import ServiceCounters

T = TypeVar("T")

# Exists if the kernel tracks SCTP connections (CONFIG_NF_CT_PROTO_SCTP).
SCTP_SWITCH = "/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established"


def counters_table_name(table: str) -> str:
    """Return the name of the table that counts the packets of the Services in `table`."""
    return f"{table}-counts"


class ServiceRouting:
    """The Services of one node in the family of `subnet`. It ignores a port's addresses of the other family. Not for
    several threads."""

    def __init__(
        self, sock: NetlinkSocket, bridge: Bridge, subnet: Subnet | Subnet6, *, table: str, prefix: str,
        routed: bool, alone: bool = True,
    ) -> None:  # fmt: skip
        """`table` is the name of the tables, `prefix` starts the names of the pods' interfaces. `alone`: the node has
        Services of this family only."""
        self._socket = sock
        self._bridge = bridge
        self._subnet = subnet
        self._family = IPV4 if subnet.network.version == 4 else IPV6
        self._ipv6 = self._family is IPV6
        self._alone = alone
        self._prefix = prefix
        self._routed = routed
        self._table = table
        self._lacking = ""  # what the kernel lacks, so that no Service is reachable
        self._counters: ServiceCounters | None = None  # None: nothing is counted
        self._counted = False  # whether it should be
        self._cluster: Network | None = None
        self._placed: dict[str, Placed] = {}
        self._lingers = False  # whether the tables exist without a port
        self._users: Counter[Pick] = Counter()  # the number of fronts that use a chain
        self._addresses: Counter[str] = Counter()  # the number of ports that have an endpoint at an address
        self._owners: dict[bytes, str] = {}  # the name of the port that has a front

    def replace(self, network: ServiceNetwork, ports: Sequence[ServicePort]) -> list[str]:
        """Make these ports the desired state. Connections and clients' endpoints are kept. Returns a sentence for each
        port that cannot be served. Raises NetworkError, SpecError."""
        self._cluster, self._counted = self._checked(network), network.counted
        self._clear()
        refused = [problem for port in ports if (problem := self._admit(port, None))]
        return refused + self.restore()

    def change(self, changed: Sequence[ServicePort], removed: Sequence[str]) -> list[str]:
        """Add or change ports, and remove others, in one transaction. Unknown names in `removed` are no error. Returns
        a sentence for each port that cannot be served. Raises NetworkError."""
        if self._cluster is None:
            raise NetworkError("the network helper does not know the network of the cluster IPs yet")
        names = dict.fromkeys([*removed, *(port.name for port in changed)])
        before = {name: self._placed[name] for name in names if name in self._placed}
        existed, users = bool(self._placed), set(self._users)
        touched = {ip for placed in before.values() for ip in arrange.addresses(placed)}
        touched |= {one.ip for port in changed for one in (*port.endpoints, *port.external_endpoints)}
        old = self._elements_of(before.values(), touched)
        for placed in before.values():
            self._forget(placed)
        refused = [problem for port in changed if (problem := self._admit(port, before.get(port.name)))]
        after = [self._placed[name] for name in names if name in self._placed]
        if not before and not after:  # a change of the other family
            return refused
        if existed and self._placed:
            gone, new = arrange.difference(old, self._elements_of(after, touched))
            self._apply(gone, new, users)
        else:
            refused += self.restore()
        if stale := conntrack.stale([*before.values()], after):
            conntrack.forget(self._tables.socket, stale)
        return refused

    def restore(self) -> list[str]:
        """Make the tables and the route anew from the desired state, or remove them if there are no ports. Returns
        warnings. Raises NetworkError."""
        if self._cluster is None:
            return []
        if not self._placed and not self._is_in_use():
            self._remove()
            return []
        scope = Scope(self._bridge.name, self._subnet.gateway, self._prefix, self._cluster, self._routed)
        try:
            self._tables.rebuild(scope, list(self._users), self._wanted())
        except CapabilityError as error:
            self._lacking = str(error)
            raise NetworkError(self._lacking, reason=NOT_SUPPORTED, retriable=False) from error
        self._lacking, self._lingers = "", not self._placed
        self._remove_routes(self._cluster)
        route.add(self._socket, self._cluster, bridge=self._bridge.index, gateway=self._subnet.gateway)
        # the tables of IPv6 drop redirects; there is no such sysctl
        return ([] if self._ipv6 else self._bridge.silence_redirects()) + self._count()

    def problems(self) -> list[str]:
        """Return a sentence for each rule, route or element that is missing, and for each that should not exist."""
        if self._cluster is None or not (self._placed or self._lingers):
            return []
        if self._lacking:
            return [f"no Service is reachable: {self._lacking}"]
        found = self._tables.differences(self._wanted)
        if self._cluster not in route.listed(self._socket, bridge=self._bridge.index, ipv6=self._ipv6):
            found.append(f"the route to the cluster IPs {self._cluster} is missing")
        if self._counters and not self._counters.exists():
            found.append("nftables: the table of the Services' counters is missing")
        return found if self._ipv6 else found + self._bridge.redirect_problems()

    def counts(self) -> list[ServiceCount]:
        """What each endpoint has received and sent; [] if nothing is counted. Raises NetworkError."""
        return self._counters.read(self._owners, self._placed) if self._counters else []

    def settle(self) -> None:
        """Remove the tables that existed for connections which have ended."""
        if self._lingers and not self._is_in_use():
            self._remove()

    def delete(self) -> None:
        """Remove the tables and the route, and forget all ports."""
        self._clear()
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(CapabilityError):  # such a kernel has no tables
            self._tables.delete()
        self._remove_routes()
        self._lacking, self._lingers = "", False
        self._stop_counting()

    def _count(self) -> list[str]:
        """Have counters, or none. Returns a warning if the kernel has none."""
        if not self._counted:
            self._stop_counting()
            return []
        from runtime.network.services.counts import ServiceCounters

        self._counters = self._counters or ServiceCounters(self._counters_name, self._family)
        try:
            self._counters.ensure()
        except CapabilityError as error:
            self._stop_counting()
            return [f"the packets of Services are not counted: {error}"]
        return []

    def _stop_counting(self) -> None:
        if self._counters:
            self._counters.close()
            self._counters = None
        if table_exists(self._family.number, self._counters_name):  # perhaps of an earlier helper
            with contextlib.closing(Table(self._family.number, self._counters_name)) as left:
                left.delete()

    @property
    def _counters_name(self) -> str:
        return counters_table_name(self._table)

    @cached_property
    def _tables(self) -> ServiceTables:
        """Raises CapabilityError if the kernel has no nftables, which matters only while there are ports."""
        return ServiceTables(self._table, self._family)

    def _is_in_use(self) -> bool:
        """Whether there are tables, and connections that need them."""
        pods = self._subnet.network
        with contextlib.suppress(CapabilityError):
            return (self._lingers or self._tables.exist()) and conntrack.between_pods(
                self._tables.socket, pods
            )
        return False

    def _apply(self, gone: Elements, new: Elements, old_users: set[Pick]) -> None:
        needed = [pick for pick in self._users if pick not in old_users]
        unused = [pick for pick in old_users if pick not in self._users]
        try:
            self._tables.change(gone, new, unused=unused, needed=needed)
        except NetlinkError as error:
            if error.errno not in (errno.ENOENT, errno.EEXIST, errno.EBUSY):
                raise
            self.restore()  # somebody else has changed or removed the tables

    def _checked(self, network: ServiceNetwork) -> Network:
        """The network of the cluster IPs. Pods' and the host's own networks would become unreachable if it overlapped
        them. Raises SpecError, NetworkError."""
        given = network.service_cidr6 if self._ipv6 else network.service_cidr
        try:
            cluster = (ipaddress.IPv6Network if self._ipv6 else ipaddress.IPv4Network)(given)
        except ValueError as error:
            kind = (
                "an IPv6 network such as fd00:96::/112"
                if self._ipv6
                else "an IPv4 network such as 10.96.0.0/16"
            )
            raise SpecError(f"service CIDR {given!r} is not {kind}: {error}") from error
        taken = [
            ipaddress.ip_network(f"{one.ip}/{one.prefix}", strict=False) for one in self._host_addresses()
        ]
        for other in (*taken, self._subnet.network):
            if cluster.overlaps(other):
                raise NetworkError(
                    f"the service CIDR {cluster} overlaps {other}, a network of this host or of its pods",
                    retriable=False,
                )
        return cluster

    def _host_addresses(self) -> Sequence[Address]:
        if not self._ipv6:
            return netlink.addresses(self._socket)
        from runtime.network.ipv6 import requests

        return requests.addresses(self._socket)

    def _admit(self, port: ServicePort, before: Placed | None) -> str:
        """Add a port to the desired state, unless it is of the other family. Returns why it cannot be served, as a
        sentence; "" if it can."""
        own = port.of_family(ipv6=self._ipv6)
        if own is None:
            return f"Service {port.name}: this node has no Services of its family" if self._alone else ""
        port = own
        if problem := arrange.problem(port):
            return problem
        if port.protocol == "SCTP" and not os.path.exists(SCTP_SWITCH):
            return f"Service {port.name}: this kernel has no NAT for SCTP (CONFIG_NF_CT_PROTO_SCTP)"
        placed = arrange.place(port, before)
        fronts = arrange.fronts(placed)
        for front in fronts:
            if (owner := self._owners.get(front.key)) and owner != port.name:
                return f"Service {port.name}: {front.describe()} is already that of Service {owner}"
        self._owners |= {front.key: port.name for front in fronts}
        self._placed[port.name] = placed
        self._users.update(arrange.picks(placed))
        self._addresses.update(arrange.addresses(placed))
        return ""

    def _forget(self, placed: Placed) -> None:
        del self._placed[placed.port.name]
        for front in arrange.fronts(placed):
            self._owners.pop(front.key, None)
        for pick in arrange.picks(placed):
            _decrement(self._users, pick)
        for ip in arrange.addresses(placed):
            _decrement(self._addresses, ip)

    def _clear(self) -> None:
        self._placed, self._owners = {}, {}
        self._users, self._addresses = Counter(), Counter()

    def _wanted(self) -> Elements:
        return self._elements_of(self._placed.values(), self._addresses)

    def _elements_of(self, listed: Iterable[Placed], addresses: Iterable[str]) -> Elements:
        """The elements of these ports, and those of the addresses that have endpoints."""
        found: Elements = {}
        for placed in listed:
            found |= arrange.elements(placed)
        found |= {arrange.self_element(ip): b"" for ip in addresses if ip in self._addresses}
        return found

    def _remove_routes(self, keep: Network | None = None) -> None:
        """Remove the routes into the bridge to cluster IPs, those of an earlier setting included."""
        for network in route.listed(self._socket, bridge=self._bridge.index, ipv6=self._ipv6):
            if network != keep:
                route.remove(self._socket, network, bridge=self._bridge.index)


def _decrement(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]
