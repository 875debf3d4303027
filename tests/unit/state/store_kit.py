"""What tests of the state share."""

from __future__ import annotations

from typing import Any

from state.store import Store


def commits_of(store: Store) -> list[Any]:
    """Grows by what is written with each commit from now on."""
    batches: list[Any] = []
    original = store._commit

    def noted(batch: Any) -> None:
        batches.append(batch)
        original(batch)

    store._commit = noted  # type: ignore[method-assign]
    return batches
