"""The part of Go's text/template that is used with `-o go-template` and `--format`, applied to JSON documents.

Supported: fields (`.metadata.name`), `$`, variables, pipelines, parentheses, literals, comments, trim markers, `if`,
`range` and `with` with `else`, and the functions of `FUNCTIONS`. Anything else, such as `define`, `template`, `block`,
`break` and methods of Go types, raises an error that names it. Semantics: https://pkg.go.dev/text/template.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from kubelite.cli.errors import CliError

_ACTION = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>[-+]?\d+(?:\.\d+)?)
    |(?P<variable>\$\w*)|(?P<field>\.[A-Za-z_]\w*)|(?P<word>[A-Za-z_]\w*)|(?P<sign>:=|[|(),.=])""",
    re.VERBOSE,
)
_UNSUPPORTED = ("define", "template", "block", "break", "continue")


class _Token(NamedTuple):
    kind: str
    text: str
    glued: bool  # no space before it


class _Scope(NamedTuple):
    dot: Any
    variables: Mapping[str, Any]


_Value = Callable[[_Scope], Any]
_Node = Callable[[_Scope], tuple[str, _Scope]]  # returns its text and the scope after it


def render(text: str) -> Callable[[Any], str]:
    """Parse a template. Returns a function from a document to its text. Raises CliError."""
    node, end = _nodes(_pieces(text))
    if end:
        raise _error(f"unexpected {{{{{end}}}}}")
    return lambda document: node(_Scope(document, {"$": document}))[0]


