"""Measures the lag of the daemon's event loop, which delays everything that runs on it, probes and timers included.

Once a second it records how much later than scheduled the loop ran a callback. If the lag is `LONG` or more, a log line
states its length, the CPU time that the thread used during the lag, and the function that was running, which a signal
handler finds out. If the thread used little CPU time, no CPU was free or a call blocked. The cost is one wake-up a
second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)

BEAT = 1.0  # seconds between measurements
LONG = 0.5  # seconds of lag from which on it is logged
SELDOM = 60.0  # seconds between log lines
DEPTH = 4  # stack frames that are logged


class LoopLag:
    """Call `start()` on the loop's thread, which must be the main thread (signal(7)), and later `close()`. Each
    measurement calls `observe(seconds)`."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._timer: asyncio.TimerHandle | None = None
        self._worked = 0.0  # CPU seconds of the thread at the last beat
        self._where = ""  # functions that ran when the beat was late
        self._said = -SELDOM

    def start(self) -> None:
        signal.signal(signal.SIGALRM, self._alarm)
        self._next()

    def close(self) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _next(self) -> None:
        self._worked, self._where = time.thread_time(), ""
        signal.setitimer(signal.ITIMER_REAL, BEAT + LONG)
        self._timer = asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        lag = max(0.0, loop.time() - self._timer.when()) if self._timer is not None else 0.0
        self._observe(lag)
        if lag >= LONG and loop.time() - self._said >= SELDOM:
            self._said = loop.time()
            worked, where = time.thread_time() - self._worked, self._where or "in a call that ended meanwhile"
            log.warning(
                "the event loop lagged by %.2f s and used %.2f s of CPU time in that: %s", lag, worked, where
            )
        self._next()

    def _alarm(self, _number: int, frame: FrameType | None) -> None:
        """Record the running functions when the beat is late. Python runs this after a call into C has returned."""
        names: list[str] = []
        while frame is not None and len(names) < DEPTH:
            code = frame.f_code
            names.append(f"{code.co_name} ({os.path.basename(code.co_filename)}:{frame.f_lineno})")
            frame = frame.f_back
        self._where = " < ".join(names)
