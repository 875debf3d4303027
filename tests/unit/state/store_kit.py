"""Helpers for tests of the state."""

from __future__ import annotations

from typing import Any

from state.store import Store


def commits_of(store: Store) -> list[Any]:
    """A list to which each later commit adds what it writes."""
    batches: list[Any] = []
    original = store._commit

    def noted(batch: Any) -> None:
        batches.append(batch)
        original(batch)

    store._commit = noted  # type: ignore[method-assign]
    return batches
