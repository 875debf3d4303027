# ruff: noqa: E501 - tables, a line an entry
"""Random changes to a JSON document: values of other types, missing, duplicate and exchanged keys, and bytes that are
no longer JSON."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1 << 31, 1 << 63, 1 << 64, -(1 << 63) - 1, 10**40, 0.5, float("nan"), float("inf"), "",
    "x", "\0", "\ud800", "/", "..", "/..", "a" * 5000, "\u202e", "%s%n", "-1", "null", [], {}, [[]], [None], [{}], {"": ""},
    {"x": None}, [0] * 300,
)  # fmt: skip


def mutated(document: Any, random: Random) -> bytes:
    """The bytes of a copy with one to four changes."""
    made = copy.deepcopy(document)
    for _ in range(random.randint(1, 4)):
        places = list(_places(made))
        if not places:
            break
        holder, key = random.choice(places)
        _change(holder, key, random, places)
    text = json.dumps(made).encode()
    return _bytes(text, random) if random.random() < 0.05 else text


def _places(value: Any) -> Any:
    """(holder, key) of every value below."""
    todo = [value]
    while todo:
        holder = todo.pop()
        keys = (
            list(holder)
            if isinstance(holder, dict)
            else range(len(holder))
            if isinstance(holder, list)
            else ()
        )
        for key in keys:
            yield holder, key
            todo.append(holder[key])


def _change(holder: Any, key: Any, random: Random, places: list[Any]) -> None:
    kind = random.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == 1:
        holder[random.choice(("", "x", "\ud800", str(key).upper(), f"{key}s"))] = holder.pop(key)
    elif kind == 2:
        other, there = random.choice(places)
        if there in other if isinstance(other, dict) else there < len(other):
            holder[key] = copy.deepcopy(other[there])
    elif kind == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = random.choice((-holder[key], holder[key] + 1, holder[key] * 1000, str(holder[key])))
    elif kind == 4 and isinstance(holder[key], str):
        text = holder[key]
        at = random.randrange(len(text) + 1)
        holder[key] = text[:at] + random.choice(("\0", "/", "..", "\udcff", "é", " ", "=", ",")) + text[at:]
    else:
        holder[key] = copy.deepcopy(random.choice(ODD))


def _bytes(text: bytes, random: Random) -> bytes:
    at = random.randrange(len(text) + 1)
    return random.choice((
        text[:at], text[:at] + b"\xff" + text[at:], b"\xef\xbb\xbf" + text, text + text, b"", b"\0" * 100,
        text[:at] + b"[" * 100_000, b"1" * 5000, text.replace(b'"', b"'"), text.decode().encode("utf-16"),
    ))  # fmt: skip
