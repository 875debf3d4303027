"""The container_* families that are read off a cgroup: name, type, help and the number, as a kubelet enables them.

Source: google/cadvisor metrics/prometheus.go. `GROUPS` are tables whose families always come together: all of a group's
series are there for a cgroup or none. Left out on purpose: per-CPU series, container_tasks_state, the CPU load averages
(a kubelet sends zeros), and what no reader here can know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kubelite.telemetry.exposition import Family, counter, gauge, number
from kubelite.telemetry.machine import device_name
from kubelite.telemetry.sampler import Sample
from runtime.cgroups.layout import Mode, layout
from runtime.cgroups.stats import IoStats, Pressure, Stats

CLOSE = "} "


@dataclass(frozen=True, slots=True)
class Column:
    """One series a cgroup; `tail` closes its labels."""

    family: Family
    read: Callable[[Stats], float]
    tail: str = CLOSE


@dataclass(frozen=True, slots=True)
class Group:
    """Families with the cgroups they are there for, and what their numbers are read off."""

    applies: Callable[[Sample], object]
    part: Callable[[Stats], object]
    columns: tuple[Column, ...]


def _c(name: str, text: str, read: Callable[[Stats], float], tail: str = CLOSE) -> Column:
    return Column(counter(name, text), read, tail)


def _g(name: str, text: str, read: Callable[[Stats], float]) -> Column:
    return Column(gauge(name, text), read)


Row = tuple[str, ...] | None

FAILURES = counter("container_memory_failures_total", "Cumulative count of memory allocation failures.")

_CPU = Group(
    lambda _: True,
    lambda s: s.cpu,
    (
        _c(
            "container_cpu_usage_seconds_total",
            "Cumulative cpu time consumed in seconds.",
            lambda s: s.cpu.usage_ns / 1e9,
            ',cpu="total"} ',
        ),
        _c(
            "container_cpu_user_seconds_total",
            "Cumulative user cpu time consumed in seconds.",
            lambda s: s.cpu.user_ns / 1e9,
        ),
        _c(
            "container_cpu_system_seconds_total",
            "Cumulative system cpu time consumed in seconds.",
            lambda s: s.cpu.system_ns / 1e9,
        ),
    ),
)

_MEMORY = Group(
    lambda _: True,
    lambda s: s.memory,
    (
        _g(
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            lambda s: s.memory.usage,
        ),
        _g(
            "container_memory_working_set_bytes",
            "Current working set in bytes.",
            lambda s: s.memory.working_set,
        ),
        _g("container_memory_rss", "Size of RSS in bytes.", lambda s: s.memory.rss),
        _g("container_memory_cache", "Number of bytes of page cache memory.", lambda s: s.memory.cache),
        _g("container_memory_swap", "Container swap usage in bytes.", lambda s: s.memory.swap),
        _g(
            "container_memory_mapped_file",
            "Size of memory mapped files in bytes.",
            lambda s: s.memory.mapped_file,
        ),
        _g(
            "container_memory_max_usage_bytes",
            "Maximum memory usage recorded in bytes",
            lambda s: s.memory.max_usage,
        ),
        _g(
            "container_memory_kernel_usage",
            "Size of kernel memory allocated in bytes.",
            lambda s: s.memory.kernel,
        ),
        _g(
            "container_memory_total_active_file_bytes",
            "Current total active file in bytes.",
            lambda s: s.memory.active_file,
        ),
        _g(
            "container_memory_total_inactive_file_bytes",
            "Current total inactive file in bytes.",
            lambda s: s.memory.inactive_file,
        ),
        _g(
            "container_memory_file_dirty_bytes",
            "Number of bytes of file cache that has been modified but not yet written back to disk.",
            lambda s: s.memory.file_dirty,
        ),
        _g(
            "container_memory_file_writeback_bytes",
            "Number of bytes of file cache that is currently being written back to disk.",
            lambda s: s.memory.file_writeback,
        ),
        _c("container_memory_failcnt", "Number of memory usage hits limits", lambda s: s.memory.failcnt),
        _c(
            "container_oom_events_total",
            "Count of out of memory events observed for the container",
            lambda s: s.memory.oom_kills,
        ),
        _g(
            "container_spec_memory_limit_bytes",
            "Memory limit for the container.",
            lambda s: s.memory.limit,
        ),
    ),
)

_PIDS = Group(
    lambda _: True,
    lambda s: s.pids,
    (
        _g("container_threads", "Number of threads running inside the container", lambda s: s.pids.current),
        _g(
            "container_threads_max",
            "Maximum number of threads allowed inside the container, infinity if value is zero",
            lambda s: s.pids.limit,
        ),
    ),
)

_V2_MEMORY = Group(
    lambda _: layout().mode is Mode.V2,
    lambda s: s.memory,
    (
        _c(
            "container_memory_events_high_total",
            "Cumulative count of memory.high throttle events for the container",
            lambda s: s.memory.events_high,
        ),
        _c(
            "container_memory_events_max_total",
            "Cumulative count of memory.max limit hit events for the container",
            lambda s: s.memory.events_max,
        ),
        _c(
            "container_memory_pgscan_total",
            "Cumulative number of pages scanned by the page reclaim algorithm.",
            lambda s: s.memory.pgscan,
        ),
        _c(
            "container_memory_pgsteal_total",
            "Cumulative number of pages reclaimed by the page reclaim algorithm.",
            lambda s: s.memory.pgsteal,
        ),
    ),
)

_REFAULTS = Group(
    lambda _: True,
    lambda s: s.memory,
    (
        _c(
            "container_memory_workingset_refault_anon_total",
            "Cumulative number of refaults of previously evicted anonymous pages.",
            lambda s: s.memory.workingset_refault_anon,
        ),
        _c(
            "container_memory_workingset_refault_file_total",
            "Cumulative number of refaults of previously evicted file pages.",
            lambda s: s.memory.workingset_refault_file,
        ),
    ),
)

_QUOTA = Group(
    lambda sample: sample.limits.spec.cpu_quota,  # only where there is one, as cAdvisor has it
    lambda s: s.cpu,
    (
        _c(
            "container_cpu_cfs_periods_total",
            "Number of elapsed enforcement period intervals.",
            lambda s: s.cpu.periods,
        ),
        _c(
            "container_cpu_cfs_throttled_periods_total",
            "Number of throttled period intervals.",
            lambda s: s.cpu.throttled_periods,
        ),
        _c(
            "container_cpu_cfs_throttled_seconds_total",
            "Total time duration the container has been throttled.",
            lambda s: s.cpu.throttled_ns / 1e9,
        ),
        _c(
            "container_cpu_cfs_burst_periods_total",
            "Number of periods when burst occurs.",
            lambda s: s.cpu.burst_periods,
        ),
        _c(
            "container_cpu_cfs_burst_seconds_total",
            "Total time duration the container has been bursted.",
            lambda s: s.cpu.burst_ns / 1e9,
        ),
    ),
)


def _pressure(resource: str, cause: str) -> Group:
    def found(stats: Stats) -> Pressure:
        pressure: Pressure | None = getattr(stats.pressure, resource)
        assert pressure is not None
        return pressure

    waiting = f"Total time duration tasks in the container have waited due to {cause}."
    stalled = f"Total time duration no tasks in the container could make progress due to {cause}."
    name = f"container_pressure_{resource}"
    return Group(
        lambda sample: getattr(sample.stats.pressure, resource),
        lambda stats: getattr(stats.pressure, resource),
        (
            _c(f"{name}_waiting_seconds_total", waiting, lambda s: found(s).some_us / 1e6),
            _c(f"{name}_stalled_seconds_total", stalled, lambda s: found(s).full_us / 1e6),
        ),
    )


GROUPS: tuple[Group, ...] = (
    _CPU,
    _MEMORY,
    _PIDS,
    _V2_MEMORY,
    _REFAULTS,
    _QUOTA,
    _pressure("cpu", "CPU congestion"),
    _pressure("memory", "memory congestion"),
    _pressure("io", "IO congestion"),
)

#: Limits: (family, number from the sample; None where there is none)
LIMITS: tuple[tuple[Family, Callable[[Sample], float | None]], ...] = (
    (
        gauge("container_spec_cpu_period", "CPU period of the container."),
        lambda s: s.limits.spec.cpu_period or None,
    ),
    (
        gauge("container_spec_cpu_quota", "CPU quota of the container."),
        lambda s: s.limits.spec.cpu_quota or None,
    ),
    (
        gauge("container_spec_cpu_shares", "CPU share of the container."),
        lambda s: s.limits.spec.cpu_shares or None,
    ),
    (
        gauge("container_spec_memory_reservation_limit_bytes", "Memory reservation limit for the container."),
        lambda s: s.limits.spec.memory_reservation,
    ),
    (
        gauge("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container."),
        lambda s: s.limits.spec.swap_limit,
    ),
    (
        gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds."),
        lambda s: s.target.started_at or None,
    ),
    (
        gauge("container_creation_time_seconds", "Container creation time since unix epoch in seconds."),
        lambda s: s.target.created_at or None,
    ),
    (
        gauge("container_processes", "Number of processes running inside the container."),
        lambda s: len(s.pids) if s.target.pod else None,
    ),
    (
        gauge("container_file_descriptors", "Number of open file descriptors for the container."),
        lambda s: s.descriptors if s.target.pod else None,
    ),
)
ULIMITS = gauge(
    "container_ulimits_soft",
    "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice",
)
SEEN = gauge("container_last_seen", "Last time a container was seen by the exporter")

#: Block devices: (family, number of a device)
DEVICES: tuple[tuple[Family, Callable[[IoStats], float]], ...] = (
    (counter("container_fs_reads_bytes_total", "Cumulative count of bytes read"), lambda d: d.rbytes),
    (counter("container_fs_writes_bytes_total", "Cumulative count of bytes written"), lambda d: d.wbytes),
    (counter("container_fs_reads_total", "Cumulative count of reads completed"), lambda d: d.rios),
    (counter("container_fs_writes_total", "Cumulative count of writes completed"), lambda d: d.wios),
)
COSTS: tuple[tuple[Family, Callable[[IoStats], float]], ...] = tuple(
    (counter(f"container_fs_io_cost_{word}_seconds_total", text), read)
    for word, text, read in (
        ("usage", "Cumulative IOCost usage in seconds", lambda d: d.cost_usage_us / 1e6),
        ("wait", "Cumulative IOCost wait in seconds", lambda d: d.cost_wait_us / 1e6),
        ("indebt", "Cumulative IOCost debt in seconds", lambda d: d.cost_indebt_us / 1e6),
        ("indelay", "Cumulative IOCost delay in seconds", lambda d: d.cost_indelay_us / 1e6),
    )
)
BLKIO = counter("container_blkio_device_usage_total", "Blkio Device bytes usage")

#: (family, column of net/dev): see proc_pid_net(5)
NETWORK: tuple[tuple[Family, int], ...] = tuple(
    (counter(f"container_network_{name}_total", f"Cumulative count of {text}"), column)
    for name, text, column in (
        ("receive_bytes", "bytes received", 0),
        ("receive_packets", "packets received", 1),
        ("receive_errors", "errors encountered while receiving", 2),
        ("receive_packets_dropped", "packets dropped while receiving", 3),
        ("transmit_bytes", "bytes transmitted", 8),
        ("transmit_packets", "packets transmitted", 9),
        ("transmit_errors", "errors encountered while transmitting", 10),
        ("transmit_packets_dropped", "packets dropped while transmitting", 11),
    )
)


def row(group: Group, sample: Sample, before: tuple[Stats, Row] | None = None) -> Row:
    """A cgroup's values of a group, as they are written; None where they are not there. `before`: those of other
    numbers, which are not formatted again when what they are read off is the same."""
    if not group.applies(sample):
        return None
    stats = sample.stats
    if before is not None and before[1] is not None and group.part(before[0]) == group.part(stats):
        return before[1]
    return tuple([number(column.read(stats)) for column in group.columns])


def device_lines(family: Family, samples: Iterable[Sample], read: Callable[[IoStats], float]) -> str:
    return "".join(
        [
            f'{family.name}{sample.target.head},device="{device_name(device.major, device.minor)}"}} '
            f"{number(read(device))}\n"
            for sample in samples
            for device in sample.stats.io
        ]
    )


def blkio_lines(samples: Iterable[Sample]) -> str:
    """Every operation that this kind of cgroup tells apart."""
    v1 = layout().mode is not Mode.V2
    lines = []
    for sample in samples:
        for d in sample.stats.io:
            place = f'device="{device_name(d.major, d.minor)}",major="{d.major}",minor="{d.minor}"'
            operations = {"Read": d.rbytes, "Write": d.wbytes}
            if v1:
                total = d.rbytes + d.wbytes + d.dbytes
                more = {"Discard": d.dbytes, "Sync": d.sync_bytes, "Async": d.async_bytes, "Total": total}
                operations |= more
            for operation, value in operations.items():
                lines.append(f'{BLKIO.name}{sample.target.head},{place},operation="{operation}"}} {value}\n')
    return "".join(lines)
