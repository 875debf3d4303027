"""process_*: metrics of the daemon's process, with the names and help texts of all Prometheus clients.

prometheus-client's own collector lists /proc/self/fd. On a node with 500 containers, scrapes keep some ten thousand
descriptors open, and listing them takes a tenth of a scrape. Since Linux 6.2 the directory's size is their number.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from kubelite.telemetry.metrics.exposition import Page, counter, gauge

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def write_process(page: Page) -> None:
    """Write the process metrics (proc_pid_stat(5), fields 14, 15, 22, 23 and 24)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    started = boot_time() + int(fields[19]) / _TICKS
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for family, value in (
        (gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."), int(fields[20])),
        (gauge("process_resident_memory_bytes", "Resident memory size in bytes."), int(fields[21]) * _PAGE),
        (
            gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
            started,
        ),
        (counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds."), cpu),
        (gauge("process_open_fds", "Number of open file descriptors."), open_descriptors()),
        (gauge("process_max_fds", "Maximum number of open file descriptors."), limit),
    ):
        page.one(family, value)


def open_descriptors() -> int:
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))


def boot_time() -> int:
    """Return the time when the machine booted, in Unix seconds."""
    global _booted  # noqa: PLW0603 - read once: for /proc/stat the kernel adds up all interrupts
    if not _booted:
        lines = Path("/proc/stat").read_text().splitlines()
        _booted = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    return _booted


_booted = 0
