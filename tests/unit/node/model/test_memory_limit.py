"""How the settings image_worker_memory and build_memory are parsed."""

from __future__ import annotations

import pytest

from kubelite.node.model.capacity import memory_limit


@pytest.mark.parametrize(
    ("text", "limit"),
    [("1Gi", 1 << 30), ("64Mi", 64 << 20), ("80%", 80 << 20), ("100%", 100 << 20), ("none", None)],
)
def test_a_limit(text: str, limit: int | None) -> None:
    assert memory_limit(text, 100 << 20) == limit


@pytest.mark.parametrize("text", ["", "0%", "101%", "1.5%", "%", "63Mi", "-1Gi", "much"])
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|quantity|quantities"):
        memory_limit(text, 1 << 30)
