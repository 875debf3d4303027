"""What is done about autoscalers: the store's replicas, manifests that change meanwhile, and an autoscaler's end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kubelite.autoscaling.controller import Autoscaler, resized
from kubelite.autoscaling.model import Sample, Timing
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import REPLICAS
from kubelite.sources.directory import Sources
from state.store import Record, Store
from tests.unit.autoscaling.kit import NOW, pod, samples
from tests.unit.sources.kit import directory, sources
from tests.unit.state.store_kit import full_disk

__all__ = ["directory", "sources"]

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: busybox, resources: {requests: {cpu: 100m}}}
"""
HPA = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 6
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 30}}}
"""


def web(store: Store) -> Record:
    found = store.get("Deployment", "default", "web")
    assert found is not None
    return found


def scale(store: Store) -> tuple[int, str | None]:
    doc = web(store).doc
    return doc["spec"]["replicas"], doc["metadata"]["annotations"].get(REPLICAS)


async def loaded(store: Store, *levels: int) -> Autoscaler:
    """An autoscaler on a node whose pods use this."""
    used = {f"uid-{n}": one for n, one in enumerate(samples(*levels).values())}
    for number in range(len(levels)):
        one = pod(number)
        one["metadata"]["namespace"] = "default"
        if store.get_uid(f"uid-{number}") is None:
            await store.create("Pod", one)

    async def sample() -> Mapping[str, Sample]:
        return used

    return Autoscaler(store, EventRecorder(store, "node"), sample, clock=lambda: NOW)


async def test_a_manifest_is_not_written_and_does_not_undo_it(
    directory: Path, store: Store, sources: Sources
) -> None:
    file = directory / "web.yaml"
    file.write_text(WEB)
    (directory / "hpa.yaml").write_text(HPA)
    await sources.scan(settle=0)
    await (await loaded(store, 500, 700)).step()
    assert scale(store) == (4, "2") and web(store).doc["metadata"]["generation"] == 2
    assert file.read_text() == WEB

    await Sources(str(directory), store).scan(settle=0)  # a restart
    assert scale(store) == (4, "2")
    file.write_text(WEB.replace("busybox", "busybox:2"))  # another edit
    await sources.scan(settle=0)
    assert scale(store) == (4, "2")
    assert web(store).doc["spec"]["template"]["spec"]["containers"][0]["image"] == "busybox:2"

    file.write_text(
        WEB.replace("replicas: 2", "replicas: 3")
    )  # as `kubectl apply`, which sets the field that changed
    await sources.scan(settle=0)
    assert scale(store) == (3, None)


async def test_without_the_autoscaler_the_manifest_counts_again(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "web.yaml").write_text(WEB)
    (directory / "hpa.yaml").write_text(HPA)
    await sources.scan(settle=0)
    autoscaler = await loaded(store, 500, 700)
    await autoscaler.step()
    (directory / "hpa.yaml").unlink()
    await sources.scan(settle=0)
    await autoscaler.restore()
    assert scale(store) == (2, None)
    await autoscaler.restore()
    assert web(store).doc["metadata"]["generation"] == 3


async def test_status_and_events_are_in_the_store(directory: Path, store: Store, sources: Sources) -> None:
    (directory / "web.yaml").write_text(WEB)
    (directory / "hpa.yaml").write_text(HPA + "status: {currentReplicas: 9}\n")
    await sources.scan(settle=0)
    events = EventRecorder(store, "node")
    autoscaler = Autoscaler(store, events, (await loaded(store, 500, 700))._sample, clock=lambda: NOW)
    await autoscaler.step()
    found = store.get("HorizontalPodAutoscaler", "default", "web")
    assert found is not None and found.doc["status"]["desiredReplicas"] == 4
    await events.flush()
    assert [one["reason"] for one in store.docs("Event")] == ["SuccessfulRescale"]
    before = found.resource_version
    await sources.scan(settle=0)
    assert store.get("HorizontalPodAutoscaler", "default", "web").resource_version == before  # type: ignore[union-attr]


async def test_it_runs_while_there_are_autoscalers(
    directory: Path, store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelite.autoscaling.controller.WARM_UP", 0.0)
    (directory / "web.yaml").write_text(WEB)
    await sources.scan(settle=0)
    kit = await loaded(store, 500, 700)
    autoscaler = Autoscaler(
        store, EventRecorder(store, "node"), kit._sample, timing=Timing(sync=0.01), clock=lambda: NOW
    )
    task = asyncio.create_task(autoscaler.run())
    try:
        (directory / "hpa.yaml").write_text(HPA)
        await sources.scan(settle=0)
        await until(lambda: scale(store) == (4, "2"))
        (directory / "hpa.yaml").unlink()
        await sources.scan(settle=0)
        await until(lambda: scale(store) == (2, None))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_goes_on_when_a_full_disk_has_room_again(
    directory: Path, store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubelite.autoscaling.controller.WARM_UP", 0.0)
    monkeypatch.setattr("kubelite.autoscaling.controller.RETRY", 0.0)
    (directory / "web.yaml").write_text(WEB)
    (directory / "hpa.yaml").write_text(HPA)
    await sources.scan(settle=0)
    autoscaler = await loaded(store, 500, 700)
    task = asyncio.create_task(autoscaler.run())
    try:
        with full_disk(store) as failures:
            await until(lambda: len(failures) > 2)
        await until(lambda: scale(store) == (4, "2"))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Any) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("replicas", "own", "wanted", "expected"),
    [
        (2, None, 4, (4, "2")),
        (4, "2", 5, (5, "2")),
        (4, "2", 2, (2, None)),
        (4, "2", None, (2, None)),
        (4, "2", 4, None),
        (2, None, 2, None),
        (2, None, None, None),
    ],
)
def test_resized(
    replicas: int, own: str | None, wanted: int | None, expected: tuple[int, str | None] | None
) -> None:
    annotations = {REPLICAS: own} if own else {}
    doc: Json = {"metadata": {"annotations": annotations, "generation": 7}, "spec": {"replicas": replicas}}
    found = resized(doc, replicas=wanted)
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (found["spec"]["replicas"], found["metadata"]["annotations"].get(REPLICAS)) == expected
    assert found["metadata"]["generation"] == 8
