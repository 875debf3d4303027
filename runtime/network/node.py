"""One node's network, done: bridge, forwarding and NAT table; pods attached to it and taken off again.

What is to be is decided in plan.py; this module carries it out through netlink.py and nft.py, in the network
namespace it was started in (the helper's, which is the daemon's). It is synchronous and single-threaded on
purpose: setns(2) into a pod's namespace concerns the calling thread.

Crash safety: a lease is written before the kernel is touched and marked ready after everything stands. At the
next start what is not ready is rolled back, host interfaces without a lease go, and the NAT table is made anew
from the leases.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from runtime import syscalls
from runtime.errors import CapabilityError, NetworkError, NotFoundError, SpecError
from runtime.network import antispoof, netlink, nft
from runtime.network.bridge import Bridge, disable_ipv6, uplink_mtu
from runtime.network.hostports import HostPorts
from runtime.network.ipam import LeaseStore, remembered_name
from runtime.network.netlink import NetlinkError, NetlinkSocket
from runtime.network.plan import (
    POD_IFNAME,
    Attachment,
    Lease,
    NetworkConfig,
    PortMapping,
    Subnet,
    check_ports,
    link_prefix,
    port_conflict,
    table_name,
)

LO_INDEX = 1  # LOOPBACK_IFINDEX: lo is 1 in every network namespace
DOOMED_GROUP = 0x6B6C0000  # interfaces about to be deleted together


class Node:
    """A set-up node. `warnings` are what its set-up could not do, as sentences."""

    def __init__(self, config: NetworkConfig) -> None:
        """Idempotent set-up. Raises NetworkError, SpecError or CapabilityError with nothing half-made that the next
        start would not mend."""
        self.config = config
        self._name = remembered_name(config.state_dir, config.node)
        self._subnet = Subnet.parse(config.pod_cidr)
        self._leases = LeaseStore(config.state_dir, self._subnet, self._name)
        self._ports = HostPorts()
        self._route = NetlinkSocket()
        self._deleting = NetlinkSocket()  # of its own: see deleter.py
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._mtu = config.mtu or uplink_mtu(self._route)
        self._bridge = Bridge(self._route, config.bridge, self._name, self._subnet)
        self.warnings = self._set_up_bridge()
        self._heal()
        self._senders = self._set_up_senders()
        self._nat = self._set_up_nat()

    # --- pods -------------------------------------------------------------------------------------------------------

    def add(self, uid: str, netns: str, ports: Sequence[PortMapping]) -> Attachment:
        """CNI's ADD, idempotent: the same pod in the same namespace is only checked against its ports."""
        wanted, warnings = check_ports(ports)
        if wanted and self._nat is None:
            warnings += [
                f"host port {p.describe()} is not published: this kernel has no NAT by nftables"
                for p in wanted
            ]
            wanted = ()
        with _opened(netns) as namespace:
            netns_id = self._foreign(namespace, netns)
            lease = self._leases.get(uid)
            if lease and lease.ready and lease.netns_id == netns_id and self._index(lease.host_ifname):
                lease = self._change_ports(lease, wanted)
            else:
                lease = self._attach(
                    uid, netns=netns, netns_id=netns_id, namespace=namespace, ports=wanted, old=lease
                )
        return self._attachment(lease, warnings)

    def delete(self, uids: Sequence[str]) -> None:
        """CNI's DEL for several pods at once. Fine for unknown ones, and when their namespaces are long gone."""
        _delete_links(self._route, self.begin_delete(uids))
        self.finish_delete(uids)

    def begin_delete(self, uids: Sequence[str]) -> list[str]:
        """The quick half: ports are withdrawn, and free for others. Returns the interfaces that have to go; the address
        stays taken until finish_delete(). Ended here, the rest is the next start's: the lease is not ready any more."""
        leases = [lease for uid in dict.fromkeys(uids) if (lease := self._leases.get(uid))]
        if self._nat:
            self._nat.withdraw(leases)
        for lease in leases:
            self._ports.release(lease.uid)
            self._leases.unfinish(lease)
        return [lease.host_ifname for lease in leases]

    def finish_delete(self, uids: Sequence[str]) -> None:
        if self._senders:  # not before their interfaces are gone
            self._senders.forget([lease for uid in uids if (lease := self._leases.get(uid))])
        for uid in uids:
            self._leases.remove(uid)

    def delete_links(self, names: Sequence[str]) -> None:
        """Delete interfaces, together. Touches nothing but a socket of its own: for the thread of deleter.py."""
        _delete_links(self._deleting, names)

    def check(self, uid: str) -> list[str]:
        """CNI's CHECK: what is wrong with a pod's attachment, as sentences. NotFoundError when it has none."""
        lease = self._leases.get(uid)
        if lease is None:
            raise NotFoundError(f"pod {uid} has no address from this node")
        links = {link.name: link for link in netlink.links(self._route)}
        problems = self._lease_problems(lease, links, self._published())
        return problems + self._sender_problems([lease]) + self._inside_problems(lease)

    def attachments(self) -> list[Attachment]:
        return [self._attachment(lease) for lease in self._leases.all()]

    def _attach(
        self,
        uid: str,
        *,
        netns: str,
        netns_id: str,
        namespace: int,
        ports: tuple[PortMapping, ...],
        old: Lease | None,
    ) -> Lease:
        """The whole of an add. An old lease (its namespace or interface is gone) keeps its address."""
        if conflict := port_conflict(uid, ports, self._leases.all()):
            raise conflict
        with contextlib.ExitStack() as undo:
            if old:
                if self._nat:
                    self._nat.withdraw([old])
                _delete_links(self._route, [old.host_ifname])
                lease = replace(old, netns=netns, netns_id=netns_id, ports=ports, ready=False)
                self._leases.begin(lease)
            else:
                lease = self._leases.allocate(uid, netns=netns, netns_id=netns_id, ports=ports)
            undo.callback(self._leases.remove, uid)
            undo.callback(self._ports.release, uid)
            self._ports.hold(uid, ports)
            if self._senders:
                undo.callback(self._senders.forget, [lease])
                self._admit(lease)
            undo.callback(_delete_links, self._route, [lease.host_ifname])
            self._make_veth(lease, namespace)
            self._configure_inside(lease, namespace)
            if self._nat and ports:
                undo.callback(self._nat.withdraw, [lease])
                self._publish(lease)
            lease = self._leases.finish(lease)
            undo.pop_all()
        return lease

    def _change_ports(self, lease: Lease, ports: tuple[PortMapping, ...]) -> Lease:
        if lease.ports == ports:
            return lease
        if conflict := port_conflict(lease.uid, ports, self._leases.all()):
            raise conflict
        changed = replace(lease, ports=ports)
        with contextlib.ExitStack() as undo:
            self._ports.hold(lease.uid, ports)
            undo.callback(self._ports.hold, lease.uid, lease.ports)
            if self._nat:
                undo.callback(self._publish, lease)
                self._nat.withdraw([lease])
                undo.callback(self._nat.withdraw, [changed])
                self._publish(changed)
            self._leases.change(changed)
            undo.pop_all()
        return changed

    def _publish(self, lease: Lease) -> None:
        assert self._nat is not None
        self._add(self._nat, self._nat.publish, lease)

    def _admit(self, lease: Lease) -> None:
        """Hold the pod to its address from its first frame on."""
        assert self._senders is not None
        self._add(self._senders, self._senders.admit, lease)

    def _add(
        self, table: nft.NatTable | antispoof.SenderTable, add: Callable[[Lease], None], lease: Lease
    ) -> None:
        """The lease's elements, by `add`; a table that somebody flushed away is made anew."""
        try:
            add(lease)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            table.rebuild([*(held for held in self._leases.all() if held.uid != lease.uid), lease])

    def _make_veth(self, lease: Lease, namespace: int) -> None:
        veth = netlink.new_veth(
            host=lease.host_ifname,
            master=self._bridge.index,
            peer=POD_IFNAME,
            peer_mac=lease.mac,
            peer_netns=namespace,
            mtu=self._mtu,
        )
        batch = [veth, netlink.set_hairpin(lease.host_ifname)]
        try:
            self._route.request(batch)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise
            if not self._index(lease.host_ifname):
                raise NetworkError(f"{lease.netns} already has an interface {POD_IFNAME}") from error
            # A leftover of ours: the name carries this pod's hash.
            _delete_links(self._route, [lease.host_ifname])
            self._route.request(batch)

    def _configure_inside(self, lease: Lease, namespace: int) -> None:
        """lo up; eth0: address, up, default route. The descriptors are made inside, the talking is done from home."""
        with self._inside(namespace):
            disable_ipv6(POD_IFNAME)
            index = netlink.interface_index(POD_IFNAME)
            pod = NetlinkSocket()
        with pod:
            pod.request(
                [
                    netlink.set_link(LO_INDEX, up=True),
                    netlink.new_address(
                        index, ip=lease.ip, prefix=self._subnet.prefix, broadcast=self._subnet.broadcast
                    ),
                    netlink.set_link(index, up=True),
                    netlink.new_default_route(index, self._subnet.gateway),
                ]
            )

    @contextlib.contextmanager
    def _inside(self, namespace: int) -> Iterator[None]:
        """The calling thread in another network namespace. A helper that can not come home must not go on living."""
        syscalls.setns(namespace, syscalls.CLONE_NEWNET, about="the pod's network namespace")
        try:
            yield
        finally:
            try:
                syscalls.setns(self._home, syscalls.CLONE_NEWNET, about="the node's network namespace")
            except OSError:
                os._exit(70)  # EX_SOFTWARE: the client starts a new one, which heals

    def _foreign(self, namespace: int, path: str) -> str:
        """The namespace's identity; refuses the node's own, where an eth0 of ours would be a catastrophe."""
        identity = _identity(namespace)
        if identity == _identity(self._home):
            raise SpecError(f"{path} is the node's own network namespace, not a pod's")
        return identity

    def _index(self, name: str) -> int:
        """The interface's index, 0 when there is none."""
        return netlink.interface_index(name, missing_ok=True)

    def _attachment(self, lease: Lease, warnings: Sequence[str] = ()) -> Attachment:
        return Attachment(
            uid=lease.uid,
            ip=lease.ip,
            prefix=self._subnet.prefix,
            gateway=self._subnet.gateway,
            mac=lease.mac,
            host_ifname=lease.host_ifname,
            netns=lease.netns,
            ports=lease.ports,
            antispoof=self._senders is not None,
            warnings=tuple(warnings),
        )

    # --- the node itself --------------------------------------------------------------------------------------------

    def audit(self) -> list[str]:
        """What of this node's network is missing, damaged or left over, as sentences; [] when all is well."""
        links = {link.name: link for link in netlink.links(self._route)}
        published = self._published()
        problems = []
        bridge = links.get(self.config.bridge)
        if bridge is None or bridge.index != self._bridge.index or not bridge.up:
            problems.append(f"bridge {self.config.bridge} is missing or down")
        for lease in self._leases.all():
            problems += self._lease_problems(lease, links, published)
        known = {lease.host_ifname for lease in self._leases.all()}
        prefix = link_prefix(self._name)
        problems += [
            f"interface {name} belongs to no pod"
            for name in links
            if name.startswith(prefix) and name not in known
        ]
        if published is not None:
            wanted = {nft.element(port, lease.ip) for lease in self._leases.all() for port in lease.ports}
            problems += [
                f"nftables: {nft.describe(item)} is published for no pod" for item in published - wanted
            ]
        return problems + self._sender_problems(self._leases.all(), others=True)

    def repair(self) -> list[str]:
        """Mend what audit() finds, as far as it can be without a pod's sandbox: a NAT table that somebody
        flushed, ports of the bridge that fell off, leftovers. Returns what was wrong."""
        problems = self.audit()
        if problems:
            self._set_up_bridge()
            self._heal()
            if self._senders:
                self._senders.rebuild(self._leases.all())
            if self._nat:
                self._nat.rebuild(self._leases.all())
                self._bridge.allow_loopback(guarded=True)
        return problems

    def teardown(self) -> None:
        """Remove everything of this node: NAT table, pods' interfaces, bridge, leases. ip_forward stays as it is."""
        if self._nat:
            self._nat.delete()
        prefix = link_prefix(self._name)
        _delete_links(
            self._route, [link.name for link in netlink.links(self._route) if link.name.startswith(prefix)]
        )
        self._bridge.delete()
        if self._senders:
            self._senders.delete()
        self._ports.release_all()
        self._leases.clear()

    def _lease_problems(
        self, lease: Lease, links: dict[str, netlink.Link], published: set[tuple[str, bytes, bytes]] | None
    ) -> list[str]:
        problems = []
        link = links.get(lease.host_ifname)
        if link is None:
            problems.append(f"pod {lease.uid}: interface {lease.host_ifname} is missing")
        elif link.master != self._bridge.index or not link.up:
            problems.append(
                f"pod {lease.uid}: interface {lease.host_ifname} is not up on {self.config.bridge}"
            )
        for port in lease.ports if published is not None else ():
            if published is not None and nft.element(port, lease.ip) not in published:
                problems.append(f"pod {lease.uid}: host port {port.describe()} is not in the NAT table")
        return problems

    def _sender_problems(self, leases: Sequence[Lease], *, others: bool = False) -> list[str]:
        """Pods that are not held to their addresses; with `others`, what is held for none of them."""
        if self._senders is None:
            return []
        try:
            admitted = self._senders.admitted()
        except NetlinkError:  # somebody removed the table
            admitted = set()
        problems = [
            f"pod {lease.uid}: nothing keeps {lease.host_ifname} from sending with other addresses than its own"
            for lease in leases
            if not admitted.issuperset(antispoof.elements(lease))
        ]
        known = {item for lease in leases for item in antispoof.elements(lease)}
        leftover = sorted(admitted - known) if others else []
        return problems + [
            f"nftables: {antispoof.describe(item)} is admitted for no pod" for item in leftover
        ]

    def _inside_problems(self, lease: Lease) -> list[str]:
        try:
            with _opened(lease.netns) as namespace:
                if _identity(namespace) != lease.netns_id:
                    return [f"pod {lease.uid}: {lease.netns} is another namespace than it was"]
                with self._inside(namespace):
                    index = netlink.interface_index(POD_IFNAME, missing_ok=True)
                    pod = NetlinkSocket()
        except NetworkError as error:
            return [f"pod {lease.uid}: {error}"]
        with pod:
            if index not in {address.index for address in netlink.addresses(pod) if address.ip == lease.ip}:
                return [f"pod {lease.uid}: {POD_IFNAME} does not have the address {lease.ip}"]
            if netlink.uplink(pod) != index:
                return [f"pod {lease.uid}: no default route through {POD_IFNAME}"]
        return []

    def _published(self) -> set[tuple[str, bytes, bytes]] | None:
        """What the NAT table publishes; None without NAT, empty when somebody removed the table."""
        if self._nat is None:
            return None
        try:
            return self._nat.published()
        except NetlinkError:
            return set()

    def _set_up_bridge(self) -> list[str]:
        return self._bridge.set_up(mtu=self._mtu, held=[lease.ip for lease in self._leases.all()])

    def _heal(self) -> None:
        """Roll back what an earlier life began and did not finish; remove interfaces nobody has a lease for."""
        self.warnings += self._leases.warnings
        self._leases.warnings = []
        for lease in self._leases.all():
            if not lease.ready:
                self._leases.remove(lease.uid)
        known = {lease.host_ifname for lease in self._leases.all()}
        prefix = link_prefix(self._name)
        ours = [link for link in netlink.links(self._route) if link.name.startswith(prefix)]
        _delete_links(self._route, [link.name for link in ours if link.name not in known])
        astray = [
            link
            for link in ours
            if link.name in known and not (link.master == self._bridge.index and link.up)
        ]
        for link in astray:  # somebody removed the bridge while nobody looked
            back = netlink.set_link(link.index, up=True, attributes=(("IFLA_MASTER", self._bridge.index),))
            self._route.request([back, netlink.set_hairpin(link.name)], ignore=(errno.ENODEV,))

    def _set_up_senders(self) -> antispoof.SenderTable | None:
        try:
            table = antispoof.SenderTable(table_name(self._name), link_prefix(self._name))
            table.rebuild(self._leases.all())
        except CapabilityError as error:
            self.warnings.append(f"nothing keeps pods from sending with each other's addresses: {error}")
            return None
        return table

    def _set_up_nat(self) -> nft.NatTable | None:
        try:
            table = nft.NatTable(table_name(self._name), self.config.bridge, self._subnet)
            table.rebuild(self._leases.all())
        except CapabilityError as error:
            self.warnings.append(f"pods have no way to the outside and no host ports: {error}")
            self.warnings += self._bridge.allow_loopback(guarded=False)
            return None
        self.warnings += self._bridge.allow_loopback(guarded=True)
        for lease in self._leases.all():
            try:
                self._ports.hold(lease.uid, lease.ports)
            except NetworkError as error:
                self.warnings.append(f"pod {lease.uid}: {error}")
        for chain in table.dropping_chains():
            self.warnings.append(
                _drop_warning(chain, self.config.bridge, docker=table.has_chain("filter", "DOCKER-USER"))
            )
        return table


