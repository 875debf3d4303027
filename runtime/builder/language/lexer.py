"""Pure: split a Containerfile into directives and instructions, each with its flags, here-documents and place.

Follows Docker's reference (docs.docker.com/reference/dockerfile, "Format", "Parser directives", "Here-Documents").
Lines are joined at a trailing escape character. A line that starts with # is dropped, also inside an instruction.
Here-documents follow the instruction that names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from runtime.builder.errors import BuildError, Place

INSTRUCTIONS = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)
_WITH_HEREDOCS = frozenset({"ADD", "COPY", "RUN"})
_DIRECTIVE = re.compile(r"^#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_DIRECTIVES = frozenset({"syntax", "escape", "check"})
_HEREDOC = re.compile(r"^(\d*)<<(-?)([^<]+)$")
_FRONTEND = re.compile(r"^(docker\.io/)?docker/dockerfile(-upstream)?(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document. `content` ends with a newline unless it is empty. Leading tabs are removed already if `<<-` asks
    for it."""

    name: str
    content: str
    expand: bool  # false if the delimiter is quoted
    fd: str = ""  # "3" in 3<<EOF
    strip: bool = False


@dataclass(frozen=True, slots=True)
class Raw:
    """One instruction. `rest` is the text after name and flags, with its lines joined."""

    name: str
    rest: str
    place: Place
    flags: tuple[tuple[str, str], ...] = ()
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Containerfile:
    instructions: tuple[Raw, ...]
    escape: str = "\\"
    directives: dict[str, str] = field(default_factory=dict)


def parse(text: str, file: str) -> Containerfile:
    """Parse a Containerfile; `file` is its name in errors. Raises BuildError with the place."""
    lines = text.removeprefix("\ufeff").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    directives, begin = _directives(lines, file)
    escape = directives.get("escape", "\\")
    found = tuple(_instructions(lines, begin, escape, file))
    if not found:
        raise BuildError(f"{file} has no instructions")
    return Containerfile(found, escape, directives)


def instruction(text: str, place: Place, escape: str) -> Raw:
    """Parse one instruction on its own, as in an ONBUILD trigger. Its here-documents follow its first line. Raises
    BuildError."""
    lines = text.split("\n")
    found = list(_instructions(lines, 0, escape, place.file))
    if len(found) != 1:
        raise BuildError("the trigger is not a single instruction", place)
    raw = found[0]
    return Raw(raw.name, raw.rest, place, raw.flags, raw.heredocs)


def _directives(lines: list[str], file: str) -> tuple[dict[str, str], int]:
    """Read the directives. They come before everything else, including comments. An unknown directive is a comment and
    ends them."""
    found: dict[str, str] = {}
    for number, line in enumerate(lines):
        place = Place(file, number + 1, number + 1, line)
        match = _DIRECTIVE.match(line.strip())
        if match is None or match[1].lower() not in _DIRECTIVES:
            return found, number
        name = match[1].lower()
        if name in found:
            raise BuildError(f"the directive {name} is given twice", place)
        found[name] = match[2]
        if name == "escape" and match[2] not in ("\\", "`"):
            raise BuildError(f'the escape character must be "\\" or "`", not "{match[2]}"', place)
        if name == "syntax" and not _FRONTEND.match(match[2]):
            raise BuildError(
                f"the syntax {match[2]} needs another builder; this one supports docker/dockerfile", place
            )
    return found, len(lines)


def _instructions(lines: list[str], begin: int, escape: str, file: str) -> Iterator[Raw]:
    at = begin
    continued = re.compile(rf"(?:^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*$")
    while at < len(lines):
        if not lines[at].strip() or lines[at].lstrip().startswith("#"):
            at += 1
            continue
        first, joined, at = _joined(lines, at, continued)
        raw = _split(joined.strip(), Place(file, first + 1, at, lines[first]), escape)
        heredocs: list[Heredoc] = []
        for heredoc in _announced_heredocs(raw, escape):
            content, at = _body(lines, at, heredoc, raw.place)
            heredocs.append(Heredoc(heredoc.name, content, heredoc.expand, heredoc.fd, heredoc.strip))
        place = Place(file, first + 1, max(at, first + 1), lines[first])
        yield Raw(raw.name, raw.rest, place, raw.flags, tuple(heredocs))


