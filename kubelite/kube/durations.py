"""Durations as Go writes them, and as kubelet's settings have them: 300ms, 1.5h, 2m0s; a bare number is seconds."""

from __future__ import annotations

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError, in a sentence."""
    text = text.strip()
    try:
        value = float(text)
    except ValueError:
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(f'"{text}" is not a duration; write 90s, 2m0s or 24h') from None
        value = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 <= value < 1e10:
        raise ValueError(f'"{text}" is not a duration; it must not be negative or endless')
    return value
