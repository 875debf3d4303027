"""Samples everything that is measured: `Sampler.sample() → Snapshot`, which pages, `top` and the summary show.

Between samples the sampler keeps open descriptors (which make a reading three times as cheap), values that hardly
change (labels, limits), and values that cannot have changed: for a cgroup in which nothing ran, few files are read
(runtime/cgroups/reading/reader.py). It never walks directories: sizes of writable layers and sockets are measured in
the background (disk_usage.py). Things that disappear before they are read are omitted.
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

FD_BUDGET = 0.85  # fraction of the descriptor limit that may be kept open; other files are opened each time
NO_LIMITS = Spec()
_SMALL = 479  # bytes, at first, of net/dev: small enough for Python's allocator, which keeps it out of malloc's heap
SPEC_AGE = 300.0  # maximum seconds for which limits are reused if nothing indicates that they changed


@dataclass(frozen=True, slots=True)
class Limits:
    """Values that only change by an edit."""

    spec: Spec = NO_LIMITS
    open_files: int | None = None  # the init's soft RLIMIT_NOFILE; -1: unlimited


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of a cgroup. `pids` is empty for groups."""

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
    """One sample of everything. `now`: Unix seconds; `errors`: failed readings, other than of things that
    disappeared."""

    now: float
    containers: tuple[Sample, ...]
    pods: tuple[Sample, ...]
    groups: tuple[Sample, ...]
    networks: tuple[tuple[Sandbox, Mapping[str, tuple[int, ...]]], ...]
    root: Root
    errors: int = 0

    @property
    def all(self) -> tuple[Sample, ...]:
        """Return all samples with each pod's containers after it, and pods ordered by uid. The order matters: the text
        that neighbours have in common is then close enough for gzip."""
        pods = sorted(self.pods, key=lambda pod: pod.target.uid)
        mine: dict[str, list[Sample]] = {pod.target.uid: [pod] for pod in pods}
        for container in self.containers:
            mine.setdefault(container.target.uid, []).append(container)
        return (*self.groups, *(sample for samples in mine.values() for sample in samples))


@dataclass(slots=True)
class _Kept:
    """What the sampler keeps of one cgroup."""

    group: Cgroup
    reader: Reader | None = None
    limits: Limits = Limits()
    believed: float = 0.0  # monotonic seconds until which the limits are reused
    hash: str = ""
    sample: Sample | None = None


@dataclass(slots=True)
class _Network:
    """The open /proc/<pid>/net/dev of a sandbox, with the text read last and its parsed form."""

    descriptor: int
    size: int = _SMALL  # bytes to read
    text: bytes = b""
    found: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class _Total:
    """A counter of all cgroups together, and the monotonic time when it was last seen to change."""

    value: int
    at: float


class Sampler:
    """Samples the targets that `find()` returns. `descriptors` is the process's limit. One caller at a time."""

    def __init__(self, find: Callable[[], Targets], *, descriptors: int) -> None:
        self._find = find
        self._errors = 0
        self._left = max(256, int(descriptors * FD_BUDGET))
        self._kept: dict[str, _Kept] = {}
        self._net: dict[str, _Network] = {}  # by sandbox id
        self._totals: dict[str, _Total] = {}  # by the file name in TOTALS

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
        """Return when a task was last stalled or killed in any cgroup, by the file that reports it for a cgroup."""
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
        """`still`: uids of pods whose values are all unchanged, and therefore also those of a pod's only container."""
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
            # Randomized, so that the limits of many cgroups are not due at the same time again.
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
        """Return the values, and whether something may have run since the last sample."""
        if kept.reader is None:
            reader = kept.group.reader()
            if self._left < reader.descriptors:
                with reader:
                    return reader.read(), True
            kept.reader = reader
            self._left -= reader.descriptors
        return kept.reader.read(now, limits=limits, moved=moved), kept.reader.awake

    def _network(self, sandbox: Sandbox) -> Mapping[str, tuple[int, ...]]:
        """Return the counters of the sandbox's interfaces. The descriptor is kept until the pod is deleted: it belongs
        to the namespace and stays readable after the process has exited."""
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
    """Return the machine's total of what a file in TOTALS counts; None if the kernel does not report it."""
    if name == "memory.oom_control":
        return root.vm.get("oom_kill")
    found = pressure(root.pressure.get(name.removesuffix(".pressure"), "").encode())
    return found.some_us if found is not None else None


def _alone(containers: Iterable[Target]) -> set[str]:
    """Return the pods that have one container."""
    return {uid for uid, count in Counter(c.uid for c in containers).items() if count == 1}


def _with_processes(pods: tuple[Sample, ...], containers: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Give each pod the processes of its containers: no process is in the pod's own cgroup."""
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
    """Return the limits; the same object if they are unchanged."""
    found = Limits(read_spec(group), _soft_limit(target.pid) if target.pid else None)
    return before if found == before else found


def _soft_limit(pid: int) -> int | None:
    """Return the soft limit "Max open files" of proc_pid_limits(5)."""
    for line in read_or(f"/proc/{pid}/limits").splitlines():
        if line.startswith("Max open files"):
            word = line[len("Max open files") :].split()[0]
            return int(word) if word.isdigit() else -1
    return None


def _processes(group: Cgroup, stats: Stats, last: Sample | None) -> tuple[tuple[int, ...], int]:
    """Return the processes of a container and the number of their descriptors. If the number of tasks equals that of
    the known processes, and all of these live, they are the same: the list, which v1 has to sort, is not read."""
    if last is not None and last.pids and stats.pids.current == len(last.pids):
        opened = [_open_files(pid) for pid in last.pids]
        if all(opened):  # a dead process or a zombie has none
            return last.pids, sum(opened)
    pids = tuple(group.pids(recursive=False))
    return pids, sum(map(_open_files, pids))


def _open_files(pid: int) -> int:
    """Count a process's descriptors: the size of /proc/<pid>/fd since Linux 6.2; before that, its entries."""
    path = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        return os.stat(path).st_size or (0 if _SIZED else len(os.listdir(path)))
    return 0


def _fd_directories_have_a_size() -> bool:
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/fd").st_size > 0
    return False


_SIZED = _fd_directories_have_a_size()
