"""Durations: parsed in Go's format, which kubelet's settings use; formatted as Go does, and as kubectl shows ages."""

from __future__ import annotations

import re

from kubelite.kube.times import parse_time

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d)")


def parse_duration(text: str, *, days: bool = False) -> float:
    """Return the seconds of a duration such as 300ms, 1.5h or 2m0s; a bare number is seconds.

    Go has no unit for days: `days` allows it (7d). Raises ValueError with a sentence.
    """
    text = text.strip()
    try:
        value = float(text)
    except ValueError:
        parts = _PART.findall(text)
        whole = bool(parts) and "".join(number + unit for number, unit in parts) == text
        if not whole or (not days and any(unit == "d" for _, unit in parts)):
            raise ValueError(f'"{text}" is not a duration; write 90s, 2m0s or 24h') from None
        value = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 <= value < 1e10:
        raise ValueError(f'"{text}" is not a duration; it must be finite and not negative')
    return value


def go_duration(seconds: float) -> str:
    """Format a duration as Go's time.Duration prints it, in whole seconds: 20s, 1m20s, 5m0s, 1h0m0s."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def human_duration(seconds: float) -> str:
    """Format an age as kubectl does, in one or two units: 90s, 5m30s, 3h, 2d4h.

    Kubernetes: HumanDuration in staging/src/k8s.io/apimachinery/pkg/util/duration/duration.go.
    """
    if seconds <= -2:
        return "<invalid>"
    total = max(int(seconds), 0)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return _parts(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _parts(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _parts(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _parts(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _parts(big: int, big_unit: str, small: int, small_unit: str) -> str:
    return f"{big}{big_unit}{small}{small_unit}" if small else f"{big}{big_unit}"


def age_of(text: str | None, now: float) -> str:
    """Format the age of an RFC 3339 time; `<unknown>` without one."""
    at = parse_time(text)
    return "<unknown>" if at is None else human_duration(now - at)
