"""The start trace: the steps of a pod from its manifest to its first instruction, with times.

Steps are kept in memory, for the newest pods only (`KEEP`), and in files; `kubelite trace POD` shows them. A step costs
two clock reads. The steps of a container's init are stamped there and arrive as one text with the shim's answers, which
is parsed on request.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

from kubelite.kube.json import Json
from kubelite.telemetry.tracing.trace_files import TraceFiles

KEEP = 1000  # pods
STEPS = 200  # newest steps kept of a pod
PAUSE = 2.0  # seconds without a step after which the next one counts as another start
INNER = 8  # newest texts kept of a container's inits; a start has two


@dataclass(frozen=True, slots=True)
class Step:
    """A step. `at`: Unix seconds when it began; `took`: its duration in seconds; `error`: the message if it failed."""

    at: float
    step: str
    took: float = 0.0
    container: str = ""
    detail: str = ""
    error: str = ""
    call: str = ""  # for a step of the engine or a container's init: the system calls that it made


class Tracer:
    """The steps of pods, by uid. `observe` is called at the end of each step that has a duration. `started` is called
    for each container that has started, with a function that returns its pod's steps at the time of the call.
    `directory`: where the traces outlive the daemon (trace_files.py); "" means nowhere."""

    def __init__(
        self,
        observe: Callable[[str, Step], None] = lambda _uid, _step: None,
        *,
        started: Callable[[str, Callable[[], list[Json]]], None] = lambda _uid, _steps: None,
        directory: str = "",
    ) -> None:
        self._observe = observe
        self._started = started
        self._steps: OrderedDict[str, list[Step]] = OrderedDict()
        # uid → container → (text, Unix seconds at which its clock was 0).
        self._inner: dict[str, dict[str, list[tuple[str, float]]]] = {}
        self.files = TraceFiles(directory, self._record) if directory else None
        self._began = time.time()

    def mark(
        self, uid: str, step: str, *, at: float | None = None, container: str = "", detail: str = ""
    ) -> None:
        """Record a moment."""
        self._add(uid, Step(time.time() if at is None else at, step, container=container, detail=detail))

    @contextlib.contextmanager
    def step(self, uid: str, step: str, *, container: str = "", detail: str = "") -> Iterator[None]:
        """Record a step with a duration. An error that leaves the block is recorded, too, and raised again."""

        def done(one: Step) -> None:
            self._add(uid, one)
            self._observe(uid, one)

        with _timed(Step(time.time(), step, 0.0, container, detail), done):
            yield

    @contextlib.contextmanager
    def count(self, step: str) -> Iterator[None]:
        """Measure a step for the metrics only (meters.py), because it belongs to no pod's start."""
        with _timed(Step(0.0, step), lambda done: self._observe("", done)):
            yield

    def counted(self, step: str, took: float, detail: str = "") -> None:
        """Do the same for a step that was measured elsewhere."""
        self._observe("", Step(0.0, step, took, detail=detail))

    def steps(self, uid: str) -> list[dict[str, Any]]:
        """Return the pod's steps in order of time, as JSON objects without empty fields."""
        record = self._record(uid)
        found = [Step(**step) for step in record["steps"]]
        for container, texts in record["inner"].items():
            for text, zero in texts:
                found += inner_steps(container, text, zero)
        found.sort(key=lambda s: s.at)
        return [{k: v for k, v in asdict(s).items() if v not in ("", 0.0)} for s in found]

    def _record(self, uid: str) -> Json:
        """Return all that is known of the pod, an earlier daemon's part first, as JSON."""
        earlier = self.files.read(uid) if self.files is not None else {}
        old = [step for step in earlier.get("steps", ()) if step["at"] < self._began]
        steps = [*old, *map(asdict, self._steps.get(uid, ()))]
        inner: dict[str, list[Any]] = {}
        for container, texts in earlier.get("inner", {}).items():
            inner[container] = [text for text in texts if _first(*text) < self._began]
        for container, known in self._inner.get(uid, {}).items():
            inner[container] = [*inner.get(container, ()), *known][-INNER:]
        return {"steps": steps[-STEPS:], "inner": inner}

    def begin(self, uid: str) -> float | None:
        """Return when the oldest step kept of the pod began, in Unix seconds."""
        return min((step.at for step in self._steps.get(uid, ())), default=None)

    def inner(self, uid: str, container: str, text: str, *, step: str) -> None:
        """Keep the shim's record of the steps of its engine and of the container's init
        (runtime.oci.init_protocol.written).

        They are parts of the container's newest `step`. That step begins no later than they do, and what precedes it
        ends no later: a shim continues while its last answer is on its way."""
        if not text:
            return
        zero = time.time() - time.monotonic()
        kept = self._inner.setdefault(uid, {}).setdefault(container, [])
        kept.append((text, zero))
        del kept[:-INNER]
        if first := _first(text, zero):
            self._begin_by(uid, container, step, first)
        self._started(uid, partial(self.steps, uid))
        if self.files is not None:
            self.files.started(uid)

    def _begin_by(self, uid: str, container: str, step: str, at: float) -> None:
        steps = self._steps.get(uid, [])
        for place in range(len(steps) - 1, -1, -1):
            found = steps[place]
            if (found.step, found.container) == (step, container):
                if at < found.at:
                    steps[place] = replace(found, at=at, took=found.took + found.at - at)
                for earlier, one in enumerate(steps[:place]):
                    if one.container == container and one.at < at < one.at + one.took:
                        steps[earlier] = replace(one, took=at - one.at)
                return

    def forget(self, uid: str) -> None:
        self._steps.pop(uid, None)
        self._inner.pop(uid, None)
        if self.files is not None:
            self.files.forget(uid)

    def _add(self, uid: str, step: Step) -> None:
        steps = self._steps.setdefault(uid, [])
        self._steps.move_to_end(uid)
        steps.append(step)
        del steps[:-STEPS]
        while len(self._steps) > KEEP:
            self._inner.pop(self._steps.popitem(last=False)[0], None)


