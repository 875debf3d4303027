"""The daemon's own log on standard error: one line for each change of state, `time LEVEL message key=value …` (logfmt).
With KUBELITE_LOG_FORMAT=json, each line is a JSON object."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


SELDOM = 60.0  # seconds between repetitions of a warning


class Logfmt(logging.Formatter):
    """Formats a record as a line. The `extra=` fields follow the message, a traceback follows on further lines."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        tail = "".join(f" {key}={_quoted(str(value))}" for key, value in _fields(record).items())
        line = f"{at}Z {record.levelname:<7} {_one_line(record.getMessage())}{tail}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonLines(logging.Formatter):
    """Formats a record as a JSON object: time, level, message, logger, the `extra=` fields and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        line: dict[str, object] = {
            "time": f"{at}Z",
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        # An extra field never replaces a standard one.
        line |= {f"field_{k}" if k in line else k: v for k, v in _fields(record).items()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the non-empty `extra=` fields."""
    return {
        key: value for key, value in vars(record).items() if key not in _STANDARD and value not in ("", None)
    }


FORMATS: dict[str, type[logging.Formatter]] = {"text": Logfmt, "json": JsonLines}


def _one_line(text: str) -> str:
    """Escape control characters. Otherwise text from a probe or registry could imitate a log line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _quoted(text: str) -> str:
    plain = text.isprintable() and text and not any(c in text for c in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


class Seldom(logging.Filter):
    """Passes each warning once in SELDOM seconds, with the number of suppressed ones. Anyone who can reach a port can
    cause warnings by invalid requests, thousands of times a second. Errors are always logged: clients cannot cause
    them."""

    def __init__(self) -> None:
        super().__init__()
        # message → time of the last line, number of lines suppressed since then.
        self._said: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        sentence = str(record.msg)  # without the arguments, which the client may control
        said, left_out = self._said.get(sentence, (-SELDOM, 0))
        if 0 <= record.created - said < SELDOM:
            self._said[sentence] = (said, left_out + 1)
            return False
        self._said[sentence] = (record.created, 0)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out} more since)", ()
        return True


def set_up(level: str = "INFO", form: str = "text") -> None:
    """Send the lines of all loggers to standard error. Libraries log only warnings and errors."""
    # Do not collect data that no format shows (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATS.get(form.lower(), Logfmt)())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    known = level.upper() in logging.getLevelNamesMapping()
    root.setLevel(level.upper() if known else "INFO")
    if not known:
        root.warning("KUBELITE_LOG_LEVEL: unknown level %s (use DEBUG, INFO, WARNING or ERROR)", level)
    if form.lower() not in FORMATS:
        root.warning("KUBELITE_LOG_FORMAT: unknown format %s (use %s)", form, ", ".join(FORMATS))
    for name in ("uvicorn", "httpx", "httpcore", "asyncio", "pyroute2", "watchfiles", "websockets"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").filters[:] = [Seldom()]
