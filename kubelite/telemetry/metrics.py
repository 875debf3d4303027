"""Container and pod metrics under cAdvisor's and kubelet's names, read from the kernel when they are scraped.

Families, labels and sources are those of google/cadvisor metrics/prometheus.go as a kubelet enables them. Base labels
of every container_* series are `container,id,image,name,namespace,pod`, always all six: a pod's own cgroup has the
first, third and fourth empty, the network belongs to the sandbox (container="POD"). Samples carry no timestamps
(google/cadvisor#2526). Nothing is remembered between scrapes but open descriptors (`Readers`) and the size of the
writable layers, which a background walk measures (diskusage.py): no scrape ever walks a directory.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runtime.cgroups import open_cgroup
from runtime.cgroups.stats import Pressure, Reader, Stats
from runtime.errors import RuntimeFault

BASE = ("container", "id", "image", "name", "namespace", "pod")
SANDBOX_IMAGE = (
    "kubelite/sandbox"  # there is no pause image; dashboards want image!="" on the network's series
)
FD_BUDGET = 0.5  # share of the descriptor limit that readers may keep


@dataclass(frozen=True, slots=True)
class Target:
    """One cgroup to report on."""

    cgroup: str
    namespace: str
    pod: str
    container: str = ""
    image: str = ""
    name: str = ""
    started_at: float = 0.0
    upper: str = ""  # the writable layer's directory

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.container, self.cgroup, self.image, self.name, self.namespace, self.pod)


@dataclass(frozen=True, slots=True)
class SandboxTarget:
    """A pod's network namespace, seen through its shim."""

    pid: int
    cgroup: str
    sandbox_id: str
    namespace: str
    pod: str
    uid: str
    host_network: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        name = f"k8s_POD_{self.pod}_{self.namespace}_{self.uid}_0"
        return ("POD", f"{self.cgroup}/{self.sandbox_id}", SANDBOX_IMAGE, name, self.namespace, self.pod)


@dataclass(frozen=True, slots=True)
class Family:
    """One family read off `Stats`: `rows` gives (extra label values, value) pairs."""

    name: str
    help: str
    rows: Callable[[Stats], Iterable[tuple[tuple[str, ...], float]]]
    counter: bool = False
    extra: tuple[str, ...] = ()


def _one(read: Callable[[Stats], float]) -> Callable[[Stats], Iterable[tuple[tuple[str, ...], float]]]:
    return lambda stats: (((), read(stats)),)


def _gauge(name: str, text: str, read: Callable[[Stats], float]) -> Family:
    return Family(name, text, _one(read))


def _counter(name: str, text: str, read: Callable[[Stats], float]) -> Family:
    return Family(name, text, _one(read), counter=True)


def _throttling(read: Callable[[Stats], float]) -> Callable[[Stats], Iterable[tuple[tuple[str, ...], float]]]:
    """Only where there is a quota, as cAdvisor has it."""
    return lambda stats: (((), read(stats)),) if stats.cpu.periods else ()


def _devices(*names: str) -> Callable[[Stats], Iterable[tuple[tuple[str, ...], float]]]:
    def rows(stats: Stats) -> Iterator[tuple[tuple[str, ...], float]]:
        for device in stats.io:
            yield (
                (device_name(device.major, device.minor),),
                float(sum(getattr(device, name) for name in names)),
            )

    return rows


def _pressure(read: Callable[[Stats], Pressure | None], field: str) -> Family:
    resource = read.__name__
    word = "waiting" if field == "some_us" else "stalled"
    verb = "waiting for" if field == "some_us" else "stalled on"

    def rows(stats: Stats) -> Iterable[tuple[tuple[str, ...], float]]:
        found = read(stats)
        return (((), getattr(found, field) / 1e6),) if found else ()

    text = f"Total time duration tasks in the container have been {verb} {resource}."
    return Family(f"container_pressure_{resource}_{word}_seconds", text, rows, counter=True)


def cpu(stats: Stats) -> Pressure | None:
    return stats.pressure.cpu


def memory(stats: Stats) -> Pressure | None:
    return stats.pressure.memory


def io(stats: Stats) -> Pressure | None:
    return stats.pressure.io


