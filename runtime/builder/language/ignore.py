"""Pure: .dockerignore (docs.docker.com/build/concepts/context, "dockerignore files").

Each line is a pattern for a whole path. `*` and `?` do not match a slash, `**` does, `[a-z]` works as in Go's
filepath.Match, and `!` starts an exception. A pattern that matches a directory also matches its content. The last
matching line decides.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pattern:
    regex: re.Pattern[str]
    negated: bool


class PatternError(ValueError):
    """An invalid pattern."""


class Ignore:
    """The patterns of an ignore file: the files of the context that the build does not see."""

    def __init__(self, patterns: Iterable[Pattern] = ()) -> None:
        self._patterns = tuple(patterns)
        self.exceptions = any(pattern.negated for pattern in self._patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def matches(self, path: str) -> bool:
        """Whether `path` (relative, no leading slash) is ignored, itself or with a directory that contains it."""
        parts = path.split("/")
        prefixes = ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]
        ignored = False
        for pattern in self._patterns:
            if pattern.negated != ignored:
                continue  # it would not change the result
            if any(pattern.regex.fullmatch(prefix) for prefix in prefixes):
                ignored = not pattern.negated
        return ignored


def read(text: str) -> Ignore:
    """Parse an ignore file. Raises PatternError."""
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        word = line.strip()
        negated = word.startswith("!")
        word = word[1:].strip() if negated else word
        clean = posixpath.normpath(word).lstrip("/") if word else ""
        if not clean:
            raise PatternError(f'"{line}" is not a pattern')
        if clean != ".":  # the context itself is never ignored
            patterns.append(Pattern(compile_pattern(clean), negated))
    return Ignore(patterns)


_WITHIN, _DIRECTORIES, _ANYTHING = "[^/]*", "(?:.*/)?", ".*"


def _wildcard(out: list[str], wildcard: str) -> None:
    """Append a wildcard that is not covered by the one before it. Without that, re tries every way to divide a path
    among a row of stars."""
    if out and out[-1] == _WITHIN and wildcard == _ANYTHING:
        out.pop()
    if not out or not (out[-1] == _ANYTHING or out[-1] == wildcard):
        out.append(wildcard)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Convert a pattern of Go's filepath.Match, extended by `**`, to a regular expression for a whole path. Raises
    PatternError."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if pattern[at : at + 1] != "*":
                _wildcard(out, _WITHIN)
                continue
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
                _wildcard(out, _DIRECTORIES)
            else:
                _wildcard(out, _ANYTHING)
        elif char == "?":
            out.append("[^/]")
        elif char == "\\" and at < len(pattern):
            out.append(re.escape(pattern[at]))
            at += 1
        elif char == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise PatternError(f'"{pattern}" lacks a closing "]"')
            # re warns of what may become an operation of sets
            inside = re.sub(r"[\\\[&~|]", r"\\\g<0>", pattern[at:end])
            out.append(f"[{inside}]")
            at = end + 1
        else:
            out.append(re.escape(char))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise PatternError(f'"{pattern}" is not a pattern: {error}') from error


def has_glob(word: str) -> bool:
    return any(char in word for char in "*?[")
