"""What `events` tells beyond what a node counts: the kernel's own files, under the names that runc has for them.

runc's types.Stats (cgroups v1's words; on v2 what has a counterpart there). Nothing that the kernel does not have.
"""

from __future__ import annotations

from typing import Any, Final

from runtime.cgroups import Cgroup
from runtime.cgroups.files import read_or
from runtime.oci.spec_linux import number_set

_PARTS: Final = {
    "limit": "limit_in_bytes",
    "usage": "usage_in_bytes",
    "max": "max_usage_in_bytes",
    "failcnt": "failcnt",
}
_KINDS: Final = {"swap": "memory.memsw", "kernel": "memory.kmem", "kernelTCP": "memory.kmem.tcp"}
_CPUSET: Final = (
    "cpu_exclusive", "mem_exclusive", "mem_hardwall", "memory_migrate", "memory_pressure", "memory_spread_page",
    "memory_spread_slab", "sched_load_balance", "sched_relax_domain_level",
)  # fmt: skip


def of_memory(cgroup: Cgroup) -> dict[str, Any]:
    """`raw`, memory.stat as it is; `swap` (with what is in memory, on v2 too), `kernel` and `kernelTCP`."""
    where = cgroup.directory("memory")
    if where is None:
        return {}
    raw = [line.split() for line in read_or(f"{where}/memory.stat").splitlines()]
    found: dict[str, Any] = {"raw": {row[0]: int(row[1]) for row in raw if len(row) == 2}}
    for name, prefix in _KINDS.items():
        numbers = {part: _number(f"{where}/{prefix}.{file}") for part, file in _PARTS.items()}
        if known := {part: number for part, number in numbers.items() if number is not None}:
            found[name] = known
    if (swapped := _number(f"{where}/memory.swap.current")) is not None:
        found["swap"] = {"usage": swapped + (_number(f"{where}/memory.current") or 0)}
        limits = [_number(f"{where}/{name}.max") for name in ("memory", "memory.swap")]
        if None not in limits:
            found["swap"]["limit"] = sum(limit or 0 for limit in limits)
    return found


def of_processors(cgroup: Cgroup) -> dict[str, Any]:
    """Nanoseconds on each processor; v1 alone counts them."""
    where = cgroup.directory("cpuacct")
    rows = [line.split() for line in read_or(f"{where}/cpuacct.usage_all").splitlines()[1:]] if where else []
    if not rows:
        return {}
    user, system = ([int(row[column]) for row in rows] for column in (1, 2))
    each = [int(word) for word in read_or(f"{where}/cpuacct.usage_percpu").split()]
    return {"percpu": each, "percpu_user": user, "percpu_kernel": system}


def of_cpuset(cgroup: Cgroup) -> dict[str, Any]:
    where = cgroup.directory("cpuset")
    if where is None:
        return {}
    found: dict[str, Any] = {
        name: sorted(number_set(read_or(f"{where}/cpuset.{name}").strip(), name)) for name in ("cpus", "mems")
    }
    numbers = {name: _number(f"{where}/cpuset.{name}") for name in _CPUSET}
    return {**found, **{name: number for name, number in numbers.items() if number is not None}}


def _number(path: str) -> int | None:
    """None where there is no such file, or no number in it (`max`)."""
    try:
        return int(read_or(path))
    except ValueError:
        return None