FAMILIES: tuple[Family, ...] = (
    Family(
        "container_cpu_usage_seconds",
        "Cumulative cpu time consumed in seconds.",
        lambda s: ((("total",), s.cpu.usage_ns / 1e9),),
        counter=True,
        extra=("cpu",),
    ),
    _counter(
        "container_cpu_user_seconds",
        "Cumulative user cpu time consumed in seconds.",
        lambda s: s.cpu.user_ns / 1e9,
    ),
    _counter(
        "container_cpu_system_seconds",
        "Cumulative system cpu time consumed in seconds.",
        lambda s: s.cpu.system_ns / 1e9,
    ),
    Family(
        "container_cpu_cfs_periods",
        "Number of elapsed enforcement period intervals.",
        _throttling(lambda s: s.cpu.periods),
        counter=True,
    ),
    Family(
        "container_cpu_cfs_throttled_periods",
        "Number of throttled period intervals.",
        _throttling(lambda s: s.cpu.throttled_periods),
        counter=True,
    ),
    Family(
        "container_cpu_cfs_throttled_seconds",
        "Total time duration the container has been throttled.",
        _throttling(lambda s: s.cpu.throttled_ns / 1e9),
        counter=True,
    ),
    _gauge(
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        lambda s: s.memory.usage,
    ),
    _gauge(
        "container_memory_working_set_bytes", "Current working set in bytes.", lambda s: s.memory.working_set
    ),
    _gauge("container_memory_rss", "Size of RSS in bytes.", lambda s: s.memory.rss),
    _gauge("container_memory_cache", "Number of bytes of page cache memory.", lambda s: s.memory.cache),
    _gauge("container_memory_swap", "Container swap usage in bytes.", lambda s: s.memory.swap),
    _gauge(
        "container_memory_mapped_file",
        "Size of memory mapped files in bytes.",
        lambda s: s.memory.mapped_file,
    ),
    _gauge(
        "container_memory_max_usage_bytes",
        "Maximum memory usage recorded in bytes",
        lambda s: s.memory.max_usage,
    ),
    _gauge(
        "container_memory_kernel_usage",
        "Size of kernel memory allocated in bytes.",
        lambda s: s.memory.kernel,
    ),
    _counter("container_memory_failcnt", "Number of memory usage hits limits", lambda s: s.memory.failcnt),
    Family(
        "container_memory_failures",
        "Cumulative count of memory allocation failures.",
        lambda s: (
            (("pgfault", "container"), s.memory.pgfault),
            (("pgmajfault", "container"), s.memory.pgmajfault),
            (("pgfault", "hierarchy"), s.memory.pgfault),
            (("pgmajfault", "hierarchy"), s.memory.pgmajfault),
        ),
        counter=True,
        extra=("failure_type", "scope"),
    ),
    _counter(
        "container_oom_events",
        "Count of out of memory events observed for the container",
        lambda s: s.memory.oom_kills,
    ),
    _gauge("container_spec_memory_limit_bytes", "Memory limit for the container.", lambda s: s.memory.limit),
    _gauge("container_threads", "Number of threads running inside the container", lambda s: s.pids.current),
    _gauge(
        "container_threads_max",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        lambda s: s.pids.limit,
    ),
    Family(
        "container_fs_reads_bytes",
        "Cumulative count of bytes read",
        _devices("rbytes"),
        counter=True,
        extra=("device",),
    ),
    Family(
        "container_fs_writes_bytes",
        "Cumulative count of bytes written",
        _devices("wbytes"),
        counter=True,
        extra=("device",),
    ),
    Family(
        "container_fs_reads",
        "Cumulative count of reads completed",
        _devices("rios"),
        counter=True,
        extra=("device",),
    ),
    Family(
        "container_fs_writes",
        "Cumulative count of writes completed",
        _devices("wios"),
        counter=True,
        extra=("device",),
    ),
    *(_pressure(read, field) for read in (cpu, memory, io) for field in ("some_us", "full_us")),
)

#: (family, column of /proc/net/dev): see proc_pid_net(5)
NETWORK: tuple[tuple[str, str, int], ...] = (
    ("container_network_receive_bytes", "Cumulative count of bytes received", 0),
    ("container_network_receive_packets", "Cumulative count of packets received", 1),
    ("container_network_receive_errors", "Cumulative count of errors encountered while receiving", 2),
    (
        "container_network_receive_packets_dropped",
        "Cumulative count of packets dropped while receiving",
        3,
    ),
    ("container_network_transmit_bytes", "Cumulative count of bytes transmitted", 8),
    ("container_network_transmit_packets", "Cumulative count of packets transmitted", 9),
    ("container_network_transmit_errors", "Cumulative count of errors encountered while transmitting", 10),
    (
        "container_network_transmit_packets_dropped",
        "Cumulative count of packets dropped while transmitting",
        11,
    ),
)


class Readers:
    """Kept descriptors of cgroup files, one `Reader` a cgroup, within a share of the descriptor limit; beyond it the
    files are opened for one reading."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._readers: dict[str, Reader] = {}

    def read(self, path: str) -> Stats | None:
        """The cgroup's numbers; None when it is gone."""
        reader = self._readers.get(path)
        try:
            if reader is None:
                reader = open_cgroup(path).reader()
                if len(self._readers) >= self._limit:
                    with reader:
                        return reader.read()
                self._readers[path] = reader
            return reader.read()
        except RuntimeFault:
            self._drop(path)
            return None

    def keep_only(self, paths: Iterable[str]) -> None:
        for path in set(self._readers) - set(paths):
            self._drop(path)

    def close(self) -> None:
        self.keep_only(())

    def _drop(self, path: str) -> None:
        reader = self._readers.pop(path, None)
        if reader is not None:
            reader.close()


