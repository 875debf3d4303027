"""One node's network: set up the bridge, forwarding and the NAT table; attach and detach pods.

plan.py describes the network as data. This module applies it through netlink.py and nat.py, in the network namespace in
which it was started (the helper's, which is the daemon's). It is deliberately synchronous and single-threaded, because
setns(2) into a pod's namespace affects the calling thread.

Crash safety: a lease is written before the kernel is changed, and marked ready when everything is in place. The next
start rolls back leases that are not ready, deletes host interfaces without a lease, and rebuilds the NAT table from the
leases.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from runtime import syscalls
from runtime.errors import CapabilityError, NetworkError, NotFoundError, SpecError
from runtime.network import antispoof, nat, netlink
from runtime.network.bridge import Bridge, disable_ipv6, uplink_mtu
from runtime.network.ipam import LeaseStore, recorded_name
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
from runtime.network.port_sockets import PortSockets

LO_INDEX = 1  # LOOPBACK_IFINDEX: lo has index 1 in every network namespace
DELETION_GROUP = 0x6B6C0000  # the group of interfaces that are deleted together


class Node:
    """The network of one node, set up. `warnings` are the parts of the set-up that failed, as sentences."""

    def __init__(self, config: NetworkConfig) -> None:
        """Set up the node; idempotent. Raises NetworkError, SpecError or CapabilityError. What a failure leaves half
        done, the next start repairs."""
        self.config = config
        self._name = recorded_name(config.state_dir, config.node)
        self._subnet = Subnet.parse(config.pod_cidr)
        self._leases = LeaseStore(config.state_dir, self._subnet, self._name)
        self._ports = PortSockets()
        self._route = NetlinkSocket()
        self._deleting = NetlinkSocket()  # used by the thread of deleter.py alone
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._mtu = config.mtu or uplink_mtu(self._route)
        self._bridge = Bridge(self._route, config.bridge, self._name, self._subnet)
        self.warnings = self._set_up_bridge()
        self._repair_leftovers()
        self._senders = self._set_up_senders()
        self._nat = self._set_up_nat()

    # --- pods -------------------------------------------------------------------------------------------------------

    def add(self, uid: str, netns: str, ports: Sequence[PortMapping]) -> Attachment:
        """CNI's ADD, idempotent: for the same pod in the same namespace, only changed ports are applied. Raises
        NetworkError, SpecError."""
        wanted, warnings = check_ports(ports)
        if wanted and self._nat is None:
            warnings += [
                f"host port {p.describe()} is not published: this kernel cannot do NAT with nftables"
                for p in wanted
            ]
            wanted = ()
        with _opened(netns) as namespace:
            netns_id = self._checked_identity(namespace, netns)
            lease = self._leases.get(uid)
            if lease and lease.ready and lease.netns_id == netns_id and self._index(lease.host_ifname):
                lease = self._change_ports(lease, wanted)
            else:
                lease = self._attach(
                    uid, netns=netns, netns_id=netns_id, namespace=namespace, ports=wanted, old=lease
                )
        return self._attachment(lease, warnings)

    def delete(self, uids: Sequence[str]) -> None:
        """CNI's DEL for several pods at once. Unknown pods and namespaces that are gone are no error."""
        _delete_links(self._route, self.begin_delete(uids))
        self.finish_delete(uids)

    def begin_delete(self, uids: Sequence[str]) -> list[str]:
        """The fast part of a delete: withdraw the ports, which become free for other pods. Returns the interfaces to
        delete. The addresses stay taken until finish_delete(). If the helper dies in between, the next start completes
        the delete, because the leases are not ready."""
        leases = [lease for uid in dict.fromkeys(uids) if (lease := self._leases.get(uid))]
        if self._nat:
            self._nat.withdraw(leases)
        for lease in leases:
            self._ports.release(lease.uid)
            self._leases.mark_pending(lease)
        return [lease.host_ifname for lease in leases]

    def finish_delete(self, uids: Sequence[str]) -> None:
        if self._senders:  # only after their interfaces are gone
            self._senders.forget([lease for uid in uids if (lease := self._leases.get(uid))])
        for uid in uids:
            self._leases.remove(uid)

    def delete_links(self, names: Sequence[str]) -> None:
        """Delete interfaces together. Uses only a socket of its own, so that the thread of deleter.py can call it."""
        _delete_links(self._deleting, names)

    def check(self, uid: str) -> list[str]:
        """CNI's CHECK: the problems of a pod's attachment, as sentences. Raises NotFoundError if it has none."""
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
        """Attach a pod. An old lease (whose namespace or interface is gone) keeps its address."""
        if conflict := port_conflict(uid, ports, self._leases.all()):
            raise conflict
        with contextlib.ExitStack() as undo:
            if old:
                if self._nat:
                    self._nat.withdraw([old])
                _delete_links(self._route, [old.host_ifname])
                lease = replace(old, netns=netns, netns_id=netns_id, ports=ports, ready=False)
                self._leases.write_pending(lease)
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
            lease = self._leases.mark_ready(lease)
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
            self._leases.update(changed)
            undo.pop_all()
        return changed

    def _publish(self, lease: Lease) -> None:
        assert self._nat is not None
        self._add(self._nat, self._nat.publish, lease)

    def _admit(self, lease: Lease) -> None:
        """Restrict the pod to its addresses, before its first frame."""
        assert self._senders is not None
        self._add(self._senders, self._senders.admit, lease)

    def _add(
        self, table: nat.NatTable | antispoof.SenderTable, add: Callable[[Lease], None], lease: Lease
    ) -> None:
        """Add the lease's elements with `add`. If the table has been flushed, rebuild it."""
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
            # A leftover of this node: the name contains this pod's hash.
            _delete_links(self._route, [lease.host_ifname])
            self._route.request(batch)

    def _configure_inside(self, lease: Lease, namespace: int) -> None:
        """Configure lo (up) and eth0 (address, up, default route). The socket is opened inside the namespace and used
        from outside."""
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
        """Run in another network namespace. If the thread cannot return, the helper exits."""
        syscalls.setns(namespace, syscalls.CLONE_NEWNET, about="the pod's network namespace")
        try:
            yield
        finally:
            try:
                syscalls.setns(self._home, syscalls.CLONE_NEWNET, about="the node's network namespace")
            except OSError:
                os._exit(70)  # EX_SOFTWARE: the client starts a new helper, which repairs the node

    def _checked_identity(self, namespace: int, path: str) -> str:
        """The namespace's identity. Raises SpecError for the node's own namespace, because an eth0 must never be
        configured there."""
        identity = _identity(namespace)
        if identity == _identity(self._home):
            raise SpecError(f"{path} is the node's own network namespace, not a pod's")
        return identity

    def _index(self, name: str) -> int:
        """The interface's index; 0 if it does not exist."""
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
        """Everything in this node's network that is missing, damaged or left over, as sentences; [] if there are no
        problems."""
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
            wanted = {nat.element(port, lease.ip) for lease in self._leases.all() for port in lease.ports}
            problems += [
                f"nftables: {nat.describe(item)} is published for no pod" for item in published - wanted
            ]
        return problems + self._sender_problems(self._leases.all(), others=True)

    def repair(self) -> list[str]:
        """Repair what audit() finds, as far as possible without a new sandbox: a flushed NAT table, interfaces detached
        from the bridge, leftovers. Returns the problems found."""
        problems = self.audit()
        if problems:
            self._set_up_bridge()
            self._repair_leftovers()
            if self._senders:
                self._senders.rebuild(self._leases.all())
            if self._nat:
                self._nat.rebuild(self._leases.all())
                self._bridge.allow_loopback(guarded=True)
        return problems

    def teardown(self) -> None:
        """Remove everything that belongs to this node: NAT table, pods' interfaces, bridge, leases. ip_forward is not
        changed."""
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
            if published is not None and nat.element(port, lease.ip) not in published:
                problems.append(f"pod {lease.uid}: host port {port.describe()} is not in the NAT table")
        return problems

    def _sender_problems(self, leases: Sequence[Lease], *, others: bool = False) -> list[str]:
        """Pods that are not restricted to their addresses. With `others`, also elements that belong to no pod."""
        if self._senders is None:
            return []
        try:
            admitted = self._senders.admitted()
        except NetlinkError:  # the table has been removed
            admitted = set()
        problems = [
            f"pod {lease.uid}: {lease.host_ifname} is not restricted to its own addresses"
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
                    return [f"pod {lease.uid}: {lease.netns} is a different namespace now"]
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
        """The elements that the NAT table publishes. None without NAT; empty if the table has been removed."""
        if self._nat is None:
            return None
        try:
            return self._nat.published()
        except NetlinkError:
            return set()

    def _set_up_bridge(self) -> list[str]:
        return self._bridge.set_up(mtu=self._mtu, held=[lease.ip for lease in self._leases.all()])

    def _repair_leftovers(self) -> None:
        """Roll back unfinished leases of an earlier helper, delete interfaces without a lease, and reattach detached
        ones."""
        self.warnings += self._leases.warnings
        self._leases.warnings = []
        for lease in self._leases.all():
            if not lease.ready:
                self._leases.remove(lease.uid)
        known = {lease.host_ifname for lease in self._leases.all()}
        prefix = link_prefix(self._name)
        ours = [link for link in netlink.links(self._route) if link.name.startswith(prefix)]
        _delete_links(self._route, [link.name for link in ours if link.name not in known])
        detached = [
            link
            for link in ours
            if link.name in known and not (link.master == self._bridge.index and link.up)
        ]
        for link in detached:  # the bridge has been deleted and recreated
            back = netlink.set_link(link.index, up=True, attributes=(("IFLA_MASTER", self._bridge.index),))
            self._route.request([back, netlink.set_hairpin(link.name)], ignore=(errno.ENODEV,))

    def _set_up_senders(self) -> antispoof.SenderTable | None:
        try:
            table = antispoof.SenderTable(table_name(self._name), link_prefix(self._name))
            table.rebuild(self._leases.all())
        except CapabilityError as error:
            self.warnings.append(f"pods are not restricted to their own addresses: {error}")
            return None
        return table

    def _set_up_nat(self) -> nat.NatTable | None:
        try:
            table = nat.NatTable(table_name(self._name), self.config.bridge, self._subnet)
            table.rebuild(self._leases.all())
        except CapabilityError as error:
            self.warnings.append(f"pods cannot reach other networks and have no host ports: {error}")
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
    """A warning about another program's forward chain that drops by default (docker and many firewalls have one)."""
    if docker:
        remedy = (
            f"iptables -I DOCKER-USER -i {bridge} -j ACCEPT; iptables -I DOCKER-USER -o {bridge} -j ACCEPT"
        )
    else:
        remedy = f"nft insert rule {chain} iifname {bridge} accept; nft insert rule {chain} oifname {bridge} accept"
    return (
        f"nftables chain '{chain}' drops forwarded packets by default, so pods may not reach other networks or be "
        f"reached through host ports from there; to allow it: {remedy}"
    )


def _delete_links(route: NetlinkSocket, names: Sequence[str]) -> None:
    """Delete interfaces, several as one group: the kernel then waits for its grace periods once. Missing ones are no
    error."""
    if len(names) == 1:
        route.request([netlink.delete_link(names[0])], ignore=(errno.ENODEV,))
    elif names:
        batch = [netlink.set_group(name, DELETION_GROUP) for name in names]
        route.request([*batch, netlink.delete_group(DELETION_GROUP)], ignore=(errno.ENODEV,))


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NetworkError(f"cannot open the pod's network namespace {path}: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _identity(namespace: int) -> str:
    status = os.fstat(namespace)
    return f"{status.st_dev}:{status.st_ino}"
