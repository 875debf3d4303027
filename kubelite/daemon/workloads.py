"""Starts the controllers of workloads, of Services and of NetworkPolicies, the autoscaler, what counts quotas, and the
proxy of Ingresses, each when the node gets its first object of their kinds. A node without any imports nothing of
them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kubelite.daemon.dns import own_address
from kubelite.daemon.node_config import host_address, host_address6
from kubelite.kube.objects import CONTROLLED, NAMESPACE, REPLICAS, WORKLOADS, is_ending, source_of
from kubelite.kube.workqueue import WorkQueue
from kubelite.network_policies.gate import KIND as NETWORK_POLICY
from kubelite.network_policies.gate import PolicyGate
from kubelite.policies.gate import QUOTA
from kubelite.settings import Settings
from kubelite.sources.services import node_ports
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from kubelite.autoscaling.model import Sample
    from kubelite.controllers.admission import Admission
    from kubelite.daemon.node_api import NodeAgent
    from kubelite.node.model.cri import ExecResult
    from kubelite.node.worker.parsed_pods import ParsedPods
    from kubelite.services.allocation import Name
    from state.store import Record, Store

log = logging.getLogger(__name__)

CLOCK = 10.0  # seconds between looks at the clock, however much is scheduled
CLOCK_STEP = 1.0  # seconds by which it must differ; slewing changes it less
SHUTDOWN = 1.0  # seconds between looks while the node shuts down, when nothing is replaced


async def run_controllers(agent: NodeAgent, parsed: ParsedPods) -> None:
    """Wait for a workload, then run the controllers until this is cancelled."""
    await _needed(agent.store)

    from kubelite.controllers.manager import ControllerManager, Key

    queue: WorkQueue[Key] = WorkQueue()
    manager = ControllerManager(
        agent.store, agent.events, queue, _admission(agent, parsed),
        node=agent.node, deleted=agent.sources.deleted,
    )  # fmt: skip

    async def reconcile(key: Key) -> float | None:
        return SHUTDOWN if agent.worker.shutting_down else await manager.reconcile(key)

    queue.start(reconcile)
    clock = asyncio.create_task(follow_clock(manager.decide_again), name="controllers-clock")
    try:
        await manager.run()
    finally:
        clock.cancel()
        await queue.close()


async def follow_clock(changed: Callable[[], None], *, seconds: float = CLOCK) -> None:
    """Call `changed` when the clock has been set, or has gone on while the machine slept. What waits for a time of day
    waits for a number of seconds, which do not pass meanwhile."""
    offset = time.time() - time.monotonic()
    while True:
        await asyncio.sleep(seconds)
        now = time.time() - time.monotonic()
        if abs(now - offset) > CLOCK_STEP:
            changed()
        offset = now


async def _needed(store: Store) -> None:
    """Return when the store has a workload or a budget, or what is left of one: a daemon that was killed may have
    deleted the owner, and not yet what it owned."""
    async with store.watch(CONTROLLED) as watch:
        if not _has_workloads(store):
            await watch.next()


def _has_workloads(store: Store) -> bool:
    if any(store.list(kind) for kind in CONTROLLED):
        return True
    return any(
        owner.get("kind") in CONTROLLED
        for kind in ("Pod", "ControllerRevision")
        for record in store.list(kind)
        if not source_of(record)
        for owner in record.metadata.get("ownerReferences") or ()
    )


def _admission(agent: NodeAgent, parsed: ParsedPods) -> Admission:
    from kubelite.controllers.admission import Admission
    from kubelite.node.decide.pod_security.admission import forbidden
    from kubelite.node.spec.users import with_own_users

    settings = agent.settings
    return Admission(
        agent.store,
        node_name=settings.node_name,
        automount=agent.worker.config.automount,
        priorities=settings.priority_classes,
        refusal=partial(forbidden, security=agent.pod_security),
        with_defaults=with_own_users if settings.user_namespaces else lambda pod: pod,
        offer=parsed.offer,
    )


_AUTOSCALER = "HorizontalPodAutoscaler"


async def run_autoscaler(agent: NodeAgent) -> None:
    """Wait for an autoscaler, then run it until this is cancelled."""
    store = agent.store
    async with store.watch(_AUTOSCALER) as watch:
        if not store.list(_AUTOSCALER) and not _has_scaled(store):
            await watch.next()

    from kubelite.autoscaling.controller import Autoscaler
    from kubelite.telemetry.sampling.pod_usage import PodUsage

    usage = PodUsage()

    async def sample() -> Mapping[str, Sample]:
        if not usage.is_due(time.time()):
            return usage.found
        return usage.note(await agent.pages().snapshot(disks=False))

    await Autoscaler(store, agent.events, sample, paused=lambda: agent.worker.shutting_down).run()


def _has_scaled(store: Store) -> bool:
    """Whether a workload has the replicas of an autoscaler, which may have been deleted while the daemon was down."""
    return any(
        REPLICAS in (one.metadata.get("annotations") or {}) for kind in WORKLOADS for one in store.list(kind)
    )


async def run_quotas(agent: NodeAgent) -> None:
    """Wait for a ResourceQuota, then keep the status of all of them until this is cancelled."""
    async with agent.store.watch(QUOTA) as watch:
        if not agent.store.list(QUOTA):
            await watch.next()

    from kubelite.namespaces.quotas import QuotaKeeper

    await QuotaKeeper(agent.store, agent.sources.retry).run()


async def run_namespaces(agent: NodeAgent) -> None:
    """Wait for a namespace that is terminated, then empty it and others until this is cancelled."""
    store = agent.store
    async with store.watch(NAMESPACE) as watch:
        while not any(is_ending(one.doc) for one in store.list(NAMESPACE)):
            await watch.next()

    from kubelite.namespaces.lifecycle import NamespaceController

    def gone(record: Record) -> None:
        agent.sources.deleted(record)
        agent.sources.retry()

    await NamespaceController(store, gone).run()


async def run_services(agent: NodeAgent) -> None:
    """Wait for a Service, then run the controller until this is cancelled."""
    await _services_needed(agent.store)

    from kubelite.services.controller import ServiceController, no_address
    from kubelite.services.data_path import DataPath
    from runtime.network.services.plan import ServiceNetwork

    settings = agent.settings
    cidr, cidr6 = settings.service_networks
    network = ServiceNetwork(
        cidr, node_ports(settings), counted=settings.service_counters, service_cidr6=cidr6
    )
    queue: WorkQueue[Name] = WorkQueue()
    controller = ServiceController(
        agent.store, agent.events, queue, DataPath(agent.own_network, network),
        node=settings.node_name, address=host_address, address6=host_address6 if cidr6 else no_address,
        deleted=agent.sources.deleted, failed=_failures(agent),
    )  # fmt: skip
    queue.start(controller.reconcile)
    try:
        with agent.worker.traffic.led_by(controller.withdraw):
            await controller.run()
    finally:
        await queue.close()


def _failures(agent: NodeAgent) -> Callable[[str], None]:
    """Return what logs why no Service can be served, and records an event of the node; each reason once."""
    told: set[str] = set()

    def failed(sentence: str) -> None:
        if sentence not in told:
            told.add(sentence)
            log.error("%s; this is tried again until it works", sentence)
            agent.node_event("ServicesFailed", f"No Service is reachable: {sentence}")

    return failed


async def _services_needed(store: Store) -> None:
    """Return when the store has a Service, or what is left of one: Services may have gone while the daemon was down."""
    async with store.watch("Service") as watch:
        if not any(store.list(kind) for kind in ("Service", "EndpointSlice", "Endpoints")):
            await watch.next()


INGRESS_POD = ("kube-system", "kubelite-ingress")


async def run_ingress(agent: NodeAgent, parsed: ParsedPods) -> None:
    """Wait for an Ingress, then serve it; begin anew when the last one is gone."""
    while True:
        await _ingress_needed(agent.store)

        from kubelite.controllers.admission import Admission
        from kubelite.ingress.controller import IngressController
        from kubelite.ingress.proxy import ProxyFiles
        from kubelite.ingress.proxy_pod import PodOptions

        async def execute(uid: str, container: str, command: list[str], seconds: float) -> ExecResult:
            return await agent.cri.exec(uid, container, command, timeout=seconds)

        settings = agent.settings
        directory = Path(settings.root, "ingress")
        # The pod is the node's own: the rules for pods of users do not apply to it.
        admission = Admission(agent.store, node_name=settings.node_name, offer=parsed.offer)
        options = PodOptions(
            settings.node_name,
            settings.ingress_image,
            settings.ingress_http_port,
            settings.ingress_https_port,
            str(directory),
            ipv6=bool(settings.pod_networks[1]),
        )
        await IngressController(
            agent.store, agent.events, admission, ProxyFiles(directory, execute), options,
            node=settings.node_name, addresses=partial(_host_addresses, settings),
        ).run()  # fmt: skip


def _host_addresses(settings: Settings) -> tuple[str, ...]:
    """Return the machine's addresses of the families that pods have: their host ports are published there."""
    six = host_address6() if settings.pod_networks[1] else ""
    return (host_address(), six) if six else (host_address(),)


async def _ingress_needed(store: Store) -> None:
    """Return when the store has an Ingress, or what is left of one: Ingresses may have gone while the daemon was
    down."""
    async with store.watch("Ingress") as watch:
        if not store.list("Ingress") and store.get("Pod", *INGRESS_POD) is None:
            await watch.next()


async def run_network_policies(agent: NodeAgent, gate: PolicyGate) -> None:
    """Wait for a NetworkPolicy, then run the controller until this is cancelled."""
    async with agent.store.watch(NETWORK_POLICY) as watch:
        if not agent.store.list(NETWORK_POLICY):
            try:
                await agent.own_network.replace_policies(
                    (), ()
                )  # they may have gone while the daemon was down
            except RuntimeFault as error:
                log.error("the tables of earlier NetworkPolicies cannot be removed: %s", error)
            await watch.next()

    from kubelite.network_policies.controller import PolicyController

    (dns,) = own_address(agent.settings)
    controller = PolicyController(agent.store, agent.events, agent.own_network, dns=dns)
    gate.open(controller)
    try:
        await controller.run()
    finally:
        gate.close()
