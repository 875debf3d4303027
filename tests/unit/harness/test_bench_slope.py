"""What `make scrapes` counts as growth."""

from __future__ import annotations

import random

import pytest

from tests.bench.slope import slope

PLACES = range(20)


def test_an_exact_line_has_no_error() -> None:
    found = slope(PLACES, [3.0 + 2.0 * place for place in PLACES])
    assert found.rise == pytest.approx(2.0)
    assert found.error == pytest.approx(0.0, abs=1e-9)


def test_the_standard_error_is_the_textbooks() -> None:
    found = slope((1, 2, 3, 4), (1.0, 3.0, 2.0, 4.0))  # residuals -0.3, 0.9, -0.9, 0.3
    assert found.rise == pytest.approx(0.8)
    assert found.error == pytest.approx((1.8 / 2 / 5) ** 0.5)


@pytest.mark.parametrize(
    ("rise", "noise", "grows"),
    [
        (0.0, 0.0, False),
        (0.0, 5.0, False),
        (0.5, 0.1, False),  # certain, but too small to count
        (2.0, 0.1, True),
        (2.0, 200.0, False),  # large enough, but within the noise
        (-2.0, 0.1, False),
    ],
)
def test_growth_is_recognized(rise: float, noise: float, grows: bool) -> None:
    chance = random.Random(1)
    measures = [100.0 + rise * place + chance.uniform(-noise, noise) for place in PLACES]
    assert slope(PLACES, measures).grows(1.0) is grows
