"""Assemble a running node. The steps run in order, and each registers its cleanup:

store → the two helpers → adopt shims → workers → manifests → background tasks → API
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from kubelite.daemon.api_server import serve_api
from kubelite.daemon.cluster.node_cluster import run_cluster
from kubelite.daemon.dns import ClusterDns, cluster_dns
from kubelite.daemon.node_api import NodeAgent
from kubelite.daemon.node_config import node_config, worker_memory
from kubelite.daemon.plugins.node_devices import NodeDevices
from kubelite.daemon.relist import measured_directories, relist, remove_orphans
from kubelite.daemon.serving.pod_access import PodAccess
from kubelite.daemon.shutdown.node_shutdown import ShutdownManager, recreate_pods
from kubelite.daemon.workloads import (
    run_autoscaler,
    run_controllers,
    run_ingress,
    run_namespaces,
    run_network_policies,
    run_quotas,
    run_services,
)
from kubelite.history.entries import decision_entry, entry_of
from kubelite.history.service import NodeHistory, record_version
from kubelite.images.collector import ImageCollector
from kubelite.kube.background import Work, in_background
from kubelite.kube.errors import is_expected
from kubelite.kube.events import EventRecorder
from kubelite.kube.objects import reference
from kubelite.kube.workqueue import WorkQueue
from kubelite.network_policies.gate import PolicyGate
from kubelite.node.cri.local import LocalCri
from kubelite.node.cri.pod_network import PodNetwork
from kubelite.node.decide.pod_security.admission import forbidden, warning, workload_pod
from kubelite.node.model.capacity import parse_thresholds
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.pressure.evictor import Evictor
from kubelite.node.pressure.image_gc_policy import ImageGcPolicy
from kubelite.node.pressure.oom_watch import OomWatch
from kubelite.node.pressure.qos_cgroups import QosCgroups
from kubelite.node.scheduling.priority_classes import keep_classes
from kubelite.node.scheduling.scheduler import Scheduler, node_state
from kubelite.node.spec import lsm
from kubelite.node.spec.users import with_own_users
from kubelite.node.storage.claims import Claims
from kubelite.node.storage.volume_objects import Volumes
from kubelite.node.worker.parsed_pods import ParsedPods
from kubelite.node.worker.pod_worker import Decided, PodWorker
from kubelite.node.worker.warm_up import warm_up
from kubelite.policies.gate import Gate
from kubelite.settings import Settings
from kubelite.sources.directory import Sources
from kubelite.sources.plan import ManifestState
from kubelite.sources.services import allocator
from kubelite.telemetry.metrics.meters import Meters, container_type
from kubelite.telemetry.sampling.disk_usage import DiskUsage
from kubelite.telemetry.tracing.loop_lag import LoopLag
from kubelite.telemetry.tracing.starts import make_exporter, make_tracer, trace_manifest, trace_of
from kubelite.telemetry.tracing.trace import Tracer
from kubelite.telemetry.web.server import serve_metrics
from runtime.builder.run import leftovers
from runtime.images.client import ImageClient
from runtime.network.client import NetworkClient
from runtime.shim.warm.forkserver_client import Forkserver
from state.store import Record, Store

log = logging.getLogger(__name__)

#: The work of a node that does not run if CNI plugins give pods their network.
NEED_OWN_NETWORK = frozenset({"services", "ingress", "network-policies"})

#: The start of the two helper processes. Each result is a client or an error.
Launch: TypeAlias = "asyncio.Future[tuple[Forkserver | BaseException, NetworkClient | BaseException | None]]"


@contextlib.asynccontextmanager
async def running(settings: Settings, launch: Launch, started: float) -> AsyncIterator[NodeAgent]:
    """Run the node, from its state file to its API, until the block exits. `started`: Unix seconds."""
    async with contextlib.AsyncExitStack() as stack:
        store = _open_store(settings)
        stack.push_async_callback(store.close)
        events = EventRecorder(store, settings.node_name)
        stack.push_async_callback(events.flush)
        exporter = make_exporter(settings, store)
        meters = Meters(partial(_container_type, store))
        tracer = make_tracer(settings, meters, exporter, stack)
        config = replace(node_config(settings), cluster_dns=cluster_dns(settings, store))
        if lsm.apparmor():
            from kubelite.daemon.apparmor import load_default_profile

            await load_default_profile(events)
        warm_up(config)
        forkserver, own = _launched(await launch)
        images = _image_client(settings)
        stack.push_async_callback(images.close)
        queue: WorkQueue[str] = WorkQueue()
        network = await _pod_network(settings, store, own, tracer, queue)
        gate = PolicyGate(store)
        cri = LocalCri(
            settings, store, forkserver=forkserver, network=network, images=images, tracer=tracer,
            on_change=queue.add, warn=partial(_say_degraded, store, events),
            admitted=gate.admitted if own is not None else None,
        )  # fmt: skip
        stack.push_async_callback(cri.close)
        unclaimed = await _adopt(cri, store)
        await _sweep(settings, store, images, tracer)
        first = store.get("ManifestDirectory", "", settings.manifests) is None
        await keep_classes(store, settings.priority_classes)
        parsed, qos_cgroups = ParsedPods(), _qos_cgroups(settings, config, tracer)
        access = PodAccess(settings, store)
        worker, claims, devices = _worker(
            settings, store, events, cri, config,
            parsed=parsed, queue=queue, meters=meters, qos_cgroups=qos_cgroups, access=access,
        )  # fmt: skip
        stack.push_async_callback(worker.close)
        stack.push_async_callback(queue.close)
        sources = _sources(
            settings, store, events, tracer, unclaimed,
            config=config, parsed=parsed, started=started,
        )  # fmt: skip
        history = NodeHistory(store, settings.manifests, sources.rescan)
        disk_usage = DiskUsage(partial(measured_directories, store, cri, config))
        agent = NodeAgent(
            settings, store, cri, worker, sources, network, images,
            events, tracer, started, queue, disk_usage, history,
            ClusterDns(settings, store, worker.use_cluster_dns, events.node_event),
            access, meters,
        )  # fmt: skip
        await devices.start(stack)
        await _read_manifests(agent, stack)
        queue.start(meters.timed(worker.reconcile))
        _standing_jobs(agent, claims, stack)
        _controllers(agent, parsed, gate, stack)
        in_background(stack, partial(qos_cgroups.run, worker.scheduler.reservations), "qos-cgroups")
        in_background(stack, partial(remove_orphans, agent, unclaimed, first=first), "orphans")
        if exporter:
            in_background(stack, exporter.run, "otlp")
        await _start_servers(agent, stack)
        agent.startup_took = time.time() - started
        yield agent


def _controllers(
    agent: NodeAgent, parsed: ParsedPods, gate: PolicyGate, stack: contextlib.AsyncExitStack
) -> None:
    """Start the tasks that each wait for the first object of their kinds, and import nothing before. Pods keep running
    whatever happens to these tasks, so an expected error of one does not stop the node."""
    if agent.settings.network == "cni":
        from kubelite.daemon.cni.node_cni import follow_cni, say_unserved

        in_background(stack, partial(follow_cni, agent.network), "cni", passes=is_expected)
        in_background(
            stack, partial(say_unserved, agent.store, agent.events), "cni-unserved", passes=is_expected
        )
    works: dict[str, Work] = {
        "controllers": partial(run_controllers, agent, parsed),
        "dns": agent.dns.run,
        "autoscaler": partial(run_autoscaler, agent),
        "services": partial(run_services, agent),
        "quotas": partial(run_quotas, agent),
        "ingress": partial(run_ingress, agent, parsed),
        "namespaces": partial(run_namespaces, agent),
        "network-policies": partial(run_network_policies, agent, gate),
        "cluster": partial(run_cluster, agent),
    }
    if agent.settings.network == "cni":
        works = {name: work for name, work in works.items() if name not in NEED_OWN_NETWORK}
    for name, work in works.items():
        in_background(stack, work, name, passes=is_expected)


async def _sweep(settings: Settings, store: Store, images: ImageClient, tracer: Tracer) -> None:
    """Remove the cgroups of builds that were killed, and the trace files of deleted pods."""
    for path in await asyncio.to_thread(leftovers.sweep, f"/{settings.cgroup_parent}", images.store.root):
        log.info("removed cgroup %s of a killed build", path)
    if tracer.files is not None:
        tracer.files.sweep({record.uid for record in store.list("Pod")})


def _worker(
    settings: Settings,
    store: Store,
    events: EventRecorder,
    cri: LocalCri,
    config: NodeConfig,
    *,
    parsed: ParsedPods,
    queue: WorkQueue[str],
    meters: Meters,
    qos_cgroups: QosCgroups,
    access: PodAccess,
) -> tuple[PodWorker, Claims, NodeDevices]:
    """Create the pod worker, with its scheduler, and the claims and devices of pods."""
    facts = node_state(store, config)
    scheduler = Scheduler(
        store, config, facts, parse=parsed.of, wake=queue.add, on_reservations=qos_cgroups.changed
    )
    volumes = Volumes(store, config, events, facts)
    claims = Claims(store, config, events, volumes, settings.volume_reclaim_policy)
    devices = NodeDevices(store, scheduler, events, settings.plugin_dir)
    worker = PodWorker(
        store, cri, events, config, scheduler, parsed=parsed, queue=queue,
        provide=claims.provide, decided=_decided(settings, store), observer=meters, tokens=access,
        devices=devices,
    )  # fmt: skip
    return worker, claims, devices


def _sources(
    settings: Settings,
    store: Store,
    events: EventRecorder,
    tracer: Tracer,
    unclaimed: dict[str, tuple[str, str]],
    *,
    config: NodeConfig,
    parsed: ParsedPods,
    started: float,
) -> Sources:
    """Create the manifest sources. `unclaimed`: uid → namespace and name of running pods without a record. A manifest
    with the same namespace and name takes over the uid."""
    security = config.pod_security

    def applied(record: Record, state: ManifestState) -> None:
        if record.kind == "Pod":
            unclaimed.pop(record.uid, None)
            trace_manifest(tracer, record.uid, state, started=started)
        elif not security.open and (said := warning(workload_pod(record.doc), security)):
            events.event(reference(record.doc), "Warning", "PodSecurity", said)

    return Sources(
        settings.manifests,
        store,
        node_name=settings.node_name,
        priorities=settings.priority_classes,
        automount=config.automount,
        allocate=allocator(settings),
        relist=settings.relist_seconds,
        uid_for=lambda *pod: next((uid for uid, name in unclaimed.items() if name == pod), None),
        report=lambda state: _say_problems(events, state),
        refused=lambda doc, words: events.event(reference(doc), "Warning", "FailedValidation", words),
        applied=applied,
        on_valid=partial(record_version, store) if _keeps_history(settings) else lambda _file, _text: None,
        offer=parsed.offer,
        refusal=lambda pod: forbidden(pod, security),
        labels=security.declared,
        with_defaults=with_own_users if settings.user_namespaces else lambda pod: pod,
    )


def _keeps_history(settings: Settings) -> bool:
    return bool(settings.history_time and settings.history_size)


def _decided(settings: Settings, store: Store) -> Callable[[Decided], None]:
    """Return a function that records a decision with actions in the history, or ignores it if there is no history."""
    if _keeps_history(settings):
        return lambda decided: store.note(decision_entry(decided))
    return lambda _decided: None


def _qos_cgroups(settings: Settings, config: NodeConfig, tracer: Tracer) -> QosCgroups:
    thresholds = parse_thresholds(settings.eviction_hard)
    below = sum(t.value(config.memory_bytes) for t in thresholds if t.signal == "memory.available")
    return QosCgroups(config, tracer, evicted_below=below)


def _container_type(store: Store, uid: str, name: str) -> str:
    record = store.get_uid(uid)
    return container_type(record.doc, name) if record is not None else "container"


def _open_store(settings: Settings) -> Store:
    historian = entry_of if _keeps_history(settings) else None
    store = Store.open(f"{settings.root}/state.db", historian=historian, gate=Gate(time.time))
    if store.set_aside:
        log.error(
            "the state file was damaged and is set aside; rebuilding state from manifests and running pods",
            extra={"kept": store.set_aside},
        )
    return store


def _image_client(settings: Settings) -> ImageClient:
    return ImageClient(
        f"{settings.root}/images",
        parallel=1 if settings.serialize_image_pulls else settings.max_parallel_pulls,
        rate=settings.registry_pull_qps,
        burst=settings.registry_burst,
        auth_file=f"{settings.root}/auth.json",
        policy=settings.image_policy,
        memory=worker_memory(settings),
    )


async def _read_manifests(agent: NodeAgent, stack: contextlib.AsyncExitStack) -> None:
    """Follow the manifests. Return when the store has the pods of all of them: no pod may start from a manifest that is
    older than the daemon's last stop. Pods that a shutdown of the machine terminated are created again."""
    sources = agent.sources
    in_background(stack, sources.run, "sources")
    agent.on_reload.append(lambda read: sources.reload(read.relist_seconds))
    await sources.ready.wait()
    await recreate_pods(agent)


