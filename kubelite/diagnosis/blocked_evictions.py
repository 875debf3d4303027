"""Says why a pod cannot be evicted now: for `kubelite why`."""

from __future__ import annotations

import time
from collections.abc import Iterable

from kubelite.kube.json import Json


def blocked_eviction(pod: Json, budgets: Iterable[Json]) -> list[str]:
    """Return why the Eviction API would refuse to evict a pod, as sentences; none if it would not. `budgets`: the
    PodDisruptionBudgets of its namespace."""
    every = list(budgets)
    if not every:
        return []
    from kubelite.controllers.decide.evictions import judge

    verdict = judge(pod, every, time.time())
    why = verdict.cause or verdict.message
    return [f"it cannot be evicted now: {why}"] if verdict.code else []
