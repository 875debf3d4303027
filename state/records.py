"""What the store keeps and what it tells: objects, changes of them, container instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Doc = dict[str, Any]
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class Record:
    """One object. `doc` is the whole of it (metadata.resourceVersion included) and must not be changed in place."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: int
    doc: Doc

    @property
    def metadata(self) -> Doc:
        found: Doc = self.doc["metadata"]
        return found

    @property
    def deleting(self) -> bool:
        return bool(self.metadata.get("deletionTimestamp"))


@dataclass(frozen=True, slots=True)
class Change:
    """What a watcher gets: the object as it is after the change (as it last was, when DELETED)."""

    type: ChangeType
    record: Record


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """The last known record of one container instance; `doc` is a shim's ContainerRecord as JSON object."""

    id: str
    pod_uid: str
    name: str
    attempt: int
    state: str
    updated_at: float
    doc: Doc
