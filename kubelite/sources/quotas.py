"""Which objects of a plan fit into the quotas of their namespaces. Pure.

A refused object is not created, or stays as it was, and the next plan decides again. The store asks the same question
when it writes (kubelite/policies/gate.py), because controllers create objects, too, between a plan and its writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from kubelite.kube.errors import Forbidden
from kubelite.kube.json import Json
from kubelite.policies.ledger import Ledger

Key = tuple[str, str, str]  # kind, namespace, name


class Recorded(Protocol):
    """A record, as far as it is read here."""

    @property
    def doc(self) -> Json: ...


class Room:
    """What the quotas leave. Each object that is admitted takes its part. `quotas`: those after the plan; `known`: the
    recorded objects; `now`: Unix seconds."""

    def __init__(
        self, quotas: Iterable[Json], known: Mapping[Key, Recorded], ledger: Ledger, now: float
    ) -> None:
        self._ledger = ledger
        self._now = now
        self._quotas: dict[str, list[Json]] = {}
        for quota in quotas:
            self._quotas.setdefault(quota["metadata"].get("namespace", ""), []).append(quota)
        self._docs: dict[tuple[str, str], dict[str, Json]] = {}  # namespace and kind → documents by name
        for (kind, namespace, name), record in known.items():
            if namespace in self._quotas:
                self._docs.setdefault((namespace, kind), {})[name] = record.doc

    def admit(self, doc: Json, old: Json | None) -> None:
        """Count a new or edited object. Raises Forbidden if it does not fit."""
        kind, metadata = doc["kind"], doc["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        quotas = self._quotas.get(namespace, [])
        if not quotas:
            return

        def docs(other: str) -> Iterable[Json]:
            return self._docs.get((namespace, other), {}).values()

        if said := self._ledger.refusal(quotas, doc, docs, self._now, old):
            raise Forbidden(said, _FIELDS.get(kind, "metadata"))
        self._docs.setdefault((namespace, kind), {})[name] = doc


#: where a refused document is pointed at
_FIELDS = {"Pod": "spec", "PersistentVolumeClaim": "spec.resources", "Service": "spec"}
