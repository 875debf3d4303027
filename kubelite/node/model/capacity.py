"""The node's capacity, its reservations, and its eviction thresholds, as the settings state them.

Reservations have the format of kubelet's --kube-reserved (`cpu=100m,memory=200Mi`), thresholds that of --eviction-hard
(`memory.available<100Mi,nodefs.available<10%`).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from manifests.types.meta import Quantity

SIGNALS = (
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "pid.available",
)
LEAST_MEMORY = 64 << 20  # bytes; an image worker needs half of it before it has read anything
RESERVABLE = ("cpu", "memory", "ephemeral-storage", "pid")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_HUGEPAGES = "/sys/kernel/mm/hugepages"


class Threshold(NamedTuple):
    """A signal's lower bound: an amount, or a share of the capacity (0..1) if `amount` is None."""

    signal: str
    amount: int | None = None
    share: float = 0.0

    def value(self, capacity: int) -> int:
        return self.amount if self.amount is not None else int(capacity * self.share)


def memory_limit(text: str, whole: int) -> int | None:
    """Return the bytes of a limit: an amount (`1Gi`), a share of `whole` bytes (`80%`), or None for `none`. Raises
    ValueError with a message."""
    if text == "none":
        return None
    if text.endswith("%"):
        share = text.removesuffix("%")
        if not share.isdecimal() or not 1 <= int(share) <= 100:
            raise ValueError(f"must be a share of 1% to 100%, not {text}")
        return whole * int(share) // 100
    amount = Quantity(text).value()
    if amount < LEAST_MEMORY:
        raise ValueError(f"must be {LEAST_MEMORY >> 20}Mi or more, not {text}")
    return amount


def parse_reserved(text: str) -> dict[str, int]:
    """The amounts by resource: cpu in thousandths, the rest in bytes or counts. Raises ValueError with a message."""
    found: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, amount = part.partition("=")
        if not equals or name not in RESERVABLE:
            raise ValueError(f"must be RESOURCE=AMOUNT with one of {', '.join(RESERVABLE)}, not {part!r}")
        try:
            quantity = Quantity(amount)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        found[name] = quantity.milli() if name == "cpu" else quantity.value()
        if found[name] < 0:
            raise ValueError(f"{name}: must not be negative")
    return found


def parse_extended(text: str) -> dict[str, int]:
    """Extended resources and their numbers: `example.com/gpu=2` (Kubernetes pkg/apis/core/v1/helper,
    IsExtendedResourceName). Raises ValueError."""
    found: dict[str, int] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, amount = part.partition("=")
        domain, slash, rest = name.partition("/")
        own = domain == "kubernetes.io" or domain.endswith(".kubernetes.io") or name.startswith("requests.")
        if not equals or not slash or own or not _DOMAIN.fullmatch(domain) or not _NAME.fullmatch(rest):
            raise ValueError(f"must be DOMAIN/NAME=NUMBER, for example example.com/gpu=2, not {part!r}")
        if not amount.isdecimal():
            raise ValueError(f"{name}: {amount!r} is not a whole number")
        found[name] = int(amount)
    return found


def parse_thresholds(text: str) -> tuple[Threshold, ...]:
    """The eviction thresholds; none for `none` and "". Raises ValueError with a message."""
    if text.strip() in ("", "none"):
        return ()
    found: list[Threshold] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        signal, less, bound = part.partition("<")
        if not less or signal not in SIGNALS:
            raise ValueError(f"must be SIGNAL<AMOUNT with one of {', '.join(SIGNALS)}, not {part!r}")
        if any(signal == other.signal for other in found):
            raise ValueError(f"{signal} is given twice")
        found.append(_threshold(signal, bound))
    return tuple(found)


def _threshold(signal: str, bound: str) -> Threshold:
    if bound.endswith("%"):
        try:
            share = float(bound.removesuffix("%")) / 100
        except ValueError:
            raise ValueError(f"{signal}: {bound!r} is not a percentage") from None
        if not 0 <= share <= 1:
            raise ValueError(f"{signal}: {bound} must be between 0% and 100%")
        return Threshold(signal, None, share)
    try:
        amount = Quantity(bound).value()
    except ValueError as error:
        raise ValueError(f"{signal}: {error}") from error
    if amount < 0:
        raise ValueError(f"{signal}: {bound} must not be negative")
    return Threshold(signal, amount)


def reserved(
    kube: str, system: str, thresholds: tuple[Threshold, ...], capacity: Mapping[str, int]
) -> dict[str, int]:
    """Pure: the part of the capacity that pods cannot use: both reservations plus the eviction thresholds (Kubernetes
    pkg/kubelet/cm/node_container_manager_linux.go, GetNodeAllocatableReservation)."""
    total = {"pid": 0}
    for part in (parse_reserved(kube), parse_reserved(system)):
        for name, amount in part.items():
            total[name] = total.get(name, 0) + amount
    for threshold in thresholds:
        kept = {"memory.available": "memory", "nodefs.available": "ephemeral-storage"}.get(threshold.signal)
        if kept is not None:
            total[kept] = total.get(kept, 0) + threshold.value(capacity.get(kept, 0))
    del total["pid"]  # pods cannot request process ids, so the node's status does not list them
    return total


def huge_pages() -> dict[str, int]:
    """Bytes of each size of huge page that the kernel reserves: hugepages-2Mi → …"""
    found: dict[str, int] = {}
    try:
        sizes = os.listdir(_HUGEPAGES)
    except OSError:
        return {}
    for name in sizes:
        kilobytes = int(name.removeprefix("hugepages-").removesuffix("kB"))
        with open(f"{_HUGEPAGES}/{name}/nr_hugepages", encoding="ascii") as file:
            found[huge_page_resource(kilobytes * 1024)] = int(file.read()) * kilobytes * 1024
    return found


def huge_page_resource(size: int) -> str:
    """The resource for a page size in bytes: hugepages-2Mi, hugepages-1Gi."""
    return f"hugepages-{size >> 30}Gi" if size >= 1 << 30 else f"hugepages-{size >> 20}Mi"


def disk_bytes(path: str) -> int:
    """The size of the file system of `path`, or of its first parent that exists."""
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def machine_memory() -> int:
    """Return the bytes of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def swap_bytes() -> int:
    """The size of the machine's swap space."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("SwapTotal:")), 0)


# -- processors ---------------------------------------------------------------------------------------------------


def parse_cpus(text: str) -> frozenset[int]:
    """0-2,5 → {0, 1, 2, 5}. Raises ValueError."""
    found: set[int] = set()
    for part in filter(None, (p.strip() for p in text.split(","))):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError(f"{part!r} is not a processor or a range of them")
        found.update(range(int(first), int(last if dash else first) + 1))
    return frozenset(found)


def cores() -> dict[int, int]:
    """Every online processor and its core. A core is identified by its lowest processor."""
    with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
        online = parse_cpus(file.read().strip())
    found: dict[int, int] = {}
    for cpu in sorted(online):
        topology = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        try:
            with open(topology, encoding="ascii") as file:
                found[cpu] = min(parse_cpus(file.read().strip()))
        except OSError:  # unknown topology: each processor counts as a core
            found[cpu] = cpu
    return found


def reserved_cpus(online: Iterable[int], given: str, milli: int) -> frozenset[int]:
    """The reserved processors: those named in `given`, else the lowest ones that cover the reservation."""
    if given:
        return parse_cpus(given) & frozenset(online)
    return frozenset(sorted(online)[: math.ceil(milli / 1000)])
