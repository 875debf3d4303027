"""One node's network: set up the bridge, forwarding and the NAT table; attach and detach pods.

plan.py describes the network as data. This module applies it through bridge.py, netlink.py, nat.py and antispoof.py, in
the network namespace in which it was started (the helper's, which is the daemon's). It is deliberately synchronous and
single-threaded, because setns(2) into a pod's namespace affects the calling thread.

Crash safety: a lease is written before the kernel is changed, and marked ready when everything is in place. The next
start rolls back leases that are not ready, deletes host interfaces without a lease, and rebuilds the NAT table from the
leases.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from runtime.errors import CapabilityError, NetworkError, NotFoundError
from runtime.network import antispoof, inside, nat, netlink
from runtime.network.audit import Audit, Problem
from runtime.network.bridge import Bridge, uplink_mtu
from runtime.network.deleter import delete_links
from runtime.network.ipam import LeaseStore, recorded_identity
from runtime.network.namespaces import Namespaces, identity_of, opened
from runtime.network.netlink import NetlinkError, NetlinkSocket
from runtime.network.nft_messages import remove_table
from runtime.network.plan import (
    POD_IFNAME,
    Attachment,
    Bandwidth,
    Lease,
    NetworkConfig,
    PortMapping,
    Repair,
    Subnet,
    bridge_alias,
    check_ports,
    link_prefix,
    port_conflict,
    table_name,
)
from runtime.network.port_sockets import PortSockets
from runtime.network.shaping.limits import Limits
from runtime.network.tables import Tables

if TYPE_CHECKING:  # loaded when there are IPv6 addresses
    from runtime.network.ipv6.stack import Stack6


class Node:
    """The network of one node, set up. `warnings`: a sentence for each part of the set-up that failed."""

    def __init__(self, config: NetworkConfig) -> None:
        """Set up the node; idempotent. Raises NetworkError, SpecError or CapabilityError. The next start repairs what a
        failure leaves half done."""
        self.config = config
        self._subnet = Subnet.parse(config.pod_cidr)
        self._route = NetlinkSocket()
        self._name = recorded_identity(config.state_dir, config.node, named_alone=self._is_named_alone)
        self._ports = PortSockets(ipv6=bool(config.pod_cidr6))
        self._deleting = NetlinkSocket()  # used by the thread of deleter.py alone
        self._namespaces = Namespaces()
        self._mtu = config.mtu or uplink_mtu(self._route)
        self._bridge = Bridge(self._route, config.bridge, self._name, self._subnet)
        self._ipv6 = self._second_family()
        subnet6 = self._ipv6.subnet if self._ipv6 else None
        self._leases = LeaseStore(config.state_dir, self._subnet, self._name, subnet6)
        self._limits = Limits(self._route, self._leases)
        self.tables = Tables(
            config, self._name,
            route=self._route, bridge=self._bridge, subnet=self._subnet, subnet6=subnet6, leases=self._leases,
        )  # fmt: skip
        self.warnings = self._set_up_bridge()
        self._repair_leftovers()
        self._senders = self._set_up_senders()
        self._nat = self._set_up_nat()
        self._audit = Audit(
            self._route, self._bridge, self._leases, self._namespaces, self._senders, self._nat,
            self._limits, link_prefix(self._name), self._ipv6,
        )  # fmt: skip
        with contextlib.suppress(NetlinkError):  # what fails now, the next audit finds
            self._limits.restore()  # so that it is known which limits the kernel refuses

    # --- pods -------------------------------------------------------------------------------------------------------

    def add(self, uid: str, netns: str, ports: Sequence[PortMapping], *, had: str = "") -> Attachment:
        """CNI's ADD, idempotent: for the same pod in the same namespace, only changed ports are applied. `had` is the
        earlier address of a pod whose lease is lost; the pod gets it again if it is free. Raises NetworkError,
        SpecError."""
        wanted, warnings = check_ports(ports, ipv6=self._ipv6 is not None)
        if wanted and self._nat is None:
            warnings += [
                f"host port {p.describe()} is not published: this kernel cannot do NAT with nftables"
                for p in wanted
            ]
            wanted = ()
        with opened(netns) as namespace:
            netns_id = self._namespaces.checked_identity(namespace, netns)
            lease = self._leases.get(uid)
            if lease and lease.ready and lease.netns_id == netns_id and self._has_link(lease):
                lease = self._change_ports(lease, wanted)
            else:
                lease = self._attach(
                    uid, netns=netns, netns_id=netns_id, namespace=namespace, ports=wanted, old=lease, had=had
                )
        return self._attachment(lease, warnings)

    def delete(self, uids: Sequence[str]) -> None:
        """CNI's DEL for several pods at once. Unknown pods and namespaces that are gone are no error."""
        delete_links(self._route, self.begin_delete(uids))
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
        return [name for lease in leases for name in lease.interfaces]

    def finish_delete(self, uids: Sequence[str]) -> None:
        if self._senders:  # only after their interfaces are gone
            self._senders.forget([lease for uid in uids if (lease := self._leases.get(uid))])
        if self._ipv6:
            self._ipv6.forget([lease.ip6 for uid in uids if (lease := self._leases.get(uid))])
        if self.tables.policies:
            self.tables.policies.forget(uids)
        for uid in uids:
            self._leases.remove(uid)

    def delete_links(self, names: Sequence[str]) -> None:
        """Delete interfaces together. Uses only its own socket, so that the thread of deleter.py can call it."""
        delete_links(self._deleting, names)

    def limit(self, uid: str, bandwidth: Bandwidth) -> list[str]:
        """Limit what an attached pod receives and sends. Returns warnings. Raises NotFoundError, NetworkError."""
        return self._limits.set(uid, bandwidth)

    def check(self, uid: str) -> list[str]:
        """CNI's CHECK: the problems of a pod's attachment, as sentences. Raises NotFoundError if it has none."""
        lease = self._leases.get(uid)
        if lease is None:
            raise NotFoundError(f"pod {uid} has no address from this node")
        return [problem.sentence for problem in self._audit.of_pod(lease)]

    def attachments(self) -> list[Attachment]:
        return [self._attachment(lease) for lease in self._leases.all()]

    def _attach(
        self, uid: str, *, netns: str, netns_id: str, namespace: int, ports: tuple[PortMapping, ...],
        old: Lease | None, had: str = "",
    ) -> Lease:  # fmt: skip
        """Attach a pod. An old lease (whose namespace or interface is gone) keeps its address."""
        if conflict := port_conflict(uid, ports, self._leases.all()):
            raise conflict
        with contextlib.ExitStack() as undo:
            if old:
                if self._nat:
                    self._nat.withdraw([old])
                delete_links(self._route, old.interfaces)
                lease = replace(old, netns=netns, netns_id=netns_id, ports=ports, ready=False)
                self._leases.write_pending(lease)
            else:
                lease = self._leases.allocate(uid, netns=netns, netns_id=netns_id, ports=ports, had=had)
            undo.callback(self._leases.remove, uid)
            undo.callback(self._ports.release, uid)
            self._ports.hold(uid, ports)
            if self._senders:
                undo.callback(self._senders.forget, [lease])
                self._admit(lease)
            if policies := self.tables.policies:
                undo.callback(policies.forget, [uid])
                policies.admit(uid, lease.addresses)
            undo.callback(delete_links, self._route, [lease.host_ifname])
            self._make_veth(lease, namespace)
            self._configure_inside(lease, namespace)
            if self._ipv6:
                undo.callback(self._ipv6.forget, [lease.ip6])
                self._ipv6.admit(lease)
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
            if not self._has_link(lease):
                raise NetworkError(f"{lease.netns} already has an interface {POD_IFNAME}") from error
            # A leftover of this node: the name contains this pod's hash.
            delete_links(self._route, [lease.host_ifname])
            self._route.request(batch)

    def _configure_inside(self, lease: Lease, namespace: int, *, again: bool = False) -> None:
        inside.configure(self._namespaces, namespace, lease, self._subnet, self._ipv6, again=again)

    def _has_link(self, lease: Lease) -> bool:
        return netlink.interface_index(lease.host_ifname, missing_ok=True) > 0

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
            ip6=lease.ip6,
        )

    # --- the node itself --------------------------------------------------------------------------------------------

    def audit(self) -> list[str]:
        """Everything that is missing, damaged or left over in this node's network, as sentences."""
        found = [problem.sentence for problem in self._audit.problems()]
        return found + self.tables.problems() + self.tables.refused()

    def repair(self, *, inside: int | None = None) -> Repair:
        """Repair what an audit finds, and audit again: a problem is repaired if the second audit does not find it. With
        `inside`, the first audit enters the namespaces of only that many pods, in turn at each call."""
        self.tables.settle()
        found = self._audit.problems(self._leases.next(inside))
        lacking = self.tables.problems()
        if not lacking and all(problem.refused for problem in found):
            return Repair(left=[problem.sentence for problem in found])
        outside = bool(lacking) or not all(problem.inside or problem.refused for problem in found)
        if outside:
            self._repair_node()
        failed = self._repair_pods(found)
        if outside:
            failed += self.tables.restore()
        failed += self._limits.restore()  # after the policies: it may fail
        checked = [lease for p in found if (lease := self._leases.get(p.inside or p.detached))]
        left = {problem.sentence for problem in self._audit.problems(checked)} | {*self.tables.problems()}
        said = [*(problem.sentence for problem in found), *lacking]
        return Repair([one for one in said if one not in left], sorted(left), failed)

    def _repair_node(self) -> None:
        """Repair all that is outside the pods' namespaces. What a pod changes in its own namespace leads to none of
        this: it would be a way to keep the node busy."""
        self._set_up_bridge()
        self._repair_leftovers()
        if self._senders:
            self._senders.rebuild(self._leases.all())
        if self._nat:
            self._nat.rebuild(self._leases.all())
            self._bridge.allow_loopback(guarded=True)

    def _repair_pods(self, found: Sequence[Problem]) -> list[str]:
        """Reconfigure pods' interfaces, and reattach pods that have lost theirs. A pod keeps its address, and therefore
        its connections. Returns a sentence for each failure."""
        failures = []
        for problem in found:
            lease = self._leases.get(problem.inside or problem.detached)
            if lease is None or not lease.ready:
                continue
            try:
                with opened(lease.netns) as namespace:
                    if identity_of(namespace) != lease.netns_id:
                        continue  # its sandbox has ended
                    if problem.inside:
                        self._configure_inside(lease, namespace, again=True)
                    if problem.detached or self._audit.inside_problems(lease, ended=True):
                        self._attach_again(lease, namespace)
            except (NetworkError, NetlinkError, OSError) as error:
                failures.append(f"pod {lease.uid} cannot be attached again: {error}")
        return failures

    def _attach_again(self, lease: Lease, namespace: int) -> None:
        try:
            self._attach(
                lease.uid, netns=lease.netns, netns_id=lease.netns_id, namespace=namespace,
                ports=lease.ports, old=lease,
            )  # fmt: skip
        except BaseException:
            self._leases.write_pending(lease)  # it keeps its address, and the next repair tries again
            self._leases.mark_ready(lease)
            raise

    def teardown(self) -> None:
        """Remove everything that belongs to this node: tables, pods' interfaces, bridge, leases. ip_forward is not
        changed."""
        self.tables.delete()
        if self._nat:
            self._nat.delete()
        prefix = link_prefix(self._name)
        names = [link.name for link in netlink.links(self._route)]
        delete_links(self._route, [name for name in names if name.startswith(prefix)])
        self._bridge.delete()
        if self._senders:
            self._senders.delete()
        self._ports.release_all()
        self._leases.clear()

    def _is_named_alone(self) -> bool:
        """Whether a kubelite up to 0.2 created the bridge, and marked it with the node's name alone."""
        bridge = next((link for link in netlink.links(self._route) if link.name == self.config.bridge), None)
        return bridge is not None and bridge.alias == bridge_alias(self.config.node)

    def _set_up_bridge(self) -> list[str]:
        leases = self._leases.all()
        warnings = self._bridge.set_up(
            mtu=self._mtu, held=[lease.ip for lease in leases], ipv6=bool(self._ipv6)
        )
        if self._ipv6:
            self._ipv6.set_up(leases)
        return warnings

    def _second_family(self) -> Stack6 | None:
        if self.config.pod_cidr6:
            from runtime.network.ipv6.stack import Stack6

            return Stack6(self._route, self._bridge, self.config)
        if self._bridge.had_ipv6():
            remove_table(socket.AF_INET6, table_name(self._name))
        return None

    def _repair_leftovers(self) -> None:
        """Roll back unfinished leases of an earlier helper, delete interfaces without a lease, and reattach detached
        ones."""
        self.warnings += self._leases.warnings
        self._leases.warnings = []
        for lease in self._leases.all():
            if not lease.ready:
                self._leases.remove(lease.uid)
                if self._ipv6:
                    self._ipv6.forget([lease.ip6])
        known = {name for lease in self._leases.all() for name in lease.interfaces}
        prefix = link_prefix(self._name)
        ours = [link for link in netlink.links(self._route) if link.name.startswith(prefix)]
        delete_links(self._route, [link.name for link in ours if link.name not in known])
        for link in ours:
            if (
                link.name not in known
                or link.kind != "veth"
                or (link.master == self._bridge.index and link.up)
            ):
                continue  # the others were on a bridge that has been deleted and recreated
            back = netlink.set_link(link.index, up=True, attributes=(("IFLA_MASTER", self._bridge.index),))
            self._route.request([back, netlink.set_hairpin(link.name)], ignore=(errno.ENODEV,))

    def _set_up_senders(self) -> antispoof.SenderTable | None:
        try:
            gateway = self._bridge.mac if self._ipv6 else ""
            table = antispoof.SenderTable(table_name(self._name), link_prefix(self._name), gateway)
            table.rebuild(self._leases.all())
        except CapabilityError as error:
            if self._ipv6:  # it relies on the table: see runtime.network.ipv6
                raise
            self.warnings.append(f"pods are not restricted to their own addresses: {error}")
            return None
        return table

    def _set_up_nat(self) -> nat.NatTable | None:
        try:
            table = nat.NatTable(
                table_name(self._name), self.config.bridge, self._subnet,
                routed=self.config.routed, chains6=self._ipv6.chains if self._ipv6 else (),
            )  # fmt: skip
            table.rebuild(self._leases.all())
        except CapabilityError as error:
            if self._ipv6:
                raise
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
                nat.drop_warning(chain, self.config.bridge, docker=table.has_chain("filter", "DOCKER-USER"))
            )
        return table
