"""The page /metrics/cadvisor: container_*, machine_* and cadvisor_version_info, from one snapshot.

Samples have no timestamps, because these would break Prometheus' staleness handling (google/cadvisor#2526)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from kubelite.telemetry.metrics.cadvisor.columns import CLOSE, Shown
from kubelite.telemetry.metrics.cadvisor.families import (
    BLKIO,
    COSTS,
    DEVICES,
    FAILURES,
    FAULTS,
    GROUPS,
    NETWORK,
    SEEN,
    blkio_lines,
    device_lines,
    fault_lines,
)
from kubelite.telemetry.metrics.exposition import Family, Page, counter, gauge, number
from kubelite.telemetry.sampling.disk_usage import Usage
from kubelite.telemetry.sampling.machine import Disk, FileSystem, Root, machine
from kubelite.telemetry.sampling.sampler import Sample, Snapshot
from kubelite.version import version

Health = Callable[[Sample], int]


_FS: tuple[tuple[Family, Callable[[FileSystem], int]], ...] = (
    (
        gauge(
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
        ),
        lambda f: f.size,
    ),
    (
        gauge(
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
        ),
        lambda f: f.used,
    ),
    (gauge("container_fs_inodes_total", "Number of Inodes"), lambda f: f.inodes),
    (gauge("container_fs_inodes_free", "Number of available Inodes"), lambda f: f.inodes_free),
)
SOCKETS = gauge("container_sockets", "Number of open sockets for the container.")
HEALTH = gauge("container_health_state", "The result of the container's health check")
_ROOT = '{container="",id="/",image="",name="",namespace="",pod=""'


class ContainerPage:
    """Writes snapshots. It keeps the last values and counts for each family how often its lines changed. Unchanged
    lines are not formatted again; on compressed pages, they are not joined and compressed again either."""

    def __init__(self, usage: Callable[[str], Usage | None], health: Health) -> None:
        self._usage = usage
        self._health = health
        self._groups = [Shown(group) for group in GROUPS]
        self._faults = Shown(FAULTS)
        self._changes: dict[str, int] = {}  # family that is in no group → how often its values changed
        self._said: dict[str, object] = {}  # family that is in no group → its last values

    def write(self, page: Page, snapshot: Snapshot) -> None:
        samples = snapshot.all
        root = _root_samples(snapshot.root)
        for shown in self._groups:
            shown.look(samples)
            for place, column in enumerate(shown.group.columns):
                family = column.family
                fresh = root.pop(family.name, "")
                page.kept(family, shown.versions[place], partial(shown.lines, place), fresh)
        self._faults.look(samples)
        page.kept(
            FAILURES,
            tuple(self._faults.versions),
            partial(fault_lines, self._faults),
            root.pop(FAILURES.name, ""),
        )
        self._write_seen(page, samples, snapshot.now)
        self._write_devices(page, samples, root)
        self._write_layers(page, snapshot)
        self._write_networks(page, snapshot)
        page.one(
            gauge(
                "container_scrape_error",
                "1 if there was an error while getting container metrics, 0 otherwise",
            ),
            int(snapshot.errors > 0),
        )
        write_machine(page, snapshot.root)

    def _kept(self, page: Page, family: Family, lines: Callable[[], str], fresh: str = "") -> None:
        page.kept(family, self._changes.get(family.name, 0), lines, fresh)

    def _say(self, values: object, *families: Family) -> None:
        """Count a change if the values of these families, which are in no group, differ from the last ones."""
        if self._said.get(families[0].name) != values:
            self._said[families[0].name] = values
            for family in families:
                self._changes[family.name] = self._changes.get(family.name, 0) + 1

    def _write_seen(self, page: Page, samples: tuple[Sample, ...], now: float) -> None:
        healthy = [(s.target.head, str(self._health(s))) for s in samples if s.target.container]
        self._say(healthy, HEALTH)
        self._kept(page, HEALTH, lambda: _lines(HEALTH.name, healthy, CLOSE))
        heads = [s.target.head for s in samples] + [_ROOT]
        page.column(SEEN, heads, CLOSE, [str(int(now))] * len(heads))

    def _write_devices(self, page: Page, samples: tuple[Sample, ...], root: dict[str, str]) -> None:
        busy = [s for s in samples if s.stats.io]
        self._say([(s.target.head, s.stats.io) for s in busy], *(family for family, _ in DEVICES), BLKIO)
        for family, read in DEVICES:
            lines = partial(device_lines, family, busy, read)
            self._kept(page, family, lines, root.pop(family.name, ""))
        costly = [s for s in busy if any(d.cost_usage_us or d.cost_wait_us for d in s.stats.io)]
        for family, read in COSTS:
            page.family(family, device_lines(family, costly, read))
        self._kept(page, BLKIO, partial(blkio_lines, busy))
        for family in DISK_FAMILIES:
            page.family(family, root.pop(family.name, ""))

    def _write_layers(self, page: Page, snapshot: Snapshot) -> None:
        """Write the last measurements of writable layers and of the node's own file systems."""
        found = [
            (s.target.head, usage)
            for s in snapshot.containers
            if (usage := self._usage(s.target.upper)) is not None
        ]
        self._say(found, *(family for family, _ in _FS), SOCKETS)
        for place, (family, read) in enumerate(_FS):
            own = [
                f'{family.name}{_ROOT},device="{system.device}"}} {read(system)}\n'
                for system in snapshot.root.file_systems
            ]
            self._kept(page, family, partial(_layer, found, place, family.name), "".join(own))
        counted = [(head, str(usage.sockets)) for head, usage in found if usage.sockets is not None]
        self._kept(page, SOCKETS, lambda: _lines(SOCKETS.name, counted, CLOSE))

    def _write_networks(self, page: Page, snapshot: Snapshot) -> None:
        rows = [(s.target.head, name, v) for s, found in snapshot.networks for name, v in found.items()]
        for family, column in NETWORK:
            own = [
                f'{family.name}{_ROOT},interface="{name}"{CLOSE}{values[column]}\n'
                for name, values in snapshot.root.networks.items()
            ]
            self._say([(head, name, values[column]) for head, name, values in rows], family)
            self._kept(page, family, partial(_interfaces, rows, column, family.name), "".join(own))


