"""The standing repair of the network: what it logs of repairs, and of damage that stays; and what else is periodic."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubelite.daemon.relist import INSIDE, _forget_changes, _repair_network
from runtime.network.plan import Repair
from state.errors import Expired
from state.store import Store


async def test_damage_that_stays_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    results = [
        Repair(
            ["pod a: no default route"], ["pod b: interface klb is missing"], ["pod b cannot be attached"]
        ),
        Repair((), ["pod b: interface klb is missing"], ["pod b cannot be attached"]),
        Repair(["pod b: interface klb is missing"]),
        Repair((), ["pod b: interface klb is missing"]),
    ]
    asked: list[int | None] = []

    async def repair(*, inside: int | None = None) -> Repair:
        asked.append(inside)
        return results.pop(0)

    async def attach_lost() -> list[str]:
        return ["pod c: had lost its lease"] if len(results) == 3 else []

    agent = cast(
        Any,
        SimpleNamespace(network=SimpleNamespace(repair=repair), cri=SimpleNamespace(attach_lost=attach_lost)),
    )
    told: frozenset[str] = frozenset()
    logged = []
    caplog.set_level(logging.WARNING)
    for _ in range(4):
        told = await _repair_network(agent, told)
        logged.append([(record.levelname, record.getMessage()) for record in caplog.records])
        caplog.clear()
    left = "network damaged, and not repaired: "
    assert logged == [
        [
            ("WARNING", "network repaired: pod a: no default route"),
            ("WARNING", "network repaired: pod c: had lost its lease"),
            ("ERROR", f"{left}pod b cannot be attached"),
            ("ERROR", f"{left}pod b: interface klb is missing"),
        ],
        [],
        [("WARNING", "network repaired: pod b: interface klb is missing")],
        [("ERROR", f"{left}pod b: interface klb is missing")],
    ]
    assert asked == [INSIDE] * 4


async def test_changes_older_than_five_minutes_are_forgotten(tmp_path: Path) -> None:
    """A watcher resumes from what it saw up to then."""
    store = Store.open(str(tmp_path / "state.db"))
    versions: deque[tuple[float, int]] = deque()
    resumable = []
    for minute in range(10):
        doc = {"metadata": {"name": f"p{minute}", "namespace": "default", "uid": f"u{minute}"}}
        await store.create("Pod", doc)
        _forget_changes(store, versions, 60.0 * minute)
        oldest = next(version for version in range(minute + 2) if _resumes(store, version))
        resumable.append(oldest)
    assert resumable == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert len(versions) == 5
    await store.close()


def _resumes(store: Store, version: int) -> bool:
    try:
        store.watch("Pod", since=version).close()
    except Expired:
        return False
    return True
