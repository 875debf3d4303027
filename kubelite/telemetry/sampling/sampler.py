"""One look at everything that is measured: `Sampler.sample() → Snapshot`. Pages, `top` and the summary all show one.

Between two looks open descriptors are kept (a reading with them costs a third), what hardly changes (labels, limits),
and what cannot have changed: of a cgroup in which nothing ran (runtime/cgroups/reading/reader.py) few files are read.
Nothing here walks a directory: the size of writable layers and the sockets come from a measure in the background
(disk_usage.py). What is gone by the time it is looked at is left out.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from kubelite.telemetry.sampling.machine import Root, interfaces, read_root
from kubelite.telemetry.sampling.targets import Sandbox, Target, Targets
from runtime.cgroups import Cgroup, open_cgroup
from runtime.cgroups.files import read_or
from runtime.cgroups.reading.limits import Spec, read_spec
from runtime.cgroups.reading.parsers import pressure
from runtime.cgroups.reading.reader import TOTALS, Reader
from runtime.cgroups.reading.stats import Stats
from runtime.errors import NotFoundError, RuntimeFault

FD_BUDGET = 0.85  # share of the descriptor limit that may be kept here; what is beyond is opened each time
NO_LIMITS = Spec()
_SMALL = (
    479  # bytes, at first, of net/dev: what comes of it fits where small objects lie, not into malloc's heap
)
SPEC_AGE = 300.0  # seconds that limits are believed at most when nothing says that they changed


@dataclass(frozen=True, slots=True)
class Limits:
    """What changes only when somebody changes it."""

    spec: Spec = NO_LIMITS
    open_files: int | None = None  # the init's soft RLIMIT_NOFILE; -1 is unlimited


@dataclass(frozen=True, slots=True)
class Sample:
    """A cgroup's numbers. `pids` is empty for groups."""

    target: Target
    stats: Stats
    limits: Limits
    pids: tuple[int, ...] = ()
    descriptors: int = 0

    @property
    def processes(self) -> int:
        return len(self.pids)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`now` is Unix seconds; `errors` counts readings that failed otherwise than by the thing being gone."""

    now: float
    containers: tuple[Sample, ...]
    pods: tuple[Sample, ...]
    groups: tuple[Sample, ...]
    networks: tuple[tuple[Sandbox, Mapping[str, tuple[int, ...]]], ...]
    root: Root
    errors: int = 0

    @property
    def all(self) -> tuple[Sample, ...]:
        """A pod's containers follow it, and pods are in the order of their uids, which count: what neighbours have in
        common is then near enough for gzip to see."""
        pods = sorted(self.pods, key=lambda pod: pod.target.uid)
        mine: dict[str, list[Sample]] = {pod.target.uid: [pod] for pod in pods}
        for container in self.containers:
            mine.setdefault(container.target.uid, []).append(container)
        return (*self.groups, *(sample for samples in mine.values() for sample in samples))


@dataclass(slots=True)
class _Kept:
    """What is remembered of one cgroup."""

    group: Cgroup
    reader: Reader | None = None
    limits: Limits = Limits()
    believed: float = 0.0  # monotonic seconds until which the limits are
    hash: str = ""
    sample: Sample | None = None


@dataclass(slots=True)
class _Network:
    """A sandbox's net/dev: its descriptor, what it said, and what that means."""

    descriptor: int
    size: int = _SMALL  # bytes to ask for
    text: bytes = b""
    found: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class _Total:
    """What the machine counts of all cgroups together, and when (monotonic seconds) it was last seen to have moved."""

    value: int
    at: float


