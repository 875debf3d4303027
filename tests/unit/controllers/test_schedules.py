"""When schedules are due. Golden tables: the facts of spec_test.go of github.com/robfig/cron v3, and of Kubernetes
pkg/controller/cronjob/utils_test.go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from kubelite.controllers.decide.schedules import (
    Missed,
    NoSchedule,
    Times,
    UnknownZone,
    missed,
    parsed,
    zone_of,
)

TOP = "2016-05-19T10:00:00+00:00"  # a Thursday


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def after_top(minutes: float) -> float:
    return at(TOP) + 60 * minutes


@pytest.mark.parametrize(
    ("after", "schedule", "expected"),
    [
        ("2012-07-09T14:45", "0/15 * * * *", "2012-07-09T15:00"),
        ("2012-07-09T14:59:59", "0/15 * * * *", "2012-07-09T15:00"),
        ("2012-07-09T15:45", "20-35/15 * * * *", "2012-07-09T16:20"),
        ("2012-07-09T23:46", "*/15 * * * *", "2012-07-10T00:00"),
        ("2012-07-09T23:45", "20-35/15 * * * *", "2012-07-10T00:20"),
        ("2012-07-09T23:35", "20-35/15 1/2 * * *", "2012-07-10T01:20"),
        ("2012-07-09T23:35", "20-35/15 10-12 * * *", "2012-07-10T10:20"),
        ("2012-07-09T23:35", "20-35/15 1/2 */2 * *", "2012-07-11T01:20"),
        ("2012-07-09T23:35", "20-35/15 * 9-20 * *", "2012-07-10T00:20"),
        ("2012-07-09T23:35", "20-35/15 * 9-20 Jul *", "2012-07-10T00:20"),
        ("2012-07-09T23:35", "0 0 9 Apr-Oct ?", "2012-08-09T00:00"),
        ("2012-07-09T23:35", "0 0 */5 Apr,Aug,Oct Mon", "2012-08-01T00:00"),
        ("2012-07-09T23:35", "0 0 */5 Oct Mon", "2012-10-01T00:00"),
        ("2012-07-09T23:35", "0 0 * Feb Mon", "2013-02-04T00:00"),
        ("2012-07-09T23:35", "0 0 * Feb Mon/2", "2013-02-01T00:00"),
        ("2012-07-09T23:35", "0 0 29 Feb ?", "2016-02-29T00:00"),
        ("2012-07-09T23:35", "0 0 30 Feb ?", ""),
        ("2012-07-09T23:35", "0 0 31 Apr ?", ""),
        ("2012-07-09T14:45", "@hourly", "2012-07-09T15:00"),
        ("2012-07-09T14:45", "@daily", "2012-07-10T00:00"),
        ("2012-07-09T14:45", "@weekly", "2012-07-15T00:00"),
        ("2012-07-09T14:45", "@monthly", "2012-08-01T00:00"),
        ("2012-07-09T14:45", "@yearly", "2013-01-01T00:00"),
        ("2012-07-09T14:45:10", "@every 15m", "2012-07-09T15:00:10"),
    ],
)
def test_the_next_time(after: str, schedule: str, expected: str) -> None:
    times = Times(parsed(schedule), UTC)
    found = times.next_after(at(f"{after}+00:00"))
    assert found == (at(f"{expected}+00:00") if expected else None)


NEW_YORK = ZoneInfo("America/New_York")


@pytest.mark.parametrize(
    ("after", "schedule", "expected"),
    [
        # the clock goes from 2 to 3 on 2012-03-11
        ("2012-03-11T00:00:00-05:00", "30 2 11 Mar ?", "2013-03-11T02:30:00-04:00"),
        ("2012-03-11T00:00:00-05:00", "0 * * * ?", "2012-03-11T01:00:00-05:00"),
        ("2012-03-11T01:00:00-05:00", "0 * * * ?", "2012-03-11T03:00:00-04:00"),
        ("2012-03-11T03:00:00-04:00", "0 * * * ?", "2012-03-11T04:00:00-04:00"),
        ("2012-03-11T00:00:00-05:00", "0 1 * * ?", "2012-03-11T01:00:00-05:00"),
        ("2012-03-11T01:00:00-05:00", "0 1 * * ?", "2012-03-12T01:00:00-04:00"),
        ("2012-03-11T00:00:00-05:00", "0 2 * * ?", "2012-03-12T02:00:00-04:00"),
        # from 2 back to 1 on 2012-11-04
        ("2012-11-04T00:00:00-04:00", "30 2 04 Nov ?", "2012-11-04T02:30:00-05:00"),
        ("2012-11-04T01:45:00-04:00", "30 1 04 Nov ?", "2012-11-04T01:30:00-05:00"),
        ("2012-11-04T00:00:00-04:00", "0 * * * ?", "2012-11-04T01:00:00-04:00"),
        ("2012-11-04T01:00:00-04:00", "0 * * * ?", "2012-11-04T01:00:00-05:00"),
        ("2012-11-04T01:00:00-05:00", "0 * * * ?", "2012-11-04T02:00:00-05:00"),
        ("2012-11-04T00:00:00-04:00", "0 1 * * ?", "2012-11-04T01:00:00-04:00"),
        ("2012-11-04T01:00:00-04:00", "0 1 * * ?", "2012-11-04T01:00:00-05:00"),
        ("2012-11-04T01:00:00-05:00", "0 1 * * ?", "2012-11-05T01:00:00-05:00"),
        ("2012-11-04T00:00:00-04:00", "0 2 * * ?", "2012-11-04T02:00:00-05:00"),
        ("2012-11-04T02:00:00-05:00", "0 3 * * ?", "2012-11-04T03:00:00-05:00"),
    ],
)
def test_a_change_of_the_clock_skips_times_or_repeats_them(after: str, schedule: str, expected: str) -> None:
    assert Times(parsed(schedule), NEW_YORK).next_after(at(after)) == at(expected)


def test_a_day_without_midnight_begins_later() -> None:
    times = Times(parsed("0 9 4 11 ?"), ZoneInfo("America/Sao_Paulo"))
    assert times.next_after(at("2018-10-17T05:00:00-04:00")) == at("2018-11-04T09:00:00-02:00")
    hourly = Times(parsed("0 * 4 11 ?"), ZoneInfo("America/Sao_Paulo"))
    assert hourly.next_after(at("2018-11-03T12:00:00-03:00")) == at("2018-11-04T01:00:00-02:00")


def test_every_minute_of_a_year_is_found_where_it_is() -> None:
    """Compared with a walk over all minutes, in zones whose clocks change by an hour and by half an hour."""
    for zone in (
        NEW_YORK,
        ZoneInfo("Australia/Lord_Howe"),
        ZoneInfo("Europe/Berlin"),
        ZoneInfo("Asia/Kolkata"),
    ):
        times = Times(parsed("*/20 1-3 * 3,4,10,11 0,6"), zone)
        found = at("2026-01-01T00:00:00+00:00")
        end = at("2026-12-31T00:00:00+00:00")
        minutes = (found + 60 * minute for minute in range(1, int(end - found) // 60))
        expected = [minute for minute in minutes if _is_wanted(datetime.fromtimestamp(minute, zone))]
        for want in expected:
            got = times.next_after(found)
            assert got == want, zone
            found = want


def _is_wanted(here: datetime) -> bool:
    right_day = here.month in (3, 4, 10, 11) and here.weekday() in (5, 6)
    return right_day and here.hour in (1, 2, 3) and here.minute % 20 == 0


@pytest.fixture
def kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_without_a_zone_the_machines_own_counts(kolkata: None) -> None:
    times = Times(parsed("30 9 * * *"))
    assert times.next_after(at("2026-01-01T00:00:00+00:00")) == at("2026-01-01T04:00:00+00:00")


def test_an_unknown_zone_is_an_error() -> None:
    with pytest.raises(UnknownZone, match="unknown time zone bad timezone"):
        zone_of("bad timezone")


@pytest.mark.parametrize(
    ("schedule", "earliest", "now", "latest", "many"),
    [  # TestMostRecentScheduleTime: minutes after the top of the hour; whether none, few or many were missed
        ("0 * * * *", 0, 0.5, None, "none"),
        ("0 * * * *", 0, 61, 60, "none"),
        ("0 * * * *", 10 / 60, 301, 300, "few"),
        ("30 6-16/4 * * 1-5", 30, 24 * 60 + 31, 24 * 60 + 30, "few"),
        ("30 10,11,12 * * 1-5", 30, 30 * 60 + 30, None, "few"),
        ("30 6-16/4 * * 1-5", 30, 96 * 60 + 31, 96 * 60 + 30, "few"),
        ("30 6-16/4 * * 1-5", 0, 24 * 60 + 31, 24 * 60 + 30, "few"),
        ("@every 1h", 1, 7 * 24 * 60, (6 * 24 + 23) * 60 + 1, "many"),
        ("0 * * * *", 0, 0.5, None, "none"),
        ("*/5 * * * *", 30, 31, None, "none"),
        ("*/5 * * * *", 31, 32, None, "none"),
    ],
)
def test_the_newest_time_that_was_missed(
    schedule: str, earliest: float, now: float, latest: float | None, many: str
) -> None:
    found = missed(Times(parsed(schedule), UTC), after_top(earliest), after_top(now))
    assert found.latest == (None if latest is None else after_top(latest))
    assert ("many" if found.count > 100 else "few" if found.count else "none") == many
    assert found.earliest == after_top(earliest)


def test_a_schedule_that_is_never_due_is_an_error() -> None:
    times = Times(parsed("59 23 31 2 *"), UTC)
    with pytest.raises(NoSchedule, match="less than 1 second"):
        missed(times, after_top(0), after_top(60))


def test_a_long_time_is_not_walked_through() -> None:
    """A clock that was decades off costs no more than one that was right."""
    times = Times(parsed("* * * * *"), UTC)
    began = time.perf_counter()
    found = missed(times, at("1970-01-01T00:00:00+00:00"), at(TOP))
    assert found.latest == at(TOP) and found.count > 20_000_000
    assert time.perf_counter() - began < 0.5


def test_a_leap_day_is_found_although_the_one_after_it_is_far() -> None:
    times = Times(parsed("0 0 29 2 *"), UTC)
    february = at("2096-02-29T00:00:00+00:00")
    assert times.next_after(february - 1) == february
    assert times.next_after(february) is None  # 2100 has none
    assert missed(times, february - 10, february - 5) == Missed(february - 10)


def test_days_are_right_by_month_or_by_week_unless_one_is_a_star() -> None:
    start = datetime(2026, 6, 1, tzinfo=UTC)
    both = Times(parsed("0 0 13 * 5"), UTC)
    found = start.timestamp()
    days: list[int] = []
    while len(days) < 6:
        found = both.next_after(found) or 0.0
        days.append((datetime.fromtimestamp(found, UTC) - start) // timedelta(days=1) + 1)
    assert days == [5, 12, 13, 19, 26, 33]
