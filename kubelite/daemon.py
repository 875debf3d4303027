"""`kubelite serve`: the life of a node agent, from settings to the last signal.

    lock → store → forkserver and network helper, side by side → adopt shims → workers → manifests → API

Each step's undo stands beside it on one exit stack, so that a start that fails half-way, and a stop, run the same way
back. Stopping ends the daemon alone: shims and containers live on, and the next start adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

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
from kubelite.telemetry import logs
from kubelite.telemetry.diskusage import DiskUsage
from kubelite.telemetry.events import EventRecorder
from kubelite.telemetry.meters import Meters
from kubelite.telemetry.trace import Tracer
from kubelite.workqueue import WorkQueue
from runtime.errors import RuntimeFault
from runtime.images.client import ImageClient
from runtime.network.client import NetworkClient
from runtime.network.plan import NetworkConfig
from runtime.shim.client import Forkserver
from runtime.shim.protocol import SandboxRecord
from state.errors import StoreError
from state.store import Store

log = logging.getLogger(__name__)

BURY_AGAIN = 10.0  # seconds until what could not be buried is tried again
FRESH = 5.0  # seconds; a file read longer ago is not what a pod's start waited for


class StartupError(Exception):
    """The node cannot start; the sentence says why."""


def serve(settings: Settings) -> int:
    """Run a node until SIGTERM or SIGINT. Returns the exit code."""
    logs.set_up(os.environ.get("KUBELITE_LOG_LEVEL", "INFO"))
    try:
        asyncio.run(_serve(settings))
    except (StartupError, RuntimeFault, StoreError, OSError) as error:
        print(f"kubelite: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    life, starting = asyncio.current_task(), True

    def end() -> None:
        """A start that is under way is given up (it may wait for something that never comes); its undo is not."""
        if starting and not stop.is_set() and life is not None:
            life.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        async with node(settings):
            starting = False
            log.info("kubelite is ready", extra={"node": settings.node_name, "socket": settings.socket})
            await stop.wait()
            log.info("kubelite stops; its pods live on")
    except asyncio.CancelledError:
        if not starting:
            raise
        log.info("kubelite stops before it was ready; its pods live on")


@contextlib.asynccontextmanager
async def node(settings: Settings) -> AsyncIterator[Agent]:
    """A whole running node."""
    if os.geteuid() != 0:
        raise StartupError("a node needs root: it makes namespaces, mounts and cgroups (try sudo)")
    started = time.time()
    async with contextlib.AsyncExitStack() as stack:
        _directories(settings)
        stack.enter_context(_locked(settings))
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
        forkserver, network = await _start_helpers(settings, stack, meanwhile=lambda: warm_up(config))
        images = ImageClient(
            f"{settings.root}/images",
            parallel=settings.max_parallel_pulls,
            auth_file=f"{settings.root}/auth.json",
        )
        stack.push_async_callback(images.close)
        cri = LocalCri(settings, store, forkserver=forkserver, network=network, images=images, tracer=tracer)
        stack.push_async_callback(cri.close)
        living = await cri.adopt()
        log.info("adopted %d pods", len(living))
        unclaimed = _unclaimed(store, living)
        worker = PodWorker(store, cri, events, config)
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
        _background(stack, _bury_orphans(agent, unclaimed, first=first), "orphans")
        _background(stack, _relist(agent, queue), "relist")
        _background(stack, disk_usage.run(), "disk-usage")
        _background(stack, _collector(agent).run(), "image-gc")
        await _start_servers(agent, stack)
        yield agent


async def _start_helpers(
    settings: Settings, stack: contextlib.AsyncExitStack, *, meanwhile: Callable[[], None]
) -> tuple[Forkserver, NetworkClient]:
    """The two warm processes, started side by side; what the daemon has to do itself is done while they come up."""
    forkserver = Forkserver(
        shim_cgroup=f"/{settings.cgroup_parent}/shims",
        on_restart=lambda why: log.warning("forkserver restarted: %s", why),
    )
    config = NetworkConfig(
        bridge=settings.bridge,
        pod_cidr=settings.pod_cidr,
        state_dir=f"{settings.run_dir}/network",
        node=settings.node_name,
    )
    both = asyncio.gather(forkserver.start(), NetworkClient.start(config), return_exceptions=True)
    await asyncio.sleep(0.002)  # both are on their way
    meanwhile()
    started, network = await both
    if not isinstance(started, BaseException):
        stack.push_async_callback(forkserver.close)
    if not isinstance(network, BaseException):
        stack.push_async_callback(network.close)
    for result in (started, network):
        if isinstance(result, BaseException):
            raise result
    assert isinstance(network, NetworkClient)
    return forkserver, network


async def _start_servers(agent: Agent, stack: contextlib.AsyncExitStack) -> None:
    from kubelite.telemetry.server import serve_metrics

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
                agent.sources.poke()
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


async def _bury_orphans(agent: Agent, unclaimed: dict[str, tuple[str, str]], *, first: bool) -> None:
    """Sandboxes, directories and records of pods that are not known (removed while the daemon was away, a state file
    that was lost) are ended, once the manifests have been read, every one of them: a directory that is not there, or a
    file that is broken, may be what knows them. So may one that is empty, when nothing is on record of it (`first`):
    with the state file, what tells an unmounted directory from an emptied one was lost."""
    if first and unclaimed and not agent.sources.states():
        log.warning("pods run that nothing is known of; they are left alone until there is a manifest")
    while not agent.sources.complete or (first and unclaimed and not agent.sources.states()):
        await asyncio.sleep(1.0)
    unclaimed.clear()
    while strays := _strays(agent):
        for uid in strays:
            if agent.store.get_uid(uid) is not None:
                continue
            log.warning("ending what is left of a pod that is not known", extra={"uid": uid})
            try:
                await agent.cri.stop_sandbox(uid)
                await agent.cri.remove_pod(uid)
            except (RuntimeFault, StoreError, OSError) as error:
                log.error("it will be tried again: %s", error, extra={"uid": uid})
        await asyncio.sleep(BURY_AGAIN)


def _strays(agent: Agent) -> set[str]:
    found = {*agent.cri.living(), *agent.store.pods_with_containers()}
    for directory in (f"{agent.settings.root}/pods", f"{agent.settings.run_dir}/shims"):
        if os.path.isdir(directory):
            found.update(os.listdir(directory))
    return {uid for uid in found if agent.store.get_uid(uid) is None}


async def _relist(agent: Agent, queue: WorkQueue[str]) -> None:
    """What events missed is found here."""
    while True:
        await asyncio.sleep(agent.settings.relist_seconds)
        began = time.perf_counter()
        for record in agent.store.list("Pod"):
            queue.add(record.uid)
        agent.meters.relisted(time.perf_counter() - began)
        try:
            # a flushed rule set, a bridge that somebody removed
            for sentence in await agent.network.repair():
                log.warning("network mended: %s", sentence)
            await agent.events.expire()
        except (RuntimeFault, StoreError, OSError) as error:  # a full disk, say: the next round may go better
            log.error("the node is not in order: %s", error)


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


def writable_layers(cri: LocalCri) -> dict[str, str]:
    """The directory of every running container's writable layer, with its cgroup."""
    return {
        f"{container['bundle']}/upper": str(container["cgroup"])
        for record in cri.living().values()
        for container in record.containers
        if container["status"] == "running"
    }


