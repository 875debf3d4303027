"""Terminate the pods of a node whose daemon has stopped, as a deletion does: with preStop hooks, stop signals and grace
periods, main containers before sidecars. `kubelite reset` calls it.

This module adopts the running pods and marks each as deleted. The pod worker (node/worker) then terminates them.
Manifests are not read and no other pod is reconciled, so nothing starts. If a pod has no record (the state file is
lost, or was written by a newer kubelite), its spec is unknown: its containers get the stop signal of their image and 30
seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from kubelite.daemon.losses import GRACE, grace_of, name_of
from kubelite.daemon.node_config import node_config
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import mark_deleting
from kubelite.kube.workqueue import WorkQueue
from kubelite.node.cri.local import LocalCri
from kubelite.node.cri.pod_network import PodNetwork
from kubelite.node.model.actions import signal_number
from kubelite.node.model.pod_view import is_alive
from kubelite.node.scheduling.scheduler import Scheduler, node_state
from kubelite.node.worker.parsed_pods import ParsedPods
from kubelite.node.worker.pod_worker import PodWorker
from kubelite.settings import Settings
from kubelite.telemetry.tracing.trace import Tracer
from manifests.types.core import Pod
from runtime.errors import RuntimeFault
from runtime.images.client import ImageClient
from runtime.shim.protocol import SandboxRecord
from runtime.shim.warm.forkserver_client import Forkserver
from state.errors import StoreError
from state.store import Store

MARGIN = 15.0  # seconds beyond the grace period for the removal of a sandbox
SIDECAR = 3.0  # seconds beyond the grace period for each sidecar: they stop one after the other
POLL = 0.05
QUIET = 3.0  # seconds without progress before a message names the pods that are still running
REPEAT = 10.0  # seconds between further such messages

Say = Callable[[str], None]


@dataclass(slots=True)
class _Ending:
    """A pod that is being terminated."""

    name: str  # namespace/name
    grace: float
    sidecars: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def deadline(self) -> float:
        return self.began + self.grace + MARGIN + SIDECAR * self.sidecars

    def ended(self, now: float) -> str:
        """Return the message for a pod whose sandbox is gone."""
        took = now - self.began
        if took < self.grace:
            return f"ended pod {self.name} in {took:.1f} s"
        return f"ended pod {self.name}: killed at the end of its grace period of {self.grace:.0f} s"

    def left(self, now: float) -> str:
        return f"{self.name} (up to {max(0, math.ceil(self.began + self.grace - now))} s more)"


async def drain(settings: Settings, network: PodNetwork, *, timeout: float | None, say: Say) -> None:
    """Terminate all pods. Each has its own grace period, or `timeout` seconds if that is shorter. Pods that do not end
    in time still run afterwards."""
    async with contextlib.AsyncExitStack() as stack:
        store = _open(settings, stack, say)
        stack.push_async_callback(store.close)
        images = ImageClient(f"{settings.root}/images")
        stack.push_async_callback(images.close)
        queue: WorkQueue[str] = WorkQueue()
        cri = LocalCri(
            settings, store, forkserver=Forkserver(), network=network, images=images, tracer=Tracer(),
            on_change=queue.add,
        )  # fmt: skip
        stack.push_async_callback(cri.close)
        living = await cri.adopt()
        known = {uid for uid in living if store.get_uid(uid) is not None}
        pods = {uid: _ending(store, uid, living[uid], timeout) for uid in living}
        async with _working(settings, store, cri, queue, known):
            await _mark(store, known, timeout)
            for uid in known:
                queue.add(uid)
            unknown = [_end_unknown(cri, uid, pods[uid]) for uid in living if uid not in known]
            unrecorded = asyncio.gather(*unknown, return_exceptions=True)
            try:
                await _ended(cri, pods, say)
            finally:
                unrecorded.cancel()
                await asyncio.gather(unrecorded, return_exceptions=True)


def _open(settings: Settings, stack: contextlib.AsyncExitStack, say: Say) -> Store:
    """Open the state file, or an empty one if it cannot be used."""
    try:
        return Store.open(f"{settings.root}/state.db")
    except StoreError as error:
        say(f"{error}\npods end by their image's stop signal, without preStop hooks")
        empty = stack.enter_context(tempfile.TemporaryDirectory(prefix="kubelite-reset-"))
        return Store.open(f"{empty}/state.db")


def _ending(store: Store, uid: str, sandbox: SandboxRecord, timeout: float | None) -> _Ending:
    record = store.get_uid(uid)
    if record is None:
        return _Ending(name_of(sandbox), _at_most(GRACE, timeout))
    inits = (record.doc.get("spec") or {}).get("initContainers") or ()
    sidecars = sum(container.get("restartPolicy") == "Always" for container in inits)
    grace = _at_most(grace_of(record.doc), timeout)
    return _Ending(f"{record.namespace}/{record.name}", grace, sidecars)


def _at_most(grace: float, timeout: float | None) -> float:
    return max(1.0, grace if timeout is None else min(grace, timeout))


@contextlib.asynccontextmanager
async def _working(
    settings: Settings, store: Store, cri: LocalCri, queue: WorkQueue[str], known: set[str]
) -> AsyncIterator[None]:
    """Run the pod worker for the pods in `known` only, until the block exits."""
    config = node_config(settings)
    events = EventRecorder(store, settings.node_name)
    parsed = ParsedPods()
    scheduler = Scheduler(store, config, node_state(store, config), parse=parsed.of, wake=lambda _uid: None)

    async def provide(_pod: Pod) -> None:
        """Bind no claims, because no pod starts."""

    worker = PodWorker(store, cri, events, config, scheduler, parsed=parsed, queue=queue, provide=provide)

    async def reconcile(uid: str) -> float | None:
        return await worker.reconcile(uid) if uid in known else None

    queue.start(reconcile)
    try:
        yield
    finally:
        await queue.close()
        await worker.close()
        await events.flush()


async def _mark(store: Store, uids: set[str], timeout: float | None) -> None:
    now = time.time()

    def deleting(doc: Json) -> Json | None:
        return mark_deleting(doc, now=now, grace=math.ceil(_at_most(grace_of(doc), timeout)))

    await asyncio.gather(*(store.modify(uid, deleting, durable=False) for uid in uids))


async def _end_unknown(cri: LocalCri, uid: str, pod: _Ending) -> None:
    """Terminate a pod without a record. The shim kills a container that still runs after the grace period."""
    while True:
        alive = [c for c in (await cri.observe(uid)).containers if is_alive(c)]
        if not alive:
            await cri.stop_sandbox(uid)
            return
        for container in alive:
            if not container.stop_deadline:
                image = cri.image(container.image)
                number = signal_number(image.config.get("StopSignal") if image is not None else None)
                with contextlib.suppress(RuntimeFault):  # it has just ended
                    await cri.stop_container(uid, container.id, signal=number, grace=pod.grace)
        await asyncio.sleep(POLL)


async def _ended(cri: LocalCri, pods: dict[str, _Ending], say: Say) -> None:
    """Wait until all pods have ended or all deadlines have passed. Report each pod that ends and, at intervals, those
    that still run."""
    left, total = dict(pods), len(pods)
    next_word = time.monotonic() + QUIET
    while left:
        now = time.monotonic()
        for uid in [uid for uid in left if uid not in cri.running_sandboxes()]:
            pod = left.pop(uid)
            say(f"{pod.ended(now)} ({total - len(left)} of {total})")
            next_word = now + QUIET
        if now > next_word and left:
            say("waiting for " + ", ".join(pod.left(now) for pod in left.values()))
            next_word = now + REPEAT
        if left and all(now > pod.deadline for pod in left.values()):
            break
        await asyncio.sleep(POLL)
