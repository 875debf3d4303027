"""A queue of keys with client-go's semantics: a key waits once however often it is added, is worked on by one worker at
a time, and comes back when it was added meanwhile.

Sources: k8s.io/client-go util/workqueue (queue.go, delaying_queue.go, default_rate_limiters.go). Each key gets its own
short-lived task, so pods run beside each other and one slow pod holds up nobody; `limit` bounds how many at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)

RETRY_FIRST = 0.05  # seconds; client-go begins at 5 ms, for an API across a network that is far busier
RETRY_LAST = 60.0


class WorkQueue(Generic[K]):
    """`work(key)` returns seconds until the key wants to be looked at again, or None. When it raises, the key comes
    back after an exponential back-off that a success resets."""

    def __init__(self, work: Callable[[K], Awaitable[float | None]], *, limit: int = 64) -> None:
        self._work = work
        self._limit = asyncio.Semaphore(limit)
        self._running: dict[K, asyncio.Task[None]] = {}
        self._dirty: set[K] = set()  # added while being worked on
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._closed = False
        self.added = 0
        self.retries = 0

    def add(self, key: K) -> None:
        """Look at `key` as soon as possible."""
        if self._closed:
            return
        self.added += 1
        self._forget_timer(key)
        if key in self._running:
            self._dirty.add(key)
            return
        self._running[key] = asyncio.get_running_loop().create_task(self._run(key), name=f"work-{key}")

    def add_after(self, key: K, seconds: float) -> None:
        """Look at `key` in `seconds`, or earlier: an earlier appointment, or an add, wins."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= due:
            return
        self._forget_timer(key)
        self._timers[key] = loop.call_at(due, self.add, key)

    def __len__(self) -> int:
        """Keys being worked on or waiting for a worker."""
        return len(self._running)

    def dirty(self, key: K) -> bool:
        """Whether `key` was added while being worked on, and comes back when that is done."""
        return key in self._dirty

    @property
    def scheduled(self) -> int:
        return len(self._timers)

    async def idle(self) -> None:
        """Wait until nothing is being worked on (appointments in the future do not count)."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    async def close(self) -> None:
        """Take nothing new, cancel what runs, wait for it to end."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_timer(self, key: K) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def _run(self, key: K) -> None:
        try:
            async with self._limit:
                self._dirty.discard(key)
                again = await self._attempt(key)
        finally:
            del self._running[key]
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)
        elif again is not None:
            self.add_after(key, again)

    async def _attempt(self, key: K) -> float | None:
        try:
            again = await self._work(key)
        except asyncio.CancelledError:
            raise
        except Exception:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            self.retries += 1
            delay: float = min(RETRY_FIRST * 2.0 ** min(failures, 20), RETRY_LAST)
            log.exception("work failed, will be tried again", extra={"key": str(key), "retry_in": delay})
            return delay
        self._failures.pop(key, None)
        return again
