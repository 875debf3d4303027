"""PURE: claims and volumes that are in use stay when they are taken away, as a cluster keeps them (K
pkg/controller/volume/pvcprotection, pvprotection): Terminating, until no pod has the claim, no claim has the volume.

Ours: a manifest that is put back meanwhile takes the deletion back.
"""

from __future__ import annotations

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

FINALIZERS = {
    "PersistentVolumeClaim": "kubernetes.io/pvc-protection",
    "PersistentVolume": "kubernetes.io/pv-protection",
}


def protected(kind: str, metadata: Json) -> Json:
    """An object's metadata with what keeps it."""
    if kind not in FINALIZERS:
        return metadata
    others = [one for one in metadata.get("finalizers") or () if one != FINALIZERS[kind]]
    return {**metadata, "finalizers": [*others, FINALIZERS[kind]]}


def terminating(doc: Json, kind: str, now: float) -> Json | None:
    """The object from its deletion on; None: it is being deleted already."""
    if doc["metadata"].get("deletionTimestamp"):
        return None
    metadata = {**protected(kind, doc["metadata"]), "deletionTimestamp": rfc3339(now)}
    return {**doc, "metadata": {**metadata, "deletionGracePeriodSeconds": 0}}


def is_terminating(doc: Json) -> bool:
    return bool(doc["metadata"].get("deletionTimestamp"))
