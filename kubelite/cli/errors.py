"""What ends a command: one sentence on stderr and an exit code."""

from __future__ import annotations

from typing import Any


class CliError(Exception):
    """`str()` is the whole line for the person; `code` the exit code."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Unreachable(CliError):
    """No daemon answers, or the connection to it broke off: it may be back in a moment."""


class ServerError(CliError):
    """The daemon answered with a metav1.Status of a failure; the line is kubectl's."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.reason = str(status.get("reason") or "")
        message = str(status.get("message") or "no message")
        super().__init__(
            f"Error from server ({self.reason}): {message}" if self.reason else f"error: {message}"
        )


class Exit(Exception):
    """Leave with this exit code; everything has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
