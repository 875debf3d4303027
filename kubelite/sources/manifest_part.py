"""What of an object may be in a manifest, and what only the node sets. Pure."""

from __future__ import annotations

from typing import Any

from kubelite.kube.json import Json
from kubelite.kube.objects import REPLICAS, SOURCE

#: Fields of metadata that only the node sets.
_OWN_METADATA = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generateName",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
_OWN_ANNOTATIONS = frozenset({REPLICAS, SOURCE})


def stripped(doc: Json) -> Json:
    """Return what of an object may stand in a manifest: no status, nothing that only the node sets, no nulls."""
    found: Json = without_nulls({key: value for key, value in doc.items() if key != "status"})
    metadata = {
        key: value for key, value in (found.get("metadata") or {}).items() if key not in _OWN_METADATA
    }
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        kept = {key: value for key, value in annotations.items() if key not in _OWN_ANNOTATIONS}
        metadata = {**metadata, "annotations": kept}
        if not kept:
            del metadata["annotations"]
    return {**found, "metadata": metadata}


def with_nodes_part(words: Json, doc: Json) -> Json:
    """Return `words`, what a manifest says of an object, with what only the node sets in `doc`, the object as it is."""
    own = {key: value for key, value in doc["metadata"].items() if key in _OWN_METADATA}
    annotations = {
        key: value
        for key, value in (doc["metadata"].get("annotations") or {}).items()
        if key in _OWN_ANNOTATIONS
    }
    metadata = {**words["metadata"], **own}
    if annotations:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return {**words, "metadata": metadata}


def without_nulls(value: Any) -> Any:
    """Return a value without fields that are null: Go's encoder writes some, and they mean nothing."""
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value
