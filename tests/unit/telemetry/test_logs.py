"""The daemon's own log in both formats."""

from __future__ import annotations

import json
import logging
import sys

from kubelite.telemetry.tracing.logs import SELDOM, JsonLines, Logfmt, Seldom


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


def test_messages_that_a_client_can_cause_are_limited() -> None:
    seldom = Seldom()

    def said(
        at: float, sentence: str = "Invalid HTTP request received.", level: int = logging.WARNING
    ) -> str:
        made = logging.makeLogRecord({"msg": sentence, "args": (), "levelno": level, "created": at})
        return made.getMessage() if seldom.filter(made) else ""

    assert said(1000.0) == "Invalid HTTP request received."
    assert [said(1000.0 + n / 1000) for n in range(5000)] == [""] * 5000
    assert said(1001.0, "Unsupported upgrade request.") == "Unsupported upgrade request."
    assert said(1000.0 + SELDOM) == "Invalid HTTP request received. (and 5000 more since)"
    assert said(1001.0 + SELDOM) == ""
    assert said(900.0) == "Invalid HTTP request received. (and 1 more since)"  # the clock was set back
    failed = "Exception in ASGI application"
    assert [said(2000.0, failed, logging.ERROR) for _ in "abc"] == [failed] * 3


def test_a_message_is_one_line() -> None:
    """For example the output of a probe: it must not look like a line of the daemon."""
    hostile = record()
    hostile.args = ("oh\n2026-01-01T00:00:00.000Z INFO    all is well\x1b[2J",)
    said = Logfmt().format(hostile)
    assert "\n" not in said and "\x1b" not in said and "oh\\n2026" in said
