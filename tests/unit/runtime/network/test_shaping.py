"""Requests that limit the bandwidth of a pod."""

from __future__ import annotations

import pytest

from kubelite.node.spec.bandwidth import LEAST, MOST
from runtime.network.shaping.qdiscs import burst_of, token_bucket


@pytest.mark.parametrize("rate", [LEAST, 8 * 0xFFFFFFFF, 2 * 10**12, MOST])
def test_every_rate_that_an_annotation_may_have_fits_the_request(rate: int) -> None:
    assert 0 < burst_of(rate) <= 0xFFFFFFFF
    assert token_bucket(3, rate)
