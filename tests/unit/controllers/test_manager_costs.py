"""What the manager costs: memory of a workload, commits of a rollout."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

from kubelite.controllers.registry import CONTROLLERS
from kubelite.kube.json import Json
from tests.unit.controllers.manager_kit import TEMPLATE, running
from tests.unit.state.store_kit import commits_of

MEMORY = (
    20 << 10
)  # bytes of a Deployment without pods, with its ReplicaSet, in the store, the index and the queue


def _deployment(name: str, replicas: int) -> Json:
    labels = {"app": name}
    spec: Json = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "template": {**TEMPLATE, "metadata": {"labels": labels}},
    }
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


async def test_a_deployment_takes_less_than_20_kb(tmp_path: Path) -> None:
    count = 100
    async with running(tmp_path, _deployment("first", 0), controllers=CONTROLLERS) as kit:
        await kit.settled(lambda: len(kit.store.list("ReplicaSet")) == 1)  # its modules are imported
        gc.collect()
        tracemalloc.start()
        try:
            for number in range(count):
                await kit.store.create("Deployment", _deployment(f"d{number}", 0))
            await kit.settled(lambda: len(kit.store.list("ReplicaSet")) == count + 1)
            await asyncio.sleep(0.1)
            await kit.queue.idle()
            gc.collect()
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert size / count < MEMORY


async def test_a_deployment_of_a_hundred_pods_costs_a_handful_of_commits(tmp_path: Path) -> None:
    async with running(tmp_path, controllers=CONTROLLERS) as kit:
        batches = commits_of(kit.store)
        await kit.store.create("Deployment", _deployment("web", 100))
        await kit.settled(lambda: len(kit.pods()) == 100)
        assert len(batches) <= 12
