"""A node for a story: what tests of the pod worker are told on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.worker_kit import Node


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
