"""Helpers for tests of the state."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
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


@contextlib.contextmanager
def full_disk(store: Store) -> Iterator[list[str]]:
    """Have each commit fail as on a full disk. The list gets an entry for each."""
    failures: list[str] = []
    original = store._commit

    def fail(batch: Any) -> None:
        failures.append("full")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store._commit = fail  # type: ignore[method-assign]
    try:
        yield failures
    finally:
        store._commit = original  # type: ignore[method-assign]
