"""Errors that end a command: a message on stderr and an exit code."""

from __future__ import annotations

from typing import Any


class CliError(Exception):
    """`str()` is the complete message for the user; `code` is the exit code."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Unreachable(CliError):
    """No daemon answers, or the connection to it broke. A retry may succeed."""


class ServerError(CliError):
    """The daemon answered with a failed metav1.Status. The message has kubectl's format."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.reason = str(status.get("reason") or "")
        message = str(status.get("message") or "no message")
        super().__init__(
            f"Error from server ({self.reason}): {message}" if self.reason else f"error: {message}"
        )


class Exit(Exception):
    """Exit with this code and without a further message."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