def _joined(lines: list[str], at: int, continued: re.Pattern[str]) -> tuple[int, str, int]:
    """(first line, the joined text, the line after it). Comments and empty lines inside an instruction do not end
    it."""
    first = at
    parts: list[str] = []
    while at < len(lines):
        line = lines[at]
        at += 1
        if parts and (line.lstrip().startswith("#") or not line.strip()):
            continue
        if continued.search(line) is None:
            parts.append(line)
            break
        parts.append(line.rstrip()[:-1])
    return first, "".join(parts), at


def _split(line: str, place: Place, escape: str) -> Raw:
    name, _, rest = line.partition(" ")
    if "\t" in name:
        name, _, rest = line.partition("\t")
    upper = name.upper()
    if upper not in INSTRUCTIONS:
        near = _nearest(upper)
        raise BuildError(f"unknown instruction {name}{f' (did you mean {near}?)' if near else ''}", place)
    flags, rest = _flags(rest.strip(), escape)
    if not rest and upper not in ("RUN",):
        raise BuildError(f"{upper} needs an argument", place)
    return Raw(upper, rest, place, tuple(flags))


def _nearest(name: str) -> str:
    import difflib

    return next(iter(difflib.get_close_matches(name, sorted(INSTRUCTIONS), 1, 0.7)), "")


def _flags(rest: str, escape: str) -> tuple[list[tuple[str, str]], str]:
    """The `--name=value` words at the start, without quotes. `--` alone ends them."""
    flags: list[tuple[str, str]] = []
    while rest.startswith("--"):
        word, rest = next_word(rest, escape)
        if word == "--":
            break
        name, _, value = unquote(word, escape)[2:].partition("=")
        flags.append((name, value))
    return flags, rest


def next_word(text: str, escape: str) -> tuple[str, str]:
    """The first word, with its quotes and escapes, and the text after it."""
    at, quote = 0, ""
    while at < len(text):
        char = text[at]
        if char == escape and quote != "'" and at + 1 < len(text):
            at += 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char.isspace():
            break
        at += 1
    return text[:at], text[at:].lstrip()


def words(text: str, escape: str) -> list[str]:
    """All words, with their quotes and escapes."""
    found = []
    rest = text.strip()
    while rest:
        word, rest = next_word(rest, escape)
        found.append(word)
    return found


def unquote(word: str, escape: str) -> str:
    """The word as a shell reads it: without quotes and escape characters. `escape` is the file's escape character."""
    out, at, quote = [], 0, ""
    while at < len(word):
        char = word[at]
        if char == escape and quote != "'" and at + 1 < len(word):
            at += 1
            if quote and word[at] not in (quote, escape, "$"):
                out.append(char)
            out.append(word[at])
        elif quote:
            if char == quote:
                quote = ""
            else:
                out.append(char)
        elif char in "\"'":
            quote = char
        else:
            out.append(char)
        at += 1
    return "".join(out)


def _announced_heredocs(raw: Raw, escape: str) -> list[Heredoc]:
    """The here-documents an instruction announces, also those of an ONBUILD trigger."""
    name, rest = raw.name, raw.rest
    if name == "ONBUILD":
        word, rest = next_word(rest, escape)
        name = word.upper()
    if name not in _WITH_HEREDOCS or "<<" not in rest:
        return []
    return [found for word in words(rest, escape) if (found := heredoc_word(word, escape)) is not None]


def heredoc_word(word: str, escape: str) -> Heredoc | None:
    """Parse `<<EOF`, `<<-EOF` or `<<"EOF"`, optionally with a descriptor in front, to a Heredoc without content. None
    for any other word."""
    match = _HEREDOC.match(word)
    if match is None or len(words(match[3], escape)) != 1:
        return None
    name = unquote(match[3], escape)
    quoted = name != match[3]
    return Heredoc(name, "", not quoted, match[1], bool(match[2])) if name else None


def _body(lines: list[str], at: int, heredoc: Heredoc, place: Place) -> tuple[str, int]:
    content: list[str] = []
    while at < len(lines):
        line = lines[at].lstrip("\t") if heredoc.strip else lines[at]
        at += 1
        if line == heredoc.name:
            return "".join(f"{text}\n" for text in content), at
        content.append(line)
    raise BuildError(f'the here-document "{heredoc.name}" has no end', place)
