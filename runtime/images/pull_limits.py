"""When pulls and removals may run: limits on parallel pulls and on their rate, and no pull during a removal."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Bucket:
    """A token bucket: `rate` tokens a second, at most `burst` in store. A rate of 0 means no limit. A caller that finds
    no token takes one on credit and waits for it, first come, first served."""

    rate: float
    burst: int
    _tokens: float = field(init=False)
    _at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._tokens = float(self.burst)

    def take(self, now: float) -> float:
        """Take a token. Returns the seconds to wait for it. `now` is the time of any monotonic clock, in seconds."""
        if self.rate <= 0:
            return 0.0
        self._tokens = min(float(self.burst), self._tokens + (now - self._at) * self.rate) - 1.0
        self._at = now
        return max(0.0, -self._tokens / self.rate)


class PullLimits:
    """Use within one event loop."""

    def __init__(self, parallel: int, bucket: Bucket, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._slots = asyncio.Semaphore(parallel)
        self._bucket = bucket
        self._clock = clock
        self._removing: Counter[str] = Counter()
        self._no_removal = asyncio.Event()
        self._no_removal.set()

    @asynccontextmanager
    async def pull(self) -> AsyncIterator[None]:
        """Wait for a pull slot, a token and the end of all removals: a removal could delete what a pull adds."""
        async with self._slots:
            await asyncio.sleep(self._bucket.take(self._clock()))
            while not self._no_removal.is_set():
                await self._no_removal.wait()
            yield

    @contextmanager
    def removal(self, ids: Collection[str]) -> Iterator[None]:
        """Mark these images as removed while the context lasts. The caller checks which images are in use and enters
        the context without an await in between. Thus either that check sees a starting container, or the start does
        not see the image."""
        self._removing.update(ids)
        self._no_removal.clear()
        try:
            yield
        finally:
            self._removing -= Counter(dict.fromkeys(ids, 1))
            if not self._removing:
                self._no_removal.set()

    def is_being_removed(self, identity: str) -> bool:
        return identity in self._removing
