"""When a schedule of a CronJob is due.

The times are those of github.com/robfig/cron v3, which Kubernetes uses, also where the clocks change: a time that the
zone skips does not come on that day, and one that it repeats comes twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from manifests.types.workloads.schedule import Schedule, parse_schedule

YEARS = 5  # a schedule that has no time in so many years has none at all
MANY = 100  # missed times
_DAY, _HOUR = timedelta(days=1), 3600


class NoSchedule(ValueError):
    """A schedule that can be read, but is never due, as on February 31."""


class UnknownZone(ValueError):
    """A time zone that this machine does not know."""


@dataclass(frozen=True, slots=True)
class Times:
    """A schedule in a time zone. `zone`: None is the machine's own, as for kube-controller-manager."""

    schedule: Schedule
    zone: tzinfo | None = None

    def next_after(self, after: float) -> float | None:
        """Return the first time after another one, in Unix seconds; None if there is none in `YEARS` years."""
        if self.schedule.every:
            return float(int(after) + self.schedule.every)
        first = self._local(after)
        for day in self._days(first.date(), first.year + YEARS):
            for at in self._of_day(day, after):
                if at > after:
                    return at
        return None

    def _days(self, day: date, last_year: int) -> Iterator[date]:
        """Return the days that are right, from `day` on."""
        while day.year <= last_year:
            if day.month not in self.schedule.months:
                day = (day.replace(day=1) + 31 * _DAY).replace(day=1)
                continue
            if self._is_right(day):
                yield day
            day += _DAY

    def _is_right(self, day: date) -> bool:
        found = self.schedule
        of_month, of_week = day.day in found.days, day.isoweekday() % 7 in found.weekdays
        if found.any_day or found.any_weekday:
            return of_month and of_week
        return of_month or of_week

    def _of_day(self, day: date, after: float) -> Iterator[float]:
        """Return the times of a day in order, from the hour of `after` on. A day has the hours that its zone gives
        it."""
        at = max(self._start_of(day), after // 60 * 60 - 60 * self._local(after).minute)
        while (moment := self._local(at)).date() == day:
            if moment.hour in self.schedule.hours:
                yield from (
                    at + 60.0 * (minute - moment.minute)
                    for minute in sorted(self.schedule.minutes)
                    if minute >= moment.minute
                )
            at += _HOUR - 60 * moment.minute

    def _start_of(self, day: date) -> float:
        """Return the first second of a day, which need not be midnight."""
        at = datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp()
        while self._local(at).date() < day:
            at += _HOUR
        return at

    def _local(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self.zone)


@dataclass(frozen=True, slots=True)
class Missed:
    """Times that have come. `latest`: the newest one, None if there is none; `earliest`: since when they are looked
    for; `count`: about how many there are."""

    earliest: float
    latest: float | None = None
    count: int = 0


def missed(times: Times, earliest: float, now: float) -> Missed:
    """Return the times that came after `earliest` (mostRecentScheduleTime). Raises NoSchedule.

    They are not listed: their number is estimated from the distance of the first two."""
    first = times.next_after(earliest)
    second = times.next_after(first) if first is not None else None
    if first is not None and now < first:
        return Missed(earliest)
    if first is None or second is None:
        raise NoSchedule("time difference between two schedules is less than 1 second")
    if now < second:
        return Missed(earliest, first)
    distance = round(second - first)
    count = int(now - first) // distance + 1
    # Two distances back, since they differ, as in "30 6-16/4 * * 1-5".
    at = times.next_after(first + (count - 2) * distance)
    latest = None
    while at is not None and at <= now:
        latest, at = at, times.next_after(at)
    return Missed(earliest, latest, count)


@lru_cache(maxsize=256)
def parsed(schedule: str) -> Schedule:
    """Raises ValueError."""
    return parse_schedule(schedule)


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """Return a time zone of the IANA database. Raises UnknownZone."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZone(f"unknown time zone {name}") from error
