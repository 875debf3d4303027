"""The objects that lead pods to the node's API, and their removal."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.accounts.objects import NAME, endpoint_slice, endpoints, service
from kubelite.daemon.serving.pods import withdraw
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from state.store import Store

OBJECTS = (endpoint_slice("10.88.0.1", 1), endpoints("10.88.0.1", 1), service("10.96.0.1", 1))


async def _put(store: Store, doc: Json, **metadata: object) -> None:
    own = {**doc["metadata"], "uid": doc["kind"], **metadata}
    await store.create(doc["kind"], {**doc, "metadata": own})


def _left(store: Store) -> list[str]:
    return [doc["kind"] for doc in OBJECTS if store.get(doc["kind"], *NAME) is not None]


@pytest.mark.parametrize("begun", range(len(OBJECTS) + 1))
async def test_what_a_killed_daemon_left_is_removed(tmp_path: Path, begun: int) -> None:
    """The kill came after `begun` objects were written, or before the last ones were deleted."""
    for there in (OBJECTS[:begun], OBJECTS[begun:]):
        store = Store.open(str(tmp_path / "state.db"))
        for doc in there:
            await _put(store, doc)
        await withdraw(store)
        assert _left(store) == []
        await store.close()


async def test_the_service_is_removed_last(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    for doc in OBJECTS:
        await _put(store, doc)
    async with store.watch({doc["kind"] for doc in OBJECTS}) as watch:
        await withdraw(store)
        gone = [change.record.kind for change in watch.take()]
    assert gone == ["EndpointSlice", "Endpoints", "Service"]
    await store.close()


async def test_what_others_wrote_stays(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    await _put(store, OBJECTS[0], labels={**OBJECTS[0]["metadata"]["labels"], "mine": "true"})
    await _put(store, OBJECTS[1], annotations={SOURCE: "/m/api.yaml"})
    await _put(store, OBJECTS[2], annotations={SOURCE: "/m/api.yaml"})
    await withdraw(store)
    assert _left(store) == [doc["kind"] for doc in OBJECTS]
    await store.close()
