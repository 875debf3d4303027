"""The machine's totals, for machine_*, node_* and the series with id="/". They are read from /proc and by statvfs, not
from the root cgroup's memory.stat, because on v1 the kernel walks every cgroup to produce it.

Sources: proc(5); Documentation/admin-guide/iostats.rst; google/cadvisor machine/.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from runtime.cgroups.files import read_or
from runtime.network.plan import is_host_ifname

TICK = os.sysconf("SC_CLK_TCK")
_SKIPPED = ("lo", "veth", "docker", "nerdctl")  # interfaces that cAdvisor omits for the node
_REAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "vfat", "f2fs", "jfs", "reiserfs"})


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A mounted block device. `size`, `used` and `available` in bytes; `inodes`: their total."""

    device: str
    size: int
    used: int
    available: int
    inodes: int
    inodes_free: int


@dataclass(frozen=True, slots=True)
class Disk:
    """A line of /proc/diskstats, in the kernel's units: counts, sectors of 512 bytes, milliseconds."""

    device: str
    reads: int
    reads_merged: int
    read_sectors: int
    read_ms: int
    writes: int
    writes_merged: int
    write_sectors: int
    write_ms: int
    in_flight: int
    io_ms: int
    weighted_ms: int


@dataclass(frozen=True, slots=True)
class Root:
    """The machine's totals: CPU in seconds, memory in bytes."""

    cpu: float
    cpu_user: float
    cpu_system: float
    memory: Mapping[str, int]  # /proc/meminfo, in bytes
    vm: Mapping[str, int]  # /proc/vmstat, page faults
    threads: int
    disks: tuple[Disk, ...]
    file_systems: tuple[FileSystem, ...]
    networks: Mapping[str, tuple[int, ...]]
    pressure: Mapping[str, str]  # resource → text of /proc/pressure/<resource>

    @property
    def usage(self) -> int:
        """Return the bytes of anonymous memory and page cache, which the kernel charges to the root cgroup."""
        get = self.memory.get
        return get("AnonPages", 0) + get("Cached", 0) + get("Buffers", 0)

    @property
    def working_set(self) -> int:
        return max(0, self.usage - self.memory.get("Inactive(file)", 0))


def read_root() -> Root:
    stat = read_or("/proc/stat").split("\n")
    user, nice, system, _idle, _wait, irq, softirq, *_ = (int(word) for word in stat[0].split()[1:])
    busy = user + nice + system + irq + softirq
    threads = read_or("/proc/loadavg", "0 0 0 0/0 0").split()[3].partition("/")[2]
    return Root(
        busy / TICK,
        (user + nice) / TICK,
        (system + irq + softirq) / TICK,
        meminfo(),
        vmstat(),
        int(threads),
        disks(),
        file_systems(),
        {
            name: counters
            for name, counters in interfaces(read_or("/proc/self/net/dev"), _SKIPPED).items()
            # Skip the pods' veths, whose names differ: their traffic is counted with the pods.
            if not is_host_ifname(name)
        },
        {name: text for name in ("cpu", "memory", "io") if (text := read_or(f"/proc/pressure/{name}"))},
    )


