"""GC runs alone: no pod is attached or detached meanwhile.

Its plugins remove what is not in the list of valid attachments: also the address of a pod that is attached while they
run (the specification, section 2, "Lifecycle & Ordering").
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Exclusion:
    """Calls beside each other, or one alone. Who waits to be alone goes before those that come later."""

    def __init__(self) -> None:
        self._running = 0
        self._idle, self._open = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._open.set()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        while not self._open.is_set():
            await self._open.wait()
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """One caller at a time."""
        self._open.clear()
        try:
            await self._idle.wait()
            yield
        finally:
            self._open.set()
