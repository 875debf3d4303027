"""By which rules documents would be admitted, once they are applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from kubelite.kube.errors import Forbidden
from kubelite.kube.json import Json
from kubelite.kube.objects import ACCOUNT, NAMESPACE, SOURCE, Automount, is_ending
from kubelite.node.model.priority import KIND as PRIORITY_CLASS
from kubelite.policies.gate import QUOTA
from kubelite.policies.limit_range import KIND as LIMIT_RANGE
from kubelite.policies.rules import rules_of
from kubelite.policies.token_volumes import token_volumes
from manifests.yaml.loader import Document

if TYPE_CHECKING:
    from kubelite.sources.quotas import Room


class Found(Protocol):
    """A record, as far as it is read here."""

    @property
    def doc(self) -> Json: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...


class Objects(Protocol):
    """The store, as far as it is read here."""

    def get(self, kind: str, namespace: str, name: str) -> Found | None: ...
    def list(self, kind: str, namespace: str | None = None) -> Sequence[Found]: ...


class Admission:
    """What becomes of documents once they are applied, by the rules of their namespaces. Each one that is admitted
    takes its part of the quotas. `now`: Unix seconds; `priorities`: the PriorityClasses of the node's settings;
    `automount`: which pods get a token of the API."""

    def __init__(
        self,
        documents: Iterable[Document],
        store: Objects,
        now: float,
        priorities: Mapping[str, int] | None = None,
        automount: Automount = Automount.NONE,
    ) -> None:
        documents = list(documents)
        self.rules = rules_of(
            _after(PRIORITY_CLASS, documents, store),
            _after(LIMIT_RANGE, documents, store),
            priorities,
            ending_of(store),
            token_volumes(automount, _after(ACCOUNT, documents, store)),
        )
        self._room: Room | None = None
        if quotas := _after(QUOTA, documents, store):
            from kubelite.policies.ledger import Ledger
            from kubelite.policies.resource_quota import PLURALS
            from kubelite.sources.quotas import Room

            known = {(kind, one.namespace, one.name): one for kind in PLURALS for one in store.list(kind)}
            self._room = Room(quotas, known, Ledger(), now)

    def refused(self, record: Found | None, wanted: Json) -> str:
        """Return why an object would not be admitted, "" if it would be."""
        old = record.doc if record is not None else None
        try:
            if old is None:
                wanted = self.rules.new(wanted)
            else:
                wanted = self.rules.edited(old, wanted)
                self.rules.check_edit(old, wanted)
            if self._room is not None:
                self._room.admit(wanted, old)
        except Forbidden as error:
            return str(error)
        return ""


def ending_of(store: Objects) -> list[str]:
    """Return the namespaces that are terminated."""
    return [one.name for one in store.list(NAMESPACE) if is_ending(one.doc)]


def _after(kind: str, documents: Iterable[Document], store: Objects) -> list[Json]:
    """Return the objects of a kind once the documents are applied."""
    recorded = {
        (kind, one.namespace, one.name): one.doc
        for one in store.list(kind)
        if SOURCE in (one.doc["metadata"].get("annotations") or {})
    }
    return list(
        {**recorded, **{one.key: one.obj.to_json() for one in documents if one.kind == kind}}.values()
    )


def refusal(documents: Iterable[Document], store: Objects, now: float) -> str:
    """Return why the first of the documents that is refused by its namespace would be, "" if none is."""
    documents = list(documents)
    kinds = (LIMIT_RANGE, QUOTA)
    ruled = ending_of(store) or any(store.list(kind) for kind in kinds)
    if not ruled and all(one.kind not in kinds for one in documents):
        return ""
    admission = Admission(documents, store, now)
    said = (admission.refused(store.get(*one.key), one.obj.to_json()) for one in documents)
    return next((one for one in said if one), "")