def meminfo() -> dict[str, int]:
    found = {}
    for line in read_or("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        found[name] = int(words[0]) * (1024 if len(words) > 1 else 1)
    return found


def vmstat() -> dict[str, int]:
    """Return the counters of /proc/vmstat that are reported."""
    wanted = ("pgfault ", "pgmajfault ", "oom_kill ")
    lines = (line for line in read_or("/proc/vmstat").splitlines() if line.startswith(wanted))
    return {name: int(value) for name, value in (line.split() for line in lines)}


def interfaces(text: str, without: tuple[str, ...] = ("lo",)) -> dict[str, tuple[int, ...]]:
    """Return interface → the 16 counters of net/dev (proc_pid_net(5)), without names that have one of the prefixes
    `without`."""
    found: dict[str, tuple[int, ...]] = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        name = name.strip()
        if not name.startswith(without):
            found[name] = tuple(map(int, numbers.split()))
    return found


def disks() -> tuple[Disk, ...]:
    """Return the disks and partitions that have had any I/O, except RAM disks and loop devices."""
    found = []
    for line in read_or("/proc/diskstats").splitlines():
        _, _, name, *rest = line.split()
        numbers = [int(word) for word in rest[:11]]
        if any(numbers) and not name.startswith(("ram", "loop")):
            found.append(Disk("/dev/" + name.replace("!", "/"), *numbers))
    return tuple(found)


def file_systems() -> tuple[FileSystem, ...]:
    """Return each mounted block device once, at its first mount point."""
    seen: dict[str, FileSystem] = {}
    for line in read_or("/proc/self/mounts").splitlines():
        device, where, kind, *_ = line.split(" ")
        if kind not in _REAL or not device.startswith("/dev/"):
            continue
        device = _real_device(device, _unescape(where))
        if device not in seen:
            with contextlib.suppress(OSError):
                seen[device] = file_system(device, _unescape(where))
    return tuple(seen.values())


def file_system(device: str, where: str) -> FileSystem:
    found = os.statvfs(where)
    return FileSystem(
        device,
        found.f_blocks * found.f_frsize,
        (found.f_blocks - found.f_bfree) * found.f_frsize,
        found.f_bavail * found.f_frsize,
        found.f_files,
        found.f_ffree,
    )


def most_pids() -> int:
    """Return the kernel's limit of processes and threads: the lower of kernel.pid_max and kernel.threads-max."""
    limits = [int(read_or(f"/proc/sys/kernel/{name}", "0")) for name in ("pid_max", "threads-max")]
    return min(filter(None, limits), default=0)


def _real_device(device: str, where: str) -> str:
    """Resolve /dev/root and /dev/mapper/x to the name under which the kernel counts the device."""
    if os.path.exists(device) and not device.startswith("/dev/mapper/"):
        return device
    with contextlib.suppress(OSError):
        number = os.stat(where).st_dev
        return device_name(os.major(number), os.minor(number))
    return device


def _unescape(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


_device_names: dict[tuple[int, int], str] = {}


def device_name(major: int, minor: int) -> str:
    """Return `/dev/<name>` of a block device (from /sys/dev/block), or "major:minor" if it has no name."""
    key = (major, minor)
    if key not in _device_names:
        try:
            link = os.readlink(f"/sys/dev/block/{major}:{minor}")
            _device_names[key] = "/dev/" + os.path.basename(link).replace("!", "/")
        except OSError:
            return f"{major}:{minor}"
    return _device_names[key]


@dataclass(frozen=True, slots=True)
class Machine:
    """Properties that do not change while the machine runs."""

    machine_id: str
    system_uuid: str
    boot_id: str
    cores: int
    physical_cores: int
    sockets: int
    kernel: str
    os_image: str


@cache
def machine() -> Machine:
    cpus = [d for d in os.listdir("/sys/devices/system/cpu") if d[:3] == "cpu" and d[3:].isdigit()]
    places = [_topology(cpu) for cpu in cpus]
    return Machine(
        read_or("/etc/machine-id").strip(),
        _system_uuid(),
        read_or("/proc/sys/kernel/random/boot_id").strip(),
        os.cpu_count() or 1,
        len({place for place in places if place}) or len(cpus),
        len({place[0] for place in places if place}) or 1,
        platform.release(),
        _os_image(),
    )


#: Where cAdvisor looks (utils/sysfs/sysfs.go, GetSystemUUID): firmware of PCs and ARM servers; Power without and under
#: KVM; a machine that has neither.
_UUIDS = (
    "/sys/class/dmi/id/product_uuid",
    "/proc/device-tree/system-id",
    "/proc/device-tree/vm,uuid",
    "/etc/machine-id",
)


def _system_uuid(paths: Sequence[str] = _UUIDS) -> str:
    return next((found for path in paths if (found := read_or(path).strip("\0 \n").lower())), "")


def _topology(cpu: str) -> tuple[str, str] | None:
    place = f"/sys/devices/system/cpu/{cpu}/topology"
    package, core = read_or(f"{place}/physical_package_id").strip(), read_or(f"{place}/core_id").strip()
    return (package, core) if core else None


def _os_image() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return "Linux"
