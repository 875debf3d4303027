"""Turns for exec probes. Each starts processes, so that too many at once take the processors from the containers, whose
probes then fail because of the probes.

A turn is for the beginning of a command, which is what costs time: a command that waits (for a network, or for ever)
passes its turn on after HOLD, so that it delays no other pod's probes. Turns are given in the order of the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable

log = logging.getLogger(__name__)
PER_PROCESSOR = 4
HOLD = 0.25  # seconds after which a turn passes on although its command still runs
LONG = 1.0  # seconds of waiting that are reported
QUIET = 60.0  # seconds without such a wait after which its end is reported


class Turns:
    """At most `count` turns at a time. `clock`: monotonic seconds."""

    def __init__(self, count: int, clock: Callable[[], float]) -> None:
        self.count = count
        self._clock = clock
        self._free = asyncio.Semaphore(count)
        self._saturated_at: float | None = None  # the time of the last long wait, until its end is reported

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, which ends with the block, or HOLD seconds after it began."""
        asked = self._clock()
        await self._free.acquire()
        self._report(self._clock() - asked)
        held = True

        def pass_on() -> None:
            nonlocal held
            if held:
                held = False
                self._free.release()

        timer = asyncio.get_running_loop().call_later(HOLD, pass_on)
        try:
            yield
        finally:
            timer.cancel()
            pass_on()

    def _report(self, waited: float) -> None:
        now = self._clock()
        if waited >= LONG:
            if self._saturated_at is None:
                log.warning(
                    "exec probes waited %.1f s for a turn: more are due than %d at a time can run; give them longer"
                    " periods",
                    waited,
                    self.count,
                )
            self._saturated_at = now
        elif self._saturated_at is not None and now - self._saturated_at >= QUIET:
            self._saturated_at = None
            log.info("exec probes start on time again")


def turns_of_this_machine(clock: Callable[[], float]) -> Turns:
    """Turns for the processors that this process may use."""
    return Turns(PER_PROCESSOR * len(os.sched_getaffinity(0)), clock)
