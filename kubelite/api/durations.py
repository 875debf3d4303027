"""Ages as kubectl writes them, and RFC 3339 times read back to Unix seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def parse_time(text: str | None) -> float | None:
    """An RFC 3339 time (with up to nanoseconds) in Unix seconds; None for an empty or malformed one."""
    if not text:
        return None
    head, dot, rest = text.partition(".")
    if dot:
        # fromisoformat takes 3 or 6 digits of a second only; CRI logs carry nine.
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}"
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def human_duration(seconds: float) -> str:
    """apimachinery pkg/util/duration HumanDuration: the two largest units that matter, zero parts dropped."""
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


def since(text: str | None, now: float) -> str:
    """The age of an RFC 3339 time; `<unknown>` without one."""
    at = parse_time(text)
    return "<unknown>" if at is None else human_duration(now - at)
