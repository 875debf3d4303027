"""A work queue with client-go's semantics: a key added several times is queued once, one worker at a time processes it,
and a key added during processing is processed again.

Sources: k8s.io/client-go util/workqueue (queue.go, delaying_queue.go, default_rate_limiters.go). Each key gets its own
short-lived task, so pods run in parallel and a slow pod delays no other. `limit` bounds the number of active workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)

RETRY_FIRST = 0.05  # seconds; client-go starts at 5 ms
RETRY_LAST = 60.0
Work = Callable[[K], Awaitable[float | None]]


class WorkQueue(Generic[K]):
    """Accepts keys from its creation, and processes them after `start`: the parts of the node that add keys are built
    before those that process them."""

    def __init__(self, *, limit: int = 64) -> None:
        self._work: Work[K] | None = None
        self._early: dict[K, None] = {}  # added before `start`, in order
        self._limit = asyncio.Semaphore(limit)
        self._running: dict[K, asyncio.Task[None]] = {}
        self._dirty: set[K] = set()  # added during processing
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._closed = False
        self.added = 0
        self.retries = 0

    def start(self, work: Work[K]) -> None:
        """`work(key)` returns the seconds until it must run again for this key, or None. If it raises, the queue
        retries with an exponential back-off. A success resets the back-off."""
        self._work, early, self._early = work, self._early, {}
        for key in early:
            self._begin(key, work)

    def add(self, key: K) -> None:
        """Process `key` as soon as possible."""
        if self._closed:
            return
        self.added += 1
        self._forget_timer(key)
        if self._work is None:
            self._early[key] = None
        elif key in self._running:
            self._dirty.add(key)
        else:
            self._begin(key, self._work)

    def _begin(self, key: K, work: Work[K]) -> None:
        self._running[key] = asyncio.get_running_loop().create_task(self._run(key, work), name=f"work-{key}")

    def add_after(self, key: K, seconds: float) -> None:
        """Process `key` in `seconds`. An earlier timer of the key, or a call of add(), takes precedence."""
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
        """Return the number of keys that are being processed or wait for a worker."""
        return len(self._running) + len(self._early)

    def dirty(self, key: K) -> bool:
        """Whether `key` was added during processing, and will be processed again."""
        return key in self._dirty

    @property
    def scheduled(self) -> int:
        return len(self._timers)

    async def idle(self) -> None:
        """Wait until no key is being processed. Pending timers do not count."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    async def close(self) -> None:
        """Accept no more keys, cancel the running tasks and wait for them to end."""
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

    async def _run(self, key: K, work: Work[K]) -> None:
        try:
            async with self._limit:
                self._dirty.discard(key)
                again = await self._attempt(key, work)
        finally:
            del self._running[key]
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)
        elif again is not None:
            self.add_after(key, again)

    async def _attempt(self, key: K, work: Work[K]) -> float | None:
        try:
            again = await work(key)
        except asyncio.CancelledError:
            raise
        except Exception:
            failures = self._failures.get(key, 0)
            self._failures[key] = failures + 1
            self.retries += 1
            delay: float = min(RETRY_FIRST * 2.0 ** min(failures, 20), RETRY_LAST)
            log.exception("work failed, will retry", extra={"key": str(key), "retry_in": delay})
            return delay
        self._failures.pop(key, None)
        return again
