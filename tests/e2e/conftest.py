"""Fixtures: whole nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import programs
from tests.e2e.node import Node, pack_image, running_node
from tests.e2e.registry import made, registry

__all__ = ["made", "registry"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = missing()
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.e2e)
        if lacking:
            item.add_marker(pytest.mark.skip(reason=f"needs {lacking}"))


def missing(*others: str) -> str:
    """The first missing program of those that every test node needs, and of these."""
    return "root" if os.geteuid() != 0 else programs.missing("busybox", "nsenter", *others)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_image(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    """A node that the tests of a module share."""
    with running_node(tmp_path_factory.mktemp("builder"), images) as found:
        yield found


@pytest.fixture
def node(tmp_path: Path, images: Path) -> Iterator[Node]:
    """A node for one test."""
    with running_node(tmp_path, images) as found:
        yield found
