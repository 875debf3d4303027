"""Whose turn it is: how many pulls at a time and how often one may begin, and that no start counts on an image that is
on its way out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Bucket:
    """Tokens that come at `rate` a second and are kept up to `burst`; a rate of 0 is no limit. Those who come too early
    take their token on credit and wait for it, in the order in which they came."""

    rate: float
    burst: int
    _tokens: float = field(init=False)
    _at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._tokens = float(self.burst)

    def take(self, now: float) -> float:
        """Take one; how many seconds from `now` (of any clock that only goes on) it is there."""
        if self.rate <= 0:
            return 0.0
        self._tokens = min(float(self.burst), self._tokens + (now - self._at) * self.rate) - 1.0
        self._at = now
        return max(0.0, -self._tokens / self.rate)


class Turns:
    """Use within one event loop."""

    def __init__(self, parallel: int, bucket: Bucket, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = asyncio.Semaphore(parallel)
        self._bucket = bucket
        self._clock = clock
        self._going: Counter[str] = Counter()
        self._nothing_goes = asyncio.Event()
        self._nothing_goes.set()

    @asynccontextmanager
    async def pull(self) -> AsyncIterator[None]:
        """One of the pulls at a time. Waits for removals: what is pulled while it is removed might go with it."""
        async with self._slots:
            await asyncio.sleep(self._bucket.take(self._clock()))
            while not self._nothing_goes.is_set():
                await self._nothing_goes.wait()
            yield

    @contextmanager
    def removal(self, ids: Collection[str]) -> Iterator[None]:
        """While it lasts these images count as gone. Whoever removes asks who uses them and enters this without giving
        way to another task in between: then a start has either been seen, or does not see the image."""
        self._going.update(ids)
        self._nothing_goes.clear()
        try:
            yield
        finally:
            self._going -= Counter(dict.fromkeys(ids, 1))
            if not self._going:
                self._nothing_goes.set()

    def is_going(self, identity: str) -> bool:
        return identity in self._going
