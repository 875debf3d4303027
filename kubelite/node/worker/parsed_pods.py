"""The typed pods of the store's records, each parsed once."""

from __future__ import annotations

from dataclasses import dataclass

from kubelite.kube.json import Json
from kubelite.node.model.spec_cache import as_before
from manifests.types.core import Pod, PodSpec, PodStatus
from state.store import Record


@dataclass(slots=True)
class _Parsed:
    """A pod as last parsed, and the parts of the document that it was parsed from."""

    version: int
    spec: object
    status: object
    pod: Pod


class ParsedPods:
    """The typed pods of the store's records. Each version of a record is parsed once. Parts that are the same objects
    as in the previous version are not parsed again, nor is a spec that the reader of a manifest has parsed and
    offered."""

    def __init__(self) -> None:
        self._parsed: dict[str, _Parsed] = {}
        self._offered: dict[str, tuple[object, PodSpec]] = {}

    def of(self, record: Record) -> Pod:
        """Return the typed pod of a record. Raises InvalidObject."""
        before = self._parsed.get(record.uid)
        if before is not None and before.version == record.resource_version:
            return before.pod
        doc = dict(record.doc)
        spec, status = doc.get("spec"), doc.get("status")
        offered = self._offered.get(record.uid)
        if before is not None and spec is before.spec:
            doc["spec"] = before.pod.spec
        elif offered is not None and spec is offered[0]:
            doc["spec"] = self._offered.pop(record.uid)[1]
        if before is not None and status is before.status and status is not None:
            doc["status"] = before.pod.status
        pod = as_before(Pod.parse(doc), before.pod if before is not None else None)
        self._parsed[record.uid] = _Parsed(record.resource_version, spec, status, pod)
        return pod

    def offer(self, uid: str, document: Json, spec: PodSpec) -> None:
        """Offer `spec`, parsed from `document`, which is being stored as the spec of this pod."""
        self._offered[uid] = document, spec

    def version(self, uid: str) -> int:
        """Return the resourceVersion of the record that the pod was last parsed from, or -1."""
        found = self._parsed.get(uid)
        return found.version if found is not None else -1

    def written(self, record: Record, status: PodStatus) -> Pod | None:
        """Return the pod of a record that differs from the last parsed one only in this status. Return None if the pod
        has been parsed again in the meantime."""
        parsed = self._parsed.get(record.uid)
        if parsed is None or parsed.version >= record.resource_version:
            return None
        parsed.pod = parsed.pod.model_copy(update={"status": status})
        parsed.version, parsed.status = record.resource_version, record.doc.get("status")
        return parsed.pod

    def forget(self, uid: str) -> None:
        self._parsed.pop(uid, None)
        self._offered.pop(uid, None)
