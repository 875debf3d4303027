"""The work queue: a key added several times runs once, one worker per key, a key added during its run runs again, and
failures back off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kubelite.kube.workqueue import WorkQueue
from tests.waiting import SECONDS


def started(work: Callable[[Any], Awaitable[float | None]], limit: int = 64) -> WorkQueue[Any]:
    queue = WorkQueue[Any](limit=limit)
    queue.start(work)
    return queue


async def test_keys_added_before_the_start_wait_for_it() -> None:
    seen: list[str] = []

    async def work(key: str) -> None:
        seen.append(key)

    queue = WorkQueue[str]()
    for key in ("b", "a", "b"):
        queue.add(key)
    queue.add_after("c", 0.001)
    await asyncio.sleep(0.01)
    assert (seen, len(queue)) == ([], 3)
    queue.start(work)
    await queue.idle()
    assert (seen, len(queue)) == (["b", "a", "c"], 0)
    queue.add("a")
    await queue.idle()
    assert seen == ["b", "a", "c", "a"]


async def test_several_adds_cause_one_run_and_an_add_during_it_another() -> None:
    seen: list[str] = []
    gate = asyncio.Event()

    async def work(key: str) -> None:
        seen.append(key)
        await gate.wait()

    queue = started(work)
    for _ in range(5):
        queue.add("a")
    await asyncio.sleep(0)
    assert seen == ["a"]
    assert not queue.dirty("a")
    for _ in range(5):
        queue.add("a")
    assert queue.dirty("a")
    gate.set()
    await queue.idle()
    assert seen == ["a", "a"]
    assert not queue.dirty("a")


async def test_one_worker_per_key_but_keys_run_concurrently() -> None:
    at_once: dict[str, int] = {"a": 0, "b": 0}
    most = 0

    async def work(key: str) -> None:
        nonlocal most
        at_once[key] += 1
        assert at_once[key] == 1
        most = max(most, sum(at_once.values()))
        await asyncio.sleep(0.001)
        at_once[key] -= 1

    queue = started(work)
    for _ in range(10):
        queue.add("a")
        queue.add("b")
        await asyncio.sleep(0.0005)
    await queue.idle()
    assert most == 2


async def test_concurrency_is_limited() -> None:
    now = most = 0

    async def work(_: int) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    queue = started(work, limit=3)
    for i in range(20):
        queue.add(i)
    await queue.idle()
    assert most == 3


async def test_a_failure_is_retried_until_success() -> None:
    attempts = 0
    third = asyncio.Event()

    async def work(_: str) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            third.set()
        else:
            raise ValueError("not yet")

    queue = started(work)
    queue.add("a")
    async with asyncio.timeout(SECONDS):
        await third.wait()
    await queue.idle()
    assert queue.scheduled == 0
    assert queue.retries == 2


async def test_the_earlier_of_two_delayed_runs_wins() -> None:
    seen: list[float] = []
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def work(_: str) -> float | None:
        seen.append(loop.time() - start)
        looked.set()
        return None

    queue = started(work)
    queue.add_after("a", 30)
    queue.add_after("a", 0.01)
    queue.add_after("a", 20)
    async with asyncio.timeout(SECONDS):
        await looked.wait()
    assert queue.scheduled == 0
    await queue.close()
    queue.add("a")
    assert len(queue) == 0
