"""Families whose values stand in a field of each object of a kind, and what all kinds of workloads have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.telemetry.metrics.exposition import escape
from kubelite.telemetry.metrics.kubestate.page import Table, label, label_pairs

TRUTH = ("true", "false", "unknown")
_CREATED = ("created", "Unix creation timestamp", "metadata.creationTimestamp")
_DELETED = ("deletion_timestamp", "Unix deletion timestamp", "metadata.deletionTimestamp")
_GENERATION = "Sequence number representing a specific generation of the desired state."


@dataclass(frozen=True, slots=True)
class Field:
    """A gauge. `name`: without `kube_KIND_`; `path`: of the field, with dots. `absent`: the value of an object without
    the field; None: such an object has no sample. A field may be a number, a boolean or a time."""

    name: str
    text: str
    path: str
    absent: float | None = 0.0


CREATED, DELETED = Field(*_CREATED, None), Field(*_DELETED, None)
GENERATION = Field("metadata_generation", _GENERATION, "metadata.generation")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects. `word`: in the names of its families; `key`: the label that has the object's name."""

    word: str
    key: str = ""

    def head(self, doc: Json) -> str:
        meta = doc["metadata"]
        key = self.key or self.word
        return f'namespace="{escape(meta.get("namespace", ""))}",{key}="{escape(meta["name"])}"'

    def gauge(self, t: Table, name: str, text: str) -> str:
        return t.gauge(f"kube_{self.word}_{name}", text)

    def write(self, t: Table, docs: Iterable[Json], *fields: Field) -> None:
        for field in fields:
            family = self.gauge(t, field.name, field.text)
            for doc in docs:
                if (value := number_in(doc, field.path, field.absent)) is not None:
                    t.add(family, self.head(doc), value)

    def write_labels(self, t: Table, docs: Iterable[Json]) -> None:
        family = self.gauge(t, "labels", "Kubernetes labels converted to Prometheus labels.")
        for doc in docs:
            t.add(family, self.head(doc) + label_pairs(doc), 1)


def number_in(doc: Json, path: str, absent: float | None) -> float | None:
    """Return the number, the truth or the time (Unix seconds) in a field."""
    found: object = doc
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if isinstance(found, int | float):
        return float(found)
    at = parse_time(found) if isinstance(found, str) else None
    return at if at is not None else absent


def add_truth(t: Table, family: str, head: str, status: str, name: str) -> None:
    """Add a sample for each possible status of a condition; the label `name` has it."""
    for value in TRUTH:
        t.add(family, head + label(name, value), float(status.lower() == value))


def conditions_of(doc: Json) -> list[Json]:
    found: list[Json] = (doc.get("status") or {}).get("conditions") or []
    return found
