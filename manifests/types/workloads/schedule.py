"""Reads the schedule of a CronJob: five fields as in crontab(5), or @hourly, @daily, …, @every 1h30m.

Rules and wording are those of github.com/robfig/cron v3 (ParseStandard), which Kubernetes uses. Three differ from
cron(8): `?` means `*`, `N/step` means from N to the end, and Sunday is 0 only, never 7.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a CronJob runs: at every minute that all sets contain, or every so many seconds if `every` is not 0.

    A day is right if both its sets have it; if neither of the two was written as `*`, one is enough. `weekdays`: 0 is
    Sunday.
    """

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    any_day: bool = False  # written as * or ?
    any_weekday: bool = False
    every: int = 0


_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_WEEKDAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[int, int, Mapping[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, _MONTHS),
    (0, 6, _WEEKDAYS),
)
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY = "@every "
_ZONE = re.compile("(?:CRON_)?TZ=[^ ]* ?")


def parse_schedule(text: str) -> Schedule:
    """Raises ValueError with a sentence. A time zone in front (TZ=…) is skipped: the rules for a CronJob refuse it."""
    text = _ZONE.sub("", text, count=1).strip() if _ZONE.match(text) else text
    if not text:
        raise ValueError("empty spec string")
    if text.startswith(_EVERY):
        return Schedule(every=max(1, int(_seconds(text))))
    if text.startswith("@") and text not in _NAMED:
        raise ValueError(f"unrecognized descriptor: {text}")
    fields = _NAMED.get(text, text).split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    parsed = [_field(field, *bounds) for field, bounds in zip(fields, _FIELDS, strict=True)]
    (minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday) = parsed
    return Schedule(minutes, hours, days, months, weekdays, any_day, any_weekday)


def _field(field: str, low: int, high: int, names: Mapping[str, int]) -> tuple[frozenset[int], bool]:
    """Return the values of a list of ranges, and whether one of them is a plain `*`."""
    values: set[int] = set()
    star = False
    for expression in filter(None, field.split(",")):
        found, plain = _range(expression, low, high, names)
        values.update(found)
        star = star or plain
    return frozenset(values), star


def _range(expression: str, low: int, high: int, names: Mapping[str, int]) -> tuple[range, bool]:
    given, *steps = expression.split("/")
    first, *last = given.split("-")
    star = first in ("*", "?")
    if star:
        start, end = low, high
    elif len(last) > 1:
        raise ValueError(f"too many hyphens: {expression}")
    else:
        start = _number(first, names)
        end = _number(last[0], names) if last else start
    step = 1
    if len(steps) > 1:
        raise ValueError(f"too many slashes: {expression}")
    if steps:
        step = _number(steps[0], {})
        end = high if not last else end
    if start < low:
        raise ValueError(f"beginning of range ({start}) below minimum ({low}): {expression}")
    if end > high:
        raise ValueError(f"end of range ({end}) above maximum ({high}): {expression}")
    if start > end:
        raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {expression}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {expression}")
    return range(start, end + 1, step), star and step == 1


def _number(text: str, names: Mapping[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not re.fullmatch("[+-]?[0-9]{1,18}", text):
        raise ValueError(f'failed to parse int from {text}: "{text}" is not a number')
    if int(text) < 0:
        raise ValueError(f"negative number ({int(text)}) not allowed: {text}")
    return int(text)


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def _seconds(text: str) -> float:
    """Read `@every` and a duration, as Go's time.ParseDuration does."""
    given = text.removeprefix(_EVERY)
    digits = given.lstrip("+-") if len(given) - len(given.lstrip("+-")) <= 1 else ""
    parts = _PART.findall(digits)
    if digits != "0" and (not parts or "".join(map("".join, parts)) != digits):
        raise ValueError(f'failed to parse duration {text}: invalid duration "{given}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -seconds if given.startswith("-") else seconds
