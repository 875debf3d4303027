"""kubectl's JSONPath: templates (`-o jsonpath=`), columns (`-o custom-columns=`) and sort keys (`--sort-by`).

https://kubernetes.io/docs/reference/kubectl/jsonpath/: text with expressions in braces; `{range …}{end}`, quoted text,
fields (a dot in a name is `\\.`), `['names']`, indices and slices, `*`, `..`, unions and filters. A missing
field is empty, not an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kubelite.cli.errors import CliError

Step = Callable[[list[Any]], list[Any]]
Node = tuple[str, Any]  # ("text", str) | ("path", steps) | ("range", (steps, nodes))

_FIELD = re.compile(r"(?:\\.|[^.\[\]\s(){}'\"\\])+")
_FILTER = re.compile(
    r"\?\(\s*(?P<left>@.*?)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<right>.+?)\s*)?\)\Z", re.DOTALL
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?\Z")
_SLICE = re.compile(r"(-?\d*)(?::(-?\d*))?(?::(\d*))?\Z")


def template(text: str) -> Callable[[Any], str]:
    """Return a function that formats a document with this template. Raises CliError for an invalid template."""
    if "{" not in text and text[:1] in (".", "$", "["):
        text = "{" + text + "}"
    nodes = _nodes(iter(_pieces(text)), text)
    return lambda document: "".join(_print(nodes, document, document))


def path(text: str) -> Callable[[Any], list[Any]]:
    """Return a function that finds an expression's values. Braces and the first dot are optional. Raises CliError."""
    words = text.strip()
    words = words[1:-1].strip() if words.startswith("{") and words.endswith("}") else words
    steps = _steps(words if words[:1] in (".", "$", "@", "[") else "." + words, text)
    return lambda document: _follow(steps, document, document)


def columns(text: str) -> list[tuple[str, Callable[[Any], str]]]:
    """Parse `NAME:.metadata.name,IP:.status.podIP` into each column's header and a function that formats its cell."""
    if not text:
        raise CliError("error: custom-columns format specified but no custom columns given", code=2)
    found = []
    for column in re.split(r",(?![^\[(]*[\])])", text):
        header, colon, words = column.partition(":")
        if not colon or not header or not words:
            raise CliError(
                f'error: unexpected custom-columns spec: "{column}", expected <header>:<json-path-expr>',
                code=2,
            )
        found.append((header, _cell(path(words))))
    return found


def _cell(find: Callable[[Any], list[Any]]) -> Callable[[Any], str]:
    return lambda document: ",".join(text_of(value) for value in find(document)) or "<none>"


def sort_key(text: str) -> Callable[[Any], tuple[Any, ...]]:
    """Return the sort key: missing values first, then numbers, then text (`pod-2` before `pod-10`)."""
    find = path(text)

    def key(document: Any) -> tuple[Any, ...]:
        value = next(iter(find(document)), None)
        if value is None:
            return (0,)
        if isinstance(value, (int, float)):
            return (1, value)
        parts = re.split(r"(\d+)", text_of(value))
        return (2, [(int(part), "") if part.isdecimal() else (-1, part) for part in parts])

    return key


