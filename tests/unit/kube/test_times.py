"""RFC 3339 times, read and written."""

from __future__ import annotations

import pytest

from kubelite.kube.times import parse_time, rfc3339, rfc3339_micro, rfc3339_nano, unix


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2024-02-29T12:00:00Z", 1709208000.0),
        ("2024-02-29T12:00:00+02:00", 1709200800.0),
        ("2024-02-29T12:00:00.123456789Z", 1709208000.123456),
        ("2024-02-29T12:00:00.5-01:00", 1709211600.5),
    ],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds
    assert unix(text) == seconds


@pytest.mark.parametrize("text", [None, "", "yesterday", "2024-02-30T12:00:00Z"])
def test_what_is_not_a_time(text: str | None) -> None:
    assert parse_time(text) is None
    assert unix(text) == 0.0


def test_times_are_written_as_go_writes_them() -> None:
    assert rfc3339(1709208000.9) == "2024-02-29T12:00:00Z"
    assert rfc3339(1709208000.9999998) == "2024-02-29T12:00:00Z"  # not rounded up to the next second
    assert rfc3339_micro(1709208000.25) == "2024-02-29T12:00:00.250000Z"
    assert rfc3339_nano(1709208000.25) == "2024-02-29T12:00:00.250000000Z"
