"""Runs the Ingresses of a node: keeps the proxy's pod, its configuration and the statuses of Ingresses up to date.

There is one proxy, so there is one task. It looks at everything again after each change that matters. A change of
endpoints reaches the proxy as a command, anything else as a reload, which loses no connection. `run` returns when no
Ingress is left; a node without any never imports this module: see `kubelite.daemon.ingress`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from kubelite.controllers.admission import Admission, Refused
from kubelite.controllers.deletion import delete
from kubelite.ingress.certificates import default_certificate, pem_of
from kubelite.ingress.classes import not_served
from kubelite.ingress.haproxy import Rendered, commands, rendered
from kubelite.ingress.model import CLASS_KIND, KIND, NAMESPACE, POD, Name
from kubelite.ingress.proxy import ProxyError, ProxyFiles
from kubelite.ingress.proxy_pod import PodOptions, container_id, is_current, owned_as, proxy_pod
from kubelite.ingress.routing import View, routing_of, secrets_of, services_of
from kubelite.kube.errors import Forbidden
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import is_terminal, reference
from kubelite.services.load_balancers import (
    own_addresses,
    pod_holders,
    process_holders,
    refusal,
    service_holders,
)
from kubelite.services.slices import SERVICE_NAME
from kubelite.services.sockets import tables
from manifests.problems import InvalidObject
from runtime.errors import RuntimeFault
from runtime.identity import new_uid
from state.errors import AlreadyExists, StoreError
from state.records import Change
from state.store import Record, Store
from state.watch import Watch

log = logging.getLogger(__name__)

KINDS = frozenset({KIND, CLASS_KIND, "Service", "EndpointSlice", "Secret", "Pod"})
TOGETHER = 0.01  # seconds in which changes lead to one configuration
AGAIN = 1.0  # seconds until a proxy that did not answer is asked again
POD_REFUSED = 10.0  # seconds until its pod is tried again
PORT_TAKEN = 10.0  # seconds until ports that were taken are tried again
_NO_LIBRARY = "it needs the Python package cryptography: pip install 'kubelite[ingress]'"
BETWEEN_RELOADS = 0.5  # seconds; each reload starts a process


class IngressController:
    """`addresses` returns the node's addresses, IPv4 first. `admission` admits the proxy's pod."""

    def __init__(
        self,
        store: Store,
        events: EventRecorder,
        admission: Admission,
        files: ProxyFiles,
        options: PodOptions,
        *,
        node: str,
        addresses: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._events = events
        self._admission = admission
        self._files = files
        self._options = options
        self._node = node
        self._addresses = addresses
        self._clock = clock
        self._published: Rendered | None = None  # what the files on disk are
        self._loaded = ""  # the container that has loaded it
        self._reloaded = 0.0  # when, by the monotonic clock
        self._needed: tuple[set[Name], set[Name]] = (set(), set())  # Services and Secrets of the last view
        self._pems: dict[Name, tuple[str, bytes | str]] = {}  # with the resourceVersion of the Secret
        self._failure = ""  # the last one, if there was none after it
        self._told: dict[str, set[str]] = {}  # uid of an Ingress → what was said about it

    async def run(self) -> None:
        """Serve Ingresses until there are none."""
        async with self._store.watch(KINDS) as watch:
            while True:
                served = self._served()
                delay = await self._attempt(served)
                if not served and self._pod() is None and not self._store.list(KIND):
                    self._files.remove()
                    return
                await self._something_changed(watch, delay)

    # -- what there is ----------------------------------------------------------------------------------------------

    def _served(self) -> list[Json]:
        classes = [record.doc for record in self._store.list(CLASS_KIND)]
        served = []
        records = self._store.list(KIND)
        for record in records:
            if said := not_served(record.doc, classes):
                self._say(record.doc, "NotServed", (said,))
            else:
                served.append(record.doc)
        self._told = {record.uid: self._told.get(record.uid, set()) for record in records}
        return served

    def _view(self, served: Sequence[Json]) -> View:
        names = {name for one in served for name in services_of(one)}
        secrets = {name for one in served for name in secrets_of(one)}
        self._needed = (names, secrets)
        slices: dict[Name, list[Json]] = {}
        for namespace in {namespace for namespace, _ in names}:
            for record in self._store.list("EndpointSlice", namespace):
                own = (record.metadata.get("labels") or {}).get(SERVICE_NAME, "")
                slices.setdefault((namespace, own), []).append(record.doc)
        services = {
            name: found.doc for name in names if (found := self._store.get("Service", *name)) is not None
        }
        return View(served, services, slices, self._certificates(secrets), self._node)

    def _certificates(self, names: Iterable[Name]) -> Mapping[Name, bytes | str]:
        """Return the certificates of Secrets. One that has not changed is not checked again."""
        known, self._pems = self._pems, {}
        for name in names:
            secret = self._store.get("Secret", *name)
            if secret is None:
                continue
            version = f"{secret.uid}/{secret.metadata.get('resourceVersion')}"
            old = known.get(name)
            self._pems[name] = old if old is not None and old[0] == version else (version, pem_of(secret.doc))
        return {name: pem for name, (_, pem) in self._pems.items()}

    def _pod(self) -> Record | None:
        return self._store.get("Pod", NAMESPACE, POD)

    # -- what is done -----------------------------------------------------------------------------------------------

    async def _attempt(self, served: Sequence[Json]) -> float | None:
        """Do what is to be done. Return in how many seconds to look again: soon, if the proxy does not answer or the
        disk is full; None: after the next change."""
        try:
            delay = None
            if served:
                delay = await self._serve(served)
            else:
                await self._end()
        except (ProxyError, RuntimeFault, StoreError, OSError) as error:
            if str(error) != self._failure:
                log.warning("the proxy of Ingresses is not up to date, will retry: %s", error)
            self._failure = str(error)
            return AGAIN
        self._failure = ""
        return delay

    async def _serve(self, served: Sequence[Json]) -> float | None:
        """Bring the proxy and the statuses up to date. Return in how many seconds to look again, None: after the next
        change."""
        routing = routing_of(self._view(served))
        for ingress in served:
            self._say(ingress, "Translate", routing.problems.get(ingress["metadata"]["uid"], ()))
        default = default_certificate(self._files.directory / "default.pem", self._node, self._clock())
        if default is None:
            sentence = f"there is no default certificate: {_NO_LIBRARY}"
            for ingress in served:
                self._say(ingress, "NoDefaultCertificate", (sentence,))
        servers = self._published.servers if self._published is not None else {}
        options = self._options
        try:
            wanted = rendered(
                routing, servers, default,
                http_port=options.http_port, https_port=options.https_port, ipv6=options.ipv6,
            )  # fmt: skip
            running = await self._configure(wanted, served)
        except ValueError as error:  # what no valid object has: the proxy keeps what it has
            self._reject(served, str(error))
            return None
        delay = await self._keep_pod(served)
        if running:
            await self._set_addresses(served, self._addresses())
        return delay

    async def _configure(self, wanted: Rendered, served: Sequence[Json]) -> bool:
        """Write the configuration, and have a proxy that runs use it. Return whether it does."""
        record, before = self._pod(), self._published
        container = container_id(record.doc) if record is not None and not record.deleting else ""
        if before is not None and before.files == wanted.files:
            if container and container != self._loaded:
                await self._reload(container)
            return bool(container)
        kept = before is not None and before.structure == wanted.structure
        uid = record.uid if record is not None and container and not kept else ""
        with contextlib.ExitStack() as undo:
            generation = self._files.write(wanted.files)
            undo.callback(self._files.discard, generation)
            if uid and (said := await self._files.check(uid, container, generation)):
                self._reject(served, said)
                return False
            self._files.publish(generation)
            undo.pop_all()
        self._published = wanted
        if container and before is not None and kept and container == self._loaded:
            self._loaded = ""  # until all is done: half of it calls for a reload
            for command in commands(before.servers, wanted.servers):
                await self._files.run(command)
            self._loaded = container
        elif container:
            await self._reload(container)
        return bool(container)

    def _reject(self, served: Sequence[Json], said: str) -> None:
        for ingress in served:
            self._say(ingress, "Rejected", (f"the proxy keeps its old configuration: {said}",))

    async def _reload(self, container: str) -> None:
        self._loaded = ""
        await asyncio.sleep(max(0.0, self._reloaded + BETWEEN_RELOADS - time.monotonic()))
        await self._files.reload()
        self._reloaded, self._loaded = time.monotonic(), container

    async def _keep_pod(self, served: Sequence[Json]) -> float | None:
        """Create the proxy's pod, or replace one that has ended or was made for other settings. A pod that stays gets
        the owner that it lacks."""
        wanted, record = proxy_pod(self._options), self._pod()
        if record is not None:
            if record.deleting:
                return None
            current = is_current(record.doc, wanted, ipv6=self._options.ipv6)
            if is_terminal(record.doc.get("status") or {}) or not current:
                await delete(self._store, record.uid, now=self._clock())
            elif owned_as(record.doc, wanted) is not None:
                await self._store.modify(record.uid, lambda doc: owned_as(doc, wanted), durable=False)
            return None
        if said := self._port_taken(wanted):
            for ingress in served:
                self._say(ingress, "PortTaken", (said,))
            return PORT_TAKEN
        uid, now = new_uid(), self._clock()
        try:
            await self._store.create("Pod", self._admission.admit(wanted, uid=uid, now=now), durable=False)
        except (Refused, Forbidden, InvalidObject, AlreadyExists) as error:
            for ingress in served:
                self._say(ingress, "FailedCreate", (f"the proxy's pod cannot be created: {error}",))
            return POD_REFUSED
        log.info("created the proxy of Ingresses", extra={"pod": f"{NAMESPACE}/{POD}", "uid": uid})
        return None

    def _port_taken(self, pod: Json) -> str:
        """Return who has one of the proxy's ports, as a sentence; "" if they are free."""
        addresses = self._addresses()
        ports = [{"port": port["hostPort"]} for port in pod["spec"]["containers"][0]["ports"]]
        holders = (
            *service_holders((record.doc for record in self._store.list("Service")), ""),
            *pod_holders((record.doc for record in self._store.list("Pod")), addresses),
            *process_holders(tables(), addresses),
        )
        said = refusal({"spec": {"ports": ports}}, holders).partition(":")[0]
        return f"{said}: set ingress_http_port or ingress_https_port, or free it" if said else ""

    async def _end(self) -> None:
        """Remove the proxy: no Ingress needs it."""
        self._published, self._loaded = None, ""
        await self._set_addresses((), ())
        record = self._pod()
        if record is not None and not record.deleting:
            await delete(self._store, record.uid, now=self._clock())

    async def _set_addresses(self, served: Sequence[Json], addresses: Sequence[str]) -> None:
        """Give the Ingresses that are served the node's addresses, and take it from others."""
        uids = {one["metadata"]["uid"] for one in served}
        for record in self._store.list(KIND):
            found = [{"ip": address} for address in addresses] if record.uid in uids else []
            status = {"loadBalancer": {"ingress": found} if found else {}}

            def change(old: Json, status: Json = status) -> Json | None:
                return (
                    None
                    if (old.get("status") or {"loadBalancer": {}}) == status
                    else {**old, "status": status}
                )

            if await self._store.modify(record.uid, change, durable=False) is not None and found:
                self._say(record.doc, "Sync", (own_addresses(addresses),), kind="Normal")

    def _say(self, ingress: Json, reason: str, sentences: Iterable[str], kind: str = "Warning") -> None:
        """Record events about an Ingress, each once for as long as it exists."""
        told = self._told.setdefault(ingress["metadata"]["uid"], set())
        for sentence in sentences:
            if sentence not in told:
                told.add(sentence)
                self._events.event(reference(ingress), kind, reason, sentence)

    # -- changes ----------------------------------------------------------------------------------------------------

    async def _something_changed(self, watch: Watch, seconds: float | None) -> None:
        """Return after a change that matters, or after some seconds."""
        until = time.monotonic() + seconds if seconds is not None else None
        while until is None or until > time.monotonic():
            left = until - time.monotonic() if until is not None else None
            change = await watch.next(left)
            if change is None:
                return
            if self._matters(change):
                await asyncio.sleep(TOGETHER)
                watch.take()
                return

    def _matters(self, change: Change) -> bool:
        record = change.record
        match record.kind:
            case "Pod":
                return (record.namespace, record.name) == (NAMESPACE, POD)
            case "Service":
                return (record.namespace, record.name) in self._needed[0]
            case "EndpointSlice":
                own = (record.metadata.get("labels") or {}).get(SERVICE_NAME, "")
                return (record.namespace, own) in self._needed[0]
            case "Secret":
                return (record.namespace, record.name) in self._needed[1]
        return True
