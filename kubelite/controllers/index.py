"""Which object belongs to which: by controlling owner, by any owner, and by namespace if nothing controls it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from kubelite.controllers.references import controller_of
from kubelite.kube.objects import belongs_to_cluster, source_of
from state.records import Record

_Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is listed. `controller`: the uid of its controlling owner, "" if it has none; `owners`: the uids
    of all owners. `adoptable`: it comes neither from a manifest nor from a cluster, where it would come back from if a
    controller adopted and deleted it."""

    kind: str
    namespace: str
    controller: str
    owners: frozenset[str]
    adoptable: bool

    def lists(self) -> list[_Key]:
        found = [("dependents", owner, "") for owner in self.owners]
        if self.controller:
            found.append(("controlled", self.controller, self.kind))
        elif self.adoptable:
            found.append(("orphans", self.namespace, self.kind))
        return found


class Index:
    """Lists the uids of objects; the store has the objects. `put` and `remove` keep it up to date."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._lists: dict[_Key, set[str]] = {}

    def put(self, record: Record) -> Place | None:
        """List an object as it is now. Return its previous place, None if it is new."""
        reference = controller_of(record.doc)
        place = Place(
            record.kind,
            record.namespace,
            str(reference.get("uid", "")) if reference is not None else "",
            frozenset(str(ref.get("uid", "")) for ref in record.metadata.get("ownerReferences") or ()),
            not source_of(record) and not belongs_to_cluster(record.doc),
        )
        old = self._places.get(record.uid)
        if old != place:
            self.remove(record.uid)
            self._places[record.uid] = place
            for key in place.lists():
                self._lists.setdefault(key, set()).add(record.uid)
        return old

    def remove(self, uid: str) -> None:
        place = self._places.pop(uid, None)
        for key in place.lists() if place is not None else ():
            self._lists[key].discard(uid)
            if not self._lists[key]:
                del self._lists[key]

    def place(self, uid: str) -> Place | None:
        return self._places.get(uid)

    def controller(self, uid: str) -> str:
        """Return the uid of the object's controlling owner, "" if it has none."""
        place = self._places.get(uid)
        return place.controller if place is not None else ""

    def controlled(self, uid: str, kind: str) -> Collection[str]:
        """Return the uids of the objects of a kind that an owner controls."""
        return self._lists.get(("controlled", uid, kind), ())

    def orphans(self, namespace: str, kind: str) -> Collection[str]:
        """Return the uids of the objects of a kind that nothing controls."""
        return self._lists.get(("orphans", namespace, kind), ())

    def dependents(self, uid: str) -> list[str]:
        """Return the uids of the objects that refer to an owner, as their controller or not."""
        return list(self._lists.get(("dependents", uid, ""), ()))

    def owned(self) -> list[str]:
        """Return the uids of all objects that have an owner."""
        return [uid for uid, place in self._places.items() if place.owners]
