"""PURE: two looks at counters → what happened in between, and how people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubelite.kube.json import Json


#: Counters of kubelite.telemetry.sampling.usage that become "per second".
COUNTERS = ("received", "sent", "read", "written")


def rates(before: Json, now: Json, seconds: float) -> Json:
    """`now` with rates in place of its counters: cpu in thousandths of a core, stalls as shares of the time, bytes a
    second; periods and throttled as what came in between. A counter that went back (a new sandbox) counts as 0."""
    seconds = max(seconds, 1e-6)

    def grown(name: str) -> float:
        return float(max(0, now[name] - before.get(name, now[name])))

    found = {**now, "cpu": grown("cpu") / 1e6 / seconds}
    for name in COUNTERS:
        if name in now:
            found[name] = grown(name) / seconds
    for name in ("periods", "throttled"):
        if name in now:
            found[name] = grown(name)
    was = before.get("stalled", {})
    found["stalled"] = {
        name: max(0.0, value - was.get(name, value)) / 1e9 / seconds
        for name, value in now.get("stalled", {}).items()
    }
    return found


def cores_text(milli: float) -> str:
    """As kubectl top: thousandths of a core."""
    return f"{round(milli)}m"


def bytes_text(value: float) -> str:
    """As kubectl top: whole mebibytes."""
    return f"{int(value) >> 20}Mi"


def size_text(value: float) -> str:
    """Three digits and a unit: 0B, 1.5Ki, 312Mi."""
    for unit in ("B", "Ki", "Mi", "Gi", "Ti"):
        if value < 1000 or unit == "Ti":
            return f"{value:.0f}{unit}" if unit == "B" or value >= 10 else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def percent(part: float, whole: float) -> str:
    return f"{part / whole * 100:.0f}%" if whole else ""
