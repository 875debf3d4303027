"""Reports of a late event loop."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from kubelite.telemetry.tracing import loop_lag
from kubelite.telemetry.tracing.loop_lag import LoopLag


def blocks(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def test_the_blocking_code_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop_lag, "BEAT", 0.01)
    monkeypatch.setattr(loop_lag, "LONG", 0.2)
    seen: list[float] = []
    lag = LoopLag(seen.append)
    lag.start()
    try:
        async with asyncio.timeout(30):
            while not seen:
                await asyncio.sleep(0.001)
            blocks(1.0)
            while max(seen) < 0.2:
                await asyncio.sleep(0.001)
    finally:
        lag.close()
    said = [record.getMessage() for record in caplog.records]
    assert any("the event loop lagged by" in words and "blocks (test_loop_lag.py:" in words for words in said)
    assert len(said) == 1, "seldom"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
