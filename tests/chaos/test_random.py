"""A short run of `make chaos` with a fixed seed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.__main__ import monkey

SEED = 20241
SECONDS = 25.0


@pytest.mark.timeout(180)
def test_a_random_mix(tmp_path: Path, images: Path) -> None:
    until = time.monotonic() + SECONDS
    with monkey(tmp_path, images, seed=SEED, size=16) as found:
        while time.monotonic() < until:
            found.round()
    assert sum(found.kills.values()) >= 10
    print(found.summary())
