"""The daemon's own log: its lines, and of libraries the warnings alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from kubelite.telemetry.logs import set_up


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_our_lines_and_the_warnings_of_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    set_up()
    logging.getLogger("kubelite.sources").info("read %d files", 3, extra={"dir": "/etc/a b"})
    logging.getLogger("watchfiles.main").info("3 changes detected")
    logging.getLogger("watchfiles.main").warning("the queue is full")
    lines = [line.split(" ", 1)[1].strip() for line in capsys.readouterr().err.splitlines()]
    assert lines == ['INFO    read 3 files dir="/etc/a b"', "WARNING the queue is full"]


def test_a_level_that_is_none_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("LOUD")
    assert "there is no level LOUD" in capsys.readouterr().err
    assert logging.getLogger().level == logging.INFO
