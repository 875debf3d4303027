"""A pod worker on a fake node and a real store; the test controls the time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.recorder import Recorder
from kubelite.node.scheduling.scheduler import Scheduler, node_state
from kubelite.node.worker.parsed_pods import ParsedPods
from kubelite.node.worker.pod_worker import Decided, PodWorker
from manifests.types.core import Pod
from state.store import Store
from tests.unit.node.decide.pod_worlds import UID, container
from tests.unit.node.fake_cri import FakeCri


class Events:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def event(self, reference: dict[str, Any], type_: str, reason: str, message: str) -> None:
        about = reference.get("fieldPath", "").partition("{")[2].rstrip("}") or reference["kind"]
        self.seen.append((about, reason, message))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.seen]

    def messages(self, reason: str) -> list[str]:
        return [message for _, found, message in self.seen if found == reason]


class Woken(list[str]):
    """A queue that the test controls."""

    def add(self, uid: str, /) -> None:
        self.append(uid)

    def dirty(self, uid: str, /) -> bool:
        return uid in self


async def bound(_pod: Pod) -> None:
    """Claims that are always bound."""


def make_worker(store: Store, fake: FakeCri, events: Recorder, config: NodeConfig, **more: Any) -> PodWorker:
    """A worker and its parts, with the clock of the fake node."""
    parsed, queue = ParsedPods(), more.pop("queue", Woken())
    scheduler = Scheduler(store, config, node_state(store, config), parse=parsed.of, wake=queue.add)
    return PodWorker(
        store, fake, events, config, scheduler,
        parsed=parsed, queue=queue, provide=bound, clock=lambda: fake.now, **more,
    )  # fmt: skip


class Node:
    """A worker, its fake node and its store; the test controls the time."""

    def __init__(self, root: Path) -> None:
        self.fake = FakeCri()
        self.fake.add_image("app:1")
        self.events = Events()
        self.store = Store.open(str(root / "state.db"))
        self.config = NodeConfig(
            "node-1", "192.0.2.1", str(root), str(root / "logs"), memory_bytes=8 << 30, cpu_milli=4000
        )
        self.woken = Woken()
        self.decided: list[Decided] = []
        self.worker = self.new_worker(self.config)

    def new_worker(self, config: NodeConfig) -> PodWorker:
        """Replace the worker, like a new daemon on the same store."""
        told = {"queue": self.woken, "decided": self.decided.append}
        return make_worker(self.store, self.fake, self.events, config, **told)

    async def put(self, *containers: dict[str, Any], **spec: Any) -> None:
        spec = {"restartPolicy": "Always", "containers": list(containers) or [container("app")], **spec}
        metadata = {"name": "web", "namespace": "default", "uid": UID, "generation": 1}
        doc = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        if self.store.get_uid(UID) is None:
            await self.store.create("Pod", doc)
        else:
            await self.edit(lambda old: {**old, "spec": spec})

    async def edit(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        await self.store.modify(UID, change)

    async def delete(self, grace: int = 30) -> None:
        stamp = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
        await self.edit(lambda old: {**old, "metadata": {**old["metadata"], **stamp}})

    async def settle(self, limit: int = 20) -> float | None:
        """Run rounds until nothing is left to do now. Return the seconds until the next round."""
        for _ in range(limit):
            self.woken.clear()
            before = self.store.resource_version
            delay = await self.worker.reconcile(UID)
            await self.pulled()
            if delay != 0 and self.store.resource_version == before:
                return delay
        raise AssertionError(f"it never settles: {self.worker.why(UID, 'web')}")

    async def pulled(self) -> None:
        """Wait for the end of the pulls that have begun."""
        await asyncio.sleep(0)
        pulls = [task for task in asyncio.all_tasks() if task.get_name().startswith("pull-")]
        if pulls:
            await asyncio.wait(pulls, timeout=30)

    @property
    def status(self) -> dict[str, Any]:
        record = self.store.get_uid(UID)
        assert record is not None
        found: dict[str, Any] = record.doc.get("status", {})
        return found

    def state(self, name: str = "app") -> dict[str, Any]:
        found = [*self.status.get("initContainerStatuses", []), *self.status["containerStatuses"]]
        return next(status for status in found if status["name"] == name)


Run = Callable[[Callable[[Node], Awaitable[None]]], None]
