"""Samples all measurements: `Sampler.sample()` returns a `Snapshot`, which the pages, `top` and the summary show.

Between samples, the sampler keeps descriptors open, which makes reading three times as fast. It also keeps values that
rarely change (labels, limits) and values that cannot have changed: for a cgroup in which nothing ran, it reads few
files (runtime/cgroups/reading/reader.py). It never walks directories, whose sizes are measured in the background, as
are sockets (disk_usage.py). Cgroups and files that disappear before they are read are omitted.
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
from runtime.cgroups.reading.parsers import Stalls, pressure, stalls
from runtime.cgroups.reading.reader import TOTALS, Reader
from runtime.cgroups.reading.stats import Stats
from runtime.errors import NotFoundError, RuntimeFault

FD_BUDGET = 0.85  # fraction of the descriptors for files that stay open; others are opened each time
NO_LIMITS = Spec()
#: The stalls of a cgroup, with their averages: resource → "some" or "full" → the numbers.
ResourceStalls = Mapping[str, Mapping[str, Stalls]]
_SMALL = 479  # initial bytes of a buffer for net/dev, small enough for Python's allocator instead of malloc
SPEC_AGE = 300.0  # maximum seconds for which limits are reused while nothing indicates a change


@dataclass(frozen=True, slots=True)
class Limits:
    """Values that change only if the pod is edited."""

    spec: Spec = NO_LIMITS
    open_files: int | None = None  # the init's soft RLIMIT_NOFILE; -1: unlimited


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of a cgroup. `pids` is empty for the parent cgroups (`Targets.groups`)."""

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
    """The result of sampling. `now`: Unix seconds; `errors`: number of cgroups that could not be read, except those
    that disappeared."""

    now: float
    containers: tuple[Sample, ...]
    pods: tuple[Sample, ...]
    groups: tuple[Sample, ...]
    networks: tuple[tuple[Sandbox, Mapping[str, tuple[int, ...]]], ...]
    root: Root
    errors: int = 0

    @property
    def all(self) -> tuple[Sample, ...]:
        """Return all samples: pods ordered by uid, each followed by its containers. In this order, text that samples
        have in common is close enough together for gzip to find it."""
        pods = sorted(self.pods, key=lambda pod: pod.target.uid)
        mine: dict[str, list[Sample]] = {pod.target.uid: [pod] for pod in pods}
        for container in self.containers:
            mine.setdefault(container.target.uid, []).append(container)
        return (*self.groups, *(sample for samples in mine.values() for sample in samples))


@dataclass(slots=True)
class _Kept:
    """The data that the sampler keeps of one cgroup."""

    group: Cgroup
    reader: Reader | None = None
    limits: Limits = Limits()
    believed: float = 0.0  # monotonic seconds until which the limits are reused
    hash: str = ""
    sample: Sample | None = None


@dataclass(slots=True)
class _Network:
    """The open /proc/<pid>/net/dev of a sandbox, with the last text and its parsed form."""

    descriptor: int
    size: int = _SMALL  # bytes to read
    text: bytes = b""
    found: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class _Total:
    """A counter of the whole machine, and the monotonic time at which its last change was seen."""

    value: int
    at: float


