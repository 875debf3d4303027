"""Fixtures: a store, and a node on which tests of the pod worker run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from state.store import Store
from tests.unit.node.worker.worker_kit import Node

# The duration of an example depends on the machine, not on the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store.open(str(tmp_path / "state.db"))
    yield store
    await store.close()


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The mount points that would have been used. These tests need no root and do not change the mount table."""
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
