"""Decides which pods run on this node: keeps the ledger in step with the store, schedules each pod once, and retries
waiting pods when something that blocked them is gone.

There is no await between the check that a pod fits and its entry in the ledger, so no other pod can take the room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.objects import TERMINAL_PHASES, is_of_cluster, mark_deleting
from kubelite.kube.times import rfc3339
from kubelite.node.devices.model import ALLOCATION
from kubelite.node.model.claim_names import KIND
from kubelite.node.model.cri import ObservedPod
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.node_facts import NodeState, Offer
from kubelite.node.model.schedule import MEMORY_PRESSURE_TAINT, SCHEDULED, Reservation, Resize, ScheduleResult
from kubelite.node.scheduling.cpu_policy import CpuBook, Machine, NotEnough
from kubelite.node.scheduling.devices import DeviceBook, assignment_of
from kubelite.node.scheduling.filters import admit_pod, evicted_at, resize, schedule_pod
from kubelite.node.scheduling.ledger import Ledger, as_allocated, reservation_of, resize_pending
from kubelite.node.scheduling.preemption import BUDGET
from kubelite.node.scheduling.volume_binding import unbound
from manifests.problems import InvalidObject
from manifests.types.core import Pod
from state.errors import StoreError
from state.store import Record, Store

log = logging.getLogger(__name__)
NODE, CPU_STATE = "Node", "CpuManagerState"
PINNED = 'Resize is infeasible for Guaranteed Pods alongside CPU Manager policy "static"'


def disrupted(doc: Json, reason: str, message: str, now: float, *, grace: int | None = None) -> Json | None:
    """Pure: a pod's object marked for graceful deletion, with a DisruptionTarget condition that gives the reason.
    `grace`: seconds (None: the pod's own). None if the pod is terminating already."""
    deleting = mark_deleting(doc, now=now, grace=grace)
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


def not_allocated(why: str) -> ScheduleResult:
    """Pure: the rejection of a pod for which something fails that its requests promised (Kubernetes
    pkg/kubelet/cm/admission/errors.go, GetPodAdmitResult)."""
    words = f"Pod was rejected: Allocate failed due to {why}, which is unexpected"
    return ScheduleResult("UnexpectedAdmissionError", words, rejected=True)


@contextlib.contextmanager
def log_store_errors(what: str) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        log.error("%s: %s", what, error)


@dataclass(frozen=True, slots=True)
class Tainted:
    """A pod that a NoExecute taint evicts."""

    pod: str  # namespace/name
    at: float  # Unix seconds

    def marked(self, now: float) -> Callable[[Json], Json | None]:
        """The change to the pod's object (Kubernetes pkg/controller/tainteviction)."""
        words = "Taint manager: deleting due to NoExecute taint"
        return lambda doc: disrupted(doc, "DeletionByTaintManager", words, now)


def node_state(store: Store, config: NodeConfig) -> NodeState:
    """The facts of this node, by its object in the store."""

    def find() -> tuple[int, Mapping[str, Any]] | None:
        record = store.get(NODE, "", config.node_name)
        return (record.resource_version, record.doc) if record is not None else None

    return NodeState(config, find)


class Scheduler:
    """`parse` returns the typed pod of a record; `wake(uid)` schedules another sync of a pod; `on_reservations` is
    called when the reservations change."""

    def __init__(
        self,
        store: Store,
        config: NodeConfig,
        node: NodeState,
        *,
        parse: Callable[[Record], Pod],
        wake: Callable[[str], None],
        on_reservations: Callable[[], None] = lambda: None,
        devices: DeviceBook | None = None,
    ) -> None:
        self._store = store
        self._config = config
        self._parse = parse
        self._wake = wake
        self._ledger: Ledger | None = None
        self._waiting: dict[str, int] = {}  # uid → priority
        self._nominated: dict[str, Reservation] = {}  # pods that others were preempted for, until scheduled
        self._resizes: dict[str, Resize] = {}
        self._cpus: CpuBook | None = None
        self._saving: set[asyncio.Task[None]] = set()
        self._on_reservations = on_reservations
        self.node = node
        self.devices = devices or DeviceBook()
        self._node_name = config.node_name

    def _open(self) -> Ledger:
        """The ledger, rebuilt after a start: pods that were scheduled before have precedence over new ones."""
        if self._ledger is None:
            self._ledger = ledger = Ledger()
            self._cpus = self._open_cpus()
            pending: list[Pod] = []
            for record in self._store.list("Pod"):
                if is_scheduled(record.doc.get("status") or {}):
                    try:
                        pod = self._parse(record)
                    except InvalidObject:  # reported when that pod is synced
                        continue
                    ledger.add(reservation_of(as_allocated(pod) if resize_pending(pod) else pod))
                    pending += [pod] * resize_pending(pod)
                    # a pod that ran before the policy was set may find too few: it shares processors
                    with contextlib.suppress(NotEnough):
                        self._assign(pod)
                elif (record.doc.get("status") or {}).get("nominatedNodeName"):
                    with contextlib.suppress(InvalidObject):
                        self._nominated[record.uid] = reservation_of(self._parse(record))
            for pod in pending:
                self._reserve_again(pod)
            self._release_strangers(ledger)
            self._open_devices(ledger)
            self._on_reservations()
        return self._ledger

    def reservations(self) -> list[Reservation]:
        """The reservations of the scheduled pods."""
        return list(self._open())

    # -- exclusive processors, by the static CPU policy ---------------------------------------------------------

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
        """Container → the processors it may run on; {} if all containers may run anywhere."""
        return self._cpus.of(pod) if self._cpus is not None else {}

    def exclusive_cpus(self, uid: str) -> Mapping[str, str]:
        """Container → its exclusive processors, for those containers of a pod that have some."""
        self._open()
        return self._cpus.to_json().get(uid, {}) if self._cpus is not None else {}

    def assignable_cpus(self) -> frozenset[int]:
        """The processors that may be assigned exclusively; none without the static policy."""
        static = self._config.cpu_policy == "static"
        return frozenset(self._config.cores) - self._config.reserved_cpus if static else frozenset()

    def _assign(self, pod: Pod) -> None:
        """Raises NotEnough."""
        if self._cpus is not None and self._cpus.assign(pod):
            self._pool_changed(pod.metadata.uid or "")

    # -- devices of plugins, which kubelite/daemon/plugins records ------------------------------------------------

    def _open_devices(self, ledger: Ledger) -> None:
        for record in self._store.list(ALLOCATION):
            if record.name in ledger:
                self.devices.load(record.name, assignment_of(record.doc))
            else:
                self._forget_devices(record.name)

    def offers_changed(self) -> None:
        """Count the devices that plugins offer, and retry the pods that wait for more."""
        offer = Offer(self.devices.capacity(), self.devices.allocatable())
        if offer != self.node.devices:
            self.node.devices = offer
            self.retry_waiting()

    def _forget_devices(self, uid: str) -> None:
        self._keep(self._delete_allocation(uid))

    async def _delete_allocation(self, uid: str) -> None:
        if self.devices.of(uid):  # it has got devices again meanwhile
            return
        with log_store_errors(f"cannot delete the record of the devices of pod {uid}"):
            if (record := self._store.get(ALLOCATION, "", uid)) is not None:
                await self._store.delete(record.uid)

    def _pool_changed(self, uid: str) -> None:
        """Update all other pods, which now share other processors, and save the assignment for restarts."""
        for reservation in self._ledger or ():
            if reservation.uid != uid:
                self._wake(reservation.uid)
        self._keep(self._save_cpus())

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    async def _save_cpus(self) -> None:
        assert self._cpus is not None
        identity = {"name": self._node_name, "uid": f"cpus:{self._node_name}"}
        doc = {"metadata": identity, "entries": self._cpus.to_json()}
        with log_store_errors("cannot save the assignment of processors"):
            if self._store.get(CPU_STATE, "", self._node_name) is None:
                await self._store.create(CPU_STATE, doc)
            else:
                await self._store.update(CPU_STATE, doc)

    def schedule(self, pod: Pod, observed: ObservedPod, *, reserve: bool = True) -> ScheduleResult:
        """Whether the pod may run on this node. If so, and with `reserve`, reserve its resources."""
        uid, ledger = pod.metadata.uid or "", self._open()
        if uid in ledger or pod.status.phase in TERMINAL_PHASES or pod.metadata.deletion_timestamp:
            return SCHEDULED
        reservation = reservation_of(pod)
        # a pod that runs stays scheduled, even without a record; a sandbox lost before any container ran holds nothing
        runs = (observed.sandbox is not None and observed.sandbox.ready) or observed.containers
        found = SCHEDULED if runs else self._ask(pod, reservation, ledger)
        if reserve:
            self._nominated.pop(uid, None)
            if found.nominated:
                self._nominated[uid] = reservation
        if reserve and not found.reason:
            try:
                self.devices.assign(pod)
                self._assign(pod)
            except NotEnough as error:
                self.devices.release(uid)
                return not_allocated(str(error))
            ledger.add(reservation)
            self._waiting.pop(uid, None)
            self._on_reservations()
        elif reserve and not found.rejected:
            self._waiting[uid] = reservation.priority
        return found

    def _ask(self, pod: Pod, reservation: Reservation, ledger: Ledger) -> ScheduleResult:
        """Run the filters. Room freed by preemption is reserved for the nominated pods, unless a pod of higher priority
        needs it."""
        kept = [
            one
            for one in self._nominated.values()
            if one.uid != reservation.uid and one.priority >= reservation.priority
        ]
        beside = Ledger([*ledger, *kept]) if kept else ledger
        if is_of_cluster(pod.metadata.annotations):
            return admit_pod(reservation, self.node.facts(), beside)
        alone = {name for name in reservation.volumes if self._of_one_pod(reservation.namespace, name)}
        nominated = reservation.uid in self._nominated
        facts = self._facts_for(pod)
        waits = unbound(pod, self._find, facts) if reservation.volumes else None
        return schedule_pod(
            pod,
            reservation,
            facts,
            beside,
            alone=alone,
            nominated=nominated,
            unbound=waits,
            budgets=self._store.docs(BUDGET),
        )

    def _find(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        record = self._store.get(kind, namespace, name)
        return record.doc if record is not None else None

    def is_scheduled(self, uid: str) -> bool:
        return uid in self._open()

    def _of_one_pod(self, namespace: str, name: str) -> bool:
        """Whether a PersistentVolumeClaim is ReadWriteOncePod."""
        record = self._store.get(KIND, namespace, name)
        return record is not None and "ReadWriteOncePod" in (record.doc["spec"].get("accessModes") or ())

    async def preempt(self, pod: Pod, uid: str, now: float) -> Record | None:
        """Preempt a pod in favour of `pod`. Return its new record; None if it is gone or terminating already."""
        words = "preempting to accommodate a higher priority pod"
        by = pod.spec.scheduler_name or "default-scheduler"
        if (held := self._open().get(uid)) is None or held.terminating:
            return None
        record = await self._store.modify(
            uid, lambda doc: disrupted(doc, "PreemptionByScheduler", f"{by}: {words}", now)
        )
        if record is not None and (held := self._open().get(uid)) is not None:
            self._open().add(replace(held, terminating=True))  # before another pod is scheduled
        return record

    def _facts_for(self, pod: Pod) -> Any:
        """The node's facts for one pod. A pod that requests resources may start under memory pressure: on a cluster,
        the API server's admission gives it a toleration of that taint."""
        facts = self.node.facts()
        if any(t.key == MEMORY_PRESSURE_TAINT for t in facts.taints) and _asks(pod):
            return replace(facts, taints=tuple(t for t in facts.taints if t.key != MEMORY_PRESSURE_TAINT))
        return facts

    def pods(self) -> list[Pod]:
        """The scheduled pods, as last recorded."""
        ledger = self._open()
        return [self._parse(record) for record in self._store.list("Pod") if record.uid in ledger]

    def ended(self) -> list[str]:
        """The uids of the pods in a terminal phase, as last recorded."""
        phases = (
            (record.uid, (record.doc.get("status") or {}).get("phase")) for record in self._store.list("Pod")
        )
        return [uid for uid, phase in phases if phase in TERMINAL_PHASES]

    def pod_changed(self, pod: Pod) -> None:
        """Update the reservation from a new version of the pod, which may need other resources or be terminating."""
        if self._ledger is not None and pod.metadata.uid in self._ledger:
            self._reserve_again(pod)

    def _reserve_again(self, pod: Pod) -> None:
        """Reserve what the pod requests now. If there is no room for more, keep the reserved resources."""
        assert self._ledger is not None
        reservation, uid = reservation_of(pod), pod.metadata.uid or ""
        found = None if reservation.terminating else self._resize(pod, reservation, self._ledger)
        held = self._ledger.get(uid)
        if found is None or held is None:
            self._resizes.pop(uid, None)
            self._ledger.add(reservation)
        else:
            self._resizes[uid] = found
            self._ledger.add(replace(reservation, requests=held.requests))
        self._on_reservations()

    def _resize(self, pod: Pod, reservation: Reservation, ledger: Ledger) -> Resize | None:
        """Why the pod cannot be resized now. Exclusive processors are assigned once and not resized (Kubernetes
        pkg/kubelet/allocation, canResizePod, with the feature gate InPlacePodVerticalScalingExclusiveCPUs off)."""
        if self._cpus is not None and self._cpus.differs(pod):
            return Resize("Infeasible", PINNED)
        return resize(reservation, self.node.facts(), ledger)

    def resize_of(self, pod: Pod) -> Resize | None:
        """Why an edit of the pod's resources waits; None if it does not wait (any longer)."""
        uid = pod.metadata.uid or ""
        if uid in self._open() and uid in self._resizes:
            self._reserve_again(pod)
        return self._resizes.get(uid)

    def over(self, uid: str, *, sandbox: bool) -> None:
        """Call this when a pod is in a terminal phase. `sandbox`: its sandbox still exists and holds its host ports.
        Until it is gone, the reservation stays and counts as that of a terminating pod (Kubernetes
        pkg/kubelet/kubelet_pods.go, filterOutInactivePods)."""
        held = self._open().get(uid) if sandbox else None
        if held is None:
            self.release(uid)
        elif not held.terminating:
            self._open().add(replace(held, terminating=True))

    def release(self, uid: str) -> None:
        """Release everything the pod holds, and retry the pods that wait for it."""
        self._waiting.pop(uid, None)
        self._resizes.pop(uid, None)
        held = self._nominated.pop(uid, None)
        if self._ledger is not None and self._ledger.remove(uid):
            if self._cpus is not None and self._cpus.release(uid):
                self._pool_changed(uid)
            if self.devices.release(uid):
                self._forget_devices(uid)
            self._on_reservations()
            self.retry_waiting()
        elif held is not None:
            self.retry_waiting()

    def retry_waiting(self) -> None:
        """Retry the waiting pods, higher priority first."""
        for uid in (*sorted(self._waiting, key=lambda uid: -self._waiting[uid]), *self._resizes):
            self._wake(uid)

    def node_changed(self) -> None:
        """Labels or taints changed: retry waiting pods, and sync every pod, because it may not tolerate a taint."""
        self.retry_waiting()
        for record in self._store.list("Pod"):
            self._wake(record.uid)

    def tainted(self, pod: Pod, now: float) -> Tainted | None:
        """When a NoExecute taint evicts the pod; None if none does."""
        if pod.metadata.deletion_timestamp or pod.status.phase in TERMINAL_PHASES:
            return None
        if is_of_cluster(pod.metadata.annotations):
            return None  # the cluster's taints apply to it, and the cluster evicts it
        if self._ledger is None or pod.metadata.uid not in self._ledger:
            return None  # not scheduled: it waits and is not evicted
        found = evicted_at(pod, self.node.facts().taints)
        if found is None:
            return None
        return Tainted(f"{pod.metadata.namespace or 'default'}/{pod.metadata.name}", found[0])


def is_scheduled(status: Mapping[str, Any]) -> bool:
    """Pure: whether a recorded status says that the pod is scheduled to this node and not finished."""
    if status.get("phase") in TERMINAL_PHASES:
        return False
    return any(
        c.get("type") == "PodScheduled" and c.get("status") == "True" for c in status.get("conditions") or ()
    )


def _asks(pod: Pod) -> bool:
    from kubelite.node.model.resources import BEST_EFFORT, qos_class

    return qos_class(pod) != BEST_EFFORT
