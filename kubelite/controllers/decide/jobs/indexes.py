"""The indexes of an Indexed Job: intervals of them as in its status, and the index of a pod.

Source: Kubernetes pkg/controller/job/indexed_job_utils.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from kubelite.controllers.decide import pods
from kubelite.kube.jobs import PREFIX
from kubelite.kube.json import Json

INDEX = f"{PREFIX}job-completion-index"  # annotation and label of a pod
FAILURES = f"{PREFIX}job-index-failure-count"  # annotation of a pod: how often its index failed before it
IGNORED_FAILURES = f"{PREFIX}job-index-ignored-failure-count"
UNKNOWN = -1

#: First and last index of each interval, in order and without overlap.
Intervals = tuple[tuple[int, int], ...]

_NUMBER = re.compile(r"[+-]?[0-9]+")
_INT32 = 2**31


def parse(text: str, completions: int) -> Intervals:
    """Return the intervals of a text such as "1,3-5", below `completions`. What cannot be read is left out
    (parseIndexesFromString)."""
    found: list[tuple[int, int]] = []
    for part in text.split(",") if text else ():
        limits = part.split("-")
        first = _number(limits[0])
        if first is None:
            continue
        if first >= completions:
            break
        last = _number(limits[1]) if len(limits) > 1 else first
        if last is None:
            continue
        last = min(last, completions - 1)
        if found and found[-1][1] == first - 1:
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return tuple(found)


def text_of(intervals: Intervals) -> str:
    """Return intervals as in `status.completedIndexes`: "1,3-5"; two neighbours are "1,2"."""
    parts = []
    for first, last in intervals:
        between = "" if last == first else f",{last}" if last == first + 1 else f"-{last}"
        parts.append(f"{first}{between}")
    return ",".join(parts)


def merged(one: Intervals, other: Intervals) -> Intervals:
    found: list[tuple[int, int]] = []
    for first, last in sorted((*one, *other)):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return tuple(found)


def with_indexes(intervals: Intervals, indexes: Iterable[int]) -> Intervals:
    return merged(intervals, tuple((index, index) for index in indexes))


def total(intervals: Intervals) -> int:
    return sum(last - first + 1 for first, last in intervals)


def contains(intervals: Intervals, index: int) -> bool:
    return any(first <= index <= last for first, last in intervals)


def first_free(taken: Intervals, count: int, completions: int) -> list[int]:
    """Return the `count` lowest indexes below `completions` outside of intervals (firstPendingIndexes)."""
    found: list[int] = []
    candidate = 0
    for first, last in (*taken, (completions, completions)):
        end = min(first, completions, candidate + count - len(found))
        found.extend(range(candidate, end))
        candidate = max(candidate, last + 1)
    return found


def index_of(pod: Json) -> int:
    """Return a pod's completion index, UNKNOWN if it has none (getCompletionIndex)."""
    found = _number((pod["metadata"].get("annotations") or {}).get(INDEX))
    return UNKNOWN if found is None or found < 0 else found


def has_index(pod: Json, completions: int) -> bool:
    """Whether a pod's index is one of the Job's."""
    return UNKNOWN < index_of(pod) < completions


def failures_of(pod: Json) -> int:
    """Return how many counted failures its index had before this pod (getIndexFailureCount)."""
    return _count(pod, FAILURES)


def all_failures_of(pod: Json) -> int:
    """Return how many failures its index had before this pod, with ignored ones (getIndexAbsoluteFailureCount)."""
    return _count(pod, FAILURES) + _count(pod, IGNORED_FAILURES)


def ignored_failures_of(pod: Json) -> int:
    return _count(pod, IGNORED_FAILURES)


def superfluous(active: Sequence[Json], completions: int, now: float) -> tuple[list[Json], list[Json]]:
    """Return the active pods that must go whatever the parallelism, and those that may stay. One pod of each index
    stays, the last in deletion order; pods without an index of the Job go (appendDuplicatedIndexPodsForRemoval)."""
    of_index: dict[int, list[Json]] = {}
    beyond: list[Json] = []
    for pod in sorted(active, key=index_of):
        if index_of(pod) >= completions:
            beyond.append(pod)
        else:
            of_index.setdefault(index_of(pod), []).append(pod)
    remove: list[Json] = list(of_index.pop(UNKNOWN, []))
    left: list[Json] = []
    for same in of_index.values():
        *others, best = pods.deletion_order(same, now) if len(same) > 1 else same
        remove += others
        left.append(best)
    return [*remove, *beyond], left


def _count(pod: Json, annotation: str) -> int:
    """Return a count from an annotation; what a count cannot be is 0 (parseInt32)."""
    found = _number((pod["metadata"].get("annotations") or {}).get(annotation))
    return found if found is not None and 0 <= found < _INT32 else 0


def _number(text: str | None) -> int | None:
    return int(text) if isinstance(text, str) and _NUMBER.fullmatch(text) else None
