"""The standing repair of the network: what it logs of repairs, and of damage that stays."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubelite.daemon.relist import INSIDE, _repair_network
from runtime.network.plan import Repair


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
