"""The query parameter `fieldValidation`: how the API treats unknown and duplicate fields of an object.

Strict refuses the request; kubectl sends this value unless `--validate` says otherwise. Warn, an API server's default,
leaves the fields out of the manifest and answers with a warning for each. Ignore leaves them out silently. Source:
apiserver pkg/endpoints/handlers/create.go and pkg/runtime/serializer/json (strict decoding errors);
metav1.CreateOptions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from starlette.requests import Request

from kubelite.api.kube.resources import Resource
from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.json import Json
from manifests.problems import InvalidObject, Path
from manifests.yaml.loader import KINDS

_UNKNOWN = "unknown field"  # how manifests/problems.py begins


class Mode(StrEnum):
    IGNORE = "Ignore"
    STRICT = "Strict"
    WARN = "Warn"


def mode_of(request: Request) -> Mode:
    """Return the mode that a request asks for. Raises Invalid."""
    given = request.query_params.get("fieldValidation") or Mode.WARN
    if given not in list(Mode):
        supported = ", ".join(f'"{mode}"' for mode in Mode)
        words = f'fieldValidation: Unsupported value: "{given[:40]}": supported values: {supported}'
        raise ApiError("Invalid", f"the options of the request are invalid: {words}")
    return Mode(given)


def known_fields(
    doc: Json, resource: Resource, mode: Mode, duplicates: Sequence[str]
) -> tuple[Json, list[str]]:
    """Return the object without its unknown fields, and the warnings. `duplicates`: names of fields that were given
    twice. Raises BadRequest in the mode Strict."""
    unknown = _unknown(doc, resource)
    said = [f'unknown field "{name}"{hint}' for _, name, hint in unknown]
    said += [f'duplicate field "{name}"' for name in dict.fromkeys(duplicates)]
    if said and mode is Mode.STRICT:
        version = resource.group_version.rpartition("/")[2]
        head = f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}'
        raise bad_request(f"{head}: strict decoding error: {', '.join(said)}")
    if unknown:
        doc = copy.deepcopy(doc)
        for path, _, _ in unknown:
            _remove(doc, path)
    return doc, said if mode is Mode.WARN else []


def undeclared(doc: Json, resource: Resource) -> list[str]:
    """Return the names of the fields that the kind does not have."""
    return [name for _, name, _ in _unknown(doc, resource)]


def _unknown(doc: Json, resource: Resource) -> list[tuple[Path, str, str]]:
    """Return path, name and a hint for each unknown field."""
    try:
        KINDS[resource.group_version, resource.kind].parse(doc)
    except InvalidObject as error:
        return [
            (problem.path, problem.field, problem.message.removeprefix(_UNKNOWN))
            for problem in error.problems
            if problem.message.startswith(_UNKNOWN)
        ]
    return []


def _remove(doc: Any, path: Path) -> None:
    *parents, last = path
    for part in parents:
        doc = doc[part]
    doc.pop(last, None)
