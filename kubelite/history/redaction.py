"""Removes the values of Secrets from the manifests in history, and restores them.

History retains the text of a file without these values. Otherwise a deleted or rotated Secret would stay on the disk as
long as history is retained. A rollback takes the values from the Secrets that exist.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_VALUES = ("data", "stringData")
#: The text that replaces a value: "(redacted)" in base64, because `data` must be base64.
REDACTED = "KHJlZGFjdGVkKQ=="


class Value(NamedTuple):
    """A value of a Secret and its place in the text."""

    namespace: str
    name: str
    field: str  # data or stringData
    key: str
    start: int
    end: int
    block: bool  # a block scalar, whose end includes the line break


class Lost(Exception):
    """A value of a Secret is in no object of the node. The message names the Secret and the key."""


def redact(text: str) -> str | None:
    """Return the text without the values of its Secrets. Return None if that is not possible: the text is not valid
    YAML, or the result would not be (a value has an anchor that is used elsewhere)."""
    if "Secret" not in text:
        return text
    try:
        redacted = _replaced(text, dict.fromkeys(_values(text), REDACTED))
        for _ in yaml.compose_all(redacted, Loader=_LOADER):
            pass
    except yaml.YAMLError:
        return None
    return redacted


def restore(text: str, secrets: Mapping[tuple[str, str], Mapping[str, str]]) -> str:
    """Return a redacted text with the values of the present Secrets. `secrets`: (namespace, name) → `data`, in base64.
    Raises Lost."""
    if REDACTED not in text:
        return text
    found: dict[Value, str] = {}
    for value in _values(text):
        if text[value.start : value.end].strip("\"'\n ") != REDACTED:
            continue  # recorded by an older kubelite, which retained values
        present = secrets.get((value.namespace, value.name), {}).get(value.key)
        if present is not None and value.field == "stringData":
            try:
                present = base64.b64decode(present).decode()
            except ValueError:  # not UTF-8, which stringData cannot contain
                present = None
        if present is None:
            what = f"secret {value.namespace}/{value.name}"
            raise Lost(f"history does not retain the values of Secrets, and {what} has no {value.key!r} now")
        found[value] = present
    return _replaced(text, found)


def _replaced(text: str, by: Mapping[Value, str]) -> str:
    pieces, at = [], 0
    for value in sorted(by, key=lambda value: value.start):
        if value.start < at:
            continue  # an alias of a value that has been replaced
        pieces += [text[at : value.start], json.dumps(by[value]), "\n" if value.block else ""]
        at = value.end
    return "".join([*pieces, text[at:]])


def _values(text: str) -> Iterator[Value]:
    for root in yaml.compose_all(text, Loader=_LOADER):
        for node in _secrets(root):
            fields = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
            about = fields.get("metadata")
            pairs = about.value if isinstance(about, yaml.MappingNode) else ()
            metadata = {key.value: value.value for key, value in pairs if isinstance(key, yaml.ScalarNode)}
            namespace, name = str(metadata.get("namespace") or "default"), str(metadata.get("name"))
            for field in _VALUES:
                given = fields.get(field)
                if not isinstance(given, yaml.MappingNode):
                    continue
                for key, value in given.value:
                    block = isinstance(value, yaml.ScalarNode) and value.style in ("|", ">")
                    start, end = value.start_mark.index, value.end_mark.index
                    if start < end:  # `key:` has no value
                        yield Value(namespace, name, field, str(key.value), start, end, block)


def _secrets(node: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """Yield the Secrets at any depth, because they may be items of a List. Visit each node once: aliases may form a
    circle, or name the same node millions of times."""
    waiting = [node] if node is not None else []
    visited: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in visited:
            continue
        visited.add(id(one))
        if isinstance(one, yaml.SequenceNode):
            waiting += one.value
        elif isinstance(one, yaml.MappingNode):
            kinds = [v.value for k, v in one.value if k.value == "kind"]
            if "Secret" in kinds:
                yield one
            else:
                waiting += [value for _, value in one.value]
