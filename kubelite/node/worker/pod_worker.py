"""The loop of one pod. Each round observes, decides, acts, observes again and reports. The work queue runs one round of
a pod (`reconcile`) at a time; rounds of different pods run concurrently.

Between two rounds the worker remembers only what cannot be observed (memory.py): failures that left no trace, when to
retry, and the last round itself, for `kubelite why`.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from kubelite.kube.jobs import awaits_counting, controlling_job
from kubelite.kube.objects import AUTHORITY, AUTHORITY_KEY, NODE_CONDITIONS, TERMINAL_PHASES, ended, reference
from kubelite.node.decide import explanation
from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.decide.decision_state import recorded
from kubelite.node.decide.pod_rules import RESTART_ON_CHANGE
from kubelite.node.decide.pod_status import compute_pod_status, must_be_on_disk
from kubelite.node.decide.shutdown_order import REJECTED, REJECTED_MESSAGE
from kubelite.node.devices.model import DeviceSource, NoDevices
from kubelite.node.model.actions import (
    Facts,
    PodActions,
    PreemptPod,
    volume_pull,
)
from kubelite.node.model.claim_names import claim_names
from kubelite.node.model.cri import ContainerState, Cri, ObservedPod
from kubelite.node.model.ephemeral import every_container
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.observer import Observer
from kubelite.node.model.pod_view import pod_ref
from kubelite.node.model.priority import priority
from kubelite.node.model.probe_results import Health
from kubelite.node.model.recorder import NORMAL, WARNING, PodEvents, Recorder
from kubelite.node.model.schedule import ScheduleResult
from kubelite.node.probing.prober import Prober
from kubelite.node.scheduling.ledger import as_allocated
from kubelite.node.scheduling.scheduler import Scheduler
from kubelite.node.spec.cluster_objects import find_for
from kubelite.node.spec.env import content_hash
from kubelite.node.spec.image_verification import Policy
from kubelite.node.spec.tokens import NoTokens, TokenSource
from kubelite.node.storage.usage import Usage
from kubelite.node.worker import pod_events
from kubelite.node.worker.allocation import with_devices
from kubelite.node.worker.hooks import Hooks
from kubelite.node.worker.memory import RETRY, Memory, Turn, timeless
from kubelite.node.worker.parsed_pods import ParsedPods
from kubelite.node.worker.pull_records import PullRecords
from kubelite.node.worker.puller import Puller
from kubelite.node.worker.sync_pod import Node, refresh_files, sync_pod
from kubelite.node.worker.termination import with_messages
from kubelite.node.worker.traffic import Traffic
from manifests.problems import InvalidObject
from manifests.types.core import Pod, PodStatus
from runtime.errors import RuntimeFault
from state.errors import StoreError
from state.store import Record, Store

log = logging.getLogger(__name__)
SOON = 1.0  # seconds until actions that changed nothing are tried again
COUNTED = 5.0  # seconds until the worker looks whether a Job that should have counted a pod still exists


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision to act, in words. `at`: Unix seconds."""

    at: float
    pod: Pod
    what: str
    because: str


class Queue(Protocol):
    """The pods waiting for a round."""

    def add(self, uid: str, /) -> None:
        """Schedule a round of the pod."""

    def dirty(self, uid: str, /) -> bool:
        """Return whether a pod has been added again since its current round began."""


