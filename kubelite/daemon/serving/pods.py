"""Serves the API to pods from the first one on that mounts the API's authority, as `kubernetes.default.svc`.

The API listens on the gateway of the pod network, and the Service `kubernetes` leads there. A node whose pods do not
use the API has neither.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kubelite.accounts.objects import LABELS, NAME, endpoint_slice, endpoints, service
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from kubelite.kube.times import rfc3339
from kubelite.policies.token_volumes import uses_api
from runtime.errors import RuntimeFault
from runtime.identity import new_uid
from state.errors import AlreadyExists

if TYPE_CHECKING:
    from kubelite.api.secure.port import ApiPort, PodPort
    from kubelite.daemon.node_api import NodeAgent
    from kubelite.sources.services import Allocate
    from state.store import Store

log = logging.getLogger(__name__)


async def serve_pods(agent: NodeAgent, port: Callable[[], ApiPort], allocate: Allocate) -> None:
    """Serve the API to pods until cancelled. While no pod uses it, wait for the first one. Raises the errors of
    `is_expected`; the caller then calls this again."""
    store, access = agent.store, agent.access
    if not access.needed.is_set() and not any(uses_api(record.doc) for record in store.list("Pod")):
        await withdraw(store)
        await access.needed.wait()
    objects = PodApi(agent, port, allocate)
    async with store.watch({"Service", "EndpointSlice", "Endpoints"}) as watch:
        try:
            await objects.open()
        except (OSError, RuntimeFault) as error:
            agent.node_event("APIPortFailed", f"The API is not served to pods: {error}")
            raise
        log.info("the API is served to pods")
        for record in store.list("Pod"):
            if uses_api(record.doc):
                agent.worker.content_changed(record.uid)
        async for change in watch:
            if change.type == "DELETED" and (change.record.namespace, change.record.name) == NAME:
                await objects.open()


class PodApi:
    """The API as pods reach it: the port on the pod network, and the objects that lead there."""

    def __init__(self, agent: NodeAgent, port: Callable[[], ApiPort], allocate: Allocate) -> None:
        self._agent = agent
        self._port = port
        self._allocate = allocate

    async def open(self) -> None:
        """Open the port unless it is open, and write the objects that are missing."""
        found = await self._port().open_to_pods(self._held())
        await self._write(found)
        self._agent.access.open(found.authority)

    def _held(self) -> str:
        """Return the address of the Service `kubernetes`: the one that it has, else the first of service_cidr, else any
        free one. Raises RuntimeFault if none is free."""
        store = self._agent.store
        held = {(one.namespace, one.name): one.doc for one in store.list("Service")}
        if (own := held.get(NAME)) is not None and (address := own["spec"].get("clusterIP")):
            return str(address)
        from kubelite.api.secure.port import first_address

        for address in (first_address(self._agent.settings.service_networks[0]), ""):
            found = self._allocate({NAME: service(address, 0)}, held).services.get(NAME)
            if found is not None:
                return str(found["spec"]["clusterIP"])
        raise RuntimeFault("no address is left for the Service kubernetes: choose a larger service_cidr")

    async def _write(self, port: PodPort) -> None:
        store = self._agent.store
        for doc in (
            endpoint_slice(port.address, port.number),
            endpoints(port.address, port.number),
            service(port.service, port.number),
        ):
            record = store.get(doc["kind"], *NAME)
            if record is None:
                await self._create(doc)
            elif record.metadata.get("labels") == doc["metadata"]["labels"]:
                await store.modify(record.uid, partial(_content_of, doc), durable=False)

    async def _create(self, doc: Json) -> None:
        metadata = {**doc["metadata"], "uid": new_uid(), "creationTimestamp": rfc3339(time.time())}
        try:
            await self._agent.store.create(doc["kind"], {**doc, "metadata": metadata}, durable=False)
        except AlreadyExists:  # a manifest was first: it decides
            log.warning("a manifest defines %s %s/%s", doc["kind"], *NAME)


def _content_of(wanted: Json, old: Json) -> Json | None:
    """Return the recorded object with the content that is wanted, None if it has it."""
    new = {**wanted, "metadata": old["metadata"]}
    return None if new == old else new


async def withdraw(store: Store) -> None:
    """Delete the Service `kubernetes` and its endpoints, which an earlier run of the daemon wrote. Objects that a
    manifest defines stay. Each object is judged by itself: a daemon that was killed may have left any of them."""
    for kind, labels in LABELS.items():
        found = store.get(kind, *NAME)
        if found is not None and found.metadata.get("labels") == labels and not _of_manifest(found.metadata):
            await store.delete(found.uid)


def _of_manifest(metadata: Json) -> bool:
    return SOURCE in (metadata.get("annotations") or {})
