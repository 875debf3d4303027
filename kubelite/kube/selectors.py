"""Field selectors such as `metadata.name=web,status.phase!=Running`: the fields of each kind, parsing and matching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kubelite.kube.errors import bad_request
from kubelite.kube.json import Json

_COMMON = ("metadata.name", "metadata.namespace")
# Kubernetes pkg/apis/core/v1/conversion.go: the fields by which each kind can be selected.
_FIELDS = {
    "Pod": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "Event": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    "events.k8s.io": (  # Kubernetes pkg/apis/events/v1/conversion.go
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ),
    "Secret": ("type",),
    "Namespace": ("status.phase",),
    "Node": ("spec.unschedulable",),
}


class Term(NamedTuple):
    path: str
    value: str
    equal: bool


def parse_fields(text: str, kind: str) -> tuple[Term, ...]:
    """Parse a field selector. `kind`: of the objects, or "events.k8s.io" for the events of that group. Raises ApiError
    BadRequest if it is malformed or the kind does not have the field."""
    terms = []
    for part in text.split(","):
        if not part.strip():
            continue
        path, sign, value = _split(part.strip())
        if path not in _COMMON and path not in _FIELDS.get(kind, ()):
            raise bad_request(f'field label not supported: "{path}"')
        terms.append(Term(path, value, sign != "!="))
    return tuple(terms)


def _split(part: str) -> tuple[str, str, str]:
    for sign in ("!=", "==", "="):
        path, found, value = part.partition(sign)
        if found:
            return path.strip(), sign, value.strip()
    raise bad_request(f"invalid field selector {part!r}: expected FIELD=VALUE")


def matches_fields(terms: tuple[Term, ...], doc: Json) -> bool:
    return all((_value(doc, term.path) == term.value) == term.equal for term in terms)


def _value(doc: Json, path: str) -> str:
    if path == "source":  # the source component of an event
        return str((doc.get("source") or {}).get("component", ""))
    found: Any = doc
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    if isinstance(found, bool):
        return str(found).lower()
    return "" if found is None else str(found)


Selector = Callable[[Json], bool]
