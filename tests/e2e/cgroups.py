"""Read a container's cgroup, on cgroup v1 and v2."""

from __future__ import annotations

from pathlib import Path


def cgroup_file(pid: int, v1: str, v2: str, *, of_pod: bool = False) -> str:
    """A file of a process's cgroup, or of the pod's above it: (controller/file) on v1, (file) on v2."""
    controller, _, name = v1.partition("/")
    groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    above = "/.." if of_pod else ""
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}{above}/{name}").read_text().strip()
    path = next(line.split(":", 2)[2] for line in groups if line.startswith("0::"))
    return Path(f"/sys/fs/cgroup{path}{above}/{v2}").read_text().strip()


def cpu_limit(pid: int, *, of_pod: bool = False) -> float | None:
    """In processors; None = none."""
    period = int(cgroup_file(pid, "cpu/cpu.cfs_period_us", "cpu.max", of_pod=of_pod).split()[-1])
    quota = cgroup_file(pid, "cpu/cpu.cfs_quota_us", "cpu.max", of_pod=of_pod).split()[0]
    return None if quota in ("-1", "max") else int(quota) / period


def memory_limit(pid: int, *, of_pod: bool = False) -> int | None:
    """In bytes; None = none."""
    found = cgroup_file(pid, "memory/memory.limit_in_bytes", "memory.max", of_pod=of_pod)
    return None if found == "max" or int(found) > 1 << 60 else int(found)


def memory_used(pid: int) -> int:
    """In bytes, of the whole container."""
    return int(cgroup_file(pid, "memory/memory.usage_in_bytes", "memory.current"))
