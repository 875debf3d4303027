"""Applies patches to documents: strategic merge patches, JSON merge patches (RFC 7386), JSON patches (RFC 6902). Pure.

Source: Kubernetes, staging/src/k8s.io/apimachinery/pkg/util/strategicpatch/patch.go; the merge keys are the
`patchMergeKey` tags in staging/src/k8s.io/api. One thing differs: an item that a strategic merge patch adds to a list
is appended, where Kubernetes puts it first. So the manifest's own items keep their places, lines and comments, and the
first container stays the default one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from kubelite.kube.json import Json

#: List → the key that identifies its items. Other lists are replaced as a whole.
MERGE_KEYS = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),  # of a container, of a Service
    "resourceClaims": ("name",),
    "schedulingGates": ("name",),
    "secrets": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
_PRIMITIVE_SETS = frozenset(("finalizers",))  # lists of words to which a patch adds
_DELETE_WORDS = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"
_MISSING = object()


#: Limits of a JSON patch. Source: apiserver pkg/endpoints/handlers/patch.go (maxJSONPatchOperations) and
#: pkg/server/config.go (JSONPatchMaxCopyBytes). Each operation that copies a field into itself doubles it.
MOST_OPERATIONS = 10_000
MOST_COPIED = 3 << 20  # bytes of JSON


class CannotPatch(Exception):
    """The patch cannot be applied to the document; the message says why."""


class TooLarge(CannotPatch):
    """The patch has too many operations, or copies too much."""


def identity(name: str, *lists: Sequence[Any]) -> Callable[[Json], object] | None:
    """Return what tells the items of lists of this name apart: their merge key, that of ports with the protocol if the
    number is there twice. None if nothing does."""
    for key in MERGE_KEYS.get(name, ()):
        for other in ("", "protocol") if name == "ports" else ("",):
            found = partial(_identity, key, other)
            if all(_told_apart(list(map(found, items))) for items in lists):
                return found
    return None


def _identity(key: str, other: str, item: Any) -> object:
    value = item.get(key) if isinstance(item, dict) else None
    if not other or value is None:
        return value
    return f"{value}/{item.get(other) or 'TCP'}"


def _told_apart(values: Sequence[object]) -> bool:
    return all(isinstance(one, str | int) for one in values) and len(set(values)) == len(values)


def patched(document: Json, patch: Any, kind: str) -> Json:
    """Return the document with a patch of a kind: strategic, merge or json. Raises CannotPatch."""
    if kind == "json":
        return json_patched(document, patch)
    if not isinstance(patch, dict):
        raise CannotPatch(f"a {kind} patch is a JSON object")
    found = strategic(document, patch) if kind == "strategic" else merged(document, patch)
    return found if isinstance(found, dict) else {}


def merged(document: Any, patch: Any) -> Any:
    """Apply a JSON merge patch: null removes a field, and lists are replaced."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


# -- strategic merge patches --------------------------------------------------------------------------------------


