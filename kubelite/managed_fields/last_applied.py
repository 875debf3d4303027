"""The annotation of `kubectl apply`, when kubectl goes on with server-side apply. Pure.

What the annotation says belongs to kubectl already: a server-side apply by the manager `kubectl` takes it over from
`kubectl-client-side-apply` without a conflict, and renews the annotation, so that the way back stays open. Source:
apimachinery pkg/util/managedfields/internal/lastappliedmanager.go and lastappliedupdater.go.
"""

from __future__ import annotations

import json
from typing import Any

from kubelite.kube.json import Json
from kubelite.managed_fields.fields import NOTHING, FieldSet, compact
from kubelite.managed_fields.schema import Node
from kubelite.managed_fields.values import difference, fields_of

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
MANAGER = "kubectl"  # the default of `kubectl apply --server-side`


def _annotation(doc: Json) -> str:
    found: Any = (doc["metadata"].get("annotations") or {}).get(ANNOTATION)
    return found if isinstance(found, str) else ""


def fields(live: Json, version: str, node: Node) -> FieldSet:
    """Return the fields that the annotation sets, as far as they are still as it says."""
    try:
        said = json.loads(_annotation(live) or "null")
        if not isinstance(said, dict) or said.get("apiVersion") != version:
            return NOTHING
        changes = difference(said, live, node)
        return fields_of(said, node) - changes.removed - changes.modified - changes.added
    except (ValueError, RecursionError):  # no JSON, or a Misfit
        return NOTHING


def renewed(value: Json, configuration: Json) -> Json | None:
    """Return the object with a current annotation; None if it has none."""
    if not _annotation(value):
        return None
    metadata = configuration["metadata"]
    kept = {key: one for key, one in (metadata.get("annotations") or {}).items() if key != ANNOTATION}
    said = {**configuration, "metadata": {**metadata, "annotations": kept}}
    annotations = {**value["metadata"]["annotations"], ANNOTATION: f"{compact(said)}\n"}
    return {**value, "metadata": {**value["metadata"], "annotations": annotations}}
