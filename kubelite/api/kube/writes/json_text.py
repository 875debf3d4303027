"""Reads the JSON in the body of a request, and refuses what no object of Kubernetes' API can say. Pure.

The reader of manifests would read JSON as well, in 18 times the time: an unprivileged user could keep the node
busy with one review of 3 MiB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from manifests.yaml.document import MAX_DEPTH

_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBERS = range(-(2**63), 2**64)  # what an int64 or uint64 of Go holds


class CannotRead(ValueError):
    """The text is no JSON for this API. The message says why."""


class Read(NamedTuple):
    """`duplicates`: names of fields that an object has twice. As in a manifest, the first one counts."""

    data: Any
    duplicates: tuple[str, ...]


def read(text: str) -> Read:
    """Return the data in a JSON text. Raises CannotRead."""
    duplicates: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            found = {}
            for key, value in pairs:
                if key in found:
                    duplicates.append(key)
                found.setdefault(key, value)
        return found

    try:
        data = json.loads(text, object_pairs_hook=once, parse_constant=_constant)
    except RecursionError:
        raise CannotRead(f"nested more than {MAX_DEPTH} deep") from None
    except json.JSONDecodeError as error:
        raise CannotRead(f"{error.msg} (line {error.lineno}, column {error.colno})") from None
    except ValueError as error:  # a number of thousands of digits, NaN
        raise CannotRead(str(error)) from None
    return Read(_sound(data), tuple(duplicates))


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _sound(data: Any) -> Any:
    """Return the data with whole numbers as integers, as the reader of manifests has them. Raises CannotRead."""
    whole = [data]
    level: list[Any] = [whole]
    depth = 0
    while level:
        if depth > MAX_DEPTH:
            raise CannotRead(f"nested more than {MAX_DEPTH} deep")
        below: list[Any] = []
        for place in level:
            for key, value in _entries(place):
                if type(value) in (dict, list):
                    below.append(value)
                elif (better := _scalar(value)) is not value:
                    place[key] = better
        level, depth = below, depth + 1
    return whole[0]


def _entries(place: Any) -> Iterator[tuple[Any, Any]]:
    if type(place) is list:
        return enumerate(place)
    for key in place:
        _scalar(key)
    return iter(place.items())  # a value may be replaced meanwhile: the keys stay


def _scalar(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        if not value.isascii() and _SURROGATE.search(value):
            raise CannotRead("a string has half of a surrogate pair, which is no character")
    elif kind is int:
        if value not in _NUMBERS:
            raise CannotRead(f"a number is out of range: {str(value)[:40]}")
    elif kind is float:
        if value in (float("inf"), float("-inf")):
            raise CannotRead("a number is out of range")
        if value.is_integer() and abs(value) < 1e21:
            return int(value)
    return value
