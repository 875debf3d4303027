"""`kubelite diff -f`: describes the effects of applying documents."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Literal, NotRequired, TypedDict

from kubelite.kube.objects import WORKLOADS, is_terminal, object_name, source_of
from kubelite.node.worker.pod_worker import PodWorker
from kubelite.settings import Settings
from kubelite.sources.admission import Admission
from kubelite.sources.plan import bound, created, merged, replaceable
from kubelite.sources.services import SERVICE, refused_services
from kubelite.sources.workloads import creation_words, edit_words, unchangeable
from manifests.yaml.loader import load_text
from state.store import Store

_QUIET = frozenset({"uid", "resourceVersion", "creationTimestamp", "generation", "status"})


class DiffEntry(TypedDict):
    """The effect of applying one object."""

    object: str  # "pod/default/web"
    change: Literal["create", "update", "unchanged", "replace", "unsupported", "ignored"]
    words: list[str]  # "container app is restarted: its image changes from a to b"
    fields: NotRequired[list[str]]  # "spec.containers[0].image: "a" -> "b"" lines


async def diff_documents(
    text: str, file: str, store: Store, worker: PodWorker, settings: Settings
) -> list[DiffEntry]:
    """Return an entry for each document of the text, in its order. The text must be valid."""
    loaded = load_text(text, file=file)
    entries: list[DiffEntry] = []
    config = worker.config
    admission = Admission(loaded.documents, store, time.time(), config.priority_classes, config.automount)
    rules = admission.rules
    refused = refused_services(loaded.documents, store, settings)
    for document in loaded.documents:
        name = "/".join(part for part in (document.kind.lower(), document.namespace, document.name) if part)
        wanted: dict[str, Any] = bound(document.obj.to_json(), config.node_name)
        record = store.get(document.kind, document.namespace, document.name)
        said = admission.refused(record, wanted)
        if document.kind == SERVICE and (no := refused.get((document.namespace, document.name))) is not None:
            said = said or f"{no.field}: {no.message}"
        if said:
            entries.append({"object": name, "change": "unsupported", "words": [said]})
            continue
        if record is None:
            new = created(rules.new(wanted), file, uid="00000000-0000-0000-0000-000000000000", now=0)
            words = [f"{object_name(*document.key)} is created"]
            if document.kind == "Pod":
                words.extend((await worker.preview(new)).describe())
            elif document.kind in WORKLOADS:
                words.extend(creation_words(new))
            entries.append({"object": name, "change": "create", "words": words})
            continue
        doc = merged(record.doc, rules.edited(record.doc, wanted), source_of(record) or file)
        if doc is None:
            entries.append({"object": name, "change": "unchanged", "words": ["nothing changes"]})
            continue
        words = []
        replaced = False
        if document.kind == "Pod":
            ended = is_terminal(record.doc.get("status", {}))
            replaced = ended and doc.get("spec") != record.doc.get("spec")
            words = (
                ["the pod has ended: a new one replaces it"]
                if replaced
                else await _effects(worker, record.doc, doc)
            )
        elif document.kind in WORKLOADS:
            forbidden = unchangeable(record.doc, doc)
            replaced = bool(forbidden) and replaceable(doc)
            words = _workload_words(record.doc, doc, forbidden)
        fields = list(changed_fields(record.doc, doc))
        entries.append(
            {"object": name, "change": "replace" if replaced else "update", "words": words, "fields": fields}
        )
    for error in loaded.errors:
        entries.append({"object": error.object or file, "change": "unsupported", "words": [error.message]})
    for one in loaded.ignored:
        entries.append({"object": one.object, "change": "ignored", "words": [one.message]})
    return entries


async def _effects(worker: PodWorker, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return what the node would do because of the edit, without what it does anyway (for example, wait for a
    back-off)."""
    anyway = (await worker.preview(old)).reasons
    found = [reason for reason in (await worker.preview(new)).reasons if reason not in anyway]
    return found or ["nothing is restarted"]


def _workload_words(old: dict[str, Any], new: dict[str, Any], forbidden: list[tuple[str, str]]) -> list[str]:
    if forbidden and replaceable(new):
        return [
            "the job is deleted and created anew: " + ", ".join(field for field, _ in forbidden) + " changes"
        ]
    if forbidden:
        return ["the edit has no effect", *(f"{field}: {message}" for field, message in forbidden)]
    return list(edit_words(old, new)) or ["no pod is replaced"]


def changed_fields(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield lines like `spec.containers[0].image: "a" -> "b"`; for texts of several lines, the lines that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key not in _QUIET:
                yield from changed_fields(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            left = old[index] if index < len(old) else None
            right = new[index] if index < len(new) else None
            yield from changed_fields(left, right, f"{path}[{index}]")
    elif isinstance(old, str) and isinstance(new, str) and old != new and "\n" in old + new:
        lines = difflib.unified_diff(old.split("\n"), new.split("\n"), n=0, lineterm="")
        yield from (f"{path}: {line}" for line in islice(lines, 2, None) if not line.startswith("@@"))
    elif old != new:
        yield f"{path}: {_text(old)} -> {_text(new)}"


def _text(value: Any) -> str:
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False)
