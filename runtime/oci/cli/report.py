"""The commands state, list and events."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from runtime.errors import CapabilityError, NotFoundError, StateError
from runtime.oci.cli import store
from runtime.oci.cli.context import Context
from runtime.oci.cli.options import UsageError
from runtime.oci.cli.store import Entry

if TYPE_CHECKING:
    from runtime.cgroups.reading.stats import IoStats

Flags = dict[str, Any]
# v1's value for "unlimited", which is rounded to pages
_NO_LIMIT: Final = (1 << 63) - os.sysconf("SC_PAGE_SIZE")


def _state_of(entry: Entry) -> dict[str, Any]:
    status = entry.status()
    return {
        "ociVersion": entry.oci_version,
        "id": entry.id,
        "pid": 0 if status == store.STOPPED else entry.pid,
        "status": status,
        "bundle": entry.bundle,
        "rootfs": entry.rootfs,
        "created": entry.created,
        "owner": "",
    }


def state(at: Context, _flags: Flags, arguments: list[str]) -> int:
    """`state ID`: print the container's state and annotations as JSON (runtime-spec runtime.md, "State")."""
    entry = store.load(at.root, arguments[0])
    described = _state_of(entry)
    if entry.annotations:
        described["annotations"] = entry.annotations
    print(json.dumps(described, indent=2))
    return 0


def list_(at: Context, flags: Flags, _arguments: list[str]) -> int:
    """`list`: print all containers of this root as a table, JSON or plain IDs. Warn about damaged records."""
    entries = store.all_entries(at.root, at.log.warning)
    style = flags.get("format", "table")
    if flags.get("quiet"):
        print("".join(f"{entry.id}\n" for entry in entries), end="")
        return 0
    if style == "json":
        rows = [{**_state_of(entry), "owner": _owner(entry)} for entry in entries]
        found = [{**row, **_annotations_of(e)} for row, e in zip(rows, entries, strict=True)]
        print(json.dumps(found, separators=(",", ":")))
        return 0
    if style != "table":
        raise UsageError(f"list: invalid format option {style!r}: table or json")
    head = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
    table = [head]
    for entry in entries:
        one = _state_of(entry)
        table.append(
            (one["id"], str(one["pid"]), one["status"], one["bundle"], one["created"], _owner(entry))
        )
    widths = [max(12, *(len(row[n]) + 2 for row in table)) for n in range(len(head))]
    for row in table:
        print("".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _annotations_of(entry: Entry) -> dict[str, Any]:
    return {"annotations": entry.annotations} if entry.annotations else {}


def _owner(entry: Entry) -> str:
    import pwd

    uid = os.stat(entry.directory).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


# --- events ---


def events(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`events ID`: print one line of statistics (--stats), or a line per --interval and per OOM kill until the
    container stops."""
    entry = store.load(at.root, arguments[0])
    if entry.status() == store.STOPPED:
        raise StateError(f"container with id {entry.id} is not running")
    interval = _seconds(flags.get("interval", "5s"))
    if flags.get("stats"):
        _print_event("stats", entry.id, _statistics(entry))
        return 0
    gc.freeze()
    gc.enable()  # boot.py disabled it; from here on we may run for long
    killed = entry.cgroup.oom_kills()
    due = time.monotonic()
    while entry.status() != store.STOPPED:
        try:
            if (now_killed := entry.cgroup.oom_kills()) > killed:
                killed = now_killed
                _print_event("oom", entry.id, None)
            if time.monotonic() >= due:
                due += interval
                _print_event("stats", entry.id, _statistics(entry))
        except NotFoundError:
            break
        time.sleep(min(0.1, interval))
    return 0


_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: str) -> float:
    """The seconds of a Go duration with one unit, such as `5s` or `500ms`."""
    number = text.rstrip("nusmh")
    try:
        seconds = float(number) * _UNITS[text[len(number) :]]
    except (ValueError, KeyError):
        raise UsageError(f"events: --interval {text!r}: must be a duration such as 5s or 500ms") from None
    if seconds <= 0:
        raise UsageError("events: duration interval must be greater than 0")
    return seconds


def _print_event(kind: str, container_id: str, data: Any) -> None:
    event = {"type": kind, "id": container_id}
    said = event if data is None else {**event, "data": data}
    print(json.dumps(said, separators=(",", ":")), flush=True)


def _statistics(entry: Entry) -> dict[str, Any]:
    """The kernel's statistics in runc's format (types.Stats)."""
    from runtime.oci.cli import counters

    cgroup = entry.cgroup
    found = cgroup.stats()
    cpu, memory = found.cpu, found.memory
    limit = memory.limit or _NO_LIMIT
    usage = {"usage": memory.usage, "max": memory.max_usage, "limit": limit, "failcnt": memory.failcnt}
    return {
        "cpu": {
            "usage": {"total": cpu.usage_ns, "kernel": cpu.system_ns, "user": cpu.user_ns}
            | counters.of_processors(cgroup),
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
            **counters.of_pressure(cgroup, "cpu", "cpu"),
        },
        "cpuset": counters.of_cpuset(cgroup),
        "memory": {
            "cache": memory.cache,
            "usage": usage,
            **counters.of_memory(cgroup),
            **counters.of_pressure(cgroup, "memory", "memory"),
        },
        "pids": {"current": found.pids.current, "limit": found.pids.limit},
        "blkio": {
            "ioServiceBytesRecursive": _of_devices(found.io, "rbytes", "wbytes"),
            "ioServicedRecursive": _of_devices(found.io, "rios", "wios"),
            **counters.of_pressure(cgroup, "io", "io"),
        },
        "hugetlb": counters.of_huge_pages(cgroup),
        "intel_rdt": _of_class(entry),
        # Network interfaces that the runtime created: none, as in runc (docs/reference/oci-config.md)
        "network_interfaces": None,
    }


def _of_devices(found: Iterable[IoStats], read: str, write: str) -> list[dict[str, Any]]:
    return [
        {"major": one.major, "minor": one.minor, "op": op, "value": getattr(one, name)}
        for one in found
        for op, name in (("Read", read), ("Write", write))
    ]


def _of_class(entry: Entry) -> dict[str, Any]:
    """The statistics of linux.intelRdt; {} without it."""
    from runtime.oci.cli import counters
    from runtime.oci.optional import intel_rdt

    try:
        wanted = entry.spec().get("linux", {}).get("intelRdt")
        return counters.of_class(wanted, entry.id, intel_rdt.root()) if wanted is not None else {}
    except (CapabilityError, StateError):  # resctrl has been unmounted, or config.json is damaged
        return {}