def _standing_jobs(agent: NodeAgent, claims: Claims, stack: contextlib.AsyncExitStack) -> None:
    """Start the tasks that run until the node stops."""
    store = agent.store
    in_background(stack, partial(_dispatch, agent), "dispatch")
    in_background(stack, claims.run, "claims")
    for kind in (
        "ConfigMap",
        "Secret",
        "ClusterTrustBundle",
        "PersistentVolumeClaim",
    ):  # a change to a volume also changes its claim
        in_background(stack, content_dispatch(store, agent.worker, kind), f"dispatch-{kind}")
    in_background(stack, partial(relist, agent, agent.queue), "relist")
    in_background(stack, ShutdownManager(agent).run, "shutdown")
    _keep_room(agent, stack)
    lag = LoopLag(agent.meters.loop_lag.observe)
    lag.start()
    stack.callback(lag.close)


def _launched(
    both: tuple[Forkserver | BaseException, NetworkClient | BaseException | None],
) -> tuple[Forkserver, NetworkClient | None]:
    forkserver, network = both
    if isinstance(forkserver, BaseException):
        raise forkserver
    if isinstance(network, BaseException):
        raise network
    return forkserver, network


async def _pod_network(
    settings: Settings, store: Store, own: NetworkClient | None, tracer: Tracer, queue: WorkQueue[str]
) -> PodNetwork:
    """Return the node's own network, or that of CNI plugins."""
    if own is not None:
        for sentence in own.warnings:
            log.warning("network: %s", sentence)
        return own
    from kubelite.daemon.cni.node_cni import start_cni

    return await start_cni(settings, store, tracer, queue.add)


