"""Build errors. Each one names the place in the Containerfile that caused it."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import RuntimeFault


@dataclass(frozen=True, slots=True)
class Place:
    """Lines `line` to `end` (counted from 1) of `file`. `text` is the first of them, as written."""

    file: str
    line: int
    end: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class BuildError(RuntimeFault):
    """A failed build. str(error) is `file:line: message`, followed by the text of the line if there is one."""

    reason = "BuildFailed"

    def __init__(self, message: str, place: Place | None = None) -> None:
        shown = f"{place}: {message}\n    {place.text.strip()}" if place is not None else message
        super().__init__(shown)
        self.message = message
        self.place = place


class Cancelled(BuildError):
    """The build was cancelled. This needs no message."""

    def __init__(self) -> None:
        super().__init__("the build was cancelled")
