"""The start trace: the steps of a pod from its manifest to its first instruction, with times.

Steps are kept in memory, for the newest pods only (`KEEP`), and in files. `kubelite trace POD` shows them. A step costs
two clock reads. A container's init records the times of its own steps. They arrive as one text with the shim's answers,
which is parsed on request.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

from kubelite.kube.json import Json
from kubelite.telemetry.tracing.trace_files import TraceFiles

KEEP = 1000  # pods
STEPS = 200  # number of a pod's newest steps that are kept
PAUSE = 2.0  # seconds without a step, after which the next step belongs to another start
INNER = 8  # number of a container's newest texts of its inits that are kept; a start has two


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
    """Records the steps of pods. `observe` is called at the end of each step that has a duration. `started` is called
    for each container that has started, with its pod's uid and a function that returns the pod's steps in this daemon.
    `directory`: the directory of the trace files (trace_files.py), from which a restarted daemon reads; "": no
    files."""

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
        """Record a step without a duration. `at`: Unix seconds (None: now)."""
        self._add(uid, Step(time.time() if at is None else at, step, container=container, detail=detail))

    @contextlib.contextmanager
    def step(self, uid: str, step: str, *, container: str = "", detail: str = "") -> Iterator[None]:
        """Record the block as a step with a duration. If it raises an error, the error's message is recorded, too."""

        def done(one: Step) -> None:
            self._add(uid, one)
            self._observe(uid, one)

        with _timed(Step(time.time(), step, 0.0, container, detail), done):
            yield

    @contextlib.contextmanager
    def count(self, step: str) -> Iterator[None]:
        """Measure the block as a step for the metrics only (meters.py), because it does not belong to a pod's start."""
        with _timed(Step(0.0, step), lambda done: self._observe("", done)):
            yield

    def counted(self, step: str, took: float, detail: str = "") -> None:
        """Report a step for the metrics only that was measured elsewhere. `took`: seconds."""
        self._observe("", Step(0.0, step, took, detail=detail))

    def steps(self, uid: str) -> list[dict[str, Any]]:
        """Return the pod's steps in order of time, as JSON objects without empty fields."""
        return _in_order(self._record(uid))

    def _own_steps(self, uid: str) -> list[Json]:
        """Return the same without the steps of an earlier daemon."""
        return _in_order(self._record(uid, {}))

    def _record(self, uid: str, earlier: Json | None = None) -> Json:
        """Return the pod's steps and the texts of its inits as JSON, those of an earlier daemon first. `earlier`: the
        record of that daemon (None: read it from its file)."""
        if earlier is None:
            earlier = self.files.read(uid) if self.files is not None else {}
        old = [step for step in earlier.get("steps", ()) if step["at"] < self._began]
        steps = [*old, *map(_json, self._steps.get(uid, ()))]
        inner: dict[str, list[Any]] = {}
        for container, texts in earlier.get("inner", {}).items():
            inner[container] = [text for text in texts if _first(*text) < self._began]
        # Copied in one step, because the web pages call this in another thread.
        for container, known in self._inner.get(uid, {}).copy().items():
            inner[container] = [*inner.get(container, ()), *known][-INNER:]
        return {"steps": steps[-STEPS:], "inner": inner}

    def begin(self, uid: str) -> float | None:
        """Return when the pod's oldest step in memory began, in Unix seconds; None if there is none."""
        return min((step.at for step in self._steps.get(uid, ())), default=None)

    def inner(self, uid: str, container: str, text: str, *, step: str) -> None:
        """Keep the shim's text of the steps of its engine and of the container's init
        (runtime.oci.init_protocol.written).

        They are parts of the container's newest `step`. A shim continues while its last answer is still on its way to
        the daemon, so the parts can begin earlier than `step`. Then its begin, and the end of the step before it, are
        set to the begin of the first part."""
        if not text:
            return
        zero = time.time() - time.monotonic()
        kept = self._inner.setdefault(uid, {}).setdefault(container, [])
        kept.append((text, zero))
        del kept[:-INNER]
        if first := _first(text, zero):
            self._begin_by(uid, container, step, first)
        self._started(uid, partial(self._own_steps, uid))
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


def _json(step: Step) -> Json:
    return {name: getattr(step, name) for name in Step.__slots__}


def _in_order(record: Json) -> list[Json]:
    """Return all steps of a record, those of its inits included, in order of time and without empty fields."""
    found = list(record["steps"])
    for container, texts in record["inner"].items():
        for text, zero in texts:
            found += map(_json, inner_steps(container, text, zero))
    found.sort(key=lambda step: step["at"])
    return [{k: v for k, v in step.items() if v not in ("", 0.0)} for step in found]


def _first(text: str, zero: float) -> float:
    """Return when the first step in a shim's text began, in Unix seconds; 0 if it has none."""
    first = text.partition(" ")[0]
    return zero + int(first) / 1e9 if first.isdigit() else 0.0


@contextlib.contextmanager
def _timed(step: Step, done: Callable[[Step], None]) -> Iterator[None]:
    """Call `done` with the step, completed by the block's duration and the message of its error, if any."""
    began, error = time.perf_counter(), ""
    try:
        yield
    except BaseException as failure:
        error = str(failure) or type(failure).__name__
        raise
    finally:
        done(replace(step, took=time.perf_counter() - began, error=error))


def spans(steps: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Return for each step the begin and end of its start, in Unix seconds. A pod's trace may have several starts, for
    example after an edit: another start begins after `PAUSE` seconds without a step."""
    found: list[tuple[float, float]] = []
    begin, end = 0, 0.0
    for place, step in enumerate(steps):
        if place > begin and step["at"] > end + PAUSE:
            found += [(steps[begin]["at"], end)] * (place - begin)
            begin, end = place, 0.0
        end = max(end, step["at"] + step.get("took", 0.0))
    return found + [(steps[begin]["at"], end)] * (len(steps) - begin) if steps else []


UNKNOWN = "not recorded"  # for the system calls of a step, if the shim does not record them


def inner_steps(container: str, text: str, zero: float) -> list[Step]:
    """Parse the shim's text (runtime.oci.init_protocol.written) into steps. Each step lasts until the next line with a
    time; a line without a name only ends the step before it. If the text has system calls, steps without any are
    omitted. `zero`: Unix seconds when the monotonic clock was 0."""
    stamps: list[tuple[int, str, list[str]]] = []
    for line in text.splitlines():
        began, _, name = line.partition(" ")
        if began.isdigit():
            stamps.append((int(began), name, []))
        elif stamps:  # the system calls of the step above
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
    """Format system calls with their counts, in the order of each one's first call: `mount, write ×3`."""
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in Counter(calls).items())
