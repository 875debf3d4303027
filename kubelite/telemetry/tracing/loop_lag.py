"""How late the daemon's event loop is: everything on it waits for the same thread, probes and timers too.

Once a second it is noted how much later than asked the loop came round. Where it was late by `LONG` the log says so: by
how much, how much of that the processor worked for us (the rest the machine had none free, or a call waited), and in
which function, which a signal that came meanwhile has seen. What that costs is one wake-up a second.
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

BEAT = 1.0  # seconds
LONG = 0.5  # seconds
SELDOM = 60.0  # seconds between two sentences in the log
DEPTH = 4  # functions that are named


class LoopLag:
    """`start()` on the loop's thread, which has to be the process's main one (signal(7)), then `close()`.
    `observe(seconds)` is told once a beat."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._timer: asyncio.TimerHandle | None = None
        self._worked = 0.0  # seconds of processor that the thread has had, at the last beat
        self._where = ""  # what it was in when the beat was late
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
            worked, where = time.thread_time() - self._worked, self._where or "what ended before it was seen"
            log.warning(
                "the event loop was late by %.2f s, in which it worked for %.2f s: %s", lag, worked, where
            )
        self._next()

    def _alarm(self, _number: int, frame: FrameType | None) -> None:
        """The beat is late, and this is where the thread is; a call into C is seen when it returns."""
        names: list[str] = []
        while frame is not None and len(names) < DEPTH:
            code = frame.f_code
            names.append(f"{code.co_name} ({os.path.basename(code.co_filename)}:{frame.f_lineno})")
            frame = frame.f_back
        self._where = " < ".join(names)
