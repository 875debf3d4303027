"""The start trace: the steps of a pod from its manifest to its first instruction, with times.

Steps are kept in memory, for the newest pods only (`KEEP`); `kubelite trace POD` shows them. A step costs two clock
reads. The steps of a container's init are stamped there and arrive as one text with the shim's answers, which is parsed
on request.
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

from kubelite.kube.json import Json

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
    call: str = ""  # the system calls, for a step of the container's init


class Tracer:
    """The steps of pods, by uid. `observe` is called at the end of each step that has a duration. `started` is called
    for each container that has started, with a function that returns its pod's steps at the time of the call."""

    def __init__(
        self,
        observe: Callable[[str, Step], None] = lambda _uid, _step: None,
        *,
        started: Callable[[str, Callable[[], list[Json]]], None] = lambda _uid, _steps: None,
    ) -> None:
        self._observe = observe
        self._started = started
        self._steps: OrderedDict[str, list[Step]] = OrderedDict()
        # uid → container → (text, Unix seconds at which its clock was 0).
        self._inner: dict[str, dict[str, list[tuple[str, float]]]] = {}

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
        found = [*self._steps.get(uid, ())]
        for container, texts in self._inner.get(uid, {}).items():
            for text, zero in texts:
                found += inner_steps(container, text, zero)
        found.sort(key=lambda s: s.at)
        return [{k: v for k, v in asdict(s).items() if v not in ("", 0.0)} for s in found]

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
        first = text.partition(" ")[0]
        if first.isdigit():
            self._begin_by(uid, container, step, zero + int(first) / 1e9)
        self._started(uid, partial(self.steps, uid))

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

    def _add(self, uid: str, step: Step) -> None:
        steps = self._steps.setdefault(uid, [])
        self._steps.move_to_end(uid)
        steps.append(step)
        del steps[:-STEPS]
        while len(self._steps) > KEEP:
            self._inner.pop(self._steps.popitem(last=False)[0], None)


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


#: Steps of the engine and the init (runtime.oci.container, runtime.oci.init) → the system calls they make.
CALLS = {
    "config.json": "openat",
    "cgroup made": "mkdir, write",
    "clone3": "clone3",
    "parent": "prctl(PR_SET_PDEATHSIG)",
    "stdio": "dup3, close_range",
    "cgroup": "write cgroup.procs",
    "session": "setsid",
    "namespaces": "setns, unshare",
    "keyring": "keyctl",
    "rootfs": "fsopen, fsmount, move_mount",
    "terminal": "openat2",
    "hooks": "execve",
    "hostname": "sethostname",
    "sysctl": "openat2, write",
    "pivot_root": "pivot_root, umount2",
    "rlimits": "prlimit64",
    "personality": "personality",
    "scheduler": "sched_setattr, ioprio_set",
    "descriptors": "close_range",
    "cwd": "openat2, fchdir",
    "user": "setgroups, setresgid, setresuid",
    "capabilities": "capset, execve",
    "no_new_privs": "prctl(PR_SET_NO_NEW_PRIVS)",
    "exec": "access",
    "gate": "recvfrom",
    "start": "sendto",
    "seccomp": "seccomp, capset, execve",  # the last stamp: after it, the filter may forbid reading the clock
}
_OPERATIONS = {
    "mount": "fsopen, fsmount, move_mount",
    "bind": "open_tree, move_mount",
    "make": "mount_setattr",
    "mask": "open_tree, move_mount",
    "device": "mknodat",
    "links": "symlinkat",
}


def inner_steps(container: str, text: str, zero: float) -> list[Step]:
    """Turn stamps into steps; each lasts until the next stamp. `zero`: Unix seconds when the monotonic clock was 0. A
    line without a name is the end; a step that is stamped twice in a row counts once. Pure."""
    stamps = [
        (int(at), name) for at, _, name in (line.partition(" ") for line in text.splitlines()) if at.isdigit()
    ]
    found = []
    for (at, name), (until, _) in pairwise(stamps):
        if name:
            kind, _, what = name.partition(": ")
            call = _OPERATIONS.get(what.partition(" ")[0], "") if what else CALLS.get(name, "")
            if name == "capabilities" and until != stamps[-1][0]:
                call = "capset"  # only the last one is followed by execve
            found.append(Step(zero + at / 1e9, what or kind, (until - at) / 1e9, container, call=call))
    return found
