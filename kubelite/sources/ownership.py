"""metadata.managedFields of objects whose manifests change: they are recorded with the object, and are in no manifest.

The API says who has written what it writes (`given`). Other edits of a manifest belong to the manager
`kubelite-directory`, if the object has managers at all: one that was created from a file has none until the first
server-side apply, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from kubelite.kube.json import Json

Key = tuple[str, str, str]  # kind, namespace, name
Owners = Mapping[Key, list[Json]]  # metadata.managedFields
NONE_GIVEN: Owners = {}


class Ownership:
    """`clock`: Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._given: Owners = NONE_GIVEN

    @contextmanager
    def given(self, owners: Owners) -> Iterator[None]:
        """Record these managers with the objects, as far as they change meanwhile."""
        self._given = owners
        try:
            yield
        finally:
            self._given = NONE_GIVEN

    def of_new(self, key: Key, doc: Json) -> Json:
        """Return a new object with its managers, if some were given."""
        return with_managers(doc, self._given[key]) if key in self._given else doc

    def of_edited(self, key: Key, old: Json, new: Json) -> Json:
        """Return a changed object with its managers. `old`: as it is recorded."""
        if key in self._given:
            return with_managers(new, self._given[key])
        if "managedFields" not in old["metadata"]:
            return new
        return with_managers(new, _edited_by_hand(old, new, self._clock()))


def with_managers(doc: Json, entries: list[Json]) -> Json:
    """Return an object with metadata.managedFields; without the field, if there are no entries."""
    metadata = {key: value for key, value in doc["metadata"].items() if key != "managedFields"}
    return {**doc, "metadata": {**metadata, **({"managedFields": entries} if entries else {})}}


def _edited_by_hand(old: Json, new: Json, now: float) -> list[Json]:
    from kubelite.kube.times import rfc3339
    from kubelite.managed_fields.managers import (
        MANIFESTS,
        Manager,
        Operation,
        entries_of,
        recorded_managers,
        updated,
    )
    from kubelite.managed_fields.schema import of_kind
    from kubelite.sources.manifest_part import stripped
    from manifests.yaml.loader import KINDS

    before: list[Json] = old["metadata"]["managedFields"]
    kind = KINDS.get((new["apiVersion"], new["kind"]))
    if kind is None:
        return before
    by = Manager(MANIFESTS, Operation.UPDATE, new["apiVersion"])
    views = (stripped(old), stripped(new))
    return entries_of(updated(recorded_managers(before), *views, of_kind(kind), by=by, time=rfc3339(now)))
