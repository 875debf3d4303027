"""A subscription to the store's changes. It ends with Expired if its reader falls too far behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from state.errors import Expired
from state.records import Change


class Watch:
    """An asynchronous iterator of `Change`s; end it with `close()` (or `async with`).

    A watch with a `limit` never holds more changes than that. One more change ends it: the pending changes are dropped,
    and the next read raises Expired. Its reader then lists again, as after any gap.
    """

    def __init__(
        self, forget: Callable[[Watch], None], kind: str | Collection[str] | None, limit: int | None = None
    ) -> None:
        self._forget = forget
        self._kinds = frozenset((kind,)) if isinstance(kind, str) else kind
        self._limit = limit
        self._behind = False
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue()

    def offer(self, change: Change) -> None:
        if self._kinds is not None and change.record.kind not in self._kinds:
            return
        if self._limit is not None and self._queue.qsize() >= self._limit:
            self._behind = True
            while not self._queue.empty():
                self._queue.get_nowait()
            self._forget(self)
            return
        self._queue.put_nowait(change)

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        change = await self._take()
        if change is None:
            raise StopAsyncIteration
        return change

    async def next(self, timeout: float | None = None) -> Change | None:
        """Return the next change, or None after `timeout` seconds (or if the watch was closed). Raises Expired."""
        try:
            async with asyncio.timeout(timeout):
                return await self._take()
        except TimeoutError:
            return None

    async def _take(self) -> Change | None:
        if self._behind:
            raise Expired(f"too many changes are waiting for this watch (more than {self._limit})")
        return await self._queue.get()

    def take(self) -> list[Change]:
        """Return, without waiting, all changes that are published and not yet read."""
        found = []
        while not self._queue.empty():
            change = self._queue.get_nowait()
            if change is None:
                self._queue.put_nowait(None)  # closed: the iteration must still end
                break
            found.append(change)
        return found

    def close(self) -> None:
        self._forget(self)
        self._queue.put_nowait(None)

    async def __aenter__(self) -> Watch:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
