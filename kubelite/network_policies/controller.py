"""Keeps the NetworkPolicies of a node in force: watches policies, pods and namespaces, and tells the network helper
what changed.

A pod waits in `admitted` until the helper knows what policies mean for it: its address is restricted before its first
packet. What is decided is compared with what was sent, so that only differences are. A node without policies never
imports this module: see `kubelite.daemon.workloads`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from kubelite.kube.events import EventRecorder
from kubelite.kube.objects import reference
from kubelite.network_policies.compiled import Compiled, compiled
from kubelite.network_policies.pods import DNS, PodFacts, dns_server, facts_of, pod_rules
from runtime.errors import NetworkError, RuntimeFault
from runtime.network.policies.plan import PodRules, Policy
from state.records import Change
from state.store import Record, Store
from state.watch import Watch

log = logging.getLogger(__name__)

KIND = "NetworkPolicy"
KINDS = frozenset({KIND, "Pod", "Namespace"})
RETRY = 2.0  # seconds until another attempt after a failure
NOT_ENFORCED = "NotEnforced"  # reason of the events about policies that are not in force


class Helper(Protocol):
    """What the network client offers (runtime.network.client). Both raise RuntimeFault. The client gives a new helper
    process what it has been given."""

    async def replace_policies(
        self, policies: Sequence[Policy], pods: Sequence[PodRules]
    ) -> Sequence[str]: ...
    async def change_policies(
        self, policies: Sequence[Policy] | None, pods: Sequence[PodRules], removed: Sequence[str]
    ) -> Sequence[str]: ...


class PolicyController:
    """`run` watches until it is cancelled. `dns` is the address at which the node's DNS server answers pods."""

    def __init__(self, store: Store, events: EventRecorder, helper: Helper, *, dns: str) -> None:
        self._store = store
        self._events = events
        self._helper = helper
        self._watch: Watch | None = None
        self._lock = asyncio.Lock()
        self._listed = asyncio.Event()  # every object that existed has been seen
        self._policies: dict[str, Record] = {}  # by uid
        self._namespaces: dict[str, dict[str, str]] = {}  # labels by name
        self._pods: dict[str, PodFacts] = {DNS: dns_server(dns)}
        self._rules = Compiled((), {}, {}, frozenset())
        self._stale = True  # the policies or the labels of a namespace have changed since the last decision
        self._touched: set[str] = set()  # uids of pods that have changed since then
        self._sent: dict[str, PodRules] | None = None  # None: the helper has not got the whole yet
        self._sent_policies: tuple[Policy, ...] = ()
        self._told: dict[str, str] = {}  # uid of a policy → the failure that its event said; "" → the log

    async def run(self) -> None:
        async with self._store.watch(KINDS) as watch:
            self._watch = watch
            for kind in KINDS:
                for record in self._store.list(kind):
                    self._see(Change("ADDED", record))
            self._listed.set()
            while True:
                try:
                    await self._settle()
                except (OSError, RuntimeFault) as error:
                    self._say(error)
                    await asyncio.sleep(RETRY)
                    continue
                if (change := await watch.next()) is None:
                    return
                self._see(change)

    async def admitted(self, uid: str) -> None:
        """Return when the helper knows what policies mean for a pod that is in the store. Raises NetworkError if that
        fails and a policy restricts the pod: then it must not start."""
        try:
            await self._settle()
        except (OSError, RuntimeFault) as error:
            pod = self._pods.get(uid)
            if pod is None or not pod_rules(pod, self._rules, self._namespaces).restricted:
                return
            raise NetworkError(
                f"the NetworkPolicies of the pod cannot be put in force: {error}",
                reason=getattr(error, "reason", NetworkError.reason),
                retriable=True,
            ) from error

    async def _settle(self) -> None:
        """Bring the helper up to date with everything that the store has published."""
        await self._listed.wait()
        async with self._lock:
            for change in self._watch.take() if self._watch is not None else ():
                self._see(change)
            if self._stale or self._sent is None:
                await self._send_all()
            elif self._touched:
                await self._send_touched(self._sent)
            self._told.clear()

    async def _send_all(self) -> None:
        self._rules = compiled(record.doc for record in self._policies.values())
        found = {uid: rules for uid, rules in self._decided(self._pods) if rules.concerned}
        policies, sent = self._rules.policies, self._sent
        self._stale, self._touched = False, set()
        self._sent = None  # after a failure, the whole goes again
        if sent is None:
            warnings = await self._helper.replace_policies(policies, list(found.values()))
        else:
            changed, gone = self._differences(found, sent, sent)
            listed = policies if policies != self._sent_policies else None
            warnings = await self._helper.change_policies(listed, changed, gone)
        self._sent, self._sent_policies = found, policies
        for sentence in warnings:
            log.warning("NetworkPolicies: %s", sentence)

    async def _send_touched(self, sent: dict[str, PodRules]) -> None:
        uids, self._touched = self._touched, set()
        found = {uid: rules for uid, rules in self._decided(uids) if rules.concerned}
        changed, gone = self._differences(found, sent, uids)
        if not changed and not gone:
            return
        self._sent = None
        await self._helper.change_policies(None, changed, gone)
        self._sent = {uid: rules for uid, rules in sent.items() if uid not in uids} | found

    def _differences(
        self, found: dict[str, PodRules], sent: dict[str, PodRules], looked_at: Iterable[str]
    ) -> tuple[list[PodRules], list[str]]:
        """Return the pods whose rules differ from the sent ones, with no rules for those that none concerns any more,
        and the uids of deleted pods."""
        changed = [rules for uid, rules in found.items() if sent.get(uid) != rules]
        without = [uid for uid in looked_at if uid in sent and uid not in found]
        changed += [PodRules(uid) for uid in without if uid in self._pods]
        return changed, [uid for uid in without if uid not in self._pods]

    def _decided(self, uids: Iterable[str]) -> Iterable[tuple[str, PodRules]]:
        for uid in uids:
            if (pod := self._pods.get(uid)) is not None:
                yield uid, pod_rules(pod, self._rules, self._namespaces)

    def _say(self, error: OSError | RuntimeFault) -> None:
        """Log a failure, and record an event about each policy, once each."""
        said = str(error)
        unaware = [uid for uid in ("", *self._policies) if self._told.get(uid) != said]
        if unaware:
            log.error("NetworkPolicies are not in force, will retry: %s", said)
        for uid in unaware:
            self._told[uid] = said
            if uid:
                self._events.event(reference(self._policies[uid].doc), "Warning", NOT_ENFORCED, said)

    # -- changes ------------------------------------------------------------------------------------------------------

    def _see(self, change: Change) -> None:
        record, deleted = change.record, change.type == "DELETED"
        match record.kind:
            case "Pod":
                self._see_pod(record, deleted=deleted)
            case "Namespace":
                labels = {} if deleted else dict(record.metadata.get("labels") or {})
                if self._namespaces.get(record.name, {}) != labels:
                    self._namespaces[record.name] = labels
                    self._stale = True
            case _:
                old = self._policies.pop(record.uid, None)
                if not deleted:
                    self._policies[record.uid] = record
                if deleted or old is None or old.doc["spec"] != record.doc["spec"]:
                    self._stale = True

    def _see_pod(self, record: Record, *, deleted: bool) -> None:
        """A pod's status changes often, what rules see of it hardly ever."""
        facts = None if deleted else facts_of(record.doc)
        if self._pods.get(record.uid) == facts:
            return
        if facts is None:
            self._pods.pop(record.uid, None)
        else:
            self._pods[record.uid] = facts
        self._touched.add(record.uid)
