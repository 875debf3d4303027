"""Which object belongs to which: by controlling owner, by any owner, and by namespace if nothing controls it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from kubelite.controllers.references import controller_of
from kubelite.kube.objects import belongs_to_cluster, source_of
from state.records import Record


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is listed. `controller`: the uid of its controlling owner, "" if it has none; `owners`: the uids
    of all owners. `adoptable`: it comes neither from a manifest nor from a cluster, where it would come back from if a
    controller adopted and deleted it."""

    kind: str
    namespace: str
    controller: str
    owners: tuple[str, ...]
    adoptable: bool


class Index:
    """Lists the uids of objects; the store has the objects. `put` and `remove` keep it up to date."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._dependents: dict[str, str | set[str]] = {}  # by owner; a set only if there are several
        self._orphans: dict[tuple[str, str], set[str]] = {}  # by namespace and kind

    def put(self, record: Record) -> Place | None:
        """List an object as it is now. Return its previous place, None if it is new."""
        reference = controller_of(record.doc)
        owners = (str(ref.get("uid", "")) for ref in record.metadata.get("ownerReferences") or ())
        place = Place(
            record.kind,
            record.namespace,
            str(reference.get("uid", "")) if reference is not None else "",
            tuple(dict.fromkeys(owners)),
            not source_of(record) and not belongs_to_cluster(record.doc),
        )
        old = self._places.get(record.uid)
        if old != place:
            self.remove(record.uid)
            self._places[record.uid] = place
            for owner in place.owners:
                self._add_dependent(owner, record.uid)
            if not place.controller and place.adoptable:
                self._orphans.setdefault((place.namespace, place.kind), set()).add(record.uid)
        return old

    def remove(self, uid: str) -> None:
        place = self._places.pop(uid, None)
        if place is None:
            return
        for owner in place.owners:
            self._remove_dependent(owner, uid)
        if not place.controller and place.adoptable:
            found = self._orphans[place.namespace, place.kind]
            found.discard(uid)
            if not found:
                del self._orphans[place.namespace, place.kind]

    def _add_dependent(self, owner: str, uid: str) -> None:
        found = self._dependents.get(owner)
        if found is None:
            self._dependents[owner] = uid
        elif isinstance(found, str):
            self._dependents[owner] = {found, uid}
        else:
            found.add(uid)

    def _remove_dependent(self, owner: str, uid: str) -> None:
        found = self._dependents[owner]
        if isinstance(found, set):
            found.discard(uid)
        if not found or found == uid:
            del self._dependents[owner]

    def place(self, uid: str) -> Place | None:
        return self._places.get(uid)

    def controller(self, uid: str) -> str:
        """Return the uid of the object's controlling owner, "" if it has none."""
        place = self._places.get(uid)
        return place.controller if place is not None else ""

    def controlled(self, uid: str, kind: str) -> list[str]:
        """Return the uids of the objects of a kind that an owner controls."""
        places = ((one, self._places[one]) for one in self.dependents(uid))
        return [one for one, place in places if place.kind == kind and place.controller == uid]

    def orphans(self, namespace: str, kind: str) -> Collection[str]:
        """Return the uids of the objects of a kind that nothing controls."""
        return self._orphans.get((namespace, kind), ())

    def dependents(self, uid: str) -> list[str]:
        """Return the uids of the objects that refer to an owner, as their controller or not."""
        found = self._dependents.get(uid, ())
        return [found] if isinstance(found, str) else list(found)

    def owned(self) -> list[str]:
        """Return the uids of all objects that have an owner."""
        return [uid for uid, place in self._places.items() if place.owners]
