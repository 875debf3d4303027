"""Edits of workloads that are refused because a field cannot change: their lines, and one event on each object.

The plan compares documents, which have no lines. The file is read again for these, once for each edit of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from kubelite.kube.json import Json
from kubelite.sources.files import read_text
from kubelite.sources.plan import ManifestState, Problem
from state.store import Store

Problems = Mapping[str, tuple[Problem, ...]]
_PART = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


class _Known(NamedTuple):
    """The problems of a file. `signature`: the file's when its lines were found."""

    signature: tuple[int, ...]
    given: tuple[Problem, ...]
    located: tuple[Problem, ...]


class Refused:
    """Remembers which edits were refused, and reports each once. `report` gets the object's document and a sentence."""

    def __init__(self, store: Store, report: Callable[[Json, str], None]) -> None:
        self._store = store
        self._report = report
        self._known: dict[str, _Known] = {}

    def located(self, problems: Problems, files: Mapping[str, ManifestState]) -> Problems:
        """Return the problems of the files (path → problems) with lines, and report those that are new."""
        before, self._known = self._known, {}
        for file, given in problems.items():
            signature, known = files[file].signature, before.get(file)
            if known is None or (known.signature, known.given) != (signature, given):
                self._say(file, [one for one in given if known is None or one not in known.given])
                known = _Known(signature, given, tuple(_with_lines(file, given)))
            self._known[file] = known
        return {file: known.located for file, known in self._known.items()}

    def _say(self, file: str, new: list[Problem]) -> None:
        for name in dict.fromkeys(one.object for one in new if one.kind in ("invalid", "forbidden")):
            kind, _, place = name.partition(" ")
            record = self._store.get(kind, *place.split("/", 1))
            if record is not None:
                own = [one for one in new if one.object == name]
                sentences = [one.sentence(file) for one in _with_lines(file, own)]
                self._report(
                    record.doc, f"{'; '.join(sentences)}; an earlier version of the manifest applies"
                )


def _with_lines(file: str, problems: tuple[Problem, ...] | list[Problem]) -> Iterator[Problem]:
    """Yield the problems, those of a field with its line. One of a file that cannot be read has none."""
    if not any(one.object for one in problems):
        yield from problems
        return
    try:
        text = read_text(file)
    except (OSError, UnicodeDecodeError):
        text = ""
    for one in problems:
        yield replace(one, line=line_of(text, one.object, one.field, file)) if one.object else one


def line_of(text: str, name: str, field: str, file: str = "") -> int:
    """Return the line of an object's field, or of the nearest field around it; 0 if the text has no such object.
    `name`: as `Problem.object`. `file`: the path of the text. Pure."""
    from manifests.yaml.document import YamlDocument, read_documents
    from manifests.yaml.object_names import GeneratedNames, objects_in

    path = tuple(_part(match) for match in _PART.finditer(field))
    names = GeneratedNames(file)
    for document in read_documents(text):
        if not isinstance(document, YamlDocument):
            continue
        for prefix, item in objects_in(document.data):
            if _name_of(names.named(item)) == name:
                return document.locate((*prefix, *path))[0]
    return 0


def _part(match: re.Match[str]) -> str | int:
    inside, name = match.groups()
    return name if inside is None else int(inside) if inside.isdigit() else inside


def _name_of(doc: Any) -> str:
    metadata = doc.get("metadata") if isinstance(doc, dict) else None
    if not isinstance(metadata, dict):
        return ""
    return f"{doc.get('kind')} {metadata.get('namespace') or 'default'}/{metadata.get('name')}"
