"""Converts between Unix seconds and RFC 3339 times in Kubernetes' formats. The caller reads the clock."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def rfc3339(seconds: float) -> str:
    """Format Unix seconds as metav1.Time: UTC, whole seconds (the fraction is dropped), `Z`."""
    return _of_second(int(seconds))


@lru_cache(maxsize=64)
def _of_second(second: int) -> str:
    """Everything that is written in one second shares one text."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(seconds: float) -> str:
    """Format Unix seconds as metav1.MicroTime."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def rfc3339_nano(seconds: float) -> str:
    """Format Unix seconds as CRI logs do: UTC, nine digits of a second, `Z`."""
    whole = int(seconds)
    return f"{rfc3339(whole)[:-1]}.{int((seconds - whole) * 1e9):09d}Z"


def parse_time(text: str | None) -> float | None:
    """Return the Unix seconds of an RFC 3339 time, or None if the time is empty or malformed.

    The time may have up to nine digits of a second; digits past the sixth are ignored.
    """
    if not text:
        return None
    head, dot, rest = text.partition(".")
    if dot:
        # CRI logs have nine digits of a second. Cut them to six, datetime's precision.
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}"
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def unix(text: str | None) -> float:
    """Return the Unix seconds of an RFC 3339 time, or 0.0 if there is none."""
    return parse_time(text) or 0.0
