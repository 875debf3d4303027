"""What leads connections to pods is asked to end them, and does not hold a stop up for ever."""

from __future__ import annotations

import asyncio

import pytest

from kubelite.node.worker import traffic
from kubelite.node.worker.traffic import Traffic


async def test_each_way_that_is_registered_is_ended() -> None:
    ended: list[str] = []

    async def withdraw(uid: str) -> None:
        ended.append(uid)

    ways = Traffic()
    await ways.withdraw("a")
    with ways.led_by(withdraw), ways.led_by(withdraw):
        await ways.withdraw("b")
    await ways.withdraw("c")
    assert ended == ["b", "b"]


async def test_a_way_that_does_not_answer_delays_a_stop_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "LONGEST", 0.01)

    async def withdraw(_uid: str) -> None:
        await asyncio.Event().wait()

    ways = Traffic()
    with ways.led_by(withdraw):
        await ways.withdraw("a")
