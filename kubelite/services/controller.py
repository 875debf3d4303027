"""Runs the Services of a node: watches Services, pods, Endpoints and EndpointSlices, and keeps EndpointSlices,
Endpoints, statuses and the data path up to date.

One key is one Service: (namespace, name). The data path is changed first, because traffic depends on it; the objects
follow. Nothing is remembered that the store does not have. A node without Services never imports this module: see
`kubelite.daemon.workloads`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import reference
from kubelite.kube.times import rfc3339
from kubelite.services.data_path import DataPath
from kubelite.services.endpoints import endpoints_of, is_managed
from kubelite.services.families import IPV4, IPV6, families_of
from kubelite.services.index import Name, ServiceIndex
from kubelite.services.load_balancers import (
    Holder,
    has_address,
    own_addresses,
    pod_holders,
    process_holders,
    refusal,
    service_holders,
    shadowed,
    status,
    wants_address,
)
from kubelite.services.ports import reached, service_ports
from kubelite.services.slices import (
    CONTROLLER,
    MIRROR,
    SliceChanges,
    managed_by,
    mirrored,
    none_of,
    slices_of,
    wants_mirror,
)
from kubelite.services.sockets import tables
from runtime.errors import RuntimeFault
from runtime.identity import new_uid
from runtime.network.services.plan import ServicePort
from state.errors import AlreadyExists
from state.records import Change
from state.store import Record, Store
from state.watch import Watch

log = logging.getLogger(__name__)

KINDS = frozenset({"Service", "Endpoints", "EndpointSlice", "Pod"})
RETRY = 2.0  # seconds until the ports of all Services are set again, after a failure
LINGER = 0.1  # seconds in which a pod accepts the connections that were led to it, before it is told to stop
PORT_TAKEN = 10.0  # seconds until a load balancer whose port is taken tries again


class Queue(Protocol):
    """A queue of keys, each processed by one task at a time (kubelite.kube.workqueue)."""

    def add(self, key: Name, /) -> None: ...


def no_address() -> str:
    """The address of a family in which the node has no Services."""
    return ""


class ServiceController:
    """`run` watches until it is cancelled; the queue calls `reconcile`. `address` and `address6` return the node's
    addresses of IPv4 and IPv6, "" for none. `failed` gets a sentence each time that no Service can be served."""

    def __init__(
        self,
        store: Store,
        events: EventRecorder,
        queue: Queue,
        data_path: DataPath,
        *,
        node: str,
        address: Callable[[], str],
        address6: Callable[[], str] = no_address,
        deleted: Callable[[Record], None] = lambda _record: None,
        failed: Callable[[str], None] = log.error,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._events = events
        self._queue = queue
        self._data_path = data_path
        self._node = node
        self._addresses = {IPV4: address, IPV6: address6}
        self._deleted = deleted
        self._failed = failed
        self._clock = clock
        self.index = ServiceIndex()
        self._balancing = asyncio.Lock()  # one Service at a time takes ports of the node's address
        self._watch: Watch | None = None
        self._node_ports: dict[Name, tuple[int, ...]] = {}  # those that were looked at
        self._begun = False  # whether the data path has been set
        self._told: set[str] = set()  # uids of Services that were said to be unreachable

    async def run(self) -> None:
        """List every object, set the data path, and follow the changes."""
        async with self._store.watch(KINDS) as watch:
            self._watch = watch
            for kind in ("Pod", "Service", "Endpoints", "EndpointSlice"):
                for record in self._store.list(kind):
                    self._put(record)
            wanted = {
                name: service_ports(service, self._slices(name, service).slices, self._node)
                for name, service in self.index.services().items()
            }
            await self._begin({name: ports for name, ports in wanted.items() if ports})
            for name in {*wanted, *self._orphaned()}:
                self._queue.add(name)
            async for change in watch:
                self._see(change)

    async def _begin(self, wanted: dict[Name, tuple[ServicePort, ...]]) -> None:
        """Make these the only ports; try again until the helper can."""
        self._data_path.report = self._say_problems
        while True:
            try:
                await self._data_path.replace(wanted)
                break
            except (OSError, RuntimeFault) as error:
                self._failed(f"the ports of Services cannot be set: {error}")
                await asyncio.sleep(RETRY)
        self._begun = True
        if self._data_path.missing:
            log.error("no Service is reachable: %s", self._data_path.missing)

    async def reconcile(self, name: Name) -> float | None:
        """Decide about one Service and act. Return in how many seconds to decide again, None: when something
        changes."""
        self._catch_up()
        service = self.index.service(name)
        if service is None:
            await self._data_path.apply(name, ())
            await self._write_slices(none_of(self.index.slices(name)))
            await self._remove_endpoints(name)
            self._node_ports.pop(name, None)
            return None
        changes = self._slices(name, service)
        await self._data_path.apply(name, service_ports(service, changes.slices, self._node))
        await self._write_slices(changes)
        await self._write_endpoints(name, service)
        if self._data_path.missing:
            self._say_unreachable(service)
            return None
        self._say_shadowed(name, service)
        async with self._balancing:
            self._catch_up()
            service = self.index.service(name)
            return await self._balance(service) if service is not None else None

    async def withdraw(self, uid: str) -> None:
        """Return when no Service leads new connections to a pod that terminates, and the pod has had a moment to accept
        those that came before. A pod that is the last to serve goes on (KEP-1669)."""
        self._catch_up()
        left = False
        for name, one in self.index.behind(uid).items():
            service = self.index.service(name)
            if service is None or not one.terminating or not self._begun or self._data_path.missing:
                continue
            ports = service_ports(service, self._slices(name, service).slices, self._node)
            if not ports:  # headless: nothing leads connections to the pod
                continue
            try:
                await self._data_path.apply(name, ports)
            except (OSError, RuntimeFault) as error:
                log.warning("service %s/%s still leads to a pod that terminates: %s", *name, error)
            left = left or (one.serving and reached(ports).isdisjoint(one.ips))
        if left:
            await asyncio.sleep(LINGER)

    # -- decisions ----------------------------------------------------------------------------------------------------

    def _slices(self, name: Name, service: Json) -> SliceChanges:
        existing, spec = self.index.slices(name), service["spec"]
        if spec.get("type") == "ExternalName":
            return none_of(existing)
        if spec.get("selector"):
            return slices_of(service, self.index.backends(name), existing)
        endpoints = self.index.endpoints(name)
        if endpoints is not None and not is_managed(endpoints) and wants_mirror(endpoints):
            return mirrored(service, endpoints, existing)
        return none_of(existing)

    def _orphaned(self) -> set[Name]:
        """Return the names of Services that are gone, and of which something is left."""
        found = {
            (
                record.namespace,
                str((record.metadata.get("labels") or {}).get("kubernetes.io/service-name", "")),
            )
            for record in self._store.list("EndpointSlice")
            if managed_by(record.doc) in (CONTROLLER, MIRROR)
        }
        found |= {
            (record.namespace, record.name)
            for record in self._store.list("Endpoints")
            if is_managed(record.doc)
        }
        return {name for name in found if self.index.service(name) is None}

    async def _balance(self, service: Json) -> float | None:
        """Give a load balancer the node's address, or say why it cannot have it."""
        if not wants_address(service):
            if has_address(service) or (service.get("status") or {}).get("loadBalancer"):
                await self._set_status(service, status(service, ()))
            return None
        addresses = self._addresses_of(families_of(service["spec"]))
        if not addresses:
            said = "the node has no IPv6 address on its default route: the service gets no address"
            self._events.event(reference(service), "Warning", "SyncLoadBalancerFailed", said)
            await self._set_status(service, status(service, ()))
            return PORT_TAKEN
        if not has_address(service):
            if said := self._refusal(service, addresses):
                self._events.event(reference(service), "Warning", "SyncLoadBalancerFailed", said)
                return PORT_TAKEN
            said = own_addresses(addresses)
            self._events.event(reference(service), "Normal", "EnsuredLoadBalancer", said)
        await self._set_status(service, status(service, addresses))
        return None

    def _addresses_of(self, families: Iterable[str]) -> list[str]:
        """Return the node's addresses of these families."""
        return [address for family in families if (address := self._addresses[family]())]

    def _refusal(self, service: Json, addresses: Sequence[str]) -> str:
        uid = service["metadata"]["uid"]
        others = service_holders(self.index.services().values(), uid)
        return refusal(service, (*others, *self._holders(addresses)))

    def _holders(self, addresses: Sequence[str]) -> tuple[Holder, ...]:
        """The ports of the node that pods and processes have at these addresses."""
        pods = (record.doc for record in self._store.list("Pod"))
        return (*pod_holders(pods, addresses), *process_holders(tables(), addresses))

    def _say_shadowed(self, name: Name, service: Json) -> None:
        """Record an event when a Service gets a node port that somebody else has."""
        ports = tuple(port["nodePort"] for port in service["spec"].get("ports") or () if port.get("nodePort"))
        if ports == self._node_ports.get(name, ()):
            return
        self._node_ports[name] = ports
        addresses = self._addresses_of(families_of(service["spec"]))
        for sentence in shadowed(service, self._holders(addresses)):
            self._events.event(reference(service), "Warning", "NodePortInUse", sentence)

    def _say_unreachable(self, service: Json) -> None:
        uid = service["metadata"]["uid"]
        if uid not in self._told:
            self._told.add(uid)
            self._events.event(reference(service), "Warning", "NotReachable", self._data_path.missing)

    def _say_problems(self, sentences: Sequence[str]) -> None:
        """Record an event about each Service that a sentence names: "namespace/name:port/protocol …"."""
        for sentence in sentences:
            namespace, _, rest = sentence.partition("/")
            service = self.index.service((namespace.rpartition(" ")[2], rest.partition(":")[0]))
            if service is not None:
                self._events.event(reference(service), "Warning", "NotReachable", sentence)
            else:
                log.error("%s", sentence)

    # -- effects ------------------------------------------------------------------------------------------------------

    async def _set_status(self, service: Json, wanted: Json) -> None:
        def change(old: Json) -> Json | None:
            return None if old.get("status") == wanted else {**old, "status": wanted}

        await self._store.modify(service["metadata"]["uid"], change, durable=False)

    async def _write_slices(self, changes: SliceChanges) -> None:
        for doc in changes.create:
            await self._create(doc)
        for doc in changes.update:
            await self._replace(doc)
        for doc in changes.delete:
            await self._store.delete(doc["metadata"]["uid"])

    async def _write_endpoints(self, name: Name, service: Json) -> None:
        existing = self.index.endpoints(name)
        if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
            await self._remove_endpoints(name)
        elif existing is None:
            await self._create(endpoints_of(service, self.index.backends(name), None))
        elif is_managed(existing):  # those of a manifest are left alone
            wanted = endpoints_of(service, self.index.backends(name), existing)
            if wanted != existing:
                await self._replace(wanted)

    async def _remove_endpoints(self, name: Name) -> None:
        existing = self.index.endpoints(name)
        if existing is not None and is_managed(existing):
            await self._store.delete(existing["metadata"]["uid"])

    async def _create(self, doc: Json) -> None:
        metadata = {**doc["metadata"], "uid": new_uid(), "creationTimestamp": rfc3339(self._clock())}
        if doc["kind"] == "EndpointSlice":
            metadata["generation"] = 1
        try:
            await self._store.create(doc["kind"], {**doc, "metadata": metadata}, durable=False)
        except AlreadyExists:  # a manifest defines an object of this name
            log.warning("%s %s exists already", doc["kind"], metadata["name"])

    async def _replace(self, doc: Json) -> None:
        def change(old: Json) -> Json | None:
            metadata = {**doc["metadata"], "resourceVersion": old["metadata"].get("resourceVersion")}
            if "generation" in metadata:
                metadata["generation"] = int(metadata["generation"]) + 1
            return {**doc, "metadata": metadata}

        await self._store.modify(doc["metadata"]["uid"], change, durable=False)

    # -- changes ------------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """See the changes that are published and not yet read, so that a decision has what the last one wrote."""
        for change in self._watch.take() if self._watch is not None else ():
            self._see(change)

    def _see(self, change: Change) -> None:
        record = change.record
        if change.type == "DELETED":
            names = self._drop(record)
            if record.kind in ("Service", "Endpoints", "EndpointSlice"):
                self._deleted(record)
        else:
            names = self._put(record)
            if record.kind == "EndpointSlice" and managed_by(record.doc) in (CONTROLLER, MIRROR):
                return  # what this controller has just written
        for name in names:
            self._queue.add(name)

    def _put(self, record: Record) -> Iterable[Name]:
        match record.kind:
            case "Service":
                return self.index.put_service(record.doc)
            case "Pod":
                return self.index.put_pod(record.doc)
            case "Endpoints":
                return self.index.put_endpoints(record.doc)
        return self.index.put_slice(record.doc)

    def _drop(self, record: Record) -> Iterable[Name]:
        match record.kind:
            case "Service":
                return self.index.drop_service(record.doc)
            case "Pod":
                return self.index.drop_pod(record.doc)
            case "Endpoints":
                return self.index.drop_endpoints(record.doc)
        return self.index.drop_slice(record.doc)
