"""The daemon's own log: one line a change of state, `time LEVEL message key=value …` (logfmt) on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Logfmt(logging.Formatter):
    """Fields given as `extra=` follow the message; an exception's trace follows on further lines."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        fields = {
            key: value
            for key, value in vars(record).items()
            if key not in _STANDARD and value not in ("", None)
        }
        tail = "".join(f" {key}={_quoted(str(value))}" for key, value in fields.items())
        line = f"{at}Z {record.levelname:<7} {record.getMessage()}{tail}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _quoted(text: str) -> str:
    plain = text and not any(c in text for c in ' "=\n')
    return text if plain else json.dumps(text, ensure_ascii=False)


def set_up(level: str = "INFO") -> None:
    """Send every logger's lines to standard error; libraries only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Logfmt())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    known = level.upper() in logging.getLevelNamesMapping()
    root.setLevel(level.upper() if known else "INFO")
    if not known:
        root.warning("KUBELITE_LOG_LEVEL: there is no level %s (DEBUG, INFO, WARNING, ERROR)", level)
    for name in ("uvicorn", "httpx", "httpcore", "asyncio", "pyroute2", "watchfiles", "websockets"):
        logging.getLogger(name).setLevel(logging.WARNING)
