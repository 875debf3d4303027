"""The start trace: how a pod got from its manifest to its first instruction, step by step, with times.

Kept in memory for the newest pods only (`KEEP`); `kubelite trace POD` shows it. A step costs two clock reads.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

KEEP = 1000  # pods
STEPS = 200  # steps kept of one pod, the newest


@dataclass(frozen=True, slots=True)
class Step:
    """`at` is Unix seconds when the step began, `took` its seconds; `error` the sentence when it failed."""

    at: float
    step: str
    took: float = 0.0
    container: str = ""
    detail: str = ""
    error: str = ""


class Tracer:
    """Steps by pod uid."""

    def __init__(self, observe: Callable[[str, Step], None] = lambda _uid, _step: None) -> None:
        self._observe = observe  # told of each step that took time, when it has ended
        self._steps: OrderedDict[str, list[Step]] = OrderedDict()

    def mark(
        self, uid: str, step: str, *, at: float | None = None, container: str = "", detail: str = ""
    ) -> None:
        """Note a moment."""
        self._add(uid, Step(time.time() if at is None else at, step, container=container, detail=detail))

    @contextlib.contextmanager
    def step(self, uid: str, step: str, *, container: str = "", detail: str = "") -> Iterator[None]:
        """Note a step that takes time; an error that leaves it is noted too and goes on."""
        at, began, error = time.time(), time.perf_counter(), ""
        try:
            yield
        except BaseException as failure:
            error = str(failure) or type(failure).__name__
            raise
        finally:
            done = Step(at, step, time.perf_counter() - began, container, detail, error)
            self._add(uid, done)
            self._observe(uid, done)

    def steps(self, uid: str) -> list[dict[str, Any]]:
        """The pod's steps in order of time, as JSON objects without empty fields."""
        found = sorted(self._steps.get(uid, ()), key=lambda s: s.at)
        return [{k: v for k, v in asdict(s).items() if v not in ("", 0.0)} for s in found]

    def forget(self, uid: str) -> None:
        self._steps.pop(uid, None)

    def _add(self, uid: str, step: Step) -> None:
        steps = self._steps.setdefault(uid, [])
        self._steps.move_to_end(uid)
        steps.append(step)
        del steps[:-STEPS]
        while len(self._steps) > KEEP:
            self._steps.popitem(last=False)