def _first(text: str, zero: float) -> float:
    """Return when the first step of an engine's record began, in Unix seconds; 0 if it has none."""
    first = text.partition(" ")[0]
    return zero + int(first) / 1e9 if first.isdigit() else 0.0


@contextlib.contextmanager
def _timed(step: Step, done: Callable[[Step], None]) -> Iterator[None]:
    """Report how long the block took, and the message of the error that left it."""
    began, error = time.perf_counter(), ""
    try:
        yield
    except BaseException as failure:
        error = str(failure) or type(failure).__name__
        raise
    finally:
        done(replace(step, took=time.perf_counter() - began, error=error))


def spans(steps: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return for each step the begin and end of the start that it belongs to, in Unix seconds. A pod's trace also has
    its later starts and edits: after `PAUSE` seconds without a step, another start begins. Pure."""
    found: list[tuple[float, float]] = []
    begin, end = 0, 0.0
    for place, step in enumerate(steps):
        if place > begin and step["at"] > end + PAUSE:
            found += [(steps[begin]["at"], end)] * (place - begin)
            begin, end = place, 0.0
        end = max(end, step["at"] + step.get("took", 0.0))
    return found + [(steps[begin]["at"], end)] * (len(steps) - begin) if steps else []


UNKNOWN = "not recorded"  # the system calls of a step, as of a shim that does not note them


def inner_steps(container: str, text: str, zero: float) -> list[Step]:
    """Turn the engine's record (runtime.oci.init_protocol.written) into steps; each lasts until the next one, a line
    without a name is the end. A step that made no system calls is left out. `zero`: Unix seconds when the monotonic
    clock was 0. Pure."""
    stamps: list[tuple[int, str, list[str]]] = []
    for line in text.splitlines():
        began, _, name = line.partition(" ")
        if began.isdigit():
            stamps.append((int(began), name, []))
        elif stamps:  # the calls of the step above
            stamps[-1][2].extend(line.split())
    noted = any(calls for _, _, calls in stamps)
    found = []
    for (at, step, calls), (until, _, _) in pairwise(stamps):
        if step and (calls or not noted):
            kind, _, what = step.partition(": ")
            call = counted(calls) if noted else UNKNOWN
            found.append(Step(zero + at / 1e9, what or kind, (until - at) / 1e9, container, call=call))
    return found


def counted(calls: Sequence[str]) -> str:
    """Name each call once, in the order of the first ones, with how often it was made: `mount, write ×3`. Pure."""
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in Counter(calls).items())
