"""A running node: everything it is made of put together, in order, each step's undo beside it.

store → the two helpers → adopt shims → workers → manifests → standing jobs → API
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from typing import TypeAlias

from kubelite.agent import Agent
from kubelite.api.app import create_app
from kubelite.api.server import serve_unix
from kubelite.image_collector import ImageCollector
from kubelite.manifest_plan import ManifestState
from kubelite.node.config import node_config
from kubelite.node.image_gc import ImageGcPolicy
from kubelite.node.local_cri import LocalCri
from kubelite.node.pod_worker import PodWorker
from kubelite.node.warm import warm_up
from kubelite.objects import reference
from kubelite.settings import Settings
from kubelite.sources import Sources
from kubelite.telemetry.diskusage import DiskUsage
from kubelite.telemetry.events import EventRecorder
from kubelite.telemetry.meters import Meters
from kubelite.telemetry.server import serve_metrics
from kubelite.telemetry.trace import Tracer
from kubelite.upkeep import bury_orphans, relist, writable_layers
from kubelite.workqueue import WorkQueue
from runtime.images.client import ImageClient
from runtime.network.client import NetworkClient
from runtime.shim.client import Forkserver
from runtime.shim.protocol import SandboxRecord
from state.store import Store

log = logging.getLogger(__name__)

FRESH = 5.0  # seconds; a file read longer ago is not what a pod's start waited for

#: The two warm processes on their way, or why one is not.
Launch: TypeAlias = "asyncio.Future[tuple[Forkserver | BaseException, NetworkClient | BaseException]]"


@contextlib.asynccontextmanager
async def running(settings: Settings, launch: Launch, started: float) -> AsyncIterator[Agent]:
    """The node, from its state file to its API, as long as the block lasts. `started`: Unix seconds."""
    async with contextlib.AsyncExitStack() as stack:
        store = Store.open(f"{settings.root}/state.db")
        stack.push_async_callback(store.close)
        if store.set_aside:
            log.error(
                "the state file was damaged and is set aside; starting anew from manifests and what runs",
                extra={"kept": store.set_aside},
            )
        events = EventRecorder(store, settings.node_name)
        stack.push_async_callback(events.flush)
        meters = Meters()
        tracer = Tracer(meters.step)
        config = node_config(settings)
        warm_up(config)
        forkserver, network = _launched(await launch)
        images = ImageClient(
            f"{settings.root}/images",
            parallel=1 if settings.serialize_image_pulls else settings.max_parallel_pulls,
            auth_file=f"{settings.root}/auth.json",
        )
        stack.push_async_callback(images.close)
        cri = LocalCri(settings, store, forkserver=forkserver, network=network, images=images, tracer=tracer)
        stack.push_async_callback(cri.close)
        living = await cri.adopt()
        log.info("adopted %d pods", len(living))
        unclaimed = _unclaimed(store, living)
        worker = PodWorker(store, cri, events, config)
        worker.prober.tried = meters.probes.tried
        queue: WorkQueue[str] = WorkQueue(meters.timed(worker.reconcile))
        worker.wake = queue.add
        stack.push_async_callback(worker.close)
        stack.push_async_callback(queue.close)
        cri.on_change = queue.add
        cri.warn = lambda uid, message: _say_degraded(store, events, uid, message)

        def applied(uid: str, state: ManifestState) -> None:
            unclaimed.pop(uid, None)
            _trace_manifest(tracer, uid, state, started=started)

        first = store.get("ManifestDirectory", "", settings.manifests) is None
        sources = Sources(
            settings.manifests,
            store,
            node_name=settings.node_name,
            relist=settings.relist_seconds,
            uid_for=lambda *pod: next((uid for uid, name in unclaimed.items() if name == pod), None),
            report=lambda state: _say_problems(events, state),
            applied=applied,
        )
        disk_usage = DiskUsage(lambda: writable_layers(cri))
        agent = Agent(
            settings,
            store,
            cri,
            worker,
            sources,
            network,
            images,
            events,
            tracer,
            started,
            queue,
            disk_usage,
            meters,
        )
        for sentence in network.warnings:
            log.warning("network: %s", sentence)
        _background(stack, sources.run(), "sources")
        await sources.ready.wait()  # no pod is started from what its manifest said before the daemon was away
        _background(stack, _dispatch(agent), "dispatch")
        for kind in ("ConfigMap", "Secret"):
            _background(stack, _dispatch_content(store, worker, kind), f"dispatch-{kind}")
        _background(stack, bury_orphans(agent, unclaimed, first=first), "orphans")
        _background(stack, relist(agent, queue), "relist")
        _background(stack, disk_usage.run(), "disk-usage")
        _background(stack, _collector(agent).run(), "image-gc")
        await _start_servers(agent, stack)
        yield agent


def _launched(
    both: tuple[Forkserver | BaseException, NetworkClient | BaseException],
) -> tuple[Forkserver, NetworkClient]:
    forkserver, network = both
    if isinstance(forkserver, BaseException):
        raise forkserver
    if isinstance(network, BaseException):
        raise network
    return forkserver, network


async def _start_servers(agent: Agent, stack: contextlib.AsyncExitStack) -> None:
    settings = agent.settings
    _background(stack, serve_unix(create_app(agent), settings.socket), "api")
    if settings.listen:
        host, _, port = settings.listen.rpartition(":")
        await stack.enter_async_context(serve_metrics(agent, host.strip("[]"), int(port)))


def _background(stack: contextlib.AsyncExitStack, work: object, name: str) -> None:
    """Run `work` beside the rest until the node stops. When it fails the node says so and ends: systemd, or a person,
    starts it again, and nothing is lost; a node that lives on deaf would be worse."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]

    def done(finished: asyncio.Future[object]) -> None:
        if not finished.cancelled() and (error := finished.exception()) is not None:
            log.critical("%s failed: %s", name, error, exc_info=error)
            os.kill(os.getpid(), signal.SIGTERM)

    async def cancel() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    task.add_done_callback(done)
    stack.push_async_callback(cancel)


