"""The objects of a document, and the names of those that have `metadata.generateName` and no name. Pure.

On a cluster the API server adds five random characters to `generateName`. A file is read again and again, so here the
five characters follow from the file's path, the object's kind and prefix, and its place among the objects of the file
with the same two. An edit of the object keeps its name, and so does a restart; a file with another path has other
objects. Within a file no two names are the same. Two files get the same name with a chance of 1 in 14 million; then
the second one is reported as any object that is defined twice.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

from manifests.problems import Path

# apimachinery pkg/util/rand (no vowels, so a name spells no word) and apiserver pkg/storage/names/generate.go.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX, LONGEST = 5, 63


def objects_in(data: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield path and data of each object in a document: the items of a List, also of one inside another, or else the
    document itself. An empty List has none."""
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or ("items" not in data and kind != "List"):
        yield path, data
        return
    items = data.get("items")
    if items is None:  # as Go reads null
        return
    if not isinstance(items, list):
        yield path, data
        return
    for index, item in enumerate(items):
        # The items of a PodList need not repeat their kind.
        own = item
        if kind != "List" and isinstance(item, dict):
            own = {"apiVersion": data.get("apiVersion"), "kind": kind.removesuffix("List"), **item}
        yield from objects_in(own, (*path, "items", index))


class GeneratedNames:
    """Gives the objects of one file their names. Ask once for each object, in the order of the file. `file`: its
    absolute path."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._counted: Counter[tuple[str, str]] = Counter()
        self._used: set[tuple[str, str]] = set()

    def named(self, data: Any) -> Any:
        """Return the object with a name, if it has only `generateName`."""
        if not (prefix := prefix_of(data)):
            return data
        kind = str(data.get("kind"))
        place = self._counted[kind, prefix]
        self._counted[kind, prefix] += 1
        attempt = 0
        while (kind, name := self._name(kind, prefix, place, attempt)) in self._used:
            attempt += 1
        self._used.add((kind, name))
        return {**data, "metadata": {**data["metadata"], "name": name}}

    def _name(self, kind: str, prefix: str, place: int, attempt: int) -> str:
        text = "\0".join((self._file, kind, prefix, str(place), str(attempt)))
        number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8])
        return _with_suffix(prefix, in_alphabet(number, SUFFIX))


def prefix_of(data: Any) -> str:
    """Return the `generateName` of an object that has no name, or ""."""
    metadata = data.get("metadata") if isinstance(data, dict) else None
    if not isinstance(metadata, dict) or metadata.get("name"):
        return ""
    prefix = metadata.get("generateName")
    return prefix if isinstance(prefix, str) else ""


def random_name(prefix: str) -> str:
    """Return a name as the API server makes it of `generateName`: another one at each call."""
    return _with_suffix(prefix, in_alphabet(secrets.randbits(64), SUFFIX))


def in_alphabet(number: int, length: int) -> str:
    """Return the lowest digits of a number, written in the characters of `ALPHABET`."""
    found = ""
    for _ in range(length):
        number, index = divmod(number, len(ALPHABET))
        found += ALPHABET[index]
    return found


def _with_suffix(prefix: str, suffix: str) -> str:
    """Return a generated name. The prefix is shortened to leave room for the suffix of five characters."""
    return prefix[: LONGEST - SUFFIX] + suffix


def may_define(text: str, name: str) -> bool:
    """Whether a file's text may have an object of this name. False is certain, and costs no parsing."""
    return name in text or ("generateName" in text and name[:-SUFFIX] in text)