def _lines(name: str, found: Iterable[tuple[str, str]], tail: str) -> str:
    return "".join([f"{name}{head}{tail}{value}\n" for head, value in found])


def _layer(found: list[tuple[str, Usage]], place: int, name: str) -> str:
    lines = []
    for head, usage in found:
        system = usage.file_system
        value = (system.size, usage.bytes, system.inodes, system.inodes_free)[place]
        lines.append(f'{name}{head},device="{system.device}"}} {value}\n')
    return "".join(lines)


def _interfaces(rows: list[tuple[str, str, tuple[int, ...]]], column: int, name: str) -> str:
    return "".join(
        [f'{name}{head},interface="{which}"{CLOSE}{values[column]}\n' for head, which, values in rows]
    )


#: Families that only the machine (id="/") has: (family, function from a line of diskstats to the value)
_DISKS: tuple[tuple[Family, Callable[[Disk], float]], ...] = (
    (
        gauge("container_fs_io_current", "Number of I/Os currently in progress"),
        lambda d: d.in_flight,
    ),
    (
        counter("container_fs_io_time_seconds_total", "Cumulative count of seconds spent doing I/Os"),
        lambda d: d.io_ms / 1e3,
    ),
    (
        counter("container_fs_io_time_weighted_seconds_total", "Cumulative weighted I/O time in seconds"),
        lambda d: d.weighted_ms / 1e3,
    ),
    (
        counter("container_fs_read_seconds_total", "Cumulative count of seconds spent reading"),
        lambda d: d.read_ms / 1e3,
    ),
    (
        counter("container_fs_write_seconds_total", "Cumulative count of seconds spent writing"),
        lambda d: d.write_ms / 1e3,
    ),
    (
        counter("container_fs_reads_merged_total", "Cumulative count of reads merged"),
        lambda d: d.reads_merged,
    ),
    (
        counter("container_fs_writes_merged_total", "Cumulative count of writes merged"),
        lambda d: d.writes_merged,
    ),
    (
        counter("container_fs_sector_reads_total", "Cumulative count of sector reads completed"),
        lambda d: d.read_sectors,
    ),
    (
        counter("container_fs_sector_writes_total", "Cumulative count of sector writes completed"),
        lambda d: d.write_sectors,
    ),
)
DISK_FAMILIES = tuple(family for family, _ in _DISKS)


