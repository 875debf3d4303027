"""A store, and a node for a story: what tests of the pod worker are told on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from state.store import Store
from tests.unit.node.worker.worker_kit import Node

# How long an example takes says something of the machine, nothing of the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open(str(tmp_path / "state.db"))
    yield store
    await store.close()


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where a file system would have been mounted: these tests need no root and leave the mount table alone."""
    points: list[str] = []
    monkeypatch.setattr("runtime.syscalls.mount", lambda _source, target, *_: points.append(str(target)))
    return points


@pytest.fixture
def run(tmp_path: Path, mounted: list[str]) -> Iterator[Callable[[Callable[[Node], Awaitable[None]]], None]]:
    def go(story: Callable[[Node], Awaitable[None]]) -> None:
        async def main() -> None:
            node = Node(tmp_path)
            try:
                await story(node)
            finally:
                await node.worker.close()
                await node.store.close()

        asyncio.run(main())

    yield go
