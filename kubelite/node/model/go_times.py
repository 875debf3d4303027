"""Kubernetes' times and Go's durations, as status and messages carry them. The clock itself is always an argument."""

from __future__ import annotations

from manifests.types.meta import format_time, parse_time

rfc3339 = format_time


def unix(text: str | None) -> float:
    """The Unix seconds of an RFC 3339 time; 0.0 for none."""
    return parse_time(text) if text else 0.0


def go_duration(seconds: float) -> str:
    """A duration as Go prints it, in whole seconds: 20s, 1m20s, 5m0s, 1h0m0s."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
