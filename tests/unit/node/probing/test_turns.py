"""Turns of exec probes: how many run at once, in which order, and what a hung command keeps the others from."""

from __future__ import annotations

import asyncio
import logging

import pytest

from kubelite.node.probing import turns
from kubelite.node.probing.turns import Turns


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Commands:
    """Commands that run until `ends` says so. `began`: their names, in order."""

    def __init__(self, count: int) -> None:
        self.clock = Clock()
        self.turns = Turns(count, self.clock)
        self.began: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def ask(self, *names: str) -> None:
        for name in names:
            self.ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._run(name))

    async def _run(self, name: str) -> None:
        async with self.turns.turn():
            self.began.append(name)
            await self.ends[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
            await self.tasks[name]
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_commands_begin_in_order_some_at_a_time() -> None:
    some = Commands(2)
    some.ask("a", "b", "c", "d")
    await settle()
    assert some.began == ["a", "b"]
    await some.end("b")
    assert some.began == ["a", "b", "c"]
    await some.end("a", "c", "d")
    assert some.began == ["a", "b", "c", "d"]


async def test_a_hung_command_passes_its_turn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "HOLD", 0.01)
    some = Commands(1)
    some.ask("hung", "a", "b")
    for name in ("a", "b"):
        some.ends[name].set()
        await asyncio.wait_for(some.tasks[name], 5)
    assert some.began == ["hung", "a", "b"]
    await some.end("hung")
    some.ask("c", "d")
    await settle()
    assert some.began[3:] == ["c"], "a turn that was passed on is not given back again"
    await some.end("c", "d")


async def test_a_cancelled_wait_takes_no_turn() -> None:
    some = Commands(1)
    some.ask("a", "gone", "b")
    await settle()
    some.tasks["gone"].cancel()
    await some.end("a")
    assert some.began == ["a", "b"]
    some.tasks["b"].cancel()
    some.ask("c")
    await settle()
    assert some.began == ["a", "b", "c"], "a cancelled command gives its turn back"
    await some.end("c")


async def test_saturation_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kubelite.node.probing.turns")
    some = Commands(1)
    for number in range(3):
        some.ask(f"first{number}", f"second{number}")
        await settle()
        some.clock.now += turns.LONG
        await some.end(f"first{number}", f"second{number}")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    some.clock.now += turns.QUIET
    some.ask("later")
    await settle()
    await some.end("later")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