class Sampler:
    """Samples the targets that `find()` returns. Not safe for concurrent calls.

    `descriptors`: the number of file descriptors that the process may open. The sampler keeps at most the share
    FD_BUDGET of them open between samples. `before`: called at the beginning of each sample.
    """

    def __init__(
        self, find: Callable[[], Targets], *, descriptors: int, before: Callable[[], None] = lambda: None
    ) -> None:
        self._find = find
        self._before = before
        self._errors = 0
        self._left = int(descriptors * FD_BUDGET)
        self._kept: dict[str, _Kept] = {}
        self._net: dict[str, _Network] = {}  # by sandbox id
        self._totals: dict[str, _Total] = {}  # by the file name in TOTALS

    def sample(self) -> Snapshot:
        self._before()
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

    def stalls(self) -> dict[str, ResourceStalls]:
        """Return the stalls of the cgroups of the last sample, by cgroup. Those without any, or that could not be read,
        are left out."""
        found: dict[str, ResourceStalls] = {}
        for path, kept in self._kept.items():
            with contextlib.suppress(RuntimeFault):
                if kept.reader is not None:
                    lines = kept.reader.stalls()
                else:
                    with kept.group.reader() as reader:
                        lines = reader.stalls()
                if lines:
                    found[path] = lines
        return found

    def close(self) -> None:
        for path in list(self._kept):
            self._drop(path)
        for network in self._net.values():
            os.close(network.descriptor)
        self._net.clear()

    def _moved(self, root: Root, now: float) -> dict[str, float]:
        """Return for each file in TOTALS the monotonic time at which the machine's total (of stalls or OOM kills) was
        last seen to change. Since then, the file has not changed in any cgroup."""
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
        """Sample targets. `still`: uids of pods with one container whose values have not changed, so that the
        container's values have not changed either."""
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
            # Randomize the time, so that the limits of many cgroups are not due in the same sample.
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
        """Return the counters of the sandbox's interfaces. The descriptor is kept until the sandbox is gone. It refers
        to the network namespace, so it stays readable after the process has exited."""
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
    """Return the machine's total of the counter in a file of TOTALS; None if the kernel does not report it."""
    if name == "memory.oom_control":
        return root.vm.get("oom_kill")
    found = pressure(root.pressure.get(name.removesuffix(".pressure"), "").encode())
    return found.some_us if found is not None else None


def stalls_of(root: Root) -> ResourceStalls:
    """Return the stalls of the whole machine."""
    return {name: stalls(text.encode()) for name, text in root.pressure.items()}


def _alone(containers: Iterable[Target]) -> set[str]:
    """Return the uids of pods that have one container."""
    return {uid for uid, count in Counter(c.uid for c in containers).items() if count == 1}


def _with_processes(pods: tuple[Sample, ...], containers: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """Return the pods with the processes of their containers. No process is in a pod's own cgroup."""
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
    """Read the limits. Return `before`, the same object, if they are unchanged."""
    found = Limits(read_spec(group), _soft_limit(target.pid) if target.pid else None)
    return before if found == before else found


def _soft_limit(pid: int) -> int | None:
    """Return the soft limit "Max open files" (proc_pid_limits(5)), -1 if unlimited; None if the process has exited."""
    for line in read_or(f"/proc/{pid}/limits").splitlines():
        if line.startswith("Max open files"):
            word = line[len("Max open files") :].split()[0]
            return int(word) if word.isdigit() else -1
    return None


def _processes(group: Cgroup, stats: Stats, last: Sample | None) -> tuple[tuple[int, ...], int]:
    """Return the processes of a container and the number of their descriptors. If all known processes are alive and
    their number equals the number of tasks, there are no others. Then the list, which the kernel sorts on v1, is not
    read."""
    if last is not None and last.pids and stats.pids.current == len(last.pids):
        opened = [_open_files(pid) for pid in last.pids]
        if all(opened):  # a dead process or a zombie has none
            return last.pids, sum(opened)
    pids = tuple(group.pids(recursive=False))
    return pids, sum(map(_open_files, pids))


def _open_files(pid: int) -> int:
    """Return the number of a process's descriptors: since Linux 6.2, the size of /proc/<pid>/fd; before, the number of
    its entries. 0 if the process has exited."""
    path = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        return os.stat(path).st_size or (0 if _SIZED else len(os.listdir(path)))
    return 0


def _fd_directories_have_a_size() -> bool:
    with contextlib.suppress(OSError):
        return os.stat("/proc/self/fd").st_size > 0
    return False


_SIZED = _fd_directories_have_a_size()