def _root_samples(root: Root) -> dict[str, str]:
    """Return the machine's own lines, with id="/": family name → lines."""
    memory = root.memory.get
    kernel = memory("Slab", 0) + memory("KernelStack", 0) + memory("PageTables", 0)
    values: dict[str, float] = {
        "container_cpu_user_seconds_total": root.cpu_user,
        "container_cpu_system_seconds_total": root.cpu_system,
        "container_memory_usage_bytes": root.usage,
        "container_memory_working_set_bytes": root.working_set,
        "container_memory_rss": memory("AnonPages", 0),
        "container_memory_cache": memory("Cached", 0) + memory("Buffers", 0),
        "container_memory_swap": memory("SwapTotal", 0) - memory("SwapFree", 0),
        "container_memory_mapped_file": memory("Mapped", 0),
        "container_memory_kernel_usage": kernel,
        "container_memory_total_active_file_bytes": memory("Active(file)", 0),
        "container_memory_total_inactive_file_bytes": memory("Inactive(file)", 0),
        "container_memory_file_dirty_bytes": memory("Dirty", 0),
        "container_memory_file_writeback_bytes": memory("Writeback", 0),
        "container_oom_events_total": root.vm.get("oom_kill", 0),
        "container_spec_memory_limit_bytes": memory("MemTotal", 0),
        "container_threads": root.threads,
    }
    for resource, text in root.pressure.items():
        for line in text.splitlines():
            word = "waiting" if line.startswith("some") else "stalled"
            total = int(line.rpartition("total=")[2])
            values[f"container_pressure_{resource}_{word}_seconds_total"] = total / 1e6
    found = {name: f"{name}{_ROOT}{CLOSE}{number(value)}\n" for name, value in values.items()}
    usage = "container_cpu_usage_seconds_total"
    found[usage] = f'{usage}{_ROOT},cpu="total"}} {number(root.cpu)}\n'
    faults = (("pgfault", root.vm.get("pgfault", 0)), ("pgmajfault", root.vm.get("pgmajfault", 0)))
    found[FAILURES.name] = "".join(
        f'{FAILURES.name}{_ROOT},failure_type="{kind}",scope="{scope}"}} {value}\n'
        for scope in ("container", "hierarchy")
        for kind, value in faults
    )
    return found | _root_disks(root)


def _root_disks(root: Root) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for disk in root.disks:
        values = {family.name: read(disk) for family, read in _DISKS} | {
            "container_fs_reads_bytes_total": disk.read_sectors * 512,
            "container_fs_writes_bytes_total": disk.write_sectors * 512,
            "container_fs_reads_total": disk.reads,
            "container_fs_writes_total": disk.writes,
        }
        for name, value in values.items():
            line = f'{name}{_ROOT},device="{disk.device}"}} {number(value)}\n'
            found.setdefault(name, []).append(line)
    return {name: "".join(lines) for name, lines in found.items()}


def write_machine(page: Page, root: Root) -> None:
    """Write machine_* and cadvisor_version_info."""
    here = machine()
    who = {"machine_id": here.machine_id, "system_uuid": here.system_uuid, "boot_id": here.boot_id}
    for name, text, value in (
        ("machine_cpu_cores", "Number of logical CPU cores.", here.cores),
        ("machine_cpu_physical_cores", "Number of physical CPU cores.", here.physical_cores),
        ("machine_cpu_sockets", "Number of CPU sockets.", here.sockets),
        (
            "machine_memory_bytes",
            "Amount of memory installed on the machine.",
            root.memory.get("MemTotal", 0),
        ),
        (
            "machine_swap_bytes",
            "Amount of swap memory available on the machine.",
            root.memory.get("SwapTotal", 0),
        ),
    ):
        page.one(gauge(name, text), value, **who)
    page.one(
        gauge("machine_scrape_error", "1 if there was an error while getting machine metrics, 0 otherwise."),
        0,
    )
    page.one(
        gauge(
            "cadvisor_version_info",
            "A metric with a constant '1' value labeled by kernel version, OS version, docker version, "
            "cadvisor version & cadvisor revision.",
        ),
        1,
        kernelVersion=here.kernel,
        osVersion=here.os_image,
        dockerVersion="",
        cadvisorVersion="",
        cadvisorRevision=f"kubelite-{version()}",
    )