def _unclaimed(store: Store, living: Mapping[str, SandboxRecord]) -> dict[str, tuple[str, str]]:
    """Pods that run and are not known (a lost state file), by uid: a manifest of that namespace and name may claim one
    until it is buried."""
    return {
        uid: (record.annotations.get("namespace", ""), record.annotations.get("name", ""))
        for uid, record in living.items()
        if store.get_uid(uid) is None
    }


def _say_degraded(store: Store, events: EventRecorder, uid: str, message: str) -> None:
    record = store.get_uid(uid)
    if record is not None:
        events.event(reference(record.doc), "Warning", "NetworkDegraded", message)


def _say_problems(events: EventRecorder, state: ManifestState) -> None:
    name = os.path.basename(state.file)
    about = {"kind": "Manifest", "namespace": "default", "name": name, "uid": state.file}
    for problem in state.problems:
        events.event(about, "Warning", "FailedValidation", problem.sentence(state.file))


def _trace_manifest(tracer: Tracer, uid: str, state: ManifestState, *, started: float) -> None:
    """How a pod's manifest got here: the file's change (or the start of the daemon that found it there), its reading,
    its record in the store."""
    name = os.path.basename(state.file)
    if time.time() - state.loaded_at < FRESH:  # else it is made anew from a file that was read long ago
        if state.changed_at < started:
            tracer.mark(uid, "daemon started", at=started)
        else:
            tracer.mark(uid, "manifest changed", at=state.changed_at, detail=name)
        tracer.mark(uid, "manifest read", at=state.loaded_at, detail=name)
    tracer.mark(uid, "recorded")


def _collector(agent: Agent) -> ImageCollector:
    settings = agent.settings
    node_reference = {
        "kind": "Node", "namespace": "default", "name": settings.node_name, "uid": settings.node_name,
    }  # fmt: skip
    policy = ImageGcPolicy(
        settings.image_gc_high_threshold_percent,
        settings.image_gc_low_threshold_percent,
        settings.image_minimum_gc_age,
        settings.image_maximum_gc_age,
    )
    return ImageCollector(
        agent.images_api,
        policy,
        lambda reason, message: agent.events.event(node_reference, "Warning", reason, message),
        period=settings.image_gc_period,
        began=agent.started_at,
    )


async def _dispatch(agent: Agent) -> None:
    """Every change of a pod → look at that pod; a deleted pod whose manifest still stands → look at the directory."""
    store, queue, meters = agent.store, agent.queue, agent.meters
    async with store.watch("Pod") as watch:
        for record in store.list("Pod"):
            queue.add(record.uid)
        async for change in watch:
            uid = change.record.uid
            if change.type == "DELETED":
                agent.tracer.forget(uid)
                meters.pod_gone(uid)
                agent.sources.deleted(change.record)
                continue
            if change.type == "ADDED":
                meters.pod_seen(uid)
            meters.pod_changed(uid, change.record.doc)
            if agent.worker.is_news(change.record):
                queue.add(uid)


async def _dispatch_content(store: Store, worker: PodWorker, kind: str) -> None:
    """A ConfigMap or Secret changes → look at the pods that can see it: those that wait for it start, the files of the
    others are written anew."""
    async with store.watch(kind) as watch:
        async for change in watch:
            for record in store.list("Pod", change.record.namespace):
                worker.content_changed(record.uid)