def strategic(document: Any, patch: Mapping[str, Any]) -> Json:
    """Apply a strategic merge patch. Directives: $patch, $retainKeys, $deleteFromPrimitiveList. Raises CannotPatch."""
    how = patch.get("$patch", "merge")
    if how not in ("merge", "replace", "delete"):
        raise CannotPatch(f'$patch is merge, replace or delete, not "{how}"')
    if how == "delete":
        return {}
    found: Json = {} if how == "replace" or not isinstance(document, dict) else dict(document)
    if "$retainKeys" in patch:
        found = {key: value for key, value in found.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith(_DELETE_WORDS):
            name = key.removeprefix(_DELETE_WORDS)
            found[name] = [word for word in found.get(name) or () if word not in value]
        elif key.startswith("$"):
            if key not in ("$patch", "$retainKeys") and not key.startswith(_ORDER):
                raise CannotPatch(f'unknown directive "{key}"')
        elif value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            found[key] = strategic(found.get(key), value)
        elif isinstance(value, list):
            found[key] = _merged_list(key, found.get(key) or [], value)
        else:
            found[key] = value
    return found


def _merged_list(name: str, old: list[Any], patch: list[Any]) -> list[Any]:
    if name in _PRIMITIVE_SETS:
        return old + [word for word in patch if word not in old]
    if {"$patch": "replace"} in patch:
        return [copy.deepcopy(item) for item in patch if item != {"$patch": "replace"}]
    items = [item for item in (*old, *patch) if isinstance(item, dict)]
    key = next((one for one in MERGE_KEYS.get(name, ()) if any(one in item for item in items)), None)
    if key is None or len(items) < len(old) + len(patch):
        return copy.deepcopy(patch)
    found = list(old)
    for item in patch:
        if key not in item:
            raise CannotPatch(f"an item of {name} in a strategic merge patch needs its {key}")
        at = next((at for at, one in enumerate(found) if one.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            found = [one for one in found if one.get(key) != item[key]]
        elif at is None:
            found.append(strategic({}, item))
        else:
            found[at] = strategic(found[at], item)
    return found


# -- JSON patches -------------------------------------------------------------------------------------------------


def json_patched(document: Json, patch: Any) -> Json:
    """Apply a JSON patch. Raises CannotPatch, and then nothing of it applies."""
    if not isinstance(patch, list) or not all(isinstance(step, dict) for step in patch):
        raise CannotPatch("a json patch is a list of operations")
    if len(patch) > MOST_OPERATIONS:
        raise TooLarge(
            f"the allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {len(patch)}"
        )
    found, copied = copy.deepcopy(document), 0
    for step in patch:
        copied += _copied(found, step)
        if copied > MOST_COPIED:
            raise TooLarge(f"the operations copy of a JSON patch copy more than {MOST_COPIED} bytes")
        operation = _OPERATIONS.get(str(step.get("op")))
        if operation is None:
            raise CannotPatch(f'unknown operation "{step.get("op")}": {", ".join(_OPERATIONS)}')
        operation(found, step)
    return found


def _copied(document: Json, step: Json) -> int:
    """Return how much an operation copies, in bytes of JSON."""
    if step.get("op") != "copy":
        return 0
    source = _pointer(step, "from")
    return len(json.dumps(_child(_parent(document, source), source[-1]), default=lambda missing: None))


def _pointer(step: Json, field: str = "path") -> list[str]:
    """Read a JSON pointer (RFC 6901)."""
    text = step.get(field)
    if not isinstance(text, str) or not text.startswith("/"):
        raise CannotPatch(f'"{field}" of an operation is a pointer such as /spec/replicas')
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _parent(document: Any, path: list[str]) -> Any:
    place = document
    for part in path[:-1]:
        place = _child(place, part)
        if place is _MISSING:
            raise _absent(path)
    return place


def _child(place: Any, part: str) -> Any:
    if isinstance(place, dict):
        return place.get(part, _MISSING)
    if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
        return place[int(part)]
    return _MISSING


def _absent(path: list[str]) -> CannotPatch:
    where = "/".join(("", *path))
    return CannotPatch(
        f"the manifest has no {where}; a field that has its default is set with the operation add"
    )


def _value(step: Json) -> Any:
    if "value" not in step:
        raise CannotPatch(f'the operation {step["op"]} needs a "value"')
    return copy.deepcopy(step["value"])


def _put(document: Json, path: list[str], value: Any) -> None:
    place, last = _parent(document, path), path[-1]
    if isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list) and (last == "-" or (last.isdecimal() and int(last) <= len(place))):
        place.insert(len(place) if last == "-" else int(last), value)
    else:
        raise _absent(path)


def _take(document: Json, path: list[str]) -> Any:
    place, last = _parent(document, path), path[-1]
    if _child(place, last) is _MISSING:
        raise _absent(path)
    return place.pop(last if isinstance(place, dict) else int(last))


def _add(document: Json, step: Json) -> None:
    _put(document, _pointer(step), _value(step))


def _remove(document: Json, step: Json) -> None:
    _take(document, _pointer(step))


def _replace(document: Json, step: Json) -> None:
    path, value = _pointer(step), _value(step)
    place = _parent(document, path)
    if _child(place, path[-1]) is _MISSING:
        raise _absent(path)
    place[path[-1] if isinstance(place, dict) else int(path[-1])] = value


def _move(document: Json, step: Json) -> None:
    _put(document, _pointer(step), _take(document, _pointer(step, "from")))


def _copy(document: Json, step: Json) -> None:
    source = _pointer(step, "from")
    found = _child(_parent(document, source), source[-1])
    if found is _MISSING:
        raise _absent(source)
    _put(document, _pointer(step), copy.deepcopy(found))


def _test(document: Json, step: Json) -> None:
    path = _pointer(step)
    if _child(_parent(document, path), path[-1]) != _value(step):
        raise CannotPatch(f"the test of {step['path']} failed: the manifest has another value")


_OPERATIONS: dict[str, Callable[[Json, Json], None]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
