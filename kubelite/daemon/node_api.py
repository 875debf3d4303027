"""The node behind the API. It implements `kubelite.api.node.NodeApi` with the store, the worker, shims and images."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from kubelite.api.kube.crash_logs import crash_log_lines
from kubelite.api.kube.printers import pod_cells
from kubelite.api.node import (
    ClusterApi,
    ManifestFile,
    Progress,
    Propagation,
    RecordLike,
    Why,
)
from kubelite.daemon.serving.manifest_files import manifest_file
from kubelite.diagnosis.advice import advice
from kubelite.diagnosis.blocked_evictions import blocked_eviction
from kubelite.diagnosis.doctor import Finding, examine
from kubelite.diagnosis.unready import unready, with_unready
from kubelite.history.service import NodeHistory
from kubelite.images.builds import LEASE_PREFIX, NodeBuilds
from kubelite.images.service import NodeImages, image_json
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import mark_deleting, reference, source_of
from kubelite.kube.pod_security import PodSecurity
from kubelite.kube.workqueue import WorkQueue
from kubelite.network_policies.gate import restricted_by
from kubelite.node.cri import sessions
from kubelite.node.cri.local import LocalCri
from kubelite.node.cri.pod_network import PodNetwork
from kubelite.node.decide.explanation import AS_SPECIFIED
from kubelite.node.model.node_config import pod_log_name
from kubelite.node.model.node_facts import changes, patched
from kubelite.node.scheduling.scheduler import NODE
from kubelite.node.worker.pod_worker import PodWorker
from kubelite.settings import Settings
from kubelite.sources.diff import DiffEntry, diff_documents
from kubelite.sources.directory import Sources
from kubelite.sources.ownership import NONE_GIVEN, Owners
from kubelite.streaming.session import ExecSession
from kubelite.telemetry.metrics.meters import Meters
from kubelite.telemetry.sampling.disk_usage import DiskUsage
from kubelite.telemetry.tracing.trace import Tracer
from manifests.types.core import Pod
from runtime.errors import ImageError, NetworkError
from runtime.images.client import ImageClient
from runtime.images.store.verify import check_store
from runtime.network.client import NetworkClient
from state.errors import AlreadyExists
from state.store import Record, Store

if TYPE_CHECKING:
    from kubelite.accounts.tokens import Tokens
    from kubelite.api.secure.port import ApiPort
    from kubelite.controllers.eviction import EvictionOptions
    from kubelite.daemon.dns import ClusterDns
    from kubelite.daemon.serving.pod_access import PodAccess
    from kubelite.node.pressure.evictor import Measured
    from kubelite.services.ports import EndpointCount
    from kubelite.telemetry.metrics.pages import Pages
    from kubelite.telemetry.sampling.volume_stats import Volume

log = logging.getLogger(__name__)


@dataclass(slots=True)
class NodeAgent:
    """All parts of a node. assembly.py creates it; lifecycle.py runs it."""

    settings: Settings
    store: Store
    cri: LocalCri
    worker: PodWorker
    sources: Sources
    network: PodNetwork
    images_client: ImageClient
    events: EventRecorder
    tracer: Tracer
    started_at: float
    queue: WorkQueue[str]
    disk_usage: DiskUsage
    history: NodeHistory
    dns: ClusterDns
    access: PodAccess
    meters: Meters = field(default_factory=Meters)
    on_reload: list[Callable[[Settings], None]] = field(default_factory=list)  # each gets the new settings
    pressure_since: dict[str, float] = field(default_factory=dict)  # condition → when it last changed
    startup_took: float = 0.0  # seconds
    _pages: Pages | None = None
    cluster: ClusterApi | None = None  # set once the node is ready
    api_port: Callable[[], ApiPort] | None = None  # set once the API is served; the first call makes the port

    @property
    def node_name(self) -> str:
        return self.settings.node_name

    @property
    def own_network(self) -> NetworkClient:
        """The node's own network, which Services and NetworkPolicies need. They do not run without it."""
        assert isinstance(self.network, NetworkClient)
        return self.network

    @property
    def tokens(self) -> Tokens:
        return self.access.tokens

    def authority(self) -> str | None:
        return self.access.known_authority

    @property
    def pod_security(self) -> PodSecurity:
        return self.worker.config.pod_security

    @property
    def manifests_dir(self) -> str:
        return self.settings.manifests

    async def dns_status(self) -> dict[str, Any] | None:
        return await self.dns.status()

    async def service_counts(self) -> Sequence[EndpointCount]:
        if not self.settings.service_counters or self.settings.network != "bridge":
            return ()
        from kubelite.services.ports import endpoint_count

        try:
            return [endpoint_count(one) for one in await self.own_network.count_services()]
        except NetworkError as error:
            log.warning("the packets of Services cannot be read: %s", error)
            return ()

    # -- the node -----------------------------------------------------------------------------------------------

    def node(self) -> Json:
        from kubelite.daemon.node_document import AgentState, node_document

        ready, why = self.ready()
        state = AgentState(
            self.started_at,
            tuple(filter(None, self.settings.pod_networks)) if self.settings.network == "bridge" else (),
            time.time(),
            not_ready="" if ready else why,
            pressure_since=self.pressure_since,
            images=self.images_client.store.list(),
        )
        record = self.store.get(NODE, "", self.node_name)
        facts = self.worker.scheduler.node.facts()
        return node_document(self.worker.config, facts, record.doc if record is not None else {}, state)

    async def patch_node(self, patch: Json) -> Json:
        """Apply a user's patch, and save the node in the store. Raises ForbiddenPatch, InvalidPatch, StalePatch."""
        patch = changes(patch, self.node())
        record = self.store.get(NODE, "", self.node_name)
        if record is None:
            # the prefix distinguishes the uid from those of pods
            identity = {"name": self.node_name, "uid": f"node:{self.node_name}"}
            with contextlib.suppress(AlreadyExists):
                await self.store.create(NODE, patched({"metadata": identity}, patch))
        else:
            await self.store.modify(record.uid, lambda doc: patched(doc, patch))
        self.worker.scheduler.node_changed()
        return self.node()

    def pod_event(self, uid: str, reason: str, message: str, *, container: str = "") -> None:
        """Record a Warning event about a pod or one of its containers."""
        record = self.store.get_uid(uid)
        if record is not None:
            path = f"spec.containers{{{container}}}" if container else ""
            self.events.event(reference(record.doc, field_path=path), "Warning", reason, message)

    def node_event(self, reason: str, message: str, *, warning: bool = True) -> None:
        """Record an event about the node."""
        self.events.node_event(reason, message, warning=warning)

    def evicted(self, signal: str, age: float) -> None:
        """Count an eviction; `age`: seconds since the signal was observed."""
        label = f'eviction_signal="{signal}"'
        self.meters.evictions.add(label)
        self.meters.stats_age.observe(age, label)

    async def measured_pods(self) -> Mapping[str, Measured]:
        """Return each pod's usage, by which eviction ranks pods, as uid → usage."""
        from kubelite.telemetry.sampling.usage import measured_pods

        return measured_pods(await self.pages().snapshot())

    def pages(self) -> Pages:
        """Return the metrics pages. The first call creates them."""
        if self._pages is None:
            from kubelite.telemetry.metrics.pages import Pages
            from runtime.cgroups.io_accounting import IoAccounting

            accounting = IoAccounting(f"/{self.settings.cgroup_parent}/io-accounting")
            self._pages = Pages(self, accounting.enable)
        return self._pages

    async def kubeconfig(self, user: str, groups: list[str], seconds: float) -> Json:
        assert self.api_port is not None
        return await self.api_port().kubeconfig(user, groups, seconds)

    async def kube_authority(self) -> Json:
        assert self.api_port is not None
        return await self.api_port().authority()

    def volumes(self) -> list[Volume]:
        """Return the emptyDir volumes and claims of running pods."""
        from kubelite.telemetry.sampling.volume_stats import running_volumes

        return running_volumes(self.cri.running_sandboxes(), self.store, self.worker.config)

    def ready(self) -> tuple[bool, str]:
        if not self.sources.ready.is_set():
            return False, "the manifests directory has not been read yet"
        if self.sources.error:
            return False, self.sources.error
        if self.worker.shutting_down:
            return False, "node is shutting down"
        if self.network.not_ready:
            return False, self.network.not_ready
        return True, ""

    async def events_settled(self) -> None:
        await self.events.flush()

    # -- manifests ----------------------------------------------------------------------------------------------

    def manifests(self) -> list[ManifestFile]:
        return [manifest_file(state, self.store) for state in self.sources.states()]

    async def rescan(self, owners: Owners = NONE_GIVEN) -> None:
        await self.sources.rescan(owners)

    async def diff(self, text: str, *, file: str) -> list[DiffEntry]:
        return await diff_documents(text, file, self.store, self.worker, self.settings)

    # -- pods ---------------------------------------------------------------------------------------------------

    async def why(self, namespace: str, name: str) -> Why | None:
        record = self.store.get("Pod", namespace, name)
        found = self.worker.why(record.uid, f"{namespace}/{name}") if record else None
        if record is None or found is None:
            return None
        await self.events.flush()
        mine = [doc for doc in self.store.docs("Event") if doc["involvedObject"].get("uid") == record.uid]
        rejected = [s.rejected for s in self.sources.states() if s.file == source_of(record) and s.rejected]
        reasons = found["reasons"]
        if short := unready(record.doc, mine):
            reasons = with_unready((reason for reason in reasons if reason != AS_SPECIFIED), short)
        reasons = [*reasons, *restricted_by(self.store, record.doc)]
        budgets = (found.doc for found in self.store.list("PodDisruptionBudget", namespace))
        more = {
            "reasons": [*rejected, *reasons, *blocked_eviction(record.doc, budgets)],
            "status": record.doc["status"].get("reason") or str(pod_cells(record.doc, time.time())[2]),
            "lastWords": await crash_log_lines(cast(Any, self), record.doc),
            "advice": advice(record.doc, mine, self.has_image),
        }
        return cast(Why, {**found, **more})

    def has_image(self, name: str) -> bool:
        try:
            return self.images_client.store.get(name) is not None
        except ImageError:  # not a valid image name; reported elsewhere
            return False

    async def delete_pod(self, namespace: str, name: str, *, grace: int | None) -> RecordLike | None:
        record = self.store.get("Pod", namespace, name)
        if record is None:
            return None
        now = time.time()
        return await self.store.modify(record.uid, lambda doc: mark_deleting(doc, now=now, grace=grace))

    async def evict_pod(self, namespace: str, name: str, options: EvictionOptions) -> None:
        from kubelite.controllers.eviction import evict

        await evict(self.store, namespace, name, options, time.time())

    async def delete_workload(self, uid: str, policy: Propagation) -> RecordLike | None:
        from kubelite.controllers.deletion import delete

        orphan, foreground = policy == "Orphan", policy == "Foreground"
        return await delete(self.store, uid, now=time.time(), orphan=orphan, foreground=foreground)

    async def end_namespace(self, name: str) -> None:
        from kubelite.namespaces.lifecycle import end

        await end(self.store, name, time.time())

    def container_log_dir(self, pod: Json, container: str) -> str:
        metadata = pod["metadata"]
        name = pod_log_name(metadata["namespace"], metadata["name"], metadata["uid"])
        return f"{self.settings.log_dir}/pods/{name}/{container}"

    async def exec(
        self,
        pod: Json,
        container: str,
        command: list[str],
        *,
        stdin: bool,
        tty: bool,
        width: int,
        height: int,
    ) -> ExecSession:
        size = {"width": width, "height": height}
        return await sessions.open_exec(self.cri, pod, container, command, stdin=stdin, tty=tty, **size)

    async def attach(self, pod: Json, container: str, *, stdin: bool) -> ExecSession:
        return await sessions.open_attach(self.cri, pod, container, stdin=stdin)

    async def dial(self, pod: Json, port: int) -> socket.socket:
        return await sessions.connect(self.cri, pod["metadata"]["uid"], port)

    async def set_ephemeral(self, uid: str, wanted: list[Json]) -> RecordLike | None:
        from kubelite.kube.errors import ApiError
        from kubelite.node.decide.pod_security.admission import forbidden
        from kubelite.node.model.ephemeral import changed

        def change(doc: Json) -> Json:
            after = changed(doc, wanted)
            if said := forbidden(Pod.parse(after), self.pod_security):
                raise ApiError("Forbidden", said)
            return after

        return await self.store.modify(uid, change)

    async def change_object(self, uid: str, change: Callable[[Json], Json]) -> RecordLike | None:
        return await self.store.modify(uid, change)

    async def trace(self, namespace: str, name: str) -> Json | None:
        record = self.store.get("Pod", namespace, name)
        if record is None:
            return None
        return {"pod": f"{namespace}/{name}", "uid": record.uid, "steps": self.tracer.steps(record.uid)}

    async def inspect(self, ref: str) -> Json | None:
        pod = self._pod_of(ref)
        if pod is not None:
            return {"pod": pod.doc, **await self._inspect_pod(pod)}
        for record in self.store.list("Pod"):
            for container in (await self._inspect_pod(record))["containers"]:
                if len(ref) >= 4 and container["id"].startswith(ref.removeprefix("kubelite://")):
                    return dict(container)
        image = self.images_client.store.get(ref)
        return image.to_json() if image else None

    def _pod_of(self, ref: str) -> Record | None:
        namespace, _, name = ref.removeprefix("pod/").rpartition("/")
        return self.store.get("Pod", namespace or "default", name) or self.store.get_uid(ref)

    async def _inspect_pod(self, record: Record) -> Json:
        from dataclasses import asdict

        from kubelite.diagnosis import inspection

        uid = record.uid
        observed = await self.cri.observe(uid)
        containers = []
        for container in observed.containers:
            found = asdict(container)
            image = self.images_client.store.get(container.image_id)
            found["rootfs"] = {
                "lower": list(image.layers) if image else [],
                "upper": f"{container.bundle}/upper",
                "work": f"{container.bundle}/work",
            }
            with contextlib.suppress(OSError, ValueError):
                found["config"] = _json_file(f"{container.bundle}/config.json")
            containers.append(found)
        sandbox = asdict(observed.sandbox) if observed.sandbox else None
        if sandbox is not None:
            attachments = {a.uid: a for a in await self.network.list()}
            if uid in attachments:
                sandbox["network"] = asdict(attachments[uid])
                sandbox["veth"] = inspection.veth(
                    attachments[uid].host_ifname, self.settings.bridge, sandbox["pid"]
                )
            inspection.add_kernel(containers, record.doc["spec"], sandbox["pid"])
        return {"sandbox": sandbox, "containers": containers}

    async def processes(self, namespace: str, name: str, container: str) -> list[Json] | None:
        record = self.store.get("Pod", namespace, name)
        observed = (await self.cri.observe(record.uid)).latest(container) if record else None
        if observed is None or observed.state != "running":
            return None
        from kubelite.telemetry.sampling.processes import processes

        return await asyncio.to_thread(processes, observed.cgroup)

    async def usage(self) -> Json:
        from kubelite.telemetry.sampling.usage import usage

        return usage(await self.pages().snapshot(), self.node_name)

    def stats(self) -> Json:
        return {
            "pods": len(self.store.list("Pod")),
            "sandboxes": len(self.cri.running_sandboxes()),
            "resourceVersion": self.store.resource_version,
            "uptimeSeconds": round(time.time() - self.started_at, 3),
        }

    # -- images -------------------------------------------------------------------------------------------------

    def images(self) -> list[Json]:
        return self.images_api.images()

    async def pull(self, reference: str, progress: Progress) -> Json:
        record = await self.images_client.pull(reference, progress=progress)
        self._look_at_all()
        return image_json(record)

    async def login(self, registry: str, username: str, password: str) -> Json:
        return {"file": await self.images_client.login(registry, username, password)}

    async def logout(self, registry: str) -> bool:
        return await self.images_client.logout(registry)

    async def load(self, path: str, progress: Progress, *, shown: str = "") -> list[Json]:
        records = await self.images_client.load(path, shown=shown, progress=progress)
        self._look_at_all()
        return [image_json(record) for record in records]

    async def pack(self, request: Json) -> Json:
        wanted = {
            key: value for key, value in request.items() if key in _PACK_ARGUMENTS and value is not None
        }
        record = await self.images_client.pack(request["programs"], request["reference"], **wanted)
        self._look_at_all()
        return image_json(record)

    async def remove_image(self, reference: str, *, force: bool = False) -> Json | None:
        return await self.images_api.remove(reference, force=force)

    @property
    def images_api(self) -> NodeImages:
        return NodeImages(
            self.settings.root, self.store, self.cri, self.images_client, self.worker.pull_records.forget
        )

    @property
    def builds_api(self) -> NodeBuilds:
        return NodeBuilds(self.settings, self.network, self.images_client)

    def _look_at_all(self) -> None:
        for record in self.store.list("Pod"):
            self.queue.add(record.uid)

    # -- health -------------------------------------------------------------------------------------------------

    async def repair(self) -> list[str]:
        """Repair the network as a restart of the daemon would. Return one sentence for each repair and for each damage
        that remains."""
        result = await self.network.repair()
        done = [f"network: {sentence}" for sentence in (*result.repaired, *await self.cri.attach_lost())]
        return done + [f"network, not repaired: {s}" for s in (*result.left, *result.failures)]

    async def doctor(self, *, deep: bool = False) -> list[Json]:
        network = [*await self.network.audit(), *await self.dns.findings()]
        leases = [a.uid for a in await self.network.list() if not a.uid.startswith(LEASE_PREFIX)]
        try:
            images = await asyncio.to_thread(check_store, self.images_client.store, deep=deep)
        except OSError as error:
            images = [f"the image store cannot be checked: {error}"]
        states = self.sources.states()
        findings = examine(
            self.settings,
            self.store,
            network=network,
            leases=leases,
            images=images,
            helpers=self.cri.helpers(),
            rejected=(len(states), [state.file for state in states if state.rejected]),
        )
        if self.sources.error:
            findings.insert(0, Finding("error", "manifests", self.sources.error))
        if self.settings.network == "cni":
            from kubelite.daemon.cni.node_cni import unserved

            findings += [Finding("warning", "network", sentence) for sentence in unserved(self.store)]
        return [finding.to_json() for finding in findings]


_PACK_ARGUMENTS = ("files", "entrypoint", "cmd", "env", "workdir", "user")


def _json_file(path: str) -> Json:
    import json

    with open(path, encoding="utf-8") as file:
        return cast(Json, json.load(file))