def _error(words: str) -> CliError:
    return CliError(f"error: template: {words}", code=2)


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield ("text", …) and ("action", …) in turn, with the trim markers applied."""
    at, trim = 0, False
    for match in _ACTION.finditer(text):
        plain = text[at : match.start()]
        plain = plain.lstrip() if trim else plain
        yield "text", plain.rstrip() if match[1] else plain
        inside = match[2].strip()
        if not (inside.startswith("/*") and inside.endswith("*/")):
            yield "action", inside
        at, trim = match.end(), bool(match[3])
    rest = text[at:]
    if "{{" in rest:
        raise _error(f"unclosed action: {rest[rest.index('{{') :][:40]}")
    yield "text", rest.lstrip() if trim else rest


def _tokens(action: str) -> list[_Token]:
    found, at, glued = [], 0, False
    while at < len(action):
        match = _TOKEN.match(action, at)
        if match is None:
            raise _error(f"unexpected {action[at]!r} in {{{{{action}}}}}")
        if match.lastgroup != "space":
            found.append(_Token(str(match.lastgroup), match[0], glued))
        glued, at = match.lastgroup != "space", match.end()
    return found


def _nodes(pieces: Iterator[tuple[str, str]]) -> tuple[_Node, str]:
    """Parse up to the matching `else` or `end`, which is returned, or to the end of the text ("")."""
    found: list[_Node] = []
    for kind, piece in pieces:
        if kind == "text":
            found.append(_plain(piece))
            continue
        word, _, rest = piece.partition(" ")
        if word in ("end", "else"):
            return _sequence(found), piece
        if word in _UNSUPPORTED:
            raise _error(f"{{{{{word}}}}} is not supported")
        if word in ("if", "with", "range"):
            found.append(_block(word, rest, pieces))
        else:
            found.append(_statement(piece))
    return _sequence(found), ""


def _block(word: str, head: str, pieces: Iterator[tuple[str, str]]) -> _Node:
    names, value = _declaration(head)
    body, end = _nodes(pieces)
    other = _sequence([])
    if end.startswith("else "):  # {{else if X}} is a nested block, which consumes the {{end}} of both
        inner, _, rest = end.removeprefix("else ").strip().partition(" ")
        if inner not in ("if", "with"):
            raise _error(f"unexpected {inner!r} in {{{{{end}}}}}")
        other, end = _block(inner, rest, pieces), "end"
    elif end == "else":
        other, end = _nodes(pieces)
    if end != "end":
        raise _error(f"{{{{{word}}}}} without {{{{end}}}}")
    return (_range if word == "range" else _branch)(word, names, value, body, other)


def _plain(text: str) -> _Node:
    return lambda scope: (text, scope)


def _sequence(nodes: list[_Node]) -> _Node:
    def node(scope: _Scope) -> tuple[str, _Scope]:
        said = []
        for one in nodes:
            text, scope = one(scope)
            said.append(text)
        return "".join(said), scope

    return node


def _branch(word: str, names: list[str], value: _Value, body: _Node, other: _Node) -> _Node:
    def node(scope: _Scope) -> tuple[str, _Scope]:
        found = value(scope)
        inner = _Scope(found if word == "with" and found else scope.dot, _with(scope, names, [found]))
        return (body if found else other)(inner)[0], scope

    return node


def _range(_word: str, names: list[str], value: _Value, body: _Node, other: _Node) -> _Node:
    def node(scope: _Scope) -> tuple[str, _Scope]:
        found = value(scope)
        if found is not None and not isinstance(found, dict | list):
            raise _error(f"range can't iterate over {_text(found)}")
        pairs = sorted(found.items()) if isinstance(found, dict) else list(enumerate(found or ()))
        if not pairs:
            return other(scope)[0], scope
        said = []
        for key, item in pairs:
            given = [item] if len(names) == 1 else [key, item]
            said.append(body(_Scope(item, _with(scope, names, given)))[0])
        return "".join(said), scope

    return node


def _with(scope: _Scope, names: list[str], values: list[Any]) -> dict[str, Any]:
    return {**scope.variables, **dict(zip(names, values, strict=False))}


def _declaration(text: str) -> tuple[list[str], _Value]:
    """Parse `$i, $x := PIPELINE` or `PIPELINE`."""
    tokens = _tokens(text)
    texts = [token.text for token in tokens]
    names: list[str] = []
    if ":=" in texts:
        at = texts.index(":=")
        names, tokens = [word for word in texts[:at] if word != ","], tokens[at + 1 :]
        if not all(name.startswith("$") for name in names):
            raise _error(f"invalid declaration {{{{{text}}}}}")
    value, rest = _pipeline(tokens)
    if rest:
        raise _error(f"unexpected {rest[0].text!r} in {{{{{text}}}}}")
    return names, value


def _statement(text: str) -> _Node:
    names, value = _declaration(text)

    def node(scope: _Scope) -> tuple[str, _Scope]:
        found = value(scope)
        if names:
            return "", _Scope(scope.dot, _with(scope, names, [found]))
        return _text(found), scope

    return node


def _pipeline(tokens: list[_Token]) -> tuple[_Value, list[_Token]]:
    value, tokens = _command(tokens, None)
    while tokens and tokens[0].text == "|":
        value, tokens = _command(tokens[1:], value)
    return value, tokens


def _command(tokens: list[_Token], last: _Value | None) -> tuple[_Value, list[_Token]]:
    """Parse a value, or a function with its arguments; `last` is the result of the pipeline's previous command."""
    if not tokens:
        raise _error("missing value for command")
    name = tokens[0].text if tokens[0].kind == "word" and tokens[0].text not in _WORDS else ""
    if name and name not in FUNCTIONS:
        raise _error(f'function "{name}" not defined; kubelite has {", ".join(sorted(FUNCTIONS))}')
    rest, arguments = tokens[1:] if name else tokens, list[_Value]()
    while rest and rest[0].text not in ("|", ")"):
        value, rest = _operand(rest)
        arguments.append(value)
    if last is not None:
        arguments.append(last)
    if name:
        return (lambda scope: _call(name, [argument(scope) for argument in arguments])), rest
    if len(arguments) != 1:
        raise _error(f"can't give argument to non-function {tokens[0].text}")
    return arguments[0], rest


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise _error(f"error calling {name}: {error}") from error


_WORDS = {"true": True, "false": False, "nil": None}


