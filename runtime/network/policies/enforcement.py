"""The NetworkPolicies of one node: their desired state, and the tables that carry it out.

The daemon sends the desired state: all of it when the helper has started, then changes. It names pods by their uids; a
pod's address is added before its interface exists, and removed when the interface is gone. The tables exist only while
policies restrict a pod. They stay when the helper ends, so policies are in force while the daemon is down. If another
program changes or removes them, the kernel says so, and they are made anew at once.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property

from runtime.errors import CapabilityError, NetworkError
from runtime.network.bridge import Bridge
from runtime.network.netlink import NetlinkError
from runtime.network.nft_messages import IPV4, IPV6
from runtime.network.plan import Subnet
from runtime.network.policies import conntrack
from runtime.network.policies.arrange import (
    Direction,
    Elements,
    Layout,
    difference,
    layout,
    pod_elements,
    profiles_of,
)
from runtime.network.policies.plan import PodRules, Policy
from runtime.network.policies.tables import PolicyTables, Scope
from runtime.network.policies.watch import RulesetWatch

NOT_SUPPORTED = "NetworkPoliciesNotSupported"  # reason of the error: the kernel lacks a part of nftables
LACKS = (
    "this kernel cannot filter pods' connections with nftables (it needs CONFIG_NF_TABLES_INET, "
    "CONFIG_NF_TABLES_BRIDGE and CONFIG_NFT_CT)"
)
_CHANGED_BY_OTHERS = (errno.ENOENT, errno.EEXIST, errno.EBUSY, errno.ENOTEMPTY)


class PolicyEnforcement:
    """The policies of one node. Not for several threads."""

    def __init__(
        self,
        bridge: Bridge,
        subnet: Subnet,
        *,
        table: str,
        prefix: str,
        addresses: Callable[[str], tuple[str, ...]],
        ipv6: bool = False,
    ) -> None:
        """`table` is the name of the tables; `prefix` starts the names of the pods' interfaces; `addresses` returns
        those of a pod by its uid. `ipv6`: pods may have addresses of IPv6, too."""
        self._bridge = bridge
        self._scope = Scope(subnet, prefix)
        self._addresses = addresses
        self._families = (IPV4, IPV6) if ipv6 else (IPV4,)
        self._table = table
        self._watch: RulesetWatch | None = None  # exists while the tables do
        self._lacking = ""  # what the kernel lacks, so that no policy is in force
        self._policies: tuple[Policy, ...] = ()
        self._pods: dict[str, PodRules] = {}
        self._leaving: set[str] = set()  # pods that are deleted, and still have an address
        self._layout: Layout | None = None  # what the tables have; None: there are none
        self._elements: dict[str, Elements] = {}  # those of pods with an address, by uid

    def replace(self, policies: Sequence[Policy], pods: Iterable[PodRules]) -> list[str]:
        """Make this the desired state, in one transaction. Returns warnings. Raises NetworkError."""
        self._policies, self._pods, self._leaving = tuple(policies), {pod.uid: pod for pod in pods}, set()
        return self.restore()

    def change(
        self, policies: Sequence[Policy] | None, pods: Sequence[PodRules], removed: Sequence[str]
    ) -> list[str]:
        """Change what policies mean for some pods, and the policies themselves unless they are None, in one
        transaction. Pods that no rule concerns any more are among `pods`. A removed pod, which is deleted, and still
        has an address keeps its rules until the address is free. Returns warnings. Raises NetworkError."""
        if policies is not None:
            self._policies = tuple(policies)
        for pod in pods:
            self._leaving.discard(pod.uid)
            if pod.concerned:
                self._pods[pod.uid] = pod
            else:
                self._pods.pop(pod.uid, None)
        for uid in removed:
            if self._where(uid):
                self._leaving.add(uid)
            else:
                self._pods.pop(uid, None)
        if self._layout is None or not self._needed():
            return self.restore()
        self._apply(self._layout, [pod.uid for pod in pods])
        return []

    def admit(self, uid: str, addresses: tuple[str, ...]) -> None:
        """Put the policies in force for a pod, before its first packet. Raises NetworkError: then the pod must not
        start."""
        pod = self._pods.get(uid)
        if pod is None or not self._needed():
            return
        again = uid in self._elements  # an interface that is made again keeps its connections
        try:
            self._add(pod, addresses)
        except NetworkError:
            if pod.restricted:
                raise
            return  # a peer of pods that are shut
        if pod.restricted and not again:  # only now, when no packet can make an entry that would pass
            for address in addresses:
                conntrack.forget_address(self._tables.socket, address)

    def forget(self, uids: Iterable[str]) -> None:
        """Remove the elements of pods whose interfaces are gone."""
        for uid in uids:
            gone = self._elements.pop(uid, {})
            if gone and self._layout is not None:
                self._tables.remove_elements(gone, self._layout.sets)
            if uid in self._leaving:
                self._leaving.discard(uid)
                self._pods.pop(uid, None)
        if self._layout is not None and not self._needed():
            self.restore()

    def restore(self) -> list[str]:
        """Make the tables anew from the desired state, or remove them if no pod is restricted. Returns warnings.
        Raises NetworkError."""
        self._elements = {}
        if not self._needed():
            self._remove()
            return []
        wanted = layout(self._policies, self._profiles(), self._families)
        for pod in self._pods.values():
            if addresses := self._where(pod.uid):
                self._elements[pod.uid] = pod_elements(pod, addresses, wanted.sets)
        self._layout = None
        with self._named():
            if self._watch is None:
                self._watch = RulesetWatch(self._table, ours=self._tables.ports)
            self._tables.rebuild(self._scope, wanted, self._all(wanted))
        self._layout = wanted
        return self._bridge.silence_redirects()

    def problems(self) -> list[str]:
        """Return a sentence for each set whose elements differ from the desired ones, and for changed rules."""
        if not self._needed():
            return []
        if self._lacking:
            return [f"NetworkPolicies are not in force: {self._lacking}"]
        found = self._layout
        if found is None:
            return ["nftables: the tables of NetworkPolicies are missing"]
        return self._tables.differences(found, lambda: self._all(found))

    @property
    def watched_fd(self) -> int:
        """Readable when the ruleset has changed; -1 if there are no tables."""
        return self._watch.fd if self._watch else -1

    def look(self) -> list[str]:
        """Make the tables anew if another program has changed them. Returns what was wrong, as sentences. Raises
        NetworkError."""
        if self._watch is None or not self._watch.changed():
            return []
        found = self.problems()
        if found:
            self.restore()
        return found

    def delete(self) -> None:
        """Remove the tables, and forget all policies."""
        self._policies, self._pods, self._leaving, self._elements = (), {}, set(), {}
        self._remove()

    def _remove(self) -> None:
        self._layout = None
        if self._watch:
            self._watch.close()
            self._watch = None
        self._lacking = ""
        with contextlib.suppress(CapabilityError):  # such a kernel has no tables
            self._tables.delete()

    @cached_property
    def _tables(self) -> PolicyTables:
        """Raises CapabilityError if the kernel has no nftables, which matters only while a pod is restricted."""
        return PolicyTables(self._table)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Say what the kernel lacks as a NetworkError, and remember it."""
        try:
            yield
        except CapabilityError as error:
            self._lacking = f"{LACKS}: {error}"
            raise NetworkError(self._lacking, reason=NOT_SUPPORTED, retriable=False) from error
        self._lacking = ""

    def _add(self, pod: PodRules, addresses: tuple[str, ...]) -> None:
        if self._layout is None:
            self.restore()
            return
        new = pod_elements(pod, addresses, self._layout.sets)
        self._elements[pod.uid] = new
        self._try(lambda: self._tables.add(new, self._layout.sets if self._layout else {}))

    def _apply(self, old: Layout, changed: Collection[str]) -> None:
        """Turn the tables from `old` into those of the desired state. `changed`: the pods whose rules are others."""
        new = layout(self._policies, self._profiles(), self._families)
        gone, come = difference(old.elements, new.elements)
        # A set that comes or goes may concern any pod: its named ports, or its groups if it is deleted meanwhile.
        touched = changed if new.sets.keys() == old.sets.keys() else {*changed, *self._pods}
        for uid in touched:
            before = self._elements.pop(uid, {})
            pod, addresses = self._pods.get(uid), self._where(uid)
            after = pod_elements(pod, addresses, new.sets) if pod and addresses else {}
            if after:
                self._elements[uid] = after
            less, more = difference(before, after)
            gone |= less
            come |= more
        if gone or come or new != old:
            self._try(lambda: self._tables.change(old, new, gone, come))
            self._layout = new

    def _try(self, change: Callable[[], None]) -> None:
        """Change the tables; if somebody else has changed or removed them, make them anew."""
        try:
            change()
        except NetlinkError as error:
            if error.errno not in _CHANGED_BY_OTHERS:
                raise
            self.restore()

    def _needed(self) -> bool:
        return any(pod.restricted for pod in self._pods.values())

    def _profiles(self) -> dict[tuple[Direction, tuple[str, ...]], None]:
        return dict.fromkeys(profile for pod in self._pods.values() for profile in profiles_of(pod))

    def _where(self, uid: str) -> tuple[str, ...]:
        pod = self._pods.get(uid)
        return (pod.address,) if pod and pod.address else self._addresses(uid)

    def _all(self, of: Layout) -> Elements:
        found = dict(of.elements)
        for elements in self._elements.values():
            found |= elements
        return found
