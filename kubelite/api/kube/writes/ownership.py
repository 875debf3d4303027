"""Who writes an object, and which managers it has after a write that is no apply (applying.py).

The rules of sets are in kubelite/managed_fields. Source: apiserver pkg/endpoints/handlers/create.go
(managerOrUserAgent), apimachinery pkg/util/managedfields.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from starlette.requests import Request

from kubelite.api.kube.resources import Resource
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from kubelite.managed_fields.managers import (
    LONGEST_NAME,
    MISSING,
    InvalidManagers,
    Manager,
    Managers,
    Operation,
    entries_of,
    is_reset,
    managers_of,
    name_error,
    recorded_managers,
    updated,
)
from kubelite.managed_fields.schema import Struct, of_kind
from kubelite.sources.manifest_part import stripped
from manifests.yaml.loader import KINDS

#: Gets the objects that a manifest describes before and after a change.
Views = Callable[[], tuple[Json, Json]]


def manager_name(request: Request) -> str:
    """Return the field manager of a write: `fieldManager`, else the first word of the User-Agent. Raises Invalid."""
    given = request.query_params.get("fieldManager", "")
    if wrong := name_error(given):
        raise ApiError("Invalid", f"the options of the request are invalid: fieldManager: {wrong}")
    if given:
        return given
    program = request.headers.get("user-agent", "").partition("/")[0]
    name = "".join(letter for letter in program if letter.isprintable())
    return name.encode()[:LONGEST_NAME].decode(errors="ignore") or "unknown"


def tree_of(resource: Resource) -> Struct:
    return of_kind(KINDS[resource.group_version, resource.kind])


def now() -> str:
    return rfc3339(time.time())


def entries(doc: Json) -> list[Json]:
    """Return metadata.managedFields of an object."""
    found: list[Json] = doc["metadata"].get("managedFields") or []
    return found


class Updater(NamedTuple):
    """A write that is no apply: it owns what it changes."""

    name: str
    resource: Resource
    subresource: str = ""

    def of_new(self, doc: Json) -> list[Json]:
        """Return the managers of a new object. `doc`: with its defaults."""
        by = Manager(self.name, Operation.UPDATE, self.resource.group_version, self.subresource)
        return entries_of(updated({}, MISSING, stripped(doc), tree_of(self.resource), by=by, time=now()))

    def of_changed(self, current: Json, new: Json, views: Views | None) -> list[Json]:
        """Return the managers of an object that is changed. An object without managers gets none. `new`: as the client
        sends it, perhaps with managers; `views`: None if only these change."""
        managers = _given(current, new, self.subresource)
        if not managers or views is None:
            return entries_of(managers)
        old, changed = (stripped(doc) for doc in views())
        by = Manager(self.name, Operation.UPDATE, self.resource.group_version, self.subresource)
        return entries_of(updated(managers, old, changed, tree_of(self.resource), by=by, time=now()))


def _given(current: Json, new: Json, subresource: str) -> Managers:
    """Return the managers that a client sends with an object, as most send them back; or the recorded ones, if it sends
    none, or what cannot be read."""
    sent = new["metadata"].get("managedFields")
    if not subresource and sent is not None:
        if is_reset(sent):
            return {}
        try:
            if found := managers_of(sent):
                return found
        except InvalidManagers:
            pass
    return recorded_managers(entries(current))
