"""Compute rates from two samples of counters, and format them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubelite.kube.json import Json


#: Counters of kubelite.telemetry.sampling.usage that become rates per second.
COUNTERS = ("received", "sent", "read", "written")


def rates(before: Json, now: Json, seconds: float) -> Json:
    """Return `now` with rates in place of counters: cpu in millicores, stalls as fractions of the time, bytes per
    second. Periods and throttled become differences. A counter that decreased (a new sandbox) counts as 0."""
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
    """Format millicores as kubectl top does."""
    return f"{round(milli)}m"


def bytes_text(value: float) -> str:
    """Format whole mebibytes as kubectl top does."""
    return f"{int(value) >> 20}Mi"


def size_text(value: float) -> str:
    """Format three digits and a unit: 0B, 1.5Ki, 312Mi."""
    for unit in ("B", "Ki", "Mi", "Gi", "Ti"):
        if value < 1000 or unit == "Ti":
            return f"{value:.0f}{unit}" if unit == "B" or value >= 10 else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("unreachable")


def percent(part: float, whole: float) -> str:
    return f"{part / whole * 100:.0f}%" if whole else ""
