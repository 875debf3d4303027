"""New connections to pods: whoever leads them to pods ends them before the containers of a pod are stopped.

A cluster sends SIGTERM and takes the pod out of its Services at the same time, each at its own pace, so that manifests
have preStop hooks that sleep. On one node the order can be kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

log = logging.getLogger(__name__)
LONGEST = 2.0  # seconds that the stop of a pod waits at most
Withdraw = Callable[[str], Awaitable[None]]


class Traffic:
    """What leads connections to pods: nothing, until something registers."""

    def __init__(self) -> None:
        self._ways: list[Withdraw] = []

    @contextlib.contextmanager
    def led_by(self, withdraw: Withdraw) -> Iterator[None]:
        """`withdraw(uid)` returns when no new connection is led to the pod."""
        self._ways.append(withdraw)
        try:
            yield
        finally:
            self._ways.remove(withdraw)

    async def withdraw(self, uid: str) -> None:
        """Return when no new connection is led to the pod, or after LONGEST seconds: the pod is stopped anyway."""
        try:
            async with asyncio.timeout(LONGEST):
                for withdraw in tuple(self._ways):
                    await withdraw(uid)
        except TimeoutError:
            log.warning("new connections may still be led to the pod; it is stopped now", extra={"uid": uid})