class PodWorker:
    """Reconcile pods. `provide` binds a pod's claims. `decided` is called for each decision to act. `tokens` gives
    volumes what they need of the API."""

    def __init__(
        self,
        store: Store,
        cri: Cri,
        recorder: Recorder,
        config: NodeConfig,
        scheduler: Scheduler,
        *,
        parsed: ParsedPods,
        queue: Queue,
        provide: Callable[[Pod], Awaitable[None]],
        decided: Callable[[Decided], None] = lambda _decided: None,
        observer: Observer | None = None,
        tokens: TokenSource | None = None,
        devices: DeviceSource | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        observer = self._observer = observer or Observer()
        self.config = config
        self.scheduler = scheduler
        self.shutting_down = False  # whether the node is shutting down
        self._store = store
        self._cri = cri
        self._recorder = recorder
        self._parsed = parsed
        self._queue = queue
        self._provide = provide
        self._decided = decided
        self._clock = clock
        self._tokens = tokens or NoTokens()
        self._devices = devices or NoDevices()
        policy = Policy(config.image_verification, config.images_not_verified)
        self.pull_records = PullRecords(config.root, policy, cri.image, clock)
        puller = Puller(
            cri, config.pull_back_off, self.pull_records, find=self._find, clock=clock, wake=queue.add
        )
        hooks = Hooks(cri, config, wake=queue.add)
        self.traffic = Traffic()
        self._node = Node(
            cri, config, puller, hooks, self._find, clock, observer, self.traffic, store.docs,
            self._tokens, self._devices,
        )  # fmt: skip
        self._usage = Usage(config, clock=clock, wake=queue.add)
        self.prober = Prober(cri, config, recorder, clock=clock, wake=queue.add, observer=observer)
        self._pods: dict[str, Memory] = {}

    async def close(self) -> None:
        """Cancel running pulls, hooks, probes and measurements of disk usage."""
        await self._node.hooks.close()
        await self._usage.close()
        await self._node.puller.close()
        await self.prober.close()

    def use_cluster_dns(self, servers: tuple[str, ...]) -> None:
        """Give pods with dnsPolicy ClusterFirst these name servers, running ones in place; () for those of the host."""
        if servers == self._node.config.cluster_dns:
            return
        self._node.config = replace(self._node.config, cluster_dns=servers)
        for record in self._store.list("Pod"):
            self._queue.add(record.uid)

    def content_changed(self, uid: str) -> None:
        """Handle a changed ConfigMap or Secret of the pod's namespace: what failed because of it is retried at once."""
        memory = self._pods.get(uid)
        if memory is not None:
            memory.content_changed()
            self._node.puller.retry(uid)
        self._queue.add(uid)

    def _find(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        record = self._store.get(kind, namespace, name)
        if record is None and (kind, name) == ("ConfigMap", AUTHORITY):
            authority = self._tokens.authority()
            return {"data": {AUTHORITY_KEY: authority}} if authority is not None else None
        return record.doc if record is not None else None

    # -- the loop -----------------------------------------------------------------------------------------------

    async def reconcile(self, uid: str) -> float | None:
        """Run one round for the pod. Return the seconds until the next one, or None to wait for a change."""
        record = self._store.get_uid(uid)
        if record is None or record.kind != "Pod":
            self._forget(uid)
            return None
        memory = self._pods.setdefault(uid, Memory())
        if memory.removed:
            return await self._delete(record)
        try:
            pod = self._parse(record, memory)
        except InvalidObject as error:  # an older version accepted it; the manifest must be corrected
            log.error("pod cannot be read: %s", error, extra={"uid": uid, "pod": record.name})
            if not record.deleting:
                return RETRY.maximum
            await self._cri.stop_sandbox(uid)  # its grace period is unknown
            await self._cri.remove_pod(uid)
            self._forget(uid)
            await self._store.delete(uid)
            return None
        events = PodEvents(self._recorder, pod)
        try:
            return await self._look(uid, pod, memory, events)
        except (RuntimeFault, OSError, StoreError) as error:
            memory.sync_failures += 1
            if memory.look is not None:
                memory.look = dataclasses.replace(memory.look, error=str(error))
            log.warning("cannot sync the pod: %s", error, extra={"uid": uid, "pod": pod_ref(pod)})
            events.pod(WARNING, "FailedSync", f"error: {error}")
            return RETRY.wait(memory.sync_failures)

    async def _look(self, uid: str, pod: Pod, memory: Memory, events: PodEvents) -> float | None:
        tainted = self.scheduler.tainted(pod, self._clock())
        if tainted is not None and tainted.at <= self._clock():
            events.pod(WARNING, "TaintManagerEviction", f"Marking for deletion Pod {tainted.pod}")
            await self._store.modify(uid, tainted.marked(self._clock()))
            return 0.0
        memory.resize = self.scheduler.resize_of(pod)
        if memory.resize is not None:  # until there is room for the edit, the pod keeps its old resources
            pod = as_allocated(pod)
        observed = with_messages(pod, await self._cri.observe(uid))
        if not self.scheduler.is_scheduled(uid):
            if claim_names(pod):
                await self._provide(pod)  # scheduling depends on the volumes its claims are bound to
            await self._devices.prefer(pod)
        facts = self._facts(pod, observed, memory)
        if self._devices.waiting(uid):
            again = partial(self._facts, pod, observed, memory)
            facts = await with_devices(self._devices, self.scheduler, pod, facts, again)
        settled = memory.settled
        if memory.look is not None and settled is not None and settled == (pod, observed, timeless(facts)):
            memory.look = explanation.Look(facts.now, settled[1], memory.look.actions)
            memory.sync_failures = 0
            self._refresh_files(pod, observed)
            next_look = None
        else:
            memory.settled = None
            actions = compute_pod_actions(pod, observed, facts, self.config)
            next_look = await self._act(Turn(uid, pod, observed, facts, actions, memory, events))
        if tainted is None or next_look == 0.0:
            return next_look
        left = max(0.0, tainted.at - self._clock())
        return left if next_look is None else min(left, next_look)

    def _refresh_files(self, pod: Pod, observed: ObservedPod) -> None:
        if observed.sandbox is not None and observed.sandbox.ready and not pod.metadata.deletion_timestamp:
            refresh_files(self._node, pod, observed.sandbox)

    async def _act(self, turn: Turn) -> float | None:
        """Act on the decision, observe again and report. Repeat while the next decision has something to do. Return the
        seconds until the next round.

        Without an effect there is no second observation, and without a change of its inputs no second decision."""
        memory = turn.memory
        while True:
            before, actions = turn.pod.status, turn.actions
            memory.look = explanation.Look(turn.facts.now, turn.observed, actions)
            if actions.effects and not await self._carry_out(turn):
                return COUNTED if turn.uid in self._pods else None
            # also after an effect: the same edit may change a file of a container that keeps running
            self._refresh_files(turn.pod, turn.observed)
            memory.sync_failures = 0
            decided = turn.actions
            await self._report(turn, before)
            if decided.effects and decided == actions:
                return SOON
            self._count_in(turn, before)
            if turn.actions == decided and not decided.effects:
                return self._rest(turn, before)
            if memory.resize is not None or self._is_old(turn):
                return 0.0

    async def _carry_out(self, turn: Turn) -> bool:
        """Act, observe again and decide again. Return False if nothing is left of the pod, except for its record."""
        uid, memory, actions, facts = turn.uid, turn.memory, turn.actions, turn.facts
        again = memory.resize_error and memory.change is not None and memory.change.actions == actions
        memory.change = memory.look
        if not again:  # a failing resize is retried each second and logged once
            words = "; ".join(actions.describe())
            log.info("%s", words, extra={"uid": uid, "pod": pod_ref(turn.pod)})
            self._decided(Decided(facts.now, turn.pod, words, "; ".join(actions.reasons)))
        if actions.kill_sandbox or actions.remove or actions.finish:
            await self._write_status(turn)  # while the containers are still known
        await self._make_room(turn.pod, actions)
        results = await sync_pod(self._node, turn.pod, turn.observed, actions, turn.events)
        if results.finished:
            if (record := self._store.get_uid(uid)) is not None:
                await self._delete(record)
            return False
        memory.remember(turn.pod, actions, results, self._clock())
        turn.observed = with_messages(turn.pod, await self._cri.observe(uid))
        turn.facts = self._facts(turn.pod, turn.observed, memory)
        turn.actions = compute_pod_actions(turn.pod, turn.observed, turn.facts, self.config)
        memory.look = explanation.Look(turn.facts.now, turn.observed, turn.actions)
        return True

    async def _delete(self, record: Record) -> float | None:
        """Delete the record of a pod of which nothing else is left. If its Job has yet to count it, the record stays
        until the Job has removed the finalizer. Return the seconds until the next look, None if the record is gone."""
        uid, memory = record.uid, self._pods.get(record.uid, Memory())
        self._forget(uid)
        job = self._store.get_uid(controlling_job(record.doc))
        if not awaits_counting(record.doc, job.doc if job is not None else None):
            await self._store.delete(uid)
            return None
        self._pods[uid] = Memory(removed=True, look=memory.look, change=memory.change)
        await self._store.modify(uid, ended)
        return COUNTED

    async def _report(self, turn: Turn, before: PodStatus) -> None:
        """Send events and write the status. `before`: the status on record when the round began."""
        pod_events.say_waiting(before, turn.actions, turn.facts, turn.events)
        failed = turn.actions.failed
        if failed is not None and before.reason != failed.reason:  # the event is sent once
            kind = NORMAL if failed.reason == "DeadlineExceeded" else WARNING
            turn.events.pod(kind, failed.reason, failed.message)
        await self._write_status(turn)
        pod_events.say_unsupported(turn.pod, turn.memory.said, turn.events)
        pod_events.say_violations(turn.pod, self.config.pod_security, turn.memory.said, turn.events)

    def _count_in(self, turn: Turn, before: PodStatus) -> None:
        """Decide again if the status just written changes an input of the decision."""
        pod, observed = turn.pod, turn.observed
        if pod.status is before:
            return
        if recorded(pod, observed) == recorded(pod.model_copy(update={"status": before}), observed):
            return
        if pod.status.phase in TERMINAL_PHASES:  # its reservation is released
            turn.facts = self._facts(pod, observed, turn.memory)
        turn.actions = compute_pod_actions(pod, observed, turn.facts, self.config)

    def _rest(self, turn: Turn, before: PodStatus) -> float | None:
        """Called when there is nothing to do. Return the seconds until the decision may change, or None if only an
        event can change it."""
        if turn.actions.next_look is not None:
            return max(0.0, turn.actions.next_look - self._clock())
        if turn.pod.status is before and turn.memory.resize is None and not turn.memory.starts:
            turn.memory.settled = turn.pod, turn.observed, timeless(turn.facts)
        return None

    def _is_old(self, turn: Turn) -> bool:
        """Return whether the pod has changed since its observation, apart from the status written here."""
        record = self._store.get_uid(turn.uid)
        changed = record is None or record.resource_version != self._parsed.version(turn.uid)
        return changed or self._queue.dirty(turn.uid)

    async def _make_room(self, pod: Pod, actions: PodActions) -> None:
        """Preempt the victims of the decision, and bind the pod's claims before a start."""
        for victim in actions.preempt:
            await self._preempt(pod, victim)
        if actions.start:
            await self._provide(pod)

    async def _preempt(self, pod: Pod, victim: PreemptPod) -> None:
        """Preempt a pod (Kubernetes pkg/scheduler/framework/preemption/preemption.go, prepareCandidate)."""
        log.info("preempted by a higher-priority pod", extra={"uid": victim.uid, "pod": victim.pod})
        record = await self.scheduler.preempt(pod, victim.uid, self._clock())
        if record is not None:
            self._observer.preempted(victim.short_of)
            words = f"Preempted by pod {pod.metadata.uid} on node {self.config.node_name}"
            name = f"{pod.metadata.namespace or 'default'}/{pod.metadata.name}"
            sentence = f"{words}: {name} has priority {priority(pod)}"
            self._recorder.event(reference(record.doc), NORMAL, "Preempted", sentence)

    def _parse(self, record: Record, memory: Memory) -> Pod:
        pod = self._parsed.of(record)
        if memory.pod is not pod:
            if memory.pod is not None and memory.pod.metadata.generation != pod.metadata.generation:
                memory.said.clear()
            memory.pod = pod
            self.scheduler.pod_changed(pod)
        return pod

    def _facts(
        self, pod: Pod, observed: ObservedPod, memory: Memory, health: Mapping[str, Health] | None = None
    ) -> Facts:
        wanted = {c.name: c.image or "" for c in every_container(pod)}
        wanted |= {
            volume_pull(v.name): v.image.reference or "" for v in pod.spec.volumes if v.image is not None
        }
        references = {
            *wanted.values(),
            *(c.image for c in observed.containers if c.state is ContainerState.RUNNING),
        }
        memory.notice_loss(pod, observed, self.config.crash_back_off, self._clock())
        images = {reference: self._cri.image(reference) for reference in references if reference}
        return Facts(
            now=self._clock(),
            images=images,
            unverified=self._node.puller.unverified(pod, images),
            pulls=self._node.puller.states(pod.metadata.uid or "", wanted, pod),
            start_failures=memory.starts,
            sandbox_failure=memory.sandbox,
            volume_failure=memory.volumes,
            health=self.prober.follow(pod, observed) if health is None else health,
            hooks=self._node.hooks.states(pod.metadata.uid or "", observed),
            scheduling=self._schedule(pod, observed, reserve=health is None),
            cpus=self.scheduler.cpus_of(pod),
            resize=memory.resize,
            resize_error=memory.resize_error,
            evicted=memory.evicted,
            shutdown=memory.shutdown if self.shutting_down else None,
            content=self._content(pod),
            used={} if health is not None or pod.status.phase in TERMINAL_PHASES else self._usage.of(pod),
        )

    def _schedule(self, pod: Pod, observed: ObservedPod, *, reserve: bool) -> ScheduleResult:
        """Schedule the pod. During node shutdown, new pods are rejected."""
        if self.shutting_down and not self.scheduler.is_scheduled(pod.metadata.uid or ""):
            return ScheduleResult(REJECTED, REJECTED_MESSAGE, rejected=True)
        return self.scheduler.schedule(pod, observed, reserve=reserve)

    def _content(self, pod: Pod) -> dict[str, str]:
        """Return the content hash of each container, if the pod restarts containers when their content changes."""
        if pod.metadata.annotations.get(RESTART_ON_CHANGE) != "true":
            return {}
        find = find_for(pod, self._find)
        every = [*pod.spec.init_containers, *pod.spec.containers]
        return {container.name: content_hash(pod, container, find) for container in every}

    def _forget(self, uid: str) -> None:
        self._pods.pop(uid, None)
        self._parsed.forget(uid)
        self._node.puller.forget(uid)
        self.prober.forget(uid)
        self._node.hooks.forget(uid)
        self._usage.forget(uid)
        self.scheduler.release(uid)
        self._node.net_files.pop(uid, None)

    # -- the report ---------------------------------------------------------------------------------------------

    async def _write_status(self, turn: Turn) -> None:
        """Write the status if it changed."""
        pod, memory = turn.pod, turn.memory
        status = compute_pod_status(pod, turn.observed, turn.actions, turn.facts, self.config)
        if status.phase in TERMINAL_PHASES:
            self.scheduler.over(turn.uid, sandbox=turn.observed.sandbox is not None)
        if status == pod.status:
            return
        if status.phase != pod.status.phase:
            log.info("phase %s", status.phase, extra={"uid": pod.metadata.uid, "pod": pod_ref(pod)})
        written = status.to_json()

        def change(doc: dict[str, Any]) -> dict[str, Any]:
            known = doc["metadata"].get("resourceVersion") == str(self._parsed.version(turn.uid))
            memory.written = written if known else None
            others = [
                c
                for c in (doc.get("status") or {}).get("conditions") or ()
                if c["type"] not in NODE_CONDITIONS
            ]
            ours = written.get("conditions") or []
            if others == [c for c in ours if c["type"] not in NODE_CONDITIONS]:
                return {**doc, "status": written}
            memory.written = None  # another writer has changed conditions meanwhile
            kept = [*(c for c in ours if c["type"] in NODE_CONDITIONS), *others]
            return {**doc, "status": {**written, "conditions": kept}}

        durable = must_be_on_disk(pod, status)
        began = time.perf_counter()
        record = await self._store.modify(turn.uid, change, durable=durable)
        self._observer.status_written(time.perf_counter() - began)
        turn.pod = pod.model_copy(update={"status": status})
        if record is not None and record.doc.get("status") is written and memory.written is not None:
            # keep the manifest's spec, not the one adjusted for the decision
            memory.pod = self._parsed.written(record, status) or memory.pod

    def is_news(self, record: Record) -> bool:
        """Return whether a changed pod needs a round. It does not if the only change is the status that this worker has
        just written. Call this once for each change, in order."""
        memory = self._pods.get(record.uid)
        if memory is None or memory.written is None or record.doc.get("status") is not memory.written:
            return True
        memory.written = None
        return False

    # -- questions ----------------------------------------------------------------------------------------------

    def why(self, uid: str, pod: str) -> dict[str, Any] | None:
        """Return the last round of a pod in words (kubelite.api.node.Why), or None before the first one."""
        memory = self._pods.get(uid)
        if memory is None or memory.look is None:
            return None
        return explanation.words(memory.look, memory.change, pod)

    def evict(self, uid: str, message: str) -> None:
        """Evict the pod: it ends as Failed with the reason Evicted."""
        self._pods.setdefault(uid, Memory()).evicted = message
        self._queue.add(uid)

    def terminate_for_shutdown(self, uid: str, seconds: float) -> None:
        """End the pod for a node shutdown, within `seconds`: it ends as Failed with the reason Terminated."""
        self._pods.setdefault(uid, Memory()).shutdown = seconds
        self._queue.add(uid)

    async def preview(self, doc: Mapping[str, Any]) -> PodActions:
        """Return what the worker would do if the pod were `doc` with its present status."""
        pod = Pod.parse(dict(doc))
        uid = pod.metadata.uid or ""
        observed = await self._cri.observe(uid)
        memory = self._pods.get(uid, Memory())
        facts = self._facts(pod, observed, dataclasses.replace(memory), self.prober.health(uid))
        return compute_pod_actions(pod, observed, facts, self.config)
