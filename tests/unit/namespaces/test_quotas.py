"""The status of ResourceQuotas follows what exists."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kubelite.namespaces import quotas
from kubelite.namespaces.quotas import QuotaKeeper
from state.store import Store
from tests.unit.policies.kit import compute, pod, quota, resources
from tests.unit.state.store_kit import full_disk
from tests.waiting import until_async

NOW = 1_800_000_000.0


@contextlib.asynccontextmanager
async def kept(path: Path) -> AsyncIterator[tuple[Store, list[str]]]:
    store, told = Store.open(str(path / "state.db")), list[str]()
    task = asyncio.create_task(QuotaKeeper(store, lambda: told.append("changed"), lambda: NOW).run())
    try:
        yield store, told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


def used(store: Store) -> object:
    (doc,) = store.docs("ResourceQuota")
    return doc.get("status", {}).get("used")


async def test_the_status_follows_the_objects_and_the_limits(tmp_path: Path) -> None:
    async with kept(tmp_path) as (store, told):
        await store.create("ResourceQuota", quota(pods="2", cpu="1"))
        await until_async(lambda: used(store) == {"cpu": "0", "pods": "0"})
        await store.create("Pod", pod(given=resources(compute("250m"))))
        await until_async(lambda: used(store) == {"cpu": "250m", "pods": "1"})
        told.clear()
        await store.update_status("uid-web", {"phase": "Failed"})
        await until_async(lambda: used(store) == {"cpu": "0", "pods": "0"})
        await until_async(lambda: told)
        (doc,) = store.docs("ResourceQuota")
        assert doc["status"]["hard"] == {"cpu": "1", "pods": "2"}
        await store.modify("uid-quota", lambda doc: {**doc, "spec": {"hard": {"pods": "3"}}})
        await until_async(lambda: used(store) == {"pods": "0"})
        told.clear()
        await store.delete("uid-quota")
        await until_async(lambda: told)


async def test_it_goes_on_when_a_full_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "RETRY", 0.0)
    async with kept(tmp_path) as (store, told):
        await store.create("ResourceQuota", quota(pods="2"))
        await until_async(lambda: used(store) == {"pods": "0"})
        await store.create("Pod", pod())
        with full_disk(store) as failures:
            await until_async(lambda: len(failures) > 2)
            told.clear()
        await until_async(lambda: used(store) == {"pods": "1"})
        await until_async(lambda: told)
