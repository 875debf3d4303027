"""A store, a manager and toy controllers, with helpers for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from kubelite.controllers.admission import Admission
from kubelite.controllers.manager import ControllerManager, Key
from kubelite.controllers.model import Controller
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from kubelite.kube.workqueue import WorkQueue
from manifests.types.core import Pod
from state.store import Record, Store

TOYS = (Controller("ReplicaSet", "apps/v1", ("Pod",), "tests.unit.controllers.toy"),)
SELECTOR: Json = {"matchLabels": {"app": "web"}}
TEMPLATE: Json = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "main", "image": "busybox"}]},
}


def replica_set(name: str = "web", replicas: int = 3, **metadata: Any) -> Json:
    own = {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1, **metadata}
    spec: Json = {"replicas": replicas, "selector": SELECTOR, "template": TEMPLATE}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": own, "spec": spec}


def pod(name: str, *, owners: Sequence[Json] = (), source: str = "", app: str = "web") -> Json:
    metadata: Json = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": app}}
    if owners:
        metadata["ownerReferences"] = list(owners)
    if source:
        metadata["annotations"] = {SOURCE: source}
    status = {"phase": "Running"}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": TEMPLATE["spec"], "status": status,
    }  # fmt: skip


class Kit:
    def __init__(
        self,
        store: Store,
        *,
        refusal: Callable[[Pod], str] = lambda _pod: "",
        controllers: Sequence[Controller] = TOYS,
    ) -> None:
        self.store = store
        self.events = EventRecorder(store, "node")
        self.queue: WorkQueue[Key] = WorkQueue()
        self.offered: dict[str, object] = {}
        self.deleted: list[Record] = []
        admission = Admission(
            store,
            node_name="node",
            priorities={"high": 1000},
            refusal=refusal,
            offer=lambda uid, _document, spec: self.offered.update({uid: spec}),
        )
        self.manager = ControllerManager(
            store, self.events, self.queue, admission, controllers=controllers, deleted=self.deleted.append
        )

    def pods(self) -> list[Record]:
        return self.store.list("Pod")

    async def settled(self, holds: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait until `holds`, and until nothing is being decided. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.005)
            await self.queue.idle()

    async def said(self) -> list[tuple[str, str]]:
        await self.events.flush()
        return [(event["reason"], event["message"]) for event in self.store.docs("Event")]


@contextlib.asynccontextmanager
async def running(
    path: Path,
    *docs: Json,
    refusal: Callable[[Pod], str] = lambda _pod: "",
    controllers: Sequence[Controller] = TOYS,
) -> AsyncIterator[Kit]:
    """Run a manager on a store that has these documents."""
    store = Store.open(str(path / "state.db"))
    for doc in docs:
        await store.create(doc["kind"], doc)
    kit = Kit(store, refusal=refusal, controllers=controllers)
    kit.queue.start(kit.manager.reconcile)
    task = asyncio.create_task(kit.manager.run())
    try:
        await asyncio.sleep(0)
        yield kit
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kit.queue.close()
        await kit.events.flush()
        await store.close()
