"""Which pods are this node's: the ledger kept in step with the store, the question asked once for each pod, and those
that were told no asked again when something that was in the way has gone.

Between a pod's being found fit and its claim's standing in the ledger nothing else happens: nothing is awaited there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.objects import mark_deleting
from kubelite.kube.times import rfc3339
from kubelite.node.model.claim_names import KIND
from kubelite.node.model.cri import PodSeen
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.node_facts import NodeState
from kubelite.node.model.schedule import MEMORY_PRESSURE_TAINT, PLACED, Placement, Reservation, Resize
from kubelite.node.scheduling.cpu_policy import CpuBook, Machine, NotEnough
from kubelite.node.scheduling.filters import evicted_at, place, resize
from kubelite.node.scheduling.ledger import Ledger, as_allocated, claim_of, resize_pending
from kubelite.node.scheduling.volume_binding import unbound
from manifests.problems import InvalidObject
from manifests.types.core import Pod
from state.errors import StoreError
from state.store import Record, Store

log = logging.getLogger(__name__)
NODE, CPU_STATE = "Node", "CpuManagerState"
PINNED = 'Resize is infeasible for Guaranteed Pods alongside CPU Manager policy "static"'
TERMINAL = ("Succeeded", "Failed")


def disrupted(doc: Json, reason: str, message: str, now: float) -> Json | None:
    """PURE: a pod's object once it is to go: graceful deletion, and the condition that says for what. None: it goes
    already."""
    deleting = mark_deleting(doc, now=now)
    if deleting is None:
        return None
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(now),
    }
    status = deleting.get("status") or {}
    others = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionTarget"]
    return {**deleting, "status": {**status, "conditions": [*others, condition]}}


@dataclass(frozen=True, slots=True)
class Tainted:
    """A pod that a NoExecute taint drives away."""

    pod: str  # namespace/name
    at: float  # Unix seconds

    def marked(self, now: float) -> Callable[[Json], Json | None]:
        """The change of its object (K tainteviction)."""
        words = "Taint manager: deleting due to NoExecute taint"
        return lambda doc: disrupted(doc, "DeletionByTaintManager", words, now)


class Placing:
    """`parse` gives the typed pod of a record; `wake(uid)` has a pod looked at."""

    def __init__(
        self,
        store: Store,
        config: NodeConfig,
        *,
        parse: Callable[[Record], Pod],
        wake: Callable[[str], None],
    ) -> None:
        self._store = store
        self._config = config
        self._parse = parse
        self._wake = wake
        self._ledger: Ledger | None = None
        self._waiting: dict[str, int] = {}  # uid → priority
        self._nominated: dict[
            str, Reservation
        ] = {}  # those that others were made to go for, until they are placed
        self._resizes: dict[str, Resize] = {}
        self._cpus: CpuBook | None = None
        self._saving: set[asyncio.Task[None]] = set()
        self.on_claims: Callable[[], None] = lambda: None  # what the pods hold is another amount
        self.node = NodeState(config, self._node_object)
        self._node_name = config.node_name

    def _node_object(self) -> tuple[int, Mapping[str, Any]] | None:
        record = self._store.get(NODE, "", self._node_name)
        return (record.resource_version, record.doc) if record is not None else None

    def _open(self) -> Ledger:
        """The ledger, written anew after a start: those that were placed before come before any that is new."""
        if self._ledger is None:
            self._ledger = ledger = Ledger()
            self._cpus = self._open_cpus()
            pending: list[Pod] = []
            for record in self._store.list("Pod"):
                if is_placed(record.doc.get("status") or {}):
                    try:
                        pod = self._parse(record)
                    except InvalidObject:  # whoever looks at that pod says so
                        continue
                    ledger.enter(claim_of(as_allocated(pod) if resize_pending(pod) else pod))
                    pending += [pod] * resize_pending(pod)
                    with contextlib.suppress(NotEnough):  # it ran before there was the policy: it shares
                        self._assign(pod)
                elif (record.doc.get("status") or {}).get("nominatedNodeName"):
                    with contextlib.suppress(InvalidObject):
                        self._nominated[record.uid] = claim_of(self._parse(record))
            for pod in pending:
                self._claim_again(pod)
            self._release_strangers(ledger)
            self.on_claims()
        return self._ledger

    def claims(self) -> list[Reservation]:
        """What the placed pods hold."""
        return list(self._open())

    # -- processors of their own, by the static CPU policy ------------------------------------------------------

    def _open_cpus(self) -> CpuBook | None:
        if self._config.cpu_policy != "static":
            return None
        record = self._store.get(CPU_STATE, "", self._node_name)
        held = record.doc.get("entries") or {} if record is not None else {}
        return CpuBook(Machine(self._config.cores, self._config.reserved_cpus), held)

    def _release_strangers(self, ledger: Ledger) -> None:
        for uid in list(self._cpus.to_json()) if self._cpus is not None else ():
            if uid not in ledger and self._cpus is not None:
                self._cpus.release(uid)

    def cpus_of(self, pod: Pod) -> Mapping[str, str]:
        """Container → the processors it may run on; {} where all may run anywhere."""
        return self._cpus.of(pod) if self._cpus is not None else {}

    def _assign(self, pod: Pod) -> None:
        """Raises NotEnough."""
        if self._cpus is not None and self._cpus.assign(pod):
            self._pool_changed(pod.metadata.uid or "")

    def _pool_changed(self, uid: str) -> None:
        """Everybody else has the rest, which is another one now. What was given is kept: a restart moves nobody."""
        for claim in self._ledger or ():
            if claim.uid != uid:
                self._wake(claim.uid)
        task = asyncio.get_running_loop().create_task(self._save_cpus())
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    async def _save_cpus(self) -> None:
        assert self._cpus is not None
        identity = {"name": self._node_name, "uid": f"cpus:{self._node_name}"}
        doc = {"metadata": identity, "entries": self._cpus.to_json()}
        try:
            if self._store.get(CPU_STATE, "", self._node_name) is None:
                await self._store.create(CPU_STATE, doc)
            else:
                await self._store.update(CPU_STATE, doc)
        except StoreError as error:
            log.error("which pods have which processors is not recorded: %s", error)

    def of(self, pod: Pod, seen: PodSeen, *, keep: bool = True) -> Placement:
        """Whether the pod is this node's; if so, and with `keep`, what it asks for is from now on its own."""
        uid, ledger = pod.metadata.uid or "", self._open()
        if uid in ledger or pod.status.phase in TERMINAL or pod.metadata.deletion_timestamp:
            return PLACED
        claim = claim_of(pod)
        # whatever became of the record of it; a sandbox that was lost before anything ran in it holds nothing
        runs = (seen.sandbox is not None and seen.sandbox.ready) or seen.containers
        found = PLACED if runs else self._ask(pod, claim, ledger)
        if keep:
            self._nominated.pop(uid, None)
            if found.nominated:
                self._nominated[uid] = claim
        if keep and not found.reason:
            try:
                self._assign(pod)
            except NotEnough as error:
                words = f"Allocate failed due to {error}, which is unexpected"
                return Placement("UnexpectedAdmissionError", f"Pod was rejected: {words}", rejected=True)
            ledger.enter(claim)
            self._waiting.pop(uid, None)
            self.on_claims()
        elif keep and not found.rejected:
            self._waiting[uid] = claim.priority
        return found

    def _ask(self, pod: Pod, claim: Reservation, ledger: Ledger) -> Placement:
        """What others were made to go for is kept for those that wait for it, but for a pod of higher priority."""
        kept = [
            one for one in self._nominated.values() if one.uid != claim.uid and one.priority >= claim.priority
        ]
        beside = Ledger([*ledger, *kept]) if kept else ledger
        alone = {name for name in claim.volumes if self._of_one_pod(claim.namespace, name)}
        nominated = claim.uid in self._nominated
        facts = self._facts_for(pod)
        waits = unbound(pod, self._find, facts) if claim.volumes else None
        return place(pod, claim, facts, beside, alone=alone, nominated=nominated, unbound=waits)

    def _find(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        record = self._store.get(kind, namespace, name)
        return record.doc if record is not None else None

    def placed(self, uid: str) -> bool:
        return uid in self._open()

    def _of_one_pod(self, namespace: str, name: str) -> bool:
        """Whether a PersistentVolumeClaim is ReadWriteOncePod."""
        record = self._store.get(KIND, namespace, name)
        return record is not None and "ReadWriteOncePod" in (record.doc["spec"].get("accessModes") or ())

    async def preempt(self, pod: Pod, uid: str, now: float) -> Record | None:
        """Have a pod go for another one, which waits for what it leaves; None: it was gone, or going, already."""
        words = "preempting to accommodate a higher priority pod"
        by = pod.spec.scheduler_name or "default-scheduler"
        if (held := self._open().get(uid)) is None or held.ending:
            return None
        record = await self._store.modify(
            uid, lambda doc: disrupted(doc, "PreemptionByScheduler", f"{by}: {words}", now)
        )
        if record is not None and (held := self._open().get(uid)) is not None:
            self._open().enter(replace(held, ending=True))  # before anybody asks again
        return record

    def _facts_for(self, pod: Pod) -> Any:
        """What asks for memory is let in while memory is short, as the API server's admission has it tolerate that."""
        facts = self.node.facts()
        if any(t.key == MEMORY_PRESSURE_TAINT for t in facts.taints) and _asks(pod):
            return replace(facts, taints=tuple(t for t in facts.taints if t.key != MEMORY_PRESSURE_TAINT))
        return facts

    def pods(self) -> list[Pod]:
        """The pods that were placed, as last recorded."""
        ledger = self._open()
        return [self._parse(record) for record in self._store.list("Pod") if record.uid in ledger]

    def changed(self, pod: Pod) -> None:
        """A new version of the pod was read: what it holds may be another amount, or about to be given back."""
        if self._ledger is not None and pod.metadata.uid in self._ledger:
            self._claim_again(pod)

    def _claim_again(self, pod: Pod) -> None:
        """Have the pod hold what it asks for now, or what it held before where there is no room for more."""
        assert self._ledger is not None
        claim, uid = claim_of(pod), pod.metadata.uid or ""
        found = None if claim.ending else self._resize(pod, claim, self._ledger)
        held = self._ledger.get(uid)
        if found is None or held is None:
            self._resizes.pop(uid, None)
            self._ledger.enter(claim)
        else:
            self._resizes[uid] = found
            self._ledger.enter(replace(claim, requests=held.requests))
        self.on_claims()

    def _resize(self, pod: Pod, claim: Reservation, ledger: Ledger) -> Resize | None:
        """Processors that are a pod's own are given once (K canResizePod, while InPlacePodVerticalScalingExclusiveCPUs
        is off)."""
        if self._cpus is not None and self._cpus.differs(pod):
            return Resize("Infeasible", PINNED)
        return resize(claim, self.node.facts(), ledger)

    def resize_of(self, pod: Pod) -> Resize | None:
        """Why an edit of its resources waits, None: it does not (any more)."""
        uid = pod.metadata.uid or ""
        if uid in self._open() and uid in self._resizes:
            self._claim_again(pod)
        return self._resizes.get(uid)

    def gone(self, uid: str) -> None:
        """The pod needs nothing any more: who waited for that is asked again."""
        self._waiting.pop(uid, None)
        self._resizes.pop(uid, None)
        held = self._nominated.pop(uid, None)
        if self._ledger is not None and self._ledger.strike(uid):
            if self._cpus is not None and self._cpus.release(uid):
                self._pool_changed(uid)
            self.on_claims()
            self.ask_again()
        elif held is not None:
            self.ask_again()

    def ask_again(self) -> None:
        """Those that wait, the higher priority first."""
        for uid in (*sorted(self._waiting, key=lambda uid: -self._waiting[uid]), *self._resizes):
            self._wake(uid)

    def node_changed(self) -> None:
        """Labels or taints are others: those that wait are asked again, and a NoExecute taint concerns every pod."""
        self.ask_again()
        for record in self._store.list("Pod"):
            self._wake(record.uid)

    def tainted(self, pod: Pod, now: float) -> Tainted | None:
        """When a NoExecute taint drives the pod away; None: it does not."""
        if pod.metadata.deletion_timestamp or pod.status.phase in TERMINAL:
            return None
        if self._ledger is None or pod.metadata.uid not in self._ledger:
            return None  # not placed: it waits, and is not driven away
        found = evicted_at(pod, self.node.facts().taints)
        if found is None:
            return None
        return Tainted(f"{pod.metadata.namespace or 'default'}/{pod.metadata.name}", found[0])


def is_placed(status: Mapping[str, Any]) -> bool:
    """PURE: whether a recorded status says that the pod is this node's, and not over."""
    if status.get("phase") in TERMINAL:
        return False
    return any(
        c.get("type") == "PodScheduled" and c.get("status") == "True" for c in status.get("conditions") or ()
    )


def _asks(pod: Pod) -> bool:
    from kubelite.node.model.resources import BEST_EFFORT, qos_class

    return qos_class(pod) != BEST_EFFORT
