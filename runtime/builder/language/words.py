"""Pure: variables and quotes in an instruction's words (docs.docker.com/reference/dockerfile, "Environment
replacement").

$name ${name}                            the value, or "" if it is not set
${name:-word} ${name-word}               word if it is not set (with the colon: or empty)
${name:+word} ${name+word}               word if it is set, else ""
${name:?words} ${name?words}             fail with these words if it is not set
${name#pattern} ${name##…} ${name%…} ${name%%…}   without the shortest or longest match at the start or end
${name/pattern/word} ${name//…/…}        with the first, or every, match replaced
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class WordError(ValueError):
    """An invalid word, or a required variable that is not set."""


def expand(text: str, env: Mapping[str, str], escape: str = "\\", *, quotes: bool = True) -> str:
    """Replace variables in the text and, with `quotes`, remove quotes and escape characters. Raises WordError."""
    return _Reader(text, env, escape, quotes).read()


class _Reader:
    def __init__(self, text: str, env: Mapping[str, str], escape: str, quotes: bool) -> None:
        self._text, self._env, self._escape, self._quotes = text, env, escape, quotes
        self._at = 0

    def read(self, stop: str = "") -> str:
        """Read up to one of the characters in `stop` (left unread), or to the end."""
        out: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char in stop:
                return "".join(out)
            if char == "'" and self._quotes:
                out.append(self._single())
            elif char == '"' and self._quotes:
                out.append(self._double())
            elif char == "$":
                out.append(self._dollar())
            elif char == self._escape:
                out.append(self._escaped())
            else:
                out.append(char)
                self._at += 1
        if stop:
            raise WordError(f'"{self._text}" lacks a closing "{stop[0]}"')
        return "".join(out)

    def _escaped(self) -> str:
        self._at += 2
        if self._at - 1 >= len(self._text):
            return self._escape
        char = self._text[self._at - 1]
        return char if self._quotes or char in ("$", self._escape) else self._escape + char

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise WordError(f'"{self._text}" lacks a closing \'')
        found = self._text[self._at + 1 : end]
        self._at = end + 1
        return found

    def _double(self) -> str:
        out: list[str] = []
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return "".join(out)
            if char == "$":
                out.append(self._dollar())
                continue
            following = self._text[self._at + 1 : self._at + 2]
            if char == self._escape and following and following in f'"${self._escape}':
                out.append(following)
                self._at += 2
                continue
            out.append(char)
            self._at += 1
        raise WordError(f'"{self._text}" lacks a closing \'"\'')

    def _dollar(self) -> str:
        self._at += 1
        following = self._text[self._at : self._at + 1]
        if following == "{":
            self._at += 1
            found = self._braces()
            if self._text[self._at : self._at + 1] != "}":
                raise WordError(f'"{self._text}" lacks a closing "}}"')
            self._at += 1
            return found
        name = _NAME.match(self._text, self._at)
        if name is not None:
            self._at = name.end()
            return self._env.get(name[0], "")
        if following and following in "@*#0123456789":  # a shell's special parameter, never set here
            self._at += 1
            return ""
        return "$"

    def _braces(self) -> str:
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise WordError(f'"{self._text}" has a bad substitution')
        name = match[0]
        self._at = match.end()
        value = self._env.get(name)
        operator = self._text[self._at : self._at + 1]
        if operator in ("}", ""):
            return value or ""
        colon = operator == ":"
        if colon:
            self._at += 1
            operator = self._text[self._at : self._at + 1]
        if operator and operator in "-+?":
            self._at += 1
            return self._default(name, value, operator, self.read("}"), colon)
        if not colon and operator in ("#", "%", "/"):
            return self._pattern(value or "", operator)
        raise WordError(f'"{self._text}" has an unknown substitution')

    def _default(self, name: str, value: str | None, operator: str, word: str, colon: bool) -> str:
        given = value is not None and (value != "" or not colon)
        if operator == "+":
            return word if given else ""
        if given:
            return value or ""
        if operator == "?":
            raise WordError(f"{name}: {word or 'it is not set'}")
        return word

    def _pattern(self, value: str, operator: str) -> str:
        self._at += 1
        double = self._text[self._at : self._at + 1] == operator
        self._at += double
        if operator != "/":
            pattern = _glob(self.read("}"), greedy=double)
            return _cut_front(value, pattern) if operator == "#" else _cut_back(value, pattern, double)
        pattern = _glob(self.read("/}"), greedy=True)
        word = ""
        if self._text[self._at : self._at + 1] == "/":
            self._at += 1
            word = self.read("}")
        return re.sub(pattern, lambda _: word, value, count=0 if double else 1, flags=re.DOTALL)


def _glob(pattern: str, *, greedy: bool) -> str:
    """Convert a shell pattern of `*` and `?` to a regular expression."""
    many = ".*" if greedy else ".*?"
    return "".join(many if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)


def _cut_front(value: str, pattern: str) -> str:
    match = re.match(pattern, value, re.DOTALL)
    return value[match.end() :] if match else value


def _cut_back(value: str, pattern: str, longest: bool) -> str:
    starts = range(len(value) + 1) if longest else range(len(value), -1, -1)
    for start in starts:
        if re.fullmatch(pattern, value[start:], re.DOTALL):
            return value[:start]
    return value