class Sampler:
    """`find()` gives the targets of the moment, `descriptors` is the process's limit. One caller at a time."""

    def __init__(self, find: Callable[[], Targets], *, descriptors: int) -> None:
        self._find = find
        self._errors = 0
        self._left = max(256, int(descriptors * FD_BUDGET))
        self._kept: dict[str, _Kept] = {}
        self._net: dict[str, _Network] = {}  # sandbox id →
        self._totals: dict[str, _Total] = {}  # file of TOTALS →

    def sample(self) -> Snapshot:
        targets = self._find()
        self._forget(targets)
        self._errors = 0
        now, root = time.monotonic(), read_root()
        moved = self._moved(root, now)
        before = {path: kept.sample for path, kept in self._kept.items()}
        pods = self._samples(targets.pods, now, moved)
        still = {pod.target.uid for pod in pods if before.get(pod.target.cgroup) is pod}
        containers = self._samples(targets.containers, now, moved, still & _alone(targets.containers))
        return Snapshot(
            time.time(),
            containers,
            _with_processes(pods, containers),
            self._samples(targets.groups, now, moved),
            tuple((s, found) for s in targets.sandboxes if (found := self._network(s))),
            root,
            self._errors,
        )

    def close(self) -> None:
        for path in list(self._kept):
            self._drop(path)
        for network in self._net.values():
            os.close(network.descriptor)
        self._net.clear()

    def _moved(self, root: Root, now: float) -> dict[str, float]:
        """When a task was last held up or killed anywhere, by the file that tells it of a cgroup."""
        found = {}
        for name in TOTALS:
            total = _total(root, name)
            if total is None:
                continue
            known = self._totals.get(name)
            if known is None or known.value != total:
                known = self._totals[name] = _Total(total, now)
            found[name] = known.at
        return found

    def _samples(
        self,
        targets: Iterable[Target],
        now: float,
        moved: Mapping[str, float],
        still: Collection[str] = (),
    ) -> tuple[Sample, ...]:
        """`still`: uids of pods whose every number is what it was; so is that of the only container such a pod has."""
        found = (self._sample(target, now, moved, still) for target in targets)
        return tuple(sample for sample in found if sample is not None)

    def _sample(
        self, target: Target, now: float, moved: Mapping[str, float], still: Collection[str]
    ) -> Sample | None:
        kept = self._kept.get(target.cgroup)
        if kept is None:
            kept = self._kept[target.cgroup] = _Kept(open_cgroup(target.cgroup))
        due = now >= kept.believed or kept.hash != target.resources_hash
        if target.uid in still and not due and kept.sample is not None and kept.sample.target is target:
            return kept.sample
        try:
            stats, awake = self._read(kept, now, moved, limits=due)
        except NotFoundError:
            self._drop(target.cgroup)
            return None
        except RuntimeFault:
            self._errors += 1
            self._drop(target.cgroup)
            return None
        if due:
            # not all at the same time again
            kept.believed, kept.hash = now + SPEC_AGE * random.uniform(0.5, 1.0), target.resources_hash
            kept.limits = _limits(kept.group, target, kept.limits)
        last = kept.sample
        if last is None or due or awake or last.stats is not stats or last.target is not target:
            pids, opened = _processes(kept.group, stats, last) if target.container else ((), 0)
            last = kept.sample = Sample(target, stats, kept.limits, pids, opened)
        return last

    def _read(
        self, kept: _Kept, now: float, moved: Mapping[str, float], *, limits: bool
    ) -> tuple[Stats, bool]:
        """The numbers, and whether something may have run since the last look."""
        if kept.reader is None:
            reader = kept.group.reader()
            if self._left < reader.descriptors:
                with reader:
                    return reader.read(), True
            kept.reader = reader
            self._left -= reader.descriptors
        return kept.reader.read(now, limits=limits, moved=moved), kept.reader.awake

    def _network(self, sandbox: Sandbox) -> Mapping[str, tuple[int, ...]]:
        """Counters of the sandbox's interfaces, through a descriptor that is kept: it is the namespace's, and stays
        readable when the process is gone, so it goes with the pod."""
        known = self._net.get(sandbox.sandbox_id)
        try:
            if known is None:
                path = f"/proc/{sandbox.pid}/net/dev"
                if self._left < 1:
                    return interfaces(read_or(path))
                known = _Network(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                self._net[sandbox.sandbox_id] = known
                self._left -= 1
            while len(text := os.pread(known.descriptor, known.size, 0)) == known.size:
                known.size *= 2
        except OSError:
            return {}
        if text != known.text:
            known.text, known.found = text, interfaces(text.decode("ascii", "replace"))
        return known.found

    def _forget(self, targets: Targets) -> None:
        wanted = {t.cgroup for group in (targets.containers, targets.pods, targets.groups) for t in group}
        for path in self._kept.keys() - wanted:
            self._drop(path)
        for identity in self._net.keys() - {s.sandbox_id for s in targets.sandboxes}:
            os.close(self._net.pop(identity).descriptor)
            self._left += 1

    def _drop(self, path: str) -> None:
        kept = self._kept.pop(path, None)
        if kept is not None and kept.reader is not None:
            self._left += kept.reader.descriptors
            kept.reader.close()


def _total(root: Root, name: str) -> int | None:
    """The machine's number of what a file of TOTALS counts; None where it does not tell."""
    if name == "memory.oom_control":
        return root.vm.get("oom_kill")
    found = pressure(root.pressure.get(name.removesuffix(".pressure"), "").encode())
    return found.some_us if found is not None else None


def _alone(containers: Iterable[Target]) -> set[str]:
    """The pods that have one container."""
    return {uid for uid, count in Counter(c.uid for c in containers).items() if count == 1}


def _with_processes(pods: tuple[Sample, ...], containers: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """No process lives in a pod's own cgroup: it has those of its containers."""
    pids: dict[str, list[int]] = {}
    descriptors: dict[str, int] = {}
    for sample in containers:
        uid = sample.target.uid
        pids.setdefault(uid, []).extend(sample.pids)
        descriptors[uid] = descriptors.get(uid, 0) + sample.descriptors
    return tuple(
        Sample(
            p.target, p.stats, p.limits, tuple(pids.get(p.target.uid, ())), descriptors.get(p.target.uid, 0)
        )
        for p in pods
    )


def _limits(group: Cgroup, target: Target, before: Limits) -> Limits:
    """The very same object when they are what they were."""
    found = Limits(read_spec(group), _soft_limit(target.pid) if target.pid else None)
    return before if found == before else found


def _soft_limit(pid: int) -> int | None:
    """The soft "Max open files" of proc_pid_limits(5)."""
    for line in read_or(f"/proc/{pid}/limits").splitlines():
        if line.startswith("Max open files"):
            word = line[len("Max open files") :].split()[0]
            return int(word) if word.isdigit() else -1
    return None


def _processes(group: Cgroup, stats: Stats, last: Sample | None) -> tuple[tuple[int, ...], int]:
    """The processes of a container and their descriptors. As many tasks as it had processes, all of which live, are
    those processes and nothing else: the list, which costs v1 a sort, is not asked for."""
    if last is not None and last.pids and stats.pids.current == len(last.pids):
        opened = [_open_files(pid) for pid in last.pids]
        if all(opened):  # one that is dead, or waited for by nobody, has none
            return last.pids, sum(opened)
    pids = tuple(group.pids(recursive=False))
    return pids, sum(map(_open_files, pids))


def _open_files(pid: int) -> int:
    """Descriptors of a process: the size of /proc/<pid>/fd says it since Linux 6.2; before, they are counted."""
    path = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        return os.stat(path).st_size or (0 if _SIZED else len(os.listdir(path)))
    return 0


def _fd_directories_have_a_size() -> bool:
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/fd").st_size > 0
    return False


_SIZED = _fd_directories_have_a_size()