def _keep_room(agent: NodeAgent, stack: contextlib.AsyncExitStack) -> None:
    """Start image GC, eviction, and the watch of the kernel's OOM kills."""
    oom = OomWatch(agent)
    oom.start()
    stack.callback(oom.close)
    in_background(stack, agent.disk_usage.run, "disk-usage")
    collector = _collector(agent)
    in_background(stack, collector.run, "image-gc")
    agent.on_reload.append(lambda read: collector.reload(_gc_policy(read), read.image_gc_period))
    settings = agent.settings
    if thresholds := parse_thresholds(settings.eviction_hard):
        evictor = Evictor(
            agent,
            thresholds,
            roots=(settings.root, agent.images_client.store.root),
            period=settings.eviction_monitoring_period,
            transition=settings.eviction_pressure_transition_period,
            free_images=collector.free_all,
        )
        in_background(stack, evictor.run, "eviction")


async def _start_servers(agent: NodeAgent, stack: contextlib.AsyncExitStack) -> None:
    settings = agent.settings
    in_background(stack, partial(serve_api, agent), "api")
    if settings.listen:
        host, _, port = settings.listen.rpartition(":")
        await stack.enter_async_context(serve_metrics(agent, agent.pages(), host.strip("[]"), int(port)))


async def _adopt(cri: LocalCri, store: Store) -> dict[str, tuple[str, str]]:
    """Adopt the running pods. Return those without a record (the state file was lost): uid → (namespace, name). A
    manifest with the same namespace and name takes over such a pod until it is removed as an orphan."""
    running = await cri.adopt()
    log.info("adopted %d pods", len(running))
    return {
        uid: (record.annotations.get("namespace", ""), record.annotations.get("name", ""))
        for uid, record in running.items()
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


def _gc_policy(settings: Settings) -> ImageGcPolicy:
    return ImageGcPolicy(
        settings.image_gc_high_threshold_percent,
        settings.image_gc_low_threshold_percent,
        settings.image_minimum_gc_age,
        settings.image_maximum_gc_age,
    )


def _collector(agent: NodeAgent) -> ImageCollector:
    settings = agent.settings
    node_reference = {
        "kind": "Node", "namespace": "default", "name": settings.node_name, "uid": settings.node_name,
    }  # fmt: skip
    return ImageCollector(
        agent.images_api,
        _gc_policy(settings),
        lambda reason, message: agent.events.event(node_reference, "Warning", reason, message),
        lambda reason: agent.meters.collected.add(f'reason="{reason}"'),
        period=settings.image_gc_period,
        began=agent.started_at,
    )


async def _dispatch(agent: NodeAgent) -> None:
    """Queue a pod when it changes. Rescan the directory when a pod is deleted and its manifest still exists."""
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
            meters.pod_changed(uid, change.record.doc, partial(trace_of, agent.tracer))
            if agent.worker.is_news(change.record):
                queue.add(uid)


def content_dispatch(store: Store, worker: PodWorker, kind: str) -> Work:
    """Return the work that reconciles the pods that can use an object of `kind` when it changes. Waiting pods can then
    start, and running pods get updated files. Work that begins anew looks at all pods once, as it missed changes."""
    began = False

    async def dispatch() -> None:
        nonlocal began
        async with store.watch(kind) as watch:
            if began:
                tell(None)
            began = True
            async for change in watch:
                tell(change.record.namespace or None)

    def tell(namespace: str | None) -> None:
        for record in store.list("Pod", namespace):
            worker.content_changed(record.uid)

    return dispatch
