"""A Deployment's ReplicaSets while it decides: each as it is in the view, and as the plan will leave it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from kubelite.controllers.model import Create, Effect, Rewrite
from kubelite.kube.json import Json
from kubelite.kube.times import unix

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"

_NUMBER = re.compile(r"[0-9]{1,10}")
_REVISION = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(slots=True)
class OwnedSet:
    """A ReplicaSet that the Deployment controls. `doc`: as it is in the view, or as it is created (`new`). `adopted`:
    the plan gives it its owner. The other fields are what the plan makes of it."""

    doc: Json
    new: bool = False
    adopted: bool = False
    template: Json = field(init=False)
    replicas: int = field(init=False)
    min_ready_seconds: int = field(init=False)
    annotations: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.template = self.doc["spec"]["template"]
        self.replicas = self.doc["spec"].get("replicas", 1)
        self.min_ready_seconds = self.doc["spec"].get("minReadySeconds", 0)
        self.annotations = dict(self.doc["metadata"].get("annotations") or {})

    @property
    def name(self) -> str:
        found: str = self.doc["metadata"]["name"]
        return found

    @property
    def terminating(self) -> bool:
        return bool(self.doc["metadata"].get("deletionTimestamp"))

    @property
    def observed(self) -> bool:
        """Whether the status is that of the newest spec: every pod that the spec wants was created, and every other
        pod deleted. One that is terminating is not waited for."""
        if self.terminating:
            return True
        return bool(self.status("observedGeneration") >= (self.doc["metadata"].get("generation") or 0))

    @property
    def revision(self) -> int:
        """The revision, 0 without a valid one (Revision)."""
        text = self.annotations.get(REVISION, "")
        return int(text) if _REVISION.fullmatch(text) else 0

    @property
    def age_key(self) -> tuple[float, str]:
        """Sorts from old to new (ReplicaSetsByCreationTimestamp). One that the plan creates is the newest."""
        return float("inf") if self.new else unix(self.doc["metadata"].get("creationTimestamp")), self.name

    def status(self, count: str) -> int:
        """Return a count of the status; 0 without one."""
        found: int = (self.doc.get("status") or {}).get(count) or 0
        return found

    def number(self, annotation: str) -> int | None:
        """Return the number in an annotation, None without a valid one (GetDesiredReplicasAnnotation)."""
        text = self.annotations.get(annotation, "")
        found = int(text) if _NUMBER.fullmatch(text) else -1
        return found if 0 <= found < 2**31 else None

    def note_sizes(self, desired: int, most: int) -> None:
        """Record the Deployment's size, by which a later scaling is told from a rollout (SetReplicasAnnotations)."""
        self.annotations[DESIRED_REPLICAS] = str(desired)
        self.annotations[MAX_REPLICAS] = str(most)

    def effect(self) -> Effect | None:
        """Return what creates the ReplicaSet or changes it; None if the plan does not."""
        metadata, spec = self.doc["metadata"], self.doc["spec"]
        changed = {**metadata, "annotations": self.annotations} if self.annotations else metadata
        if self.annotations == (metadata.get("annotations") or {}):
            changed = metadata
        resized = {**spec, "replicas": self.replicas, "template": self.template}
        if self.min_ready_seconds != spec.get("minReadySeconds", 0):
            resized["minReadySeconds"] = self.min_ready_seconds
        doc = {**self.doc, "metadata": changed, "spec": resized}
        if self.new:
            return Create(doc)
        return Rewrite(doc) if self.adopted or doc != self.doc else None


def active(sets: Iterable[OwnedSet | None]) -> list[OwnedSet]:
    """Those that ought to have pods (FilterActiveReplicaSets)."""
    return [found for found in sets if found is not None and found.replicas > 0]


def planned(sets: Iterable[OwnedSet | None]) -> int:
    """The sum of spec.replicas (GetReplicaCountForReplicaSets)."""
    return sum(found.replicas for found in sets if found is not None)


def counted(sets: Iterable[OwnedSet | None], count: str) -> int:
    """The sum of a count of the status."""
    return sum(found.status(count) for found in sets if found is not None)