def _drop_warning(chain: str, bridge: str, *, docker: bool) -> str:
    """A forward chain of somebody else drops by default (docker and many firewalls do that)."""
    if docker:
        remedy = (
            f"iptables -I DOCKER-USER -i {bridge} -j ACCEPT; iptables -I DOCKER-USER -o {bridge} -j ACCEPT"
        )
    else:
        remedy = f"nft insert rule {chain} iifname {bridge} accept; nft insert rule {chain} oifname {bridge} accept"
    return (
        f"nftables chain '{chain}' drops forwarded packets by default, so pods may not reach the outside nor be "
        f"reached by host port from there; to let them through: {remedy}"
    )


def _delete_links(route: NetlinkSocket, names: Sequence[str]) -> None:
    """Several go as one group: the kernel's grace periods are waited for once. One that is gone already is fine."""
    if len(names) == 1:
        route.request([netlink.delete_link(names[0])], ignore=(errno.ENODEV,))
    elif names:
        batch = [netlink.set_group(name, DOOMED_GROUP) for name in names]
        route.request([*batch, netlink.delete_group(DOOMED_GROUP)], ignore=(errno.ENODEV,))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetworkError(
            f"the pod's network namespace {path} can not be opened: {error.strerror}"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _identity(namespace: int) -> str:
    status = os.fstat(namespace)
    return f"{status.st_dev}:{status.st_ino}"
