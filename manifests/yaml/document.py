"""Reads YAML and JSON text as kubectl does, into plain data with the line of every field.

Scalars have the meaning they have for Go's sigs.k8s.io/yaml (YAML 1.1 as go-yaml v2 reads it, then JSON): `yes`, `on`
and `y` are booleans, 0o14 and 014 are 12, 08 is 8, an unquoted timestamp stays a string, keys become strings. libyaml
parses; resolving scalars and building data is done here, to keep the line numbers. As in kubectl, a file is split at
its `---` lines first, so that a document that cannot be parsed does not hide the others.
"""

import base64
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import yaml
from yaml._yaml import CParser
from yaml.reader import ReaderError

from manifests.problems import Path

MAX_ALIASED = 100_000  # nodes that aliases expand to in a document; stops alias bombs
MAX_EVENTS = 500_000  # parser events in a document; limits the time that one file takes
MAX_DEPTH = 200  # nesting levels; the API's own objects stay below 40
SHARED = 64  # characters of the longest text that documents share
_MAX_REPAIRS = 500
_REPAIR_WORK = 32 << 20  # maximum of characters that are parsed again
_SURROGATES = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_TAG = "tag:yaml.org,2002:"
_MARK = re.compile(r"^\ufeff", re.MULTILINE)
_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
# A line that is not a comment, directive or separator.
_CONTENT = re.compile(r"^(?!---\s*$)[^\S\n]*[^\s#%]", re.MULTILINE)
_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_NUMBER_START = frozenset("+-0123456789")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INT = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[oO]?([0-7]+)|0[bB]([01]+)|(0|[1-9][0-9]*))")


