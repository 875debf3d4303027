"""Fixtures: nodes of tests/e2e for tests that break them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.machine import Machine
from tests.e2e.conftest import images, missing, node

__all__ = ["images", "machine", "node"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = missing("ip")  # programs that inspect the bridge
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.e2e)
        if lacking:
            item.add_marker(pytest.mark.skip(reason=f"needs {lacking}"))


@pytest.fixture
def machine(tmp_path: Path, images: Path) -> Iterator[Machine]:
    """A node whose disk can be filled, whose clock can be set and whose power can be cut. Crashed containers restart
    soon."""
    with Machine.running(tmp_path, images) as found:
        yield found


@pytest.fixture
def cc() -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs cc (gcc)")
    return compiler
