"""A node that is a member of a cluster: everything that runs for it.

    signs of life ─► the API server            pods, bound to this node
    status sink   ─► (client, one of all)  ◄── reflector ─► ApiPods ─► source ─► store ─► the node's worker
    server :10250 ◄─ logs, commands                            └► content, tokens ─► store

An error of the cluster's ends nothing: what failed is tried again, and the pods go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING

from kubelite.api.node import NodeApi
from kubelite.api.secure.certificates import ask
from kubelite.cluster.authorization import Authorization
from kubelite.cluster.claims import ClusterVolumes
from kubelite.cluster.client import MALFORMED, ClusterClient, ClusterError, Refusal
from kubelite.cluster.content import ClusterContent
from kubelite.cluster.decide.configuration import configz
from kubelite.cluster.decide.pods import Surroundings, kept
from kubelite.cluster.events import EventSink
from kubelite.cluster.heartbeat import Heartbeat
from kubelite.cluster.membership import files
from kubelite.cluster.membership.discovery import JoinError
from kubelite.cluster.membership.files import Membership
from kubelite.cluster.membership.joining import certify, member_client, member_context
from kubelite.cluster.mirrors import Mirrors
from kubelite.cluster.reflector import Reflector
from kubelite.cluster.server import Reports, node_server
from kubelite.cluster.sink import StatusSink
from kubelite.cluster.source import ApiPods, ClusterSource
from kubelite.cluster.tokens import ClusterTokens
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import reference
from kubelite.kube.workqueue import WorkQueue
from kubelite.settings import Settings
from runtime.errors import RuntimeFault
from state.errors import StoreError
from state.store import Store

if TYPE_CHECKING:
    from kubelite.telemetry.web.scrape import Measured

log = logging.getLogger(__name__)

AGAIN = 5.0  # seconds until something that failed begins anew
#: What other machines can cause, and a full disk.
_FAILURES = (ClusterError, JoinError, StoreError, RuntimeFault, OSError, *MALFORMED)
LOOK = 600.0  # seconds between looks at the age of the certificate
CONFIG = "/api/v1/namespaces/kube-system/configmaps/kubelet-config"


class Member:
    """`node`: the node that has joined; `content_changed(uid)` tells its worker about an object that a pod uses;
    `pages()` measures the node; `mirrored` gets the number of mirror pods."""

    def __init__(
        self,
        node: NodeApi,
        store: Store,
        events: EventRecorder,
        *,
        root: str,
        membership: Membership,
        content_changed: Callable[[str], None],
        settings: Settings,
        pages: Callable[[], Measured],
        port: int,
        mirrored: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._node, self._store, self._events, self._root = node, store, events, root
        self._settings, self._pages = settings, pages
        self._port = port
        self.membership = membership
        self.client: ClusterClient = member_client(root, membership)
        self.keep_client = False  # whether `run` leaves the client open when it ends
        self._around = Surroundings(membership.server)
        sources: WorkQueue[str] = WorkQueue()
        statuses: WorkQueue[str] = WorkQueue(limit=16)
        self._queues = sources, statuses
        self._pods_changed = asyncio.Event()
        self._configured = asyncio.Event()  # set once the cluster's DNS is known
        self.pods = ApiPods(self._look)
        self.content = ClusterContent(store, self.client, content_changed)

        def token(uid: str) -> None:
            self.content.arrived()
            content_changed(uid)

        self.tokens = ClusterTokens(store, self.client, self.pods.get, token)
        self.sink = StatusSink(store, self.client, self.pods, statuses, sources.add)
        volumes = ClusterVolumes(self.client, self.content)
        self.source = ClusterSource(
            store, self.pods, sources, lambda: self._around,
            volumes=volumes.of, refused=self.sink.refused, warn=self._warn,
        )  # fmt: skip
        self.heartbeat = Heartbeat(self.client, membership.node, node.node, port)
        self.mirrors = Mirrors(
            store, self.client, self.pods, membership.node,
            node_uid=self.heartbeat.node_uid, warn=self._warn, counted=mirrored,
        )  # fmt: skip

    def _look(self, uid: str) -> None:
        for queue in self._queues:
            queue.add(uid)
        self._pods_changed.set()
        self.mirrors.look()

    def _warn(self, pod: Json, reason: str, message: str) -> None:
        self._events.event(reference({"kind": "Pod", "apiVersion": "v1", **pod}), "Warning", reason, message)

    async def run(self) -> None:
        """Run until cancelled."""
        pods = Reflector(
            self.client, "/api/v1/pods",
            listed=self._listed, changed=self.pods.event, fields=f"spec.nodeName={self.membership.node}",
        )  # fmt: skip
        sources, statuses = self._queues
        sources.start(self.source.reconcile)
        statuses.start(self.sink.reconcile)
        self.tokens.start()
        events = EventSink(self._store, self.client, self.pods.get, self.membership.node)
        jobs: dict[str, Callable[[], Coroutine[object, object, None]]] = {
            "heartbeat": self.heartbeat.run,
            "content": self.content.run,
            "configuration": self._configure,
            "use": self._use,
            "statuses": self.sink.run,
            "mirrors": self.mirrors.run,
            "pods": partial(self._follow, pods),
            "events": events.run,
            "server": self._serve,
            "certificate": self._renew,
        }
        tasks = [
            asyncio.create_task(_again(f"cluster-{name}", work), name=f"cluster-{name}")
            for name, work in jobs.items()
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for queue in (*self._queues, self.tokens.queue):
                await queue.close()
            if not self.keep_client:
                await self.client.close()

    def _listed(self, pods: list[Json]) -> None:
        self.pods.listed(pods)
        for record in self._store.list("Pod"):
            if kept(record.doc):  # also those that the API server does not have any more
                self._look(record.uid)

    async def _follow(self, pods: Reflector) -> None:
        await self.content.services.wait()
        await self._configured.wait()
        await pods.run()

    async def _use(self) -> None:
        """Follow what the pods refer to, as they change."""
        while True:
            self._pods_changed.clear()
            if self.pods.complete:
                every = list(self.pods.all())
                self.content.use(every)
                await self.tokens.use(every)
            await self._pods_changed.wait()

    async def _configure(self) -> None:
        """Read the cluster's DNS from kubeadm's ConfigMap. Without it, the pods have the host's DNS."""
        import yaml

        try:
            found = await self.client.get(CONFIG)
        except Refusal as error:
            log.warning(
                "the cluster has no kubelet-config for its nodes: its pods use the host's DNS: %s", error
            )
            self._configured.set()
            return
        try:
            config = yaml.safe_load((found.get("data") or {}).get("kubelet") or "") or {}
            servers, domain = config.get("clusterDNS") or (), config.get("clusterDomain")
        except (yaml.YAMLError, AttributeError) as error:
            log.error("the cluster's kubelet-config cannot be read: %s", error)
            servers, domain = (), None
        dns = tuple(str(one) for one in servers)
        self._around = Surroundings(self.membership.server, dns, str(domain or "cluster.local"))
        self._configured.set()

    async def _serve(self) -> None:
        addresses = [
            one["address"] for one in self._node.node()["status"]["addresses"] if one["type"] == "InternalIP"
        ]
        request = {"serving": {"node": self.membership.node, "addresses": addresses}}
        made = await ask("kubelite.cluster.membership.keys", request)
        files.write(self._root, "serving.pem", made["certificate"])
        authorization = Authorization(self.client, self.membership.node)
        reports = Reports(self._pages, self._configz)
        async with node_server(self._node, reports, authorization, self._root, self._port):
            await asyncio.Event().wait()

    def _configz(self) -> Json:
        around = self._around
        return configz(self._settings, port=self._port, dns=around.dns, domain=around.domain)

    async def _renew(self) -> None:
        """Renew the certificate before it expires."""
        due = files.renewal(files.dates(self._root), random.random())
        while True:
            if time.time() >= due:
                login = await certify(self.client, self.membership.node, log.info)
                files.write(self._root, "client.pem", login)
                await self.client.renew(member_context(self._root, self.membership))
                due = files.renewal(files.dates(self._root), random.random())
                log.info("the certificate of the node is renewed")
            await asyncio.sleep(min(LOOK, max(1.0, due - time.time())))


async def _again(name: str, work: Callable[[], Coroutine[object, object, None]]) -> None:
    """Do `work`; if it fails, do it anew a moment later. What another machine says never ends the daemon."""
    said = ""
    while True:
        try:
            return await work()
        except _FAILURES as error:
            if said != (said := f"{type(error).__name__}: {error}"):
                log.error("%s: %s; it begins anew in %.0f s", name, error, AGAIN)
        with contextlib.suppress(TimeoutError):
            await asyncio.sleep(AGAIN)
