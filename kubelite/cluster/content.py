"""Keeps in the store what the cluster's pods here refer to: ConfigMaps and Secrets, each followed by its name, and the
Services, whose addresses are in the environment of containers.

A node may read an object only while one of its pods refers to it. The store keeps the last content, so that pods start
while the API server is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from kubelite.cluster.client import ClusterClient
from kubelite.cluster.decide.references import Reference, content, is_over, safe, tokens
from kubelite.cluster.reflector import Reflector
from kubelite.kube.json import Json
from kubelite.node.spec.cluster_objects import TOKEN, cluster_kind, token_name
from state.errors import AlreadyExists
from state.store import Store

_PLURALS = {"ConfigMap": "configmaps", "Secret": "secrets"}
SERVICE = "Service"


class ClusterContent:
    """`changed(uid)` is called for a pod when something that it refers to has changed."""

    def __init__(self, store: Store, client: ClusterClient, changed: Callable[[str], None]) -> None:
        self._store = store
        self._client = client
        self._changed = changed
        self._users: dict[Reference, set[str]] = {}
        self._following: dict[Reference, asyncio.Task[None]] = {}  # owned by `run`
        self._running = False
        self._writes: asyncio.Queue[tuple[str, Json | None, tuple[str, str]]] = asyncio.Queue()
        self._arrived = asyncio.Event()  # replaced by a new one at each write
        self.services = asyncio.Event()  # set once the Services are known
        if store.list(cluster_kind(SERVICE)):
            self.services.set()

    async def run(self) -> None:
        """Follow the Services, and write what was found to the store, until cancelled."""
        services = Reflector(
            self._client, "/api/v1/services",
            listed=self._services_listed, changed=lambda kind, doc: self._note(SERVICE, doc, gone=kind == "DELETED"),
        )  # fmt: skip
        following = asyncio.create_task(services.run(), name="cluster-services")
        self._running = True
        self._follow_all()
        try:
            while True:
                await self._write(*await self._writes.get())
        finally:
            self._running = False
            following.cancel()
            for task in self._following.values():
                task.cancel()
            await asyncio.gather(following, *self._following.values(), return_exceptions=True)
            self._following.clear()

    async def wait(self, pod: Json, seconds: float) -> None:
        """Return when the store has what a pod refers to and its tokens, or after `seconds`: what is still missing is
        said by the worker, and optional references may never arrive."""
        try:
            async with asyncio.timeout(seconds):
                while self._missing(pod):
                    await self._arrived.wait()
        except TimeoutError:
            pass

    def _missing(self, pod: Json) -> bool:
        named = ((one.kind, one.namespace, one.name) for one in content(pod))
        uid, namespace = str(pod["metadata"]["uid"]), str(pod["metadata"]["namespace"])
        issued = ((TOKEN, namespace, token_name(uid, one)) for one in tokens(pod))
        return any(
            self._store.get(cluster_kind(kind), place, name) is None
            for kind, place, name in (*named, *issued)
        )

    def arrived(self) -> None:
        """Wake those that wait."""
        self._arrived.set()
        self._arrived = asyncio.Event()

    def use(self, pods: Iterable[Json]) -> None:
        """Follow what these pods refer to, and delete the rest, also what an earlier run of the daemon has left."""
        users: dict[Reference, set[str]] = {}
        for pod in pods:
            if not is_over(pod):
                for reference in content(pod):
                    users.setdefault(reference, set()).add(str(pod["metadata"]["uid"]))
        self._users = users
        for reference in (self._stored() | self._following.keys()) - users.keys():
            if (task := self._following.pop(reference, None)) is not None:
                task.cancel()
            self._writes.put_nowait((reference.kind, None, (reference.namespace, reference.name)))
        if self._running:
            self._follow_all()

    def _stored(self) -> set[Reference]:
        return {
            Reference(kind, record.namespace, record.name)
            for kind in _PLURALS
            for record in self._store.list(cluster_kind(kind))
        }

    def _follow_all(self) -> None:
        for reference in self._users.keys() - self._following.keys():
            task = asyncio.create_task(self._follow(reference).run(), name=f"cluster-{reference.name}")
            self._following[reference] = task

    def _follow(self, reference: Reference) -> Reflector:
        place = f"/api/v1/namespaces/{reference.namespace}/{_PLURALS[reference.kind]}"
        name = reference.namespace, reference.name

        def listed(found: list[Json]) -> None:
            for doc in found:
                self._note(reference.kind, doc, gone=False)
            if not found:
                self._writes.put_nowait((reference.kind, None, name))

        def changed(kind: str, doc: Json) -> None:
            self._note(reference.kind, doc, gone=kind == "DELETED")

        return Reflector(
            self._client, place, listed=listed, changed=changed, fields=f"metadata.name={reference.name}"
        )

    def _services_listed(self, found: list[Json]) -> None:
        known = {(doc["metadata"]["namespace"], doc["metadata"]["name"]) for doc in found}
        for record in self._store.list(cluster_kind(SERVICE)):
            if (record.namespace, record.name) not in known:
                self._writes.put_nowait((SERVICE, None, (record.namespace, record.name)))
        for doc in found:
            self._note(SERVICE, doc, gone=False)
        self._writes.put_nowait(("", None, ("", "")))

    def _note(self, kind: str, doc: Json, *, gone: bool) -> None:
        metadata = doc["metadata"]
        self._writes.put_nowait(
            (kind, None if gone else doc, (str(metadata["namespace"]), str(metadata["name"])))
        )

    async def _write(self, kind: str, doc: Json | None, name: tuple[str, str]) -> None:
        if not kind:  # everything that was listed is written
            self.services.set()
            return
        stored = cluster_kind(kind)
        old = self._store.get(stored, *name)
        if doc is None:
            if old is None:
                return
            await self._store.delete(old.uid)
        else:
            metadata = {
                k: v for k, v in doc["metadata"].items() if k not in ("managedFields", "resourceVersion")
            }
            # a prefix: the uid of the cluster's object may be known here as that of something else
            kept = {**safe(doc), "metadata": {**metadata, "uid": f"cluster:{metadata['uid']}"}}
            if old is not None and old.uid != kept["metadata"]["uid"]:
                await self._store.delete(old.uid)
                old = None
            if old is None:
                await self._create(stored, kept)
            else:
                await self._store.update(stored, kept, durable=False)
        self.arrived()
        if kind != SERVICE:
            for uid in self._users.get(Reference(kind, *name), ()):
                self._changed(uid)

    async def _create(self, kind: str, doc: Json) -> None:
        try:
            await self._store.create(kind, doc, durable=False)
        except AlreadyExists:
            await self._store.update(kind, doc, durable=False)
