"""Carries out what is decided about HorizontalPodAutoscalers: every 15 seconds, while there are any.

The number of replicas that an autoscaler sets is in the store alone. The workload's annotation `REPLICAS` has the
number of its manifest meanwhile: as long as the manifest says the same, an edit of it or a restart leaves the
autoscaler's number (`kubelite.sources.plan.merged`). A workload that no autoscaler names any more gets its own number
back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

from kubelite.autoscaling.decide import decide
from kubelite.autoscaling.model import KIND, SCALED, Memory, Outcome, Sample, Timing, View
from kubelite.kube.errors import Forbidden
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels, selector_of
from kubelite.kube.objects import REPLICAS, belongs_to_cluster, reference
from runtime.errors import RuntimeFault
from state.errors import StoreError
from state.store import Record, Store
from state.watch import Watch

log = logging.getLogger(__name__)

RETRY = 5.0  # seconds after a failure
WARM_UP = 5.0  # seconds between the first two samples: CPU time is a difference

Samples = Mapping[str, Sample]  # by uid of the pod


class Autoscaler:
    """`sample` returns what the node's pods use. `paused` tells when nothing is to be scaled: the node shuts down."""

    def __init__(
        self,
        store: Store,
        events: EventRecorder,
        sample: Callable[[], Awaitable[Samples]],
        *,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        paused: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._events = events
        self._sample = sample
        self._timing = timing
        self._paused = paused
        self._clock = clock
        self._memories: dict[str, Memory] = {}  # by uid of the autoscaler
        self._specs: dict[str, Json] = {}  # those that were decided about

    async def run(self) -> None:
        """Decide until this is cancelled."""
        async with self._store.watch(KIND) as watch:
            while True:
                try:
                    await self._turn()
                except (Forbidden, OSError, RuntimeFault, StoreError) as error:  # as on a full disk
                    log.error("the autoscaler failed, will retry: %s", error)
                    await asyncio.sleep(RETRY)
                    continue
                if self._store.list(KIND):
                    await self._next(watch)
                else:
                    await watch.next()

    async def _turn(self) -> None:
        if not self._store.list(KIND):
            self._memories.clear()
            await self.restore()
            return
        if not self._memories:
            await self._sample()
            await asyncio.sleep(WARM_UP)
        if not self._paused():
            await self.step()

    async def _next(self, watch: Watch) -> None:
        """Return when it is time to decide again: after `timing.sync` seconds, or when an autoscaler is new, edited or
        deleted. Its status changes with each decision."""
        until = time.monotonic() + self._timing.sync
        while (left := until - time.monotonic()) > 0:
            change = await watch.next(left)
            if change is None:
                return
            record = change.record
            if change.type == "DELETED" or self._specs.get(record.uid) != record.doc["spec"]:
                return

    async def step(self) -> None:
        """Decide about every autoscaler once, and act."""
        records = self._store.list(KIND)
        known = {record.uid for record in records}
        self._memories = {uid: one for uid, one in self._memories.items() if uid in known}
        self._specs = {record.uid: record.doc["spec"] for record in records}
        samples = await self._sample() if records else {}
        for record in records:
            view = self._view(record, samples)
            outcome = decide(view)
            self._memories[record.uid] = outcome.memory
            await self._act(record, view.target, outcome)
        await self.restore()

    async def restore(self) -> None:
        """Give the workloads that no autoscaler names any more the number of replicas of their manifests."""
        named = {_target_key(record.doc) for record in self._store.list(KIND)}
        for kind in SCALED:
            for record in self._store.list(kind):
                said = (record.metadata.get("annotations") or {}).get(REPLICAS)
                if said is None or (kind, record.namespace, record.name) in named:
                    continue
                log.info(
                    "%s %s/%s has the replicas of its manifest again: %s",
                    kind,
                    record.namespace,
                    record.name,
                    said,
                )
                await self._store.modify(record.uid, partial(resized, replicas=None))

    # -- views ------------------------------------------------------------------------------------------------------

    def _view(self, record: Record, samples: Samples) -> View:
        target = self._target(record.doc)
        pods = self._pods(target) if target is not None else []
        named = {pod["metadata"]["name"]: samples.get(pod["metadata"]["uid"]) for pod in pods}
        return View(
            autoscaler=record.doc,
            now=self._clock(),
            target=target,
            pods=pods,
            samples={name: one for name, one in named.items() if one is not None},
            sharing=self._sharing(record, pods),
            memory=self._memories.get(record.uid, Memory()),
            timing=self._timing,
        )

    def _target(self, autoscaler: Json) -> Json | None:
        found = self._store.get(*_target_key(autoscaler))
        return found.doc if found is not None else None

    def _pods(self, target: Json) -> list[Json]:
        selector, namespace = selector_of(target), target["metadata"].get("namespace", "")
        return [
            one.doc
            for one in self._store.list("Pod", namespace)
            if matches_labels(selector, labels_of(one.doc)) and not belongs_to_cluster(one.doc)
        ]

    def _sharing(self, record: Record, pods: Iterable[Json]) -> list[str]:
        """Return the names of the autoscalers whose targets select one of the pods."""
        found = []
        for other in self._store.list(KIND, record.namespace):
            target = self._target(other.doc)
            selector = selector_of(target) if target is not None else None
            if other.uid == record.uid or any(matches_labels(selector, labels_of(pod)) for pod in pods):
                found.append(other.name)
        return sorted(found)

    # -- effects ----------------------------------------------------------------------------------------------------

    async def _act(self, record: Record, target: Json | None, outcome: Outcome) -> None:
        """Scale before the status says so: a daemon that is killed in between scales again, to the same number."""
        if outcome.replicas is not None and target is not None:
            await self._store.modify(target["metadata"]["uid"], partial(resized, replicas=outcome.replicas))
        for event in outcome.events:
            self._events.event(reference(record.doc), event.type, event.reason, event.message)

        def change(doc: Json) -> Json | None:
            return None if doc.get("status") == outcome.status else {**doc, "status": outcome.status}

        await self._store.modify(record.uid, change, durable=False)


def _target_key(autoscaler: Json) -> tuple[str, str, str]:
    """Return kind, namespace and name of the target; a kind that does not exist if it cannot be scaled."""
    ref, namespace = autoscaler["spec"]["scaleTargetRef"], autoscaler["metadata"].get("namespace", "default")
    group = (ref.get("apiVersion") or "v1").rpartition("/")[0]
    kind = ref["kind"] if SCALED.get(ref["kind"], "/").rpartition("/")[0] == group else ""
    return kind, namespace, ref["name"]


def resized(doc: Json, *, replicas: int | None) -> Json | None:
    """Return a workload with a number of replicas, which its annotation remembers; None if nothing changes. `replicas`:
    None for the number that is remembered. Pure."""
    metadata, spec = doc["metadata"], doc["spec"]
    annotations = dict(metadata.get("annotations") or {})
    own = annotations.pop(REPLICAS, None)
    now = spec.get("replicas", 1)
    wanted = replicas if replicas is not None else int(own) if own is not None else now
    if replicas is not None and str(wanted) != (own := own or str(now)):
        annotations[REPLICAS] = own
    if wanted == now and annotations == (metadata.get("annotations") or {}):
        return None
    generation = int(metadata.get("generation", 1)) + (wanted != now)
    metadata = {**metadata, "annotations": annotations, "generation": generation}
    return {**doc, "metadata": metadata, "spec": {**spec, "replicas": wanted}}
