"""Who owns which fields of an object: metadata.managedFields, and how writes change it. Pure.

A write that is no apply owns what it changes (`updated`). An apply owns what it says, must not change what others own
(`Conflicts`), and removes what it said before and nobody owns any more (`applied`).

Source: sigs.k8s.io/structured-merge-diff merge/update.go; apimachinery pkg/util/managedfields/internal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any, NamedTuple

from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.managed_fields.fields import (
    FIELD,
    NOTHING,
    FieldSet,
    InvalidFields,
    Path,
    decoded,
    display,
    encoded,
)
from kubelite.managed_fields.schema import Node
from kubelite.managed_fields.values import (
    MISSING,
    Misfit,
    difference,
    fields_of,
    merged,
    removed,
    with_structs,
)

FIELDS_TYPE = "FieldsV1"
LONGEST_NAME = 128  # bytes of a manager's name
MOST_UPDATERS = 10  # entries of updates; the oldest ones are merged
MANIFESTS = "kubelite-directory"  # the manager of what is edited in a manifest by other means than the API
_OLD = "ancient-changes"  # the manager of merged entries
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_IDENTITY = (
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
)
#: Fields that nobody owns.
_UNOWNED: FieldSet = frozenset(
    {
        *((f"{FIELD}{name}",) for name in ("apiVersion", "kind", "metadata")),
        *((f"{FIELD}metadata", f"{FIELD}{name}") for name in _IDENTITY),
    }
)


class Operation(StrEnum):
    APPLY = "Apply"
    UPDATE = "Update"


class Manager(NamedTuple):
    """What tells the entries apart. `version`: "" for an apply, whose version may change."""

    name: str
    operation: Operation
    version: str = ""
    subresource: str = ""

    @property
    def words(self) -> str:
        """Return how messages name the manager."""
        name = f'"{self.name}"'
        if self.subresource:
            name = f'{name} with subresource "{self.subresource}"'
        return f"{name} using {self.version}" if self.operation is Operation.UPDATE else name


class Owned(NamedTuple):
    """What a manager owns. `time`: of its last change, RFC 3339."""

    version: str
    fields: FieldSet
    time: str = ""


Managers = Mapping[Manager, Owned]


class InvalidManagers(ValueError):
    """The list is no managedFields; the message says why."""


class Conflicts(Exception):
    """An apply would change fields that others own: (manager, path) of each."""

    def __init__(self, found: Sequence[tuple[Manager, Path]]) -> None:
        self.found = tuple(found)
        super().__init__(_conflict_message(self.found))


def _conflict_message(found: Sequence[tuple[Manager, Path]]) -> str:
    if len(found) == 1:
        manager, path = found[0]
        return f"Apply failed with 1 conflict: conflict with {manager.words}: {display(path)}"
    paths: dict[Manager, list[Path]] = {}
    for manager, path in found:
        paths.setdefault(manager, []).append(path)
    lines: list[str] = []
    for manager in sorted(paths):
        lines.append(f"conflicts with {manager.words}:")
        lines += [f"- {display(path)}" for path in paths[manager]]
    return f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)


# -- the form in metadata -----------------------------------------------------------------------------------------


def managers_of(entries: object) -> Managers:
    """Return the managers that metadata.managedFields names. Raises InvalidManagers."""
    if entries is None:
        return {}
    if not isinstance(entries, list):
        raise InvalidManagers("metadata.managedFields is not a list")
    found: dict[Manager, Owned] = {}
    for at, entry in enumerate(entries):
        try:
            manager, owned = _parsed(entry)
        except (InvalidFields, InvalidManagers) as error:
            raise InvalidManagers(f"metadata.managedFields[{at}]: {error}") from error
        found[manager] = owned
    return found


def recorded_managers(entries: Iterable[Json]) -> Managers:
    """Return the managers of a recorded object. What cannot be read of them belongs to nobody."""
    found: dict[Manager, Owned] = {}
    for entry in entries:
        with suppress(InvalidFields, InvalidManagers):
            manager, owned = _parsed(entry)
            found[manager] = owned
    return found


def _parsed(entry: object) -> tuple[Manager, Owned]:
    if not isinstance(entry, dict):
        raise InvalidManagers("is not an object")
    if entry.get("operation") not in list(Operation):
        raise InvalidManagers("operation must be `Apply` or `Update`")
    if entry.get("fieldsType") != FIELDS_TYPE:
        raise InvalidManagers(f"fieldsType must be `{FIELDS_TYPE}`")
    words = [entry.get(key) or "" for key in ("manager", "apiVersion", "subresource", "time")]
    if not all(isinstance(word, str) for word in words):
        raise InvalidManagers("manager, apiVersion, subresource and time must be strings")
    name, version, subresource, time = words
    if not version:
        raise InvalidManagers("apiVersion must not be empty")
    if wrong := name_error(name):
        raise InvalidManagers(f"manager: {wrong}")
    if time and (_RFC3339.fullmatch(time) is None or parse_time(time) is None):
        raise InvalidManagers("time is not an RFC 3339 time")  # clients could not read the object
    operation = Operation(entry["operation"])
    manager = Manager(name, operation, "" if operation is Operation.APPLY else version, subresource)
    fields = entry.get("fieldsV1")
    return manager, Owned(version, decoded({} if fields is None else fields) - _UNOWNED, time)


def name_error(name: str) -> str:
    """Return why this is no name of a manager; "" if it is one. Source: apimachinery
    pkg/apis/meta/v1/validation (ValidateFieldManager)."""
    if len(name.encode()) > LONGEST_NAME:
        return f"Too long: may not be more than {LONGEST_NAME} bytes"
    return "" if name.isprintable() else "Invalid value: should only contain printable characters"


def is_reset(entries: object) -> bool:
    """Whether a client asks that the managers are forgotten: by an empty list, or one with an empty entry."""
    return entries in ([], [{}])


def entries_of(managers: Managers) -> list[Json]:
    """Return metadata.managedFields, in the order of an API server: applies first, then by time."""

    def order(item: tuple[Manager, Owned]) -> tuple[str, ...]:
        manager, owned = item
        return manager.operation, owned.time, manager.name, owned.version, manager.subresource

    return [_entry(manager, owned) for manager, owned in sorted(managers.items(), key=order)]


def _entry(manager: Manager, owned: Owned) -> Json:
    found: Json = {
        "apiVersion": owned.version,
        "fieldsType": FIELDS_TYPE,
        "fieldsV1": encoded(owned.fields),
        "manager": manager.name,
        "operation": str(manager.operation),
    }
    if manager.subresource:
        found["subresource"] = manager.subresource
    return {**found, "time": owned.time} if owned.time else found


# -- how writes change it -----------------------------------------------------------------------------------------


def updated(managers: Managers, old: Any, new: Any, node: Node, *, by: Manager, time: str) -> Managers:
    """Return the managers after a write that is no apply. `old`: MISSING for an object that is created.

    A list may have items without the keys that identify them, such as `secrets: [{kind: Secret}]` of a ServiceAccount.
    Such a write changes no owner, as in an API server (fieldmanager.go, UpdateNoErrors)."""
    try:
        found = difference(old, new, node)
    except Misfit:
        return managers
    taken = (found.modified | found.added) - _UNOWNED
    left = _without(managers, found.modified | found.added | found.removed)
    if taken:
        before = left.get(by)
        left[by] = Owned(by.version, taken | (before.fields if before is not None else NOTHING), time)
    return _capped(left)


def owner_of_all(value: Any, node: Node, *, by: Manager, time: str) -> Managers:
    """Return the managers of an object of which nothing is known: one has set all that it says."""
    fields = fields_of(value, node) - _UNOWNED
    return {by: Owned(by.version, fields, time)} if fields else {}


class Applied(NamedTuple):
    value: Any
    managers: Managers


def applied(
    managers: Managers,
    live: Any,
    configuration: Any,
    node: Node,
    *,
    by: Manager,
    version: str,
    force: bool = False,
    time: str,
) -> Applied:
    """Return an object and its managers after an apply. `configuration`: what the manager wants, and nothing else.
    Raises Conflicts unless `force`, and Misfit."""
    before = managers.get(by)
    fields = fields_of(configuration, node) - _UNOWNED
    value = merged(live, configuration, node)
    others = {manager: owned for manager, owned in managers.items() if manager != by}
    if before is not None and before.fields:
        value = _pruned(value, before.fields, [fields, *(owned.fields for owned in others.values())], node)
    changes = difference(live, value, node)
    found = changes.modified | changes.added
    if not force:
        conflicts = [
            (manager, path) for manager, owned in others.items() for path in sorted(owned.fields & found)
        ]
        if conflicts:
            raise Conflicts(conflicts)
    left = _without(others, found | changes.removed)
    if fields:
        same = before is not None and before.fields == fields and not any(changes)
        left[by] = Owned(version, fields, before.time if before is not None and same else time)
    return Applied(value, left)


def _pruned(value: Any, last: FieldSet, owned: Iterable[FieldSet], node: Node) -> Any:
    """Return a merged value without what the manager applied before, unless it applies it still, or another owns it.
    What is in a removed item goes with it, if nobody owns it."""
    last = with_structs(last, node)
    everything = with_structs(fields_of(value, node), node)
    needed = with_structs(NOTHING.union(*owned), node)

    def left(found: Any) -> FieldSet:
        return with_structs(fields_of(found, node), node) if found is not None else NOTHING

    first = removed(value, last, node)
    second = removed(value, everything - (left(first) | needed), node)
    found = removed(value, (everything - left(second)) & last, node)
    return found if found is not None else {}


def _without(managers: Managers, fields: FieldSet) -> dict[Manager, Owned]:
    """Return the managers without fields. One that has none left is gone."""
    found = {manager: owned._replace(fields=owned.fields - fields) for manager, owned in managers.items()}
    return {manager: owned for manager, owned in found.items() if owned.fields}


def _capped(managers: dict[Manager, Owned]) -> Managers:
    """Merge the oldest updates of a version, so that a program that changes its name does not let the list grow."""
    updates = [one for one in managers if one.operation is Operation.UPDATE]
    updates.sort(key=lambda manager: (managers[manager].time, manager))
    first: dict[str, Manager] = {}
    count = len(updates)
    for manager in updates:
        if count <= MOST_UPDATERS:
            break
        version = managers[manager].version
        if version not in first:
            first[version] = manager
            continue
        bucket = Manager(_OLD, Operation.UPDATE, version)
        if bucket not in managers:
            managers[bucket] = managers.pop(first[version])
        if manager != bucket:
            one = managers.pop(manager)
            managers[bucket] = Owned(version, managers[bucket].fields | one.fields, one.time)
            count -= 1
    return managers


__all__ = [
    "MISSING",
    "Applied",
    "Conflicts",
    "InvalidManagers",
    "Manager",
    "Managers",
    "Operation",
    "Owned",
    "applied",
    "entries_of",
    "is_reset",
    "managers_of",
    "name_error",
    "owner_of_all",
    "recorded_managers",
    "updated",
]
