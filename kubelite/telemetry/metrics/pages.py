"""The metrics pages and web pages of a node.

/metrics has all families except those of /metrics/resource, whose values cAdvisor's families have, too. One page at a
time is written, because all pages share the sampler. This is done in a thread, so that the event loop continues.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector
from prometheus_client.exposition import generate_latest as text_of
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_of

from kubelite.api.accepting import spare_descriptors
from kubelite.api.kube.resources import RESOURCES, read_list
from kubelite.api.node import NodeApi
from kubelite.kube.objects import WORKLOADS
from kubelite.telemetry.metrics import exposition
from kubelite.telemetry.metrics.agent_page import write_agent
from kubelite.telemetry.metrics.cadvisor.page import ContainerPage
from kubelite.telemetry.metrics.exposition import Page
from kubelite.telemetry.metrics.kubestate.claims import write_claims
from kubelite.telemetry.metrics.kubestate.page import write_node, write_objects
from kubelite.telemetry.metrics.kubestate.pods import write_pods
from kubelite.telemetry.metrics.kubestate.volumes import write_persistent_volumes
from kubelite.telemetry.metrics.own_process import boot_time, write_process
from kubelite.telemetry.metrics.packed import Shelf
from kubelite.telemetry.metrics.resource_page import write_resource
from kubelite.telemetry.metrics.summary import Around, CpuRates, summary
from kubelite.telemetry.node_view import NodeView
from kubelite.telemetry.sampling.machine import FileSystem, device_name, file_system, most_pids
from kubelite.telemetry.sampling.sampler import Sample, Sampler, Snapshot
from kubelite.telemetry.sampling.targets import Finder
from kubelite.telemetry.sampling.volume_stats import logs_of, write_logs, write_volumes
from kubelite.telemetry.web.answers import node_answer, pod_answer
from kubelite.telemetry.web.facts import Question
from kubelite.telemetry.web.recent import Recent

if TYPE_CHECKING:  # loaded when there are Services
    from kubelite.services.ports import EndpointCount

T = TypeVar("T")

POLICIES = ("PodDisruptionBudget", "HorizontalPodAutoscaler", "ResourceQuota", "LimitRange")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


class Pages:
    """Writes pages: `await render(name, …)` returns a metrics page, `await snapshot()` the values themselves.
    `count_io`: called before each sample, to make the kernel count the block I/O of cgroups (IoAccounting)."""

    def __init__(self, agent: NodeView, count_io: Callable[[], None] = lambda: None) -> None:
        self._agent = agent
        self._one_at_a_time = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._sampler = Sampler(
            Finder(agent).find,
            descriptors=raise_descriptor_limit() - 2 * spare_descriptors(),
            before=count_io,
        )
        self._containers = ContainerPage(agent.disk_usage.get, self._health)
        self._shelf = Shelf()
        self.recent = Recent()
        self._rates = CpuRates()
        self._page_rates = CpuRates()  # separate: the web page must not shorten the summary's intervals
        self._dns: dict[str, Any] | None = None  # the DNS server's status, for the page that is written
        self._counts: Sequence[EndpointCount] = ()  # those of Services, for the same page
        self._own = CollectorRegistry(auto_describe=False)
        for collector in (PlatformCollector, GCCollector):
            collector(registry=self._own)
        self._pages: dict[str, Callable[[Page], None]] = {
            "": self._all,
            "cadvisor": self._cadvisor,
            "resource": self._resource,
            "probes": self._probes,
            "state": self._state,
            "agent": self._node,
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._pages)

    async def render(self, name: str, *, openmetrics: bool, compressed: bool) -> bytes:
        write = self._pages[name]
        async with self._one_at_a_time:
            own = name in ("", "agent")
            self._dns = await self._agent.dns_status() if own else None
            self._counts = await self._agent.service_counts() if own else ()
            body = await self._in_thread(
                partial(
                    exposition.render,
                    write,
                    openmetrics=openmetrics,
                    compressed=compressed,
                    shelf=self._shelf,
                )
            )
        self._agent.disk_usage.ask()
        return body

    async def snapshot(self, *, disks: bool = True) -> Snapshot:
        """Take a sample. `disks`: whether somebody wants to know the sizes of directories next time."""
        async with self._one_at_a_time:
            found = await self._in_thread(self._sample)
        if disks:
            self._agent.disk_usage.ask()
        return found

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` in the same thread each time. With a pool of threads, malloc would retain a page's memory in each
        of them."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def summary(self) -> dict[str, Any]:
        agent = self._agent
        async with self._one_at_a_time:
            snapshot, stalls = await self._in_thread(lambda: (self._sample(), self._sampler.stalls()))
        agent.disk_usage.ask()
        used = agent.disk_usage.get
        images, volumes = _on(f"{agent.settings.root}/images"), agent.volumes()
        logs = logs_of(agent.cri.running_sandboxes(), agent.store)
        around = Around(agent.node_name, boot_time(), used, images, most_pids(), volumes, logs, stalls)
        return summary(snapshot, around, self._rates.note(snapshot))

    async def index(self, asked: Question) -> bytes:
        """Return the web page of the node."""
        return await self._web(lambda snapshot: node_answer(self._agent, snapshot, self.recent, asked))

    async def pod(self, namespace: str, name: str) -> bytes | None:
        """Return the web page of a pod; None if it does not exist."""
        record = self._agent.store.get("Pod", namespace, name)
        if record is None:
            return None
        return await self._web(
            lambda snapshot: pod_answer(
                self._agent, record, snapshot, self.recent, self._page_rates.note(snapshot)
            )
        )

    async def _web(self, write: Callable[[Snapshot], str]) -> bytes:
        """Take a sample and write a page in the thread, so that the event loop continues."""
        async with self._one_at_a_time:
            body = await self._in_thread(lambda: write(self._sample()).encode())
        self._agent.disk_usage.ask()
        return body

    def close(self) -> None:
        self._thread.shutdown()
        self._sampler.close()

    # -- pages ----------------------------------------------------------------------------------------------------

    def _all(self, page: Page) -> None:
        # Families that need no sample come first, so that they are compressed while the sample is taken.
        for write in (self._state, self._probes, self._cadvisor, self._node):
            write(page)

    def _sample(self) -> Snapshot:
        found = self._sampler.sample()
        self.recent.note(found)
        return found

    def _cadvisor(self, page: Page) -> None:
        self._containers.write(page, self._sample())

    def _resource(self, page: Page) -> None:
        write_resource(page, self._sample())

    def _state(self, page: Page) -> None:
        agent, store = self._agent, self._agent.store
        # These lists can serve as versions, because a changed record has a new document.
        pods, claims = (
            [record.doc for record in store.list(kind)] for kind in ("Pod", "PersistentVolumeClaim")
        )
        page.section("pods", pods, lambda page: write_pods(page, pods, agent.node_name))
        page.section("claims", (pods, claims), lambda page: write_claims(page, claims, pods))
        self._workloads(page)
        self._services(page)
        write_node(page, agent.node())
        page.section("objects", store.resource_version, self._objects)

    def _workloads(self, page: Page) -> None:
        store = self._agent.store
        objects = {
            kind: [record.doc for record in store.list(kind)] for kind in (*sorted(WORKLOADS), *POLICIES)
        }
        if any(objects.values()):
            from kubelite.telemetry.metrics.kubestate.workloads import write_workloads

            page.section("workloads", objects, lambda page: write_workloads(page, objects))

    def _services(self, page: Page) -> None:
        store = self._agent.store
        services, slices = (
            [record.doc for record in store.list(kind)] for kind in ("Service", "EndpointSlice")
        )
        if services or slices:
            from kubelite.telemetry.metrics.kubestate.services import write_services

            both = (services, slices)
            page.section("services", both, lambda page: write_services(page, *both))

    def _objects(self, page: Page) -> None:
        store = self._agent.store
        kinds = ([record.doc for record in store.list(kind)] for kind in ("ConfigMap", "Secret"))
        namespaces = read_list(cast(NodeApi, self._agent), RESOURCES["namespaces"], None)
        write_objects(page, namespaces, *kinds)
        kept = ([record.doc for record in store.list(kind)] for kind in ("PersistentVolume", "StorageClass"))
        write_persistent_volumes(page, *kept)

    def _node(self, page: Page) -> None:
        write_agent(page, self._agent)
        self._agent.meters.write(page)
        write_volumes(page, self._agent.volumes(), self._agent.disk_usage.get)
        write_logs(
            page, logs_of(self._agent.cri.running_sandboxes(), self._agent.store), self._agent.disk_usage.get
        )
        if self._dns is not None:
            from kubelite.telemetry.metrics.dns_page import write_dns

            write_dns(page, self._dns, self._dns["address"])
        self._own_services(page)
        write_process(page)
        if page.openmetrics:
            text: bytes = openmetrics_of(self._own)  # type: ignore[no-untyped-call]
            page.raw(text.removesuffix(b"# EOF\n"))
        else:
            page.raw(text_of(self._own))

    def _own_services(self, page: Page) -> None:
        services = [record.doc for record in self._agent.store.list("Service")]
        if services:
            from kubelite.telemetry.metrics.services_page import write_counts, write_endpoints

            slices = [record.doc for record in self._agent.store.list("EndpointSlice")]
            write_endpoints(page, services, slices)
            if self._agent.settings.service_counters:
                write_counts(page, self._counts, slices)

    def _probes(self, page: Page) -> None:
        self._agent.meters.probes.write(page)

    def _health(self, sample: Sample) -> int:
        """Return 1 if the container is ready, 0 if not, -1 if it has no probe. cAdvisor reports docker's health check
        in this family."""
        record = self._agent.store.get_uid(sample.target.uid)
        if record is None:
            return -1
        name = sample.target.container
        specs = record.doc["spec"].get("containers") or ()
        if not any(s["name"] == name and any(p in s for p in PROBES) for s in specs):
            return -1
        found = record.doc.get("status", {}).get("containerStatuses") or ()
        return int(any(s["name"] == name and s.get("ready") for s in found))


def _on(path: str) -> FileSystem | None:
    """Return the file system of a directory, or None if it does not exist yet."""
    try:
        device = os.stat(path).st_dev
        return file_system(device_name(os.major(device), os.minor(device)), path)
    except OSError:
        return None


def raise_descriptor_limit() -> int:
    """Raise the limit of descriptors to the hard limit and return it. Scrapes keep some open for each container."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft if soft != resource.RLIM_INFINITY else 1 << 20