def text_of(value: Any) -> str:
    """Format a value as kubectl does: text without quotes, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# -- templates -----------------------------------------------------------------------------------------------


def _pieces(text: str) -> list[tuple[bool, str]]:
    """Return (is an expression, its text) from the left. Braces in quotes or brackets do not end an expression."""
    pieces, at = [], 0
    while at < len(text):
        begin = text.find("{", at)
        if begin != at:
            end = len(text) if begin < 0 else begin
            pieces.append((False, text[at:end]))
            at = end
            continue
        end = _closing(text, begin, "}")
        pieces.append((True, text[begin + 1 : end].strip()))
        at = end + 1
    return pieces


def _closing(text: str, begin: int, closing: str) -> int:
    """Return the position of the bracket that closes the one at `begin`. Quoted text is skipped."""
    depth, quote, at = 0, "", begin
    while at < len(text):
        sign = text[at]
        if sign == "\\":
            at += 1
        elif quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == text[begin]:
            depth += 1
        elif sign == closing:
            depth -= 1
            if not depth:
                return at
        at += 1
    raise CliError(f"error: JSONPath: unclosed {text[begin]} in {text[begin:]!r}", code=2)


def _nodes(pieces: Iterable[tuple[bool, str]], whole: str, *, inside: bool = False) -> list[Node]:
    nodes: list[Node] = []
    for expression, text in pieces:
        if not expression:
            nodes.append(("text", text))
        elif text == "end":
            if not inside:
                raise CliError(f"error: JSONPath: {{end}} without {{range}} in {whole!r}", code=2)
            return nodes
        elif text.startswith("range "):
            steps = _steps(text.removeprefix("range ").strip(), whole)
            nodes.append(("range", (steps, _nodes(pieces, whole, inside=True))))
        elif text[:1] in ("'", '"'):
            nodes.append(("text", _unquoted(text)))
        else:
            nodes.append(("path", _steps(text, whole)))
    if inside:
        raise CliError(f"error: JSONPath: {{range}} without {{end}} in {whole!r}", code=2)
    return nodes


def _print(nodes: Sequence[Node], current: Any, root: Any) -> Iterable[str]:
    for kind, what in nodes:
        if kind == "text":
            yield what
        elif kind == "path":
            yield " ".join(text_of(value) for value in _follow(what, current, root))
        else:
            steps, body = what
            for each in _follow(steps, current, root):
                yield from _print(body, each, root)


def _unquoted(text: str) -> str:
    escapes = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), text[1:-1])


# -- expressions ---------------------------------------------------------------------------------------------


def _follow(steps: Sequence[Step | None], current: Any, root: Any) -> list[Any]:
    """Return the values that the steps of an expression find. The step None is `$`: the whole document."""
    values = [current]
    for step in steps:
        values = [root] if step is None else step(values)
    return values


def _steps(text: str, whole: str) -> list[Step | None]:
    steps: list[Step | None] = []
    at = 0
    while at < len(text):
        if text[at] in "$@" and at == 0:
            steps += [None] if text[0] == "$" else []
            at += 1
        elif text[at] == "[":
            end = _closing(text, at, "]")
            steps.append(_bracket(text[at + 1 : end].strip(), whole))
            at = end + 1
        elif text.startswith("..", at):
            steps.append(_descend)
            at += 2 if text[at + 2 : at + 3] == "[" else 1
        elif text[at] == "." and text[at + 1 : at + 2] in ("", "["):
            at += 1
        elif text[at] == "." and (field := _FIELD.match(text, at + 1)):
            name = re.sub(r"\\(.)", r"\1", field[0])
            steps.append(_all if name == "*" else _fields([name]))
            at = field.end()
        else:
            raise CliError(f"error: JSONPath: {text[at:]!r} of {whole!r} is not understood", code=2)
    return steps


def _bracket(text: str, whole: str) -> Step:
    if text == "*":
        return _all
    if text.startswith("?"):
        return _filter(text, whole)
    parts = [part.strip() for part in text.split(",")]
    if all(len(part) > 1 and part[0] == part[-1] and part[0] in "'\"" for part in parts):
        return _fields([_unquoted(part) for part in parts])
    if all(part and _SLICE.match(part) for part in parts):
        return _items([_range(part) for part in parts])
    raise CliError(f"error: JSONPath: [{text}] of {whole!r} is not understood", code=2)


def _range(text: str) -> slice:
    found = _SLICE.match(text)
    assert found is not None
    begin, end, step = found.groups()
    if end is None:
        number = int(begin)
        return slice(number, number + 1 or None)
    return slice(int(begin) if begin else None, int(end) if end else None, int(step) if step else None)


def _filter(text: str, whole: str) -> Step:
    found = _FILTER.match(text)
    if found is None:
        raise CliError(f"error: JSONPath: [{text}] of {whole!r} is not understood", code=2)
    left, op = _steps(found["left"], whole), found["op"]
    right = _operand(found["right"], whole) if op else None

    def keeps(value: Any) -> bool:
        mine = _follow(left, value, value)
        if right is None:
            return bool(mine)
        return bool(mine) and _compare(mine[0], op, right(value))

    return lambda values: [each for each in _all(values) if keeps(each)]


def _operand(text: str, whole: str) -> Callable[[Any], Any]:
    if text[:1] in ("'", '"'):
        return lambda _value: _unquoted(text)
    if _NUMBER.match(text):
        return lambda _value: float(text)
    if text in ("true", "false"):
        return lambda _value: text == "true"
    steps = _steps(text, whole)
    return lambda value: next(iter(_follow(steps, value, value)), None)


def _compare(left: Any, op: str, right: Any) -> bool:
    if op in ("==", "!="):
        return bool((left == right) == (op == "=="))
    try:
        return bool({"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[op])
    except TypeError:  # a number and a string are not comparable
        return False


def _fields(names: list[str]) -> Step:
    return lambda values: [
        value[name] for value in values if isinstance(value, dict) for name in names if name in value
    ]


def _items(slices: list[slice]) -> Step:
    return lambda values: [
        item for value in values if isinstance(value, list) for part in slices for item in value[part]
    ]


def _all(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found


def _descend(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.append(value)
        found += _descend(_all([value]))
    return found