class ContainerCollector(Collector):
    """All container_* series. `targets()` gives what there is now; `usage(upper)` the measured size of a writable layer
    as (bytes, inodes), None when it was not measured yet."""

    def __init__(
        self,
        targets: Callable[[], tuple[list[Target], list[SandboxTarget]]],
        usage: Callable[[str], tuple[int, int] | None],
        *,
        descriptors: int,
    ) -> None:
        self._targets = targets
        self._usage = usage
        self.readers = Readers(max(16, int(descriptors * FD_BUDGET) // 16))

    def collect(self) -> Iterator[Metric]:
        targets, sandboxes = self._targets()
        now = time.time()
        self.readers.keep_only(target.cgroup for target in targets)
        found = [(t, s) for t in targets if (s := self.readers.read(t.cgroup)) is not None]
        for family in FAMILIES:
            metric = _metric(family.name, family.help, (*BASE, *family.extra), counter=family.counter)
            for target, stats in found:
                for extra, value in family.rows(stats):
                    metric.add_metric((*target.labels, *extra), value)
            yield metric
        yield from self._lives([target for target, _ in found], now)
        yield from self._disks([target for target, _ in found])
        yield from _networks(sandboxes)

    def _lives(self, targets: list[Target], now: float) -> Iterator[Metric]:
        start = GaugeMetricFamily(
            "container_start_time_seconds",
            "Start time of the container since unix epoch in seconds.",
            labels=BASE,
        )
        seen = GaugeMetricFamily(
            "container_last_seen", "Last time a container was seen by the exporter", labels=BASE
        )
        processes = GaugeMetricFamily(
            "container_processes", "Number of processes running inside the container.", labels=BASE
        )
        for target in targets:
            start.add_metric(target.labels, target.started_at)
            seen.add_metric(target.labels, int(now))
            with contextlib.suppress(RuntimeFault):
                processes.add_metric(target.labels, len(open_cgroup(target.cgroup).pids()))
        yield from (start, seen, processes)

    def _disks(self, targets: list[Target]) -> Iterator[Metric]:
        labels = (*BASE, "device")
        used = GaugeMetricFamily(
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            labels=labels,
        )
        limit = GaugeMetricFamily(
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
            labels=labels,
        )
        inodes = GaugeMetricFamily("container_fs_inodes_total", "Number of Inodes", labels=labels)
        for target in targets:
            measured = self._usage(target.upper) if target.upper else None
            if measured is None:
                continue
            with contextlib.suppress(OSError):
                place = os.stat(target.upper)
                size = os.statvfs(target.upper)
                row = (*target.labels, device_name(os.major(place.st_dev), os.minor(place.st_dev)))
                used.add_metric(row, measured[0])
                limit.add_metric(row, size.f_blocks * size.f_frsize)
                inodes.add_metric(row, size.f_files)
        yield from (used, limit, inodes)


def _networks(sandboxes: Iterable[SandboxTarget]) -> Iterator[Metric]:
    counts = [(s, read_net_dev(s.pid)) for s in sandboxes if not s.host_network]
    for name, text, column in NETWORK:
        metric = CounterMetricFamily(name, text, labels=(*BASE, "interface"))
        for sandbox, interfaces in counts:
            for interface, numbers in interfaces.items():
                metric.add_metric((*sandbox.labels, interface), numbers[column])
        yield metric


def read_net_dev(pid: int) -> Mapping[str, tuple[int, ...]]:
    """Interface → the 16 counters of /proc/<pid>/net/dev, without lo; empty when the process is gone."""
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii", errors="replace") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return {}
    found: dict[str, tuple[int, ...]] = {}
    for line in lines:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            found[name.strip()] = tuple(int(number) for number in numbers.split())
    return found


_device_names: dict[tuple[int, int], str] = {}


def device_name(major: int, minor: int) -> str:
    """`/dev/<name>` of a block device by number (sysfs, dev/block); "major:minor" when the kernel has none for it."""
    key = (major, minor)
    if key not in _device_names:
        try:
            link = os.readlink(f"/sys/dev/block/{major}:{minor}")
            _device_names[key] = "/dev/" + os.path.basename(link).replace("!", "/")
        except OSError:
            _device_names[key] = f"{major}:{minor}"
    return _device_names[key]


def _metric(
    name: str, text: str, labels: tuple[str, ...], *, counter: bool
) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if counter else GaugeMetricFamily
    return kind(name, text, labels=labels)
