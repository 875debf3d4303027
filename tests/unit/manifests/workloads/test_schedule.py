"""Schedules of CronJobs, as github.com/robfig/cron v3 reads them (parser_test.go, spec_test.go)."""

from __future__ import annotations

import pytest

from manifests.types.workloads.schedule import Schedule, parse_schedule

MINUTES, HOURS = frozenset(range(60)), frozenset(range(24))
DAYS, MONTHS, WEEKDAYS = frozenset(range(1, 32)), frozenset(range(1, 13)), frozenset(range(7))


def test_stars() -> None:
    every = Schedule(MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS, any_day=True, any_weekday=True)
    assert (
        parse_schedule("* * * * *") == parse_schedule("? * ? * ?") == parse_schedule(" *  *\t* * * ") == every
    )


@pytest.mark.parametrize(
    ("field", "minutes"),
    [
        ("5", {5}),
        ("5,6", {5, 6}),
        ("5-7", {5, 6, 7}),
        ("5-7/2", {5, 7}),
        ("*/20", {0, 20, 40}),
        ("50/3", {50, 53, 56, 59}),
        ("0,30-32,58/1", {0, 30, 31, 32, 58, 59}),
        ("007", {7}),
        ("*/70", {0}),
    ],
)
def test_ranges(field: str, minutes: set[int]) -> None:
    assert parse_schedule(f"{field} * * * *").minutes == minutes


def test_names_of_months_and_weekdays() -> None:
    found = parse_schedule("0 0 1 JAN,mar-May Mon-FRI")
    assert found.months == {1, 3, 4, 5} and found.weekdays == {1, 2, 3, 4, 5}
    assert not found.any_day and not found.any_weekday


def test_a_star_with_a_step_is_a_restriction() -> None:
    assert parse_schedule("0 0 */2 * *").any_day is False
    assert parse_schedule("0 0 */1 * *").any_day is True


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("TZ=Asia/Tokyo 0 5 * * *", "0 5 * * *"),
    ],
)
def test_names(name: str, fields: str) -> None:
    assert parse_schedule(name) == parse_schedule(fields)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("@every 5m", 300),
        ("@every 1h30m", 5400),
        ("@every 1.5h", 5400),
        ("@every 500ms", 1),
        ("@every 90.9s", 90),
    ],
)
def test_every(text: str, seconds: int) -> None:
    assert parse_schedule(text) == Schedule(every=seconds)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "empty spec string"),
        ("TZ=UTC", "empty spec string"),
        ("xyz", "expected exactly 5 fields, found 1: [xyz]"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("0 * * * * *", "expected exactly 5 fields, found 6: [0 * * * * *]"),
        ("@unrecognized", "unrecognized descriptor: @unrecognized"),
        ("@every 5", 'failed to parse duration @every 5: invalid duration "5"'),
        ("@every Xm", 'failed to parse duration @every Xm: invalid duration "Xm"'),
        ("5-6-7 * * * *", "too many hyphens: 5-6-7"),
        ("5-jan-7 * * * *", "too many hyphens: 5-jan-7"),
        ("0-10/2/4 * * * *", "too many slashes: 0-10/2/4"),
        ("jan-x * * * *", "failed to parse int from jan"),
        ("x * * * *", "failed to parse int from x"),
        ("1-x * * * *", "failed to parse int from x"),
        ("2-6/x * * * *", "failed to parse int from x"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("1-60 * * * *", "end of range (60) above maximum (59): 1-60"),
        ("* 24 * * *", "end of range (24) above maximum (23): 24"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("-1 * * * *", "failed to parse int from "),
        ("*/-12 * * * *", "negative number (-12) not allowed: -12"),
    ],
)
def test_what_is_no_schedule(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as failed:
        parse_schedule(text)
    assert str(failed.value).startswith(sentence)
