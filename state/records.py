"""What the store holds and reports: objects, their changes, and container instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Doc = dict[str, Any]
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True, slots=True)
class Record:
    """One object. `doc` is the whole object (with metadata.resourceVersion) and must not be changed in place."""

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
    """A change as a watcher receives it, with the object after the change (for DELETED, its last state)."""

    type: ChangeType
    record: Record


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """The last known record of a container instance. `doc` is a shim's ContainerRecord as a JSON object."""

    id: str
    pod_uid: str
    name: str
    attempt: int
    state: str
    updated_at: float
    doc: Doc
