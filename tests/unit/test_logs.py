"""The daemon's own log in both forms."""

from __future__ import annotations

import json
import logging
import sys

from kubelite.telemetry.logs import JsonLines, Logfmt


def record(**extra: object) -> logging.LogRecord:
    logger = logging.getLogger("kubelite.test")
    return logger.makeRecord("kubelite.test", logging.WARNING, "f", 1, "said %s", ("so",), None, extra=extra)


def test_text() -> None:
    line = Logfmt().format(record(pod="a b", uid="u", empty=""))
    assert line.endswith('Z WARNING said so pod="a b" uid=u')


def test_json() -> None:
    line = JsonLines().format(record(pod='a "b"\n', level=7, thing={1}, empty=""))
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "said so"
    assert found["level"] == "WARNING"
    assert found["field_level"] == 7
    assert found["pod"] == 'a "b"\n'
    assert found["thing"] == "{1}"
    assert "empty" not in found
    assert found["time"].endswith("Z")


def test_an_exception_stays_on_its_line() -> None:
    made = record()
    try:
        raise OSError("no")
    except OSError:
        made.exc_info = sys.exc_info()
    assert "OSError: no" in json.loads(JsonLines().format(made))["exception"]
