"""Sets of fields, and their form in metadata.managedFields (FieldsV1). Pure.

A path is a tuple of elements as FieldsV1 writes them: `f:NAME` is a field or the key of a map, `k:{"name":"web"}` an
item of a list that is found by keys, `v:"x"` an item of a set. In FieldsV1 an object without entries, or one with the
entry `.`, is a member of the set; the others only lead to members.

Source: sigs.k8s.io/structured-merge-diff fieldpath/serialize.go and serialize-pe.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from kubelite.kube.json import Json

Path = tuple[str, ...]
FieldSet = frozenset[Path]

NOTHING: FieldSet = frozenset()
FIELD, KEYS, VALUE, INDEX = "f:", "k:", "v:", "i:"
_SELF = "."
_DEEPEST = 100  # elements of a path: more than any object has


class InvalidFields(ValueError):
    """The document is no FieldsV1; the message says why."""


def compact(value: Any) -> str:
    """Return a value as JSON in the one form that an element of a path has."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def decoded(document: object) -> FieldSet:
    """Return the set that a FieldsV1 document describes. Raises InvalidFields."""
    found: set[Path] = set()
    waiting: list[tuple[Path, object]] = [((), document)]
    while waiting:
        path, node = waiting.pop()
        if not isinstance(node, dict):
            raise InvalidFields(f"{display(path) or 'fieldsV1'} is not an object")
        if len(path) > _DEEPEST:
            raise InvalidFields(f"a path has more than {_DEEPEST} elements")
        if path and (not node or _SELF in node):
            found.add(path)
        waiting += [((*path, _element(key)), below) for key, below in node.items() if key != _SELF]
    return frozenset(found)


def _element(text: object) -> str:
    """Return an element in its one form. Raises InvalidFields."""
    kind, rest = str(text)[:2], str(text)[2:]
    if kind == FIELD:
        return str(text)
    if kind not in (KEYS, VALUE, INDEX):
        raise InvalidFields(f"{text!r} is no element of a path: it begins with f:, k:, v: or i:")
    try:
        value = json.loads(rest)
        found = kind + compact(value)
        found.encode()  # an escape may be half of a surrogate pair
    except (ValueError, RecursionError) as error:
        raise InvalidFields(f"{str(text)[:100]!r} is no element of a path: {error}") from error
    if kind == KEYS and not isinstance(value, dict):
        raise InvalidFields(f"{text!r} is no element of a path: the keys are not an object")
    return found


def encoded(fields: Iterable[Path]) -> Json:
    """Return the FieldsV1 document of a set."""
    root: Json = {}
    for path in sorted(fields):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node[_SELF] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        for element, below in node.items():
            if below == {_SELF: {}}:
                node[element] = {}
            elif element != _SELF:
                waiting.append(below)
    return root


def display(path: Path) -> str:
    """Return a path as messages show it: `.spec.containers[name="web"].image`."""
    return "".join(map(_shown, path))


def _shown(element: str) -> str:
    kind, rest = element[:2], element[2:]
    if kind == FIELD:
        return f".{rest}"
    if kind == KEYS:
        keys: Mapping[str, Any] = json.loads(rest)
        return f"[{','.join(f'{key}={compact(value)}' for key, value in sorted(keys.items()))}]"
    return f"[={rest}]" if kind == VALUE else f"[{rest}]"
