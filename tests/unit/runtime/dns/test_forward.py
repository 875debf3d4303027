"""Which upstream server is asked first."""

from __future__ import annotations

import pytest

from runtime.dns.forward import PENALTY, ordered

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"
BOOT = 1.0  # the monotonic clock a second after the start of the machine
LATER = 1e6


@pytest.mark.parametrize("now", [BOOT, LATER])
def test_a_server_that_was_silent_is_asked_last_for_a_while(now: float) -> None:
    assert ordered((A, B, C), {}, now) == [A, B, C]
    assert ordered((A, B, C), {A: now - 0.5}, now) == [B, C, A]
    assert ordered((A, B, C), {A: now - 0.5, B: now - 0.2}, now) == [C, A, B]
    assert ordered((A, B, C), {A: now - PENALTY}, now) == [A, B, C]
