"""Evictions through the store, and the disruption controller behind them: what is written, in which order, and what a
kill between two writes leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kubelite.controllers.decide.evictions import REFUSED
from kubelite.controllers.eviction import EvictionOptions, evict
from kubelite.controllers.registry import CONTROLLERS
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from state.store import Store
from tests.unit.controllers.manager_kit import SELECTOR, pod, replica_set, running

NOW = 1_790_000_000.0
BUDGETS = tuple(found for found in CONTROLLERS if found.kind == "PodDisruptionBudget")
READY: Json = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


def ready(name: str, **given: Any) -> Json:
    return {**pod(name, **given), "status": READY}


def budget(name: str = "web", allowed: int = 1, **spec: Any) -> Json:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-pdb-{name}", "generation": 1}
    status = {
        "disruptionsAllowed": allowed,
        "currentHealthy": 2,
        "desiredHealthy": 1,
        "observedGeneration": 1,
    }
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {"selector": SELECTOR, "minAvailable": 1, **spec},
        "status": status,
    }


async def opened(path: Path, *docs: Json) -> Store:
    store = Store.open(str(path / "state.db"))
    for doc in docs:
        await store.create(doc["kind"], doc)
    return store


def doc_of(store: Store, kind: str, name: str) -> Json:
    record = store.get(kind, "default", name)
    assert record is not None
    return record.doc


async def tried(store: Store, name: str, **options: Any) -> ApiError | None:
    try:
        await evict(store, "default", name, EvictionOptions(**options), NOW)
    except ApiError as error:
        return error
    return None


async def test_an_eviction_spends_and_terminates(tmp_path: Path) -> None:
    store = await opened(tmp_path, ready("a"), ready("b"), budget())
    assert await tried(store, "a", grace=5) is None
    status = doc_of(store, "PodDisruptionBudget", "web")["status"]
    assert (status["disruptionsAllowed"], status["disruptedPods"]) == (0, {"a": rfc3339(NOW)})
    gone = doc_of(store, "Pod", "a")
    assert gone["metadata"]["deletionGracePeriodSeconds"] == 5
    (condition,) = (one for one in gone["status"]["conditions"] if one["type"] == "DisruptionTarget")
    assert (condition["reason"], condition["message"]) == ("EvictionByEvictionAPI", "Eviction API: evicting")
    error = await tried(store, "b")
    assert error is not None and (error.code, str(error)) == (429, REFUSED)
    assert error.details["causes"][0]["reason"] == "DisruptionBudget"
    await store.close()


async def test_evictions_beside_each_other_spend_what_is_allowed(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(8)]
    store = await opened(tmp_path, *(ready(name) for name in names), budget(allowed=3))
    answers = await asyncio.gather(*(tried(store, name) for name in names))
    assert [answer for answer in answers if answer is None] == [None] * 3
    terminating = [record.name for record in store.list("Pod") if record.deleting]
    assert sorted(doc_of(store, "PodDisruptionBudget", "web")["status"]["disruptedPods"]) == terminating
    assert len(terminating) == 3
    await store.close()


async def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path, ready("a"), budget())
    version = store.resource_version
    assert await tried(store, "a", dry_run=True) is None
    assert store.resource_version == version
    await store.close()


@pytest.mark.parametrize(
    ("docs", "options", "code", "words"),
    [
        ((ready("a"), budget("one"), budget("two")), {}, 500, "more than one PodDisruptionBudget"),
        ((ready("a"), budget(allowed=0)), {"dry_run": True}, 429, REFUSED),
        ((ready("a"),), {"uid": "other"}, 409, "the UID in the precondition (other) does not match"),
        ((ready("a"),), {"resource_version": "0"}, 409, "the ResourceVersion in the precondition (0)"),
        ((), {}, 404, 'pods "a" not found'),
        ((ready("a"), ready("c", app="db"), budget(allowed=0, selector={})), {}, 429, REFUSED),
        ((pod("a"), budget(allowed=0, unhealthyPodEvictionPolicy="AlwaysAllow")), {}, 0, ""),
        ((ready("a"), budget(allowed=0, selector={"matchLabels": {"app": "db"}})), {}, 0, ""),
    ],
)
async def test_answers(tmp_path: Path, docs: tuple[Json, ...], options: Json, code: int, words: str) -> None:
    store = await opened(tmp_path, *docs)
    error = await tried(store, "a", **options)
    assert (error.code if error else 0) == code and words in str(error or "")
    record = store.get("Pod", "default", "a")
    assert (record is not None and record.deleting) is (code == 0)
    await store.close()


async def test_a_changed_budget_says_when_to_try_again(tmp_path: Path) -> None:
    changed = budget()
    changed["metadata"]["generation"] = 2
    store = await opened(tmp_path, ready("a"), changed)
    error = await tried(store, "a")
    assert error is not None and error.details["retryAfterSeconds"] == 10
    assert "still being processed" in error.details["causes"][0]["message"]
    await store.close()


async def test_a_pod_that_becomes_ready_meanwhile_is_guarded(tmp_path: Path) -> None:
    """An unready pod needs no budget. That it is ready when the eviction is written, is seen in that write."""
    store = await opened(tmp_path, pod("a"), budget(allowed=0))
    becomes = store.modify("uid-a", lambda doc: {**doc, "status": READY})
    _, error = await asyncio.gather(becomes, tried(store, "a"))
    assert error is not None and error.code == 429
    assert "deletionTimestamp" not in doc_of(store, "Pod", "a")["metadata"]
    await store.close()


async def test_the_controller_follows_the_pods(tmp_path: Path) -> None:
    """The counts follow the pods of a ReplicaSet; a kill between the two writes of an eviction is made good after two
    minutes, and until then no pod more than allowed is evicted."""
    owner = {
        "kind": "ReplicaSet",
        "name": "web",
        "uid": "uid-web",
        "apiVersion": "apps/v1",
        "controller": True,
    }
    pods = [ready(name, owners=[owner]) for name in ("a", "b", "c")]
    fresh = {**budget(maxUnavailable="34%"), "status": {}}
    del fresh["spec"]["minAvailable"]
    async with running(tmp_path, replica_set(), *pods, fresh, controllers=BUDGETS) as kit:

        def counts() -> tuple[int, ...]:
            status = doc_of(kit.store, "PodDisruptionBudget", "web").get("status") or {}
            keys = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
            return tuple(status.get(key, -1) for key in keys)

        await kit.settled(lambda: counts() == (2, 3, 1, 3))
        await kit.store.modify("uid-c", lambda doc: {**doc, "status": {"phase": "Running"}})
        await kit.settled(lambda: counts() == (1, 2, 1, 3))
        assert await tried(kit.store, "a") is None
        await kit.settled(lambda: counts() == (0, 1, 1, 3))
        assert (await tried(kit.store, "b")) is not None
        await kit.store.delete("uid-a")
        await kit.store.modify("uid-c", lambda doc: {**doc, "status": READY})
        await kit.settled(lambda: counts() == (1, 2, 1, 3))