def _operand(tokens: list[_Token]) -> tuple[_Value, list[_Token]]:
    token, rest = tokens[0], tokens[1:]
    value: _Value
    if token.text == "(":
        value, rest = _pipeline(rest)
        if not rest or rest[0].text != ")":
            raise _error("unclosed parenthesis")
        rest = rest[1:]
    elif token.kind == "variable":
        value = _variable(token.text)
    elif token.kind == "field":
        value = _field(lambda scope: scope.dot, token.text[1:])
    elif token.text == ".":
        value = lambda scope: scope.dot  # noqa: E731
    else:
        constant = _constant(token)
        value = lambda scope: constant  # noqa: E731
    while rest and rest[0].kind == "field" and rest[0].glued:
        value, rest = _field(value, rest[0].text[1:]), rest[1:]
    return value, rest


def _constant(token: _Token) -> Any:
    if token.kind == "string":
        return token.text[1:-1] if token.text.startswith("`") else _unquoted(token.text)
    if token.kind == "number":
        return float(token.text) if "." in token.text else int(token.text)
    if token.text in _WORDS:
        return _WORDS[token.text]
    raise _error(f"unexpected {token.text!r}")


def _unquoted(text: str) -> Any:
    try:
        return json.loads(text.replace("\\'", "'"), strict=False)
    except ValueError as error:
        raise _error(f"invalid string {text}") from error


def _variable(name: str) -> _Value:
    def value(scope: _Scope) -> Any:
        if name not in scope.variables:
            raise _error(f'undefined variable "{name}"')
        return scope.variables[name]

    return value


def _field(above: _Value, name: str) -> _Value:
    def value(scope: _Scope) -> Any:
        found = above(scope)
        if isinstance(found, dict):
            return found.get(name)
        if found is None:
            raise _error(f"nil pointer evaluating .{name}")
        raise _error(f"can't evaluate field {name} in {_text(found)[:40]}")

    return value


# -- functions ----------------------------------------------------------------------------------------------------


def _text(value: Any, *, inside: bool = False) -> str:
    """Format as Go's %v."""
    if value is None:
        return "<nil>" if inside else "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    if isinstance(value, dict):
        return f"map[{' '.join(f'{k}:{_text(v, inside=True)}' for k, v in sorted(value.items()))}]"
    if isinstance(value, list):
        return f"[{' '.join(_text(v, inside=True) for v in value)}]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(str(key))
        elif isinstance(value, list | str) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise IndexError(f"index out of range: {key}")
            value = value[key]
        elif value is None:
            raise ValueError("index of untyped nil")
        else:
            raise ValueError(f"can't index item of type {type(value).__name__}")
    return value


def _print(*values: Any) -> str:
    """Join as Go's Sprint: with a space between operands when neither is a string."""
    said = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            said += " "
        said += _text(value, inside=True)
    return said


def _printf(form: str, *values: Any) -> str:
    left = list(values)

    def one(match: re.Match[str]) -> str:
        if match[2] == "%":
            return "%"
        if not left:
            return f"%!{match[2]}(MISSING)"
        value, verb = left.pop(0), match[2]
        if verb == "q":
            return json.dumps(str(value), ensure_ascii=False)
        if verb in "vs":
            return f"%{match[1]}s" % _text(value, inside=True)
        return str(f"%{match[1]}{verb}" % value)

    return re.sub(r"%([-+ 0#]*\d*(?:\.\d+)?)([a-zA-Z%])", one, form)


def _exists(value: Any, *keys: Any) -> bool:
    try:
        return _index(value, *keys) is not None
    except (IndexError, ValueError):
        return False


def _and(*values: Any) -> Any:
    return next((value for value in values if not value), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if value), values[-1])


#: Go's functions, those of docker (json, join, lower, upper) and of kubectl (exists, base64decode).
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": _and,
    "base64decode": lambda value: base64.b64decode(value, validate=True).decode(),
    "eq": lambda first, *others: any(first == other for other in others),
    "exists": _exists,
    "ge": lambda a, b: a >= b,
    "gt": lambda a, b: a > b,
    "index": _index,
    "join": lambda items, separator: separator.join(map(_text, items)),
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "le": lambda a, b: a <= b,
    "len": len,
    "lower": lambda text: text.lower(),
    "lt": lambda a, b: a < b,
    "ne": lambda a, b: a != b,
    "not": lambda value: not value,
    "or": _or,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: " ".join(_text(value, inside=True) for value in values) + "\n",
    "upper": lambda text: text.upper(),
}
