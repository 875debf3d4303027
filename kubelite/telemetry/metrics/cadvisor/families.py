"""The container_* families that are read from a cgroup, as kubelet enables them: name, type, help and value.

Source: google/cadvisor metrics/prometheus.go. A cgroup has either all series of a group in `GROUPS` or none of them.
Omitted on purpose: per-CPU series, container_tasks_state, the CPU load averages (kubelet reports zeros), and values
that this program cannot read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter

from kubelite.telemetry.metrics.cadvisor.columns import (
    Column,
    Group,
    Shown,
    counted,
    measured,
    microseconds,
    nanoseconds,
)
from kubelite.telemetry.metrics.exposition import Family, counter, gauge, number
from kubelite.telemetry.sampling.machine import device_name
from kubelite.telemetry.sampling.sampler import Sample
from runtime.cgroups.layout import Mode, layout
from runtime.cgroups.reading.stats import IoStats

FAILURES = counter("container_memory_failures_total", "Cumulative count of memory allocation failures.")

_CPU = Group(
    attrgetter("stats.cpu"),
    counted(
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed in seconds.",
        "usage_ns",
        nanoseconds,
        ',cpu="total"} ',
    ),
    counted(
        "container_cpu_user_seconds_total",
        "Cumulative user cpu time consumed in seconds.",
        "user_ns",
        nanoseconds,
    ),
    counted(
        "container_cpu_system_seconds_total",
        "Cumulative system cpu time consumed in seconds.",
        "system_ns",
        nanoseconds,
    ),
)

_MEMORY = Group(
    attrgetter("stats.memory"),
    measured(
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        "usage",
    ),
    measured("container_memory_working_set_bytes", "Current working set in bytes.", "working_set"),
    measured("container_memory_rss", "Size of RSS in bytes.", "rss"),
    measured("container_memory_cache", "Number of bytes of page cache memory.", "cache"),
    measured("container_memory_swap", "Container swap usage in bytes.", "swap"),
    measured("container_memory_mapped_file", "Size of memory mapped files in bytes.", "mapped_file"),
    measured("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", "max_usage"),
    measured("container_memory_kernel_usage", "Size of kernel memory allocated in bytes.", "kernel"),
    measured(
        "container_memory_total_active_file_bytes", "Current total active file in bytes.", "active_file"
    ),
    measured(
        "container_memory_total_inactive_file_bytes", "Current total inactive file in bytes.", "inactive_file"
    ),
    measured(
        "container_memory_file_dirty_bytes",
        "Number of bytes of file cache that has been modified but not yet written back to disk.",
        "file_dirty",
    ),
    measured(
        "container_memory_file_writeback_bytes",
        "Number of bytes of file cache that is currently being written back to disk.",
        "file_writeback",
    ),
    counted("container_memory_failcnt", "Number of memory usage hits limits", "failcnt"),
    counted(
        "container_oom_events_total", "Count of out of memory events observed for the container", "oom_kills"
    ),
    measured("container_spec_memory_limit_bytes", "Memory limit for the container.", "limit"),
)

_PIDS = Group(
    attrgetter("stats.pids"),
    measured("container_threads", "Number of threads running inside the container", "current"),
    measured(
        "container_threads_max",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        "limit",
    ),
)

_V2_MEMORY = Group(
    attrgetter("stats.memory"),
    counted(
        "container_memory_events_high_total",
        "Cumulative count of memory.high throttle events for the container",
        "events_high",
    ),
    counted(
        "container_memory_events_max_total",
        "Cumulative count of memory.max limit hit events for the container",
        "events_max",
    ),
    counted(
        "container_memory_pgscan_total",
        "Cumulative number of pages scanned by the page reclaim algorithm.",
        "pgscan",
    ),
    counted(
        "container_memory_pgsteal_total",
        "Cumulative number of pages reclaimed by the page reclaim algorithm.",
        "pgsteal",
    ),
    applies=lambda _: layout().mode is Mode.V2,
)

_REFAULTS = Group(
    attrgetter("stats.memory"),
    counted(
        "container_memory_workingset_refault_anon_total",
        "Cumulative number of refaults of previously evicted anonymous pages.",
        "workingset_refault_anon",
    ),
    counted(
        "container_memory_workingset_refault_file_total",
        "Cumulative number of refaults of previously evicted file pages.",
        "workingset_refault_file",
    ),
)

_QUOTA = Group(
    attrgetter("stats.cpu"),
    counted("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", "periods"),
    counted(
        "container_cpu_cfs_throttled_periods_total",
        "Number of throttled period intervals.",
        "throttled_periods",
    ),
    counted(
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        "throttled_ns",
        nanoseconds,
    ),
    counted("container_cpu_cfs_burst_periods_total", "Number of periods when burst occurs.", "burst_periods"),
    counted(
        "container_cpu_cfs_burst_seconds_total",
        "Total time duration the container has been bursted.",
        "burst_ns",
        nanoseconds,
    ),
    applies=lambda sample: sample.limits.spec.cpu_quota,  # only with a quota, as in cAdvisor
)


def _pressure(resource: str, cause: str) -> Group:
    part = attrgetter(f"stats.pressure.{resource}")
    waiting = f"Total time duration tasks in the container have waited due to {cause}."
    stalled = f"Total time duration no tasks in the container could make progress due to {cause}."
    name = f"container_pressure_{resource}"
    return Group(
        part,
        counted(f"{name}_waiting_seconds_total", waiting, "some_us", microseconds),
        counted(f"{name}_stalled_seconds_total", stalled, "full_us", microseconds),
        applies=lambda sample: part(sample) is not None,
    )


_NONE, _ZERO = frozenset({None}), frozenset({0})

_SPEC = Group(
    attrgetter("limits.spec"),
    Column(gauge("container_spec_cpu_period", "CPU period of the container."), "cpu_period", hidden=_ZERO),
    Column(gauge("container_spec_cpu_quota", "CPU quota of the container."), "cpu_quota", hidden=_ZERO),
    Column(gauge("container_spec_cpu_shares", "CPU share of the container."), "cpu_shares", hidden=_ZERO),
    measured(
        "container_spec_memory_reservation_limit_bytes",
        "Memory reservation limit for the container.",
        "memory_reservation",
    ),
    measured("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", "swap_limit"),
)

_TIMES = Group(
    attrgetter("target"),
    Column(
        gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds."),
        "started_at",
        number,
        hidden=_ZERO,
    ),
    Column(
        gauge("container_creation_time_seconds", "Container creation time since unix epoch in seconds."),
        "created_at",
        number,
        hidden=_ZERO,
    ),
)

_OPEN = Group(
    lambda sample: sample,
    measured("container_processes", "Number of processes running inside the container.", "processes"),
    measured(
        "container_file_descriptors", "Number of open file descriptors for the container.", "descriptors"
    ),
    applies=lambda sample: sample.target.pod,
)

_ULIMITS = Group(
    attrgetter("limits"),
    Column(
        gauge(
            "container_ulimits_soft",
            "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice",
        ),
        "open_files",
        tail=',ulimit="max_open_files"} ',
        hidden=_NONE,
    ),
    applies=lambda sample: sample.target.container,
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
    _SPEC,
    _TIMES,
    _OPEN,
    _ULIMITS,
)
#: Both columns belong to one family.
FAULTS = Group(attrgetter("stats.memory"), Column(FAILURES, "pgfault"), Column(FAILURES, "pgmajfault"))
SEEN = gauge("container_last_seen", "Last time a container was seen by the exporter")

#: Block devices: (family, value of a device)
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

#: (family, column of net/dev), see proc_pid_net(5)
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


def fault_lines(shown: Shown) -> str:
    """Return the lines of page faults. Both scopes have the same value, because a cgroup's count includes its
    descendants."""
    lines = []
    for head, faults, majors in zip(shown.heads, *shown.columns, strict=True):
        for scope in ("container", "hierarchy"):
            for kind, value in (("pgfault", faults), ("pgmajfault", majors)):
                lines.append(f'{FAILURES.name}{head},failure_type="{kind}",scope="{scope}"}} {value}\n')
    return "".join(lines)


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
    """Return the lines of block I/O, one for each operation that this version of cgroups distinguishes."""
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
