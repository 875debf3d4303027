"""By which rules documents would be admitted, once they are applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from kubelite.node.model.priority import KIND as PRIORITY_CLASS
from kubelite.policies.limit_range import KIND as LIMIT_RANGE
from kubelite.policies.rules import Forbidden, Rules, rules_of
from manifests.yaml.loader import Document


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


def rules_after(
    documents: Iterable[Document], store: Objects, priorities: Mapping[str, int] | None = None
) -> Rules:
    """Return the rules of admission once the documents are applied."""
    documents = list(documents)
    after: dict[tuple[str, str, str], dict[str, Any]] = {}
    for kind in (PRIORITY_CLASS, LIMIT_RANGE):
        after |= {
            (kind, one.namespace, one.name): one.doc
            for one in store.list(kind)
            if SOURCE in (one.doc["metadata"].get("annotations") or {})
        }
        after |= {one.key: one.obj.to_json() for one in documents if one.kind == kind}
    classes, ranges = (
        [doc for key, doc in after.items() if key[0] == kind] for kind in (PRIORITY_CLASS, LIMIT_RANGE)
    )
    return rules_of(classes, ranges, priorities)


def refused(rules: Rules, record: Found | None, wanted: dict[str, Any]) -> str:
    """Return why an object would not be admitted, "" if it would be."""
    try:
        if record is None:
            rules.new(wanted)
        else:
            rules.check_edit(record.doc, rules.edited(record.doc, wanted))
    except Forbidden as error:
        return str(error)
    return ""


def refusal(documents: Iterable[Document], store: Objects) -> str:
    """Return why the first of the documents that is refused by its namespace would be, "" if none is."""
    documents = list(documents)
    if not store.list(LIMIT_RANGE) and all(one.kind != LIMIT_RANGE for one in documents):
        return ""
    rules = rules_after(documents, store)
    said = (refused(rules, store.get(*one.key), one.obj.to_json()) for one in documents)
    return next((one for one in said if one), "")