class SyntaxProblem(Exception):
    """Text that is not YAML (or not data): a sentence, and its line and column (from 1)."""

    def __init__(self, message: str, line: int, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class _Composer(CParser):
    """libyaml's parser, which leaves untyped scalars to `_Builder._scalar`: go-yaml resolves them differently."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)

    def resolve(self, kind: type, value: Any, implicit: Any) -> str:
        plain = kind is yaml.ScalarNode and implicit[0]
        return "?" if plain else ""

    def descend_resolver(self, parent: Any, index: Any) -> None: ...

    def ascend_resolver(self) -> None: ...


@dataclass(frozen=True)
class YamlDocument:
    """One document: its data (str keys; dict, list, str, int, float, bool, None) and its place in the file."""

    data: Any
    line: int
    problems: tuple[tuple[Path, int, str], ...] = ()  # duplicate keys: (path, line, sentence)
    root: Any = None
    offset: int = 0
    _cache: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def locate(self, path: Path) -> tuple[int, int]:
        """Return line and column (from 1) of the field at `path`, or of its nearest ancestor that exists."""
        if self.root is None:
            return self.line, 1
        node, mark = self.root, self.root.start_mark
        for part in path:
            found = _step(node, part)
            if found is None:
                break
            mark, node = found
        return mark.line + 1 + self.offset, mark.column + 1


def read_documents(text: str) -> Iterator[YamlDocument | SyntaxProblem]:
    """Yield each non-empty document of `text` in order, or a SyntaxProblem if it cannot be read."""
    text = without_marks(text).replace("\r\n", "\n").replace("\r", "\n")  # as YAML 1.1 does (5.4)
    for offset, chunk in _chunks(text):
        try:
            yield from _read_yaml(chunk, offset)
        except SyntaxProblem as problem:
            yield problem


def without_marks(text: str) -> str:
    """Return the text without byte order marks at the beginning of lines: those of files that were joined."""
    return _MARK.sub("", text) if "\ufeff" in text else text


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of each part between `---` lines. Directives stay with the document that follows."""
    first = _CONTENT.search(text)
    starts = (
        [match.start() for match in _SEPARATOR.finditer(text, first.start())] if first is not None else []
    )
    line = 0
    for start, end in pairwise([0, *(start for start in starts if start > 0), len(text)]):
        chunk = text[start:end]
        if _CONTENT.search(chunk.removeprefix("---")):
            yield line, chunk
        line += chunk.count("\n")


def _read_yaml(chunk: str, offset: int) -> Iterator[YamlDocument]:
    for root in _compose(chunk, offset):
        builder = _Builder(offset)
        data = builder.build(root, ())
        if data is not None:
            mark = root.start_mark
            yield YamlDocument(data, mark.line + 1 + offset, tuple(builder.duplicates), root, offset)


def _compose(chunk: str, offset: int) -> list[Any]:
    _refuse_the_outsized(chunk, offset)
    for _ in range(min(_MAX_REPAIRS, 1 + _REPAIR_WORK // len(chunk))):
        try:
            parser = _Composer(chunk)
            try:
                nodes = []
                while parser.check_node():
                    nodes.append(parser.get_node())
                return nodes
            finally:
                parser.dispose()
        except yaml.MarkedYAMLError as error:
            repaired = _repaired(chunk, error)
            if repaired is None:
                raise _syntax(chunk, error, offset) from error
            chunk = repaired
        except ReaderError as error:
            line = chunk.encode()[: error.position].count(b"\n") + 1 + offset
            raise SyntaxProblem(f"not YAML: {error.reason}", line) from error
        except (yaml.YAMLError, UnicodeError) as error:
            raise SyntaxProblem(f"not YAML: {' '.join(str(error).split())}", offset + 1) from error
    raise SyntaxProblem(
        "too many \\' escapes inside double quotes: use single quotes around the string", offset + 1
    )


def _repaired(text: str, error: yaml.MarkedYAMLError) -> str | None:
    """Rewrite what go-yaml or JSON allows but libyaml does not, or return None. Line numbers stay the same."""
    mark, problem = error.problem_mark, str(error.problem)
    if "invalid Unicode character escape" in problem:  # JSON writes some characters as a pair of surrogates
        joined = _SURROGATES.sub(lambda pair: _join_surrogates(pair[1], pair[2]), text)
        return joined if joined != text else None
    if mark is None or "unknown escape character" not in problem:
        return None
    lines = text.split("\n")
    # libyaml counts U+0085 and U+2028 as line breaks too.
    line = lines[mark.line] if mark.line < len(lines) else ""
    for column in (mark.column, mark.column - 1, mark.column + 1):
        if line[column : column + 2] == "\\'":
            lines[mark.line] = line[:column] + line[column + 1 :]
            return "\n".join(lines)
    return None


def _join_surrogates(high: str, low: str) -> str:
    return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00))


def _syntax(chunk: str, error: yaml.MarkedYAMLError, offset: int) -> SyntaxProblem:
    mark = error.problem_mark or error.context_mark
    sentence = str(error.problem or error.context or "cannot be parsed")
    if _is_at_tab(chunk, mark) or "tab character" in sentence:
        sentence = "a tab where YAML needs spaces: indent with spaces"
    elif error.context and error.context_mark is not None:
        sentence += f" ({error.context} that starts on line {error.context_mark.line + 1 + offset})"
    return SyntaxProblem(
        f"not YAML: {sentence}", (mark.line if mark else 0) + 1 + offset, mark.column + 1 if mark else None
    )


def _is_at_tab(chunk: str, mark: Any) -> bool:
    lines = chunk.split("\n")
    return mark is not None and mark.line < len(lines) and lines[mark.line][mark.column :].startswith("\t")


def _refuse_the_outsized(chunk: str, offset: int) -> None:
    """Count events before composing a large document: composing recurses on the C stack and cannot be interrupted."""
    if chunk.count("[") + chunk.count("{") + chunk.count("- ") + chunk.count("\n") < MAX_DEPTH:
        return
    depth = events = 0
    parser = _Composer(chunk)
    try:
        while (event := parser.get_event()) is not None:
            events += 1
            if events > MAX_EVENTS:
                raise SyntaxProblem("too many values in one document: split it with --- lines", offset + 1)
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    line = event.start_mark.line + 1 if event.start_mark else 1
                    raise SyntaxProblem(f"nested more than {MAX_DEPTH} deep", line + offset)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError:
        return  # composing fails at the same place, before it gets deeper
    finally:
        parser.dispose()


class _Builder:
    """Turns a node graph into data. Expands aliases (bounded) and records duplicate keys, of which the first wins."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._aliased = 0
        self._inside_alias = 0
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self.duplicates: list[tuple[Path, int, str]] = []

    def build(self, node: Any, path: Path) -> Any:
        self._aliased += self._inside_alias > 0
        if self._aliased > MAX_ALIASED:
            raise SyntaxProblem(
                "document contains excessive aliasing", node.start_mark.line + 1 + self._offset
            )
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise SyntaxProblem("an anchor's value contains itself", node.start_mark.line + 1 + self._offset)
        again = id(node) in self._seen
        self._seen.add(id(node))
        self._open.add(id(node))
        self._inside_alias += again
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))
            self._inside_alias -= again

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merges = []
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                merges.append(value_node)
                continue
            key, line = self._key(key_node), key_node.start_mark.line + 1 + self._offset
            if key in data:
                self.duplicates.append(((*path, key), line, f"duplicate key, first set on line {lines[key]}"))
                continue
            lines[key] = line
            data[key] = self.build(value_node, (*path, key))
        for merge in merges:
            for key, value in self._merged(merge, path).items():
                data.setdefault(key, value)
        return data

    def _merged(self, node: Any, path: Path) -> dict[str, Any]:
        """Return what `<<: *base` or `<<: [*a, *b]` merges; earlier sources take precedence."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise SyntaxProblem(
                    "map merge requires map or sequence of maps as the value", self._line(node)
                )
            for key, value in self.build(source, path).items():
                merged.setdefault(key, value)
        return merged

    def _line(self, node: Any) -> int:
        return int(node.start_mark.line) + 1 + self._offset

    def _key(self, node: Any) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise SyntaxProblem(
                "a map's key must be a scalar (template markers {{ }} need quotes)", self._line(node)
            )
        key = self._scalar(node)
        match key:
            case str():
                return key
            case bool():
                return "true" if key else "false"
            case int():
                return str(key)
            case float():
                return _go_float(key)
        raise SyntaxProblem("a map's key must not be null", self._line(node))

    def _scalar(self, node: Any) -> Any:
        text, tag = shared(str(node.value)), str(node.tag)
        if tag == "?":
            return resolve(text)
        if not tag.startswith(_TAG):
            return text
        match tag.removeprefix(_TAG):
            case "binary":
                try:
                    return base64.b64decode(text, validate=False).decode()
                except ValueError as error:
                    raise SyntaxProblem(
                        "!!binary value contains invalid base64 data", self._line(node)
                    ) from error
            case "null" | "bool" | "int" | "float" as name:
                value = resolve(text)
                if not _has_tag(value, name):
                    raise SyntaxProblem(f"cannot decode `{text}` as a !!{name}", self._line(node))
                return value
        return text