def _directories(settings: Settings) -> None:
    try:
        for path, mode in (
            (settings.root, 0o711),
            (settings.run_dir, 0o711),
            (f"{settings.run_dir}/shims", 0o700),
            (f"{settings.run_dir}/network", 0o700),
            (f"{settings.root}/pods", 0o711),
            (f"{settings.log_dir}/pods", 0o755),
            (f"{settings.log_dir}/containers", 0o755),
        ):
            os.makedirs(path, mode=mode, exist_ok=True)
        if settings.manifests == "/etc/kubelite/manifests":
            os.makedirs(settings.manifests, exist_ok=True)
    except OSError as error:
        raise StartupError(f"cannot make {error.filename}: {os.strerror(error.errno or 0)}") from error


@contextlib.contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """One daemon a root and a run directory: the second refuses, naming the first."""
    with contextlib.ExitStack() as stack:
        for directory in dict.fromkeys((settings.root, settings.run_dir)):
            path = f"{directory}/kubelite.pid"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            os.fchmod(descriptor, 0o600)  # whoever may read it may lock it, and keep the node from starting
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                    raise
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise StartupError(f"another kubelite (pid {holder}) already uses {directory}") from None
            with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
                text = f"{os.getpid()}\n".encode()
                os.ftruncate(descriptor, os.pwrite(descriptor, text, 0))
        yield
