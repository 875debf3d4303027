"""One look at everything that is measured: `Sampler.sample() → Snapshot`. Pages, `top` and the summary all show one.

Between two looks nothing is kept but open descriptors (a reading with them costs a third) and what hardly changes:
labels, limits. Nothing here walks a directory: the size of writable layers and the sockets come from a measure in the
background (diskusage.py). What is gone by the time it is looked at is left out.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kubelite.telemetry.machine import Root, interfaces, read_root
from kubelite.telemetry.targets import Sandbox, Target, Targets
from runtime.cgroups import Cgroup, open_cgroup
from runtime.cgroups.files import read_or
from runtime.cgroups.spec import Spec, read_spec
from runtime.cgroups.stats import Reader, Stats
from runtime.errors import NotFoundError, RuntimeFault

FD_BUDGET = 0.85  # share of the descriptor limit that may be kept here; what is beyond is opened each time
NO_LIMITS = Spec()
SPEC_AGE = 60.0  # seconds that limits are believed when nothing says that they changed


@dataclass(frozen=True, slots=True)
class Limits:
    """What changes only when somebody changes it."""

    read_at: float
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
        return (*self.groups, *self.pods, *self.containers)


@dataclass(slots=True)
class _Kept:
    """What is remembered of one cgroup."""

    group: Cgroup
    reader: Reader | None = None
    limits: Limits = field(default_factory=lambda: Limits(0.0))
    hash: str = ""


class Sampler:
    """`find()` gives the targets of the moment, `descriptors` is the process's limit. One caller at a time."""

    def __init__(self, find: Callable[[], Targets], *, descriptors: int) -> None:
        self._find = find
        self._errors = 0
        self._left = max(256, int(descriptors * FD_BUDGET))
        self._kept: dict[str, _Kept] = {}
        self._net: dict[str, int] = {}  # sandbox id → descriptor of its net/dev

    def sample(self) -> Snapshot:
        targets, now = self._find(), time.time()
        self._forget(targets)
        self._errors = 0
        containers = self._samples(targets.containers, now)
        pods = self._samples(targets.pods, now)
        return Snapshot(
            now,
            containers,
            _with_processes(pods, containers),
            self._samples(targets.groups, now),
            tuple((s, found) for s in targets.sandboxes if (found := self._network(s))),
            read_root(),
            self._errors,
        )

    def close(self) -> None:
        for path in list(self._kept):
            self._drop(path)
        for descriptor in self._net.values():
            os.close(descriptor)
        self._net.clear()

    def _samples(self, targets: Iterable[Target], now: float) -> tuple[Sample, ...]:
        found = (self._sample(target, now) for target in targets)
        return tuple(sample for sample in found if sample is not None)

    def _sample(self, target: Target, now: float) -> Sample | None:
        kept = self._kept.get(target.cgroup)
        if kept is None:
            kept = self._kept[target.cgroup] = _Kept(open_cgroup(target.cgroup))
        try:
            stats = self._read(kept)
        except NotFoundError:
            self._drop(target.cgroup)
            return None
        except RuntimeFault:
            self._errors += 1
            self._drop(target.cgroup)
            return None
        if now - kept.limits.read_at > SPEC_AGE or kept.hash != target.resources_hash:
            kept.limits, kept.hash = _limits(kept.group, target, now), target.resources_hash
        if not target.container:
            return Sample(target, stats, kept.limits)
        pids = tuple(kept.group.pids(recursive=False))
        return Sample(target, stats, kept.limits, pids, sum(map(_open_files, pids)))

    def _read(self, kept: _Kept) -> Stats:
        if kept.reader is None:
            reader = kept.group.reader()
            if self._left < reader.descriptors:
                with reader:
                    return reader.read()
            kept.reader = reader
            self._left -= reader.descriptors
        return kept.reader.read()

    def _network(self, sandbox: Sandbox) -> Mapping[str, tuple[int, ...]]:
        """Counters of the sandbox's interfaces, through a descriptor that is kept: it is the namespace's, and stays
        readable when the process is gone, so it goes with the pod."""
        descriptor = self._net.get(sandbox.sandbox_id)
        try:
            if descriptor is None:
                path = f"/proc/{sandbox.pid}/net/dev"
                if self._left < 1:
                    return interfaces(read_or(path))
                self._net[sandbox.sandbox_id] = descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._left -= 1
            return interfaces(os.pread(descriptor, 65536, 0).decode("ascii", "replace"))
        except OSError:
            return {}

    def _forget(self, targets: Targets) -> None:
        wanted = {t.cgroup for group in (targets.containers, targets.pods, targets.groups) for t in group}
        for path in self._kept.keys() - wanted:
            self._drop(path)
        for identity in self._net.keys() - {s.sandbox_id for s in targets.sandboxes}:
            os.close(self._net.pop(identity))
            self._left += 1

    def _drop(self, path: str) -> None:
        kept = self._kept.pop(path, None)
        if kept is not None and kept.reader is not None:
            self._left += kept.reader.descriptors
            kept.reader.close()


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


def _limits(group: Cgroup, target: Target, now: float) -> Limits:
    return Limits(now, read_spec(group), _soft_limit(target.pid) if target.pid else None)


def _soft_limit(pid: int) -> int | None:
    """The soft "Max open files" of proc_pid_limits(5)."""
    for line in read_or(f"/proc/{pid}/limits").splitlines():
        if line.startswith("Max open files"):
            word = line[len("Max open files") :].split()[0]
            return int(word) if word.isdigit() else -1
    return None


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