def shared(text: str) -> str:
    """Return the interned copy of a short text. Documents of many files have the same names, paths and images, and the
    store keeps these documents."""
    return sys.intern(text) if len(text) <= SHARED else text


def _has_tag(value: Any, name: str) -> bool:
    match name:
        case "null":
            return value is None
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, int | float) and not isinstance(value, bool)


def resolve(text: str) -> Any:
    """Resolve an untyped plain scalar as go-yaml v2's resolve() and then Go's JSON encoder do."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    first = text[0]
    if first == ".":
        return _float(text) if _FLOAT.fullmatch(text) else text
    if first not in _NUMBER_START:
        return text
    plain = text.replace("_", "")
    match = _INT.fullmatch(plain)
    if match is not None:
        sign, hexadecimal, octal, binary, decimal = match.groups()
        digits, base = next(
            (d, b) for d, b in ((hexadecimal, 16), (octal, 8), (binary, 2), (decimal, 10)) if d
        )
        number = int(sign + digits, base) if len(digits) <= 64 else 2**64
        if -(2**63) <= number < 2**64:
            return number
    if _FLOAT.fullmatch(plain):
        return _float(plain)
    return text


def _float(text: str) -> int | float | str:
    """Return the value as Go's JSON does, which writes a whole float64 below 1e21 as an integer: 80.0 is 80."""
    number = float(text)
    if math.isinf(number):
        return text  # strconv.ParseFloat: value out of range
    return int(number) if number.is_integer() and abs(number) < 1e21 else number


def _go_float(number: float) -> str:
    if math.isnan(number):
        return ".nan"
    if math.isinf(number):
        return ".inf" if number > 0 else "-.inf"
    return repr(number)


def _is_merge(node: Any) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == "<<" and node.tag in ("?", _TAG + "merge")


def _step(node: Any, part: str | int) -> tuple[Any, Any] | None:
    """Return (mark, node) of a mapping's entry or a sequence's item."""
    if isinstance(part, int):
        if isinstance(node, yaml.SequenceNode) and part < len(node.value):
            return node.value[part].start_mark, node.value[part]
        return None
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and (
            key.value == part or str(resolve(key.value)).lower() == part
        ):
            return key.start_mark, value
    for key, value in node.value:
        if _is_merge(key):
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                found = _step(source, part)
                if found is not None:
                    return found
    return None
