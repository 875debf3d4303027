"""The web page shows an image with the size that `kubelite images` shows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubelite.cli.images.images import size
from kubelite.telemetry.web.answers import _images
from kubelite.telemetry.web.charts import image_size


@pytest.mark.parametrize("count", [0, 999, 1000, 1_073_741_824, 4_567_890_123, 10**13])
def test_sizes_are_written_alike(count: int) -> None:
    assert image_size(count) == size(count)


@pytest.mark.parametrize("name", ["web", "web:latest", "docker.io/library/web:latest"])
def test_an_image_is_found_by_each_of_its_names(name: str) -> None:
    known = [{"reference": "docker.io/library/web:latest", "shortName": "web:latest", "size": 7}]
    agent = SimpleNamespace(images=lambda: known)
    doc: dict[str, Any] = {"spec": {"containers": [{"name": "a", "image": name}]}}
    assert _images(cast(Any, agent), [doc]) == [(name, 7, 1)]
    assert _images(cast(Any, agent), [{"spec": {"containers": [{"image": "other"}]}}]) == [("other", 0, 1)]
